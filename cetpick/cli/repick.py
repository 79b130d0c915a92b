"""cetpick repick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def repick(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of `cetpick pick`.")],
    threshold: opt.Threshold = None,
    target_precision: opt.TargetPrecision = None,
    top: opt.Top = None,
    separation: Annotated[
        float | None,
        typer.Option(metavar="F", help="No pick nearer to a better one than F diameters."),
    ] = None,
    no_report: opt.NoReport = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Cut the stored candidates of `cetpick pick` again, in seconds, without running the model.

    Options left out are those of the pick, not of an earlier repick.

    Examples:
      cetpick repick picks --threshold 0.3

      cetpick repick picks --target-precision 0.9

      cetpick repick picks --top 200 --separation 1
    """
    from cetpick.cli.progress import reporting
    from cetpick.config import PickSettings
    from cetpick.workflows.repick import run_repick

    with reporting(quiet=quiet) as reporter:
        summary = run_repick(
            output,
            PickSettings(threshold=threshold, precision=target_precision, top=top),
            separation=separation,
            report=not no_report,
            say=reporter.say,
        )
    opt.tell_collected(summary, as_json=as_json)
