"""cetpick check."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cetpick.cli import options as opt

if TYPE_CHECKING:
    from cetpick.workflows.check import Checked

ROWS = 5
"""Of the ranking; --json has all."""


def check(
    tomograms: opt.Tomograms,
    labels: opt.Labels,
    diameter: opt.Diameter,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for pictures and run.json.")
    ] = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Are these labels on particles? Finds swapped and flipped axes, wrong binning and shifts; draws the labels.

    The exit code is 0 when all labels are fine, 1 when something looks wrong or cannot be told, 2 for unusable input.

    Examples:
      cetpick check tomo1.rec --labels tomo1.mod --diameter 250

      cetpick check tomo1.rec --labels tomo1.mod --diameter 250 -o pictures

      cetpick check tomograms.star --labels particles.star -d 250 --json
    """
    from cetpick.workflows.check import run_check
    from cetpick.workflows.inputs import InputOptions

    summary = run_check(
        tomograms, labels, diameter=diameter, output=output, overwrite=overwrite,
        options=InputOptions(voxel_size=voxel_size, which=which.value, names=names.value, binned=binned),
    )  # fmt: skip
    if as_json:
        opt.print_json(summary.to_dict())
    else:
        for checked in summary.checked:
            _print(checked)
        if output is None:
            typer.echo("no pictures were drawn: -o DIR draws the labels on slices")
    for failure in summary.failures:
        typer.echo(f"failed: {failure}", err=True)
    raise typer.Exit(summary.exit_code)


def _print(checked: Checked) -> None:
    from cetpick.contrast import CONTRAST

    judged = checked.judgement
    typer.echo(f"{checked.info.name}: {checked.message}")
    typer.echo(f"  {judged.labels} labels of {checked.labels}, {checked.diameter:g} A")
    if judged.ranking:
        first = judged.ranking[:ROWS]
        shown = first if judged.given in first else (*first, judged.given)
        rows = [
            {
                "reading": item.reading.name,
                "contrast": "-" if isnan(item.z) else f"{item.z:+.1f}",
                "outside": item.outside,
            }
            for item in shown
        ]
        opt.print_table(rows)
        typer.echo(f"  contrast: {CONTRAST:g} or more is clear, + for dark particles, - for bright ones")
        for meaning in dict.fromkeys(item.reading.meaning for item in shown if item.reading.meaning):
            typer.echo(f"  {meaning}")
        total, why = len(judged.ranking) + judged.impossible, "put labels outside, or on top of each other"
        typer.echo(f"  of {total} ways to read the labels the clearest are shown; {judged.impossible} {why}")
    for note in checked.notes:
        typer.echo(f"  note: {note}")
    for picture in checked.pictures:
        typer.echo(f"  picture: {picture}")
