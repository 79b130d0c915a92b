"""cetpick suggest."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def suggest(
    results: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of `cetpick pick`.")],
    number: Annotated[
        int | None, typer.Option("--number", "-n", metavar="N", help="How many places; 20 by default.")
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(
            "--particles",
            metavar="N",
            help="Instead of --number: as many places as hold about N particles, if scores are right.",
        ),
    ] = None,
    tomograms: Annotated[
        int | None,
        typer.Option("--tomograms", metavar="N", help="In at most N tomograms; by default one for 5 places."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option("--labels", "-l", readable=False, help="Labels that OUT does not know of, to be left out."),
    ] = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Name the places where the next labels would help most, in seconds, without running the model.

    Delete what is no particle in 3dmod or RELION, then `cetpick curate` with --kept: docs/curation.md.

    Examples:
      cetpick suggest picks

      cetpick suggest picks --particles 20 --tomograms 3
    """
    from cetpick.workflows.suggest import run_suggest

    summary = run_suggest(
        results, number=number, particles=particles, tomograms=tomograms, labels=labels or [], seed=seed,
        overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        opt.print_json(vars(summary) | {"places": summary.places.to_dict("records")})
        return
    rounded = summary.places.round({"x": 1, "y": 1, "z": 1, "score": 3})
    opt.print_table([{str(name): value for name, value in row.items()} for row in rounded.to_dict("records")])
    if summary.expected is not None:
        typer.echo(f"by their scores about {summary.expected:.0f} of these {len(summary.places)} are particles")
    if len(summary.places) < summary.asked:
        typer.echo(f"{len(summary.places)} places: these tomograms have no more candidates off the labels")
    for name, model in summary.models.items():
        typer.echo(shlex.join(["3dmod", str(summary.tomograms[name]), str(model)]))
    typer.echo(f"wrote {summary.star}; delete what is no particle, save, then:")
    models = summary.output / "models"
    typer.echo(shlex.join(["cetpick", "curate", str(summary.star), str(models), "--kept", "-o", "round2"]))
