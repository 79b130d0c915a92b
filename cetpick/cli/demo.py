"""cetpick demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt

EXPECTED_F1 = 0.9
"""Below what was measured (benchmarks/RESULTS.md), well above what a picker that has learned nothing reaches."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the demo.")] = Path("demo"),
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Prove an installation: simulate two tomograms, learn from 24 labels in one, pick the other, evaluate.

    Examples:
      cetpick demo

      cetpick demo -o demo_gpu --device cuda
    """
    from cetpick.cli.progress import reporting
    from cetpick.workflows.demo import run_demo

    with reporting(quiet=quiet) as reporter:
        result = run_demo(
            output, seed=seed, device=device, threads=threads, overwrite=overwrite, progress=reporter.step
        )
    own = result.cetpick.at_threshold
    assert own is not None
    methods = {
        "cetpick at its own cut": own.f1,
        "cetpick, best F1": result.cetpick.best.f1,
        "difference of Gaussians with the true diameter, best F1": result.blobs.best.f1,
        "untrained network, best F1": result.untrained.best.f1,
    }
    if as_json:
        picks = vars(result.picks) | {"settings": result.picks.settings.to_dict()}
        opt.print_json({"f1": methods, "average_precision": result.cetpick.average_precision, **picks})
        return
    typer.echo(f"{sum(result.picks.picks.values())} picks, {own.truths} particles, precision {own.precision:.2f}")
    for name, f1 in methods.items():
        typer.echo(f"  F1 {f1:.2f}  {name}")
    typer.echo(f"particles for RELION and IMOD, tables, model: {result.picks.output}")
    if own.f1 < EXPECTED_F1:
        typer.echo(f"F1 at its own cut is below {EXPECTED_F1}: something is wrong with this installation", err=True)
        raise typer.Exit(1)
