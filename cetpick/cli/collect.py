"""cetpick collect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def collect(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of `cetpick pick --shard`.")],
    no_report: opt.NoReport = False,
    as_json: opt.Json = False,
) -> None:
    """Make particles.star and run.json of the results that shards have left in a folder; say what is missing.

    Examples:
      cetpick collect picks
    """
    from cetpick.workflows.collect import run_collect

    opt.tell_collected(run_collect(output, report=not no_report), as_json=as_json)
