"""cetpick doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where results would be written.")] = Path(),
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Does cetpick work here? Computes on each device, looks at torch, memory and threads, writes in the folder.

    The exit code is 0 when all is well, else 1.

    Examples:
      cetpick doctor

      cetpick doctor /scratch/me --json
    """
    from cetpick.devices import resolve_device
    from cetpick.workflows.doctor import run_doctor

    resolve_device("cpu", threads=threads)
    findings = run_doctor(folder)
    if as_json:
        opt.print_json([finding.to_dict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok' if finding.good else 'FAILED':6}  {finding.what}: {finding.found}")
            if finding.cure:
                typer.echo(f"        cure: {finding.cure}")
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)
