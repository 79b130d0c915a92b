"""cetpick report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def report(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of `cetpick pick`.")],
    plots: opt.Plots = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make OUT/report.html again, with missing pictures, and print the next commands for other programs.

    The report is one file: it opens in a browser, offline, and can be sent to others.

    Examples:
      cetpick report picks

      cetpick report picks --plots svg
    """
    from cetpick.cli.progress import reporting
    from cetpick.workflows.report import run_report

    with reporting(quiet=quiet) as reporter:
        summary = run_report(output, plots=plots and plots.value, say=reporter.say)
    if as_json:
        steps, error = [vars(step) for step in summary.next], summary.error and str(summary.error)
        opt.print_json(vars(summary) | {"next": steps, "error": error})
        if summary.error is not None:
            raise summary.error
        return
    for name, why in summary.lacking.items():
        typer.echo(f"no pictures of {name}: {why}", err=True)
    for name, flags in summary.flagged.items():
        typer.echo(f"unlike the others: {name}: {', '.join(flags)}")
    for step in summary.next:
        typer.echo(f"\n{step.program} ({step.where}): {step.text}")
        for command in step.commands:
            typer.echo(f"  {command}")
    for name, why in summary.not_plotted.items():
        typer.echo(f"no plots of {name}: {why}", err=True)
    if summary.plots:
        typer.echo(f"\nplots: {len(summary.plots)} files in {summary.plots[0].parent}")
    if summary.error is not None:
        raise summary.error
    typer.echo(f"\nresults: {summary.file}: {summary.tomograms} tomograms, pictures of {len(summary.pictured)}")
