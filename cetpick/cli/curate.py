"""cetpick curate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def curate(
    picks: Annotated[
        Path, typer.Argument(metavar="PICKS", help="Output folder of `cetpick pick`, or a file in it or of `suggest`.")
    ],
    curated: Annotated[
        list[Path], typer.Argument(metavar="CURATED...", help="What you made of them: files of any format, or folders.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For rejected.star and added.star.")],
    kept: Annotated[
        bool, typer.Option("--kept", help="Write kept.star too, to be labels: when you looked at every pick.")
    ] = False,
    emptied: Annotated[
        bool, typer.Option("--emptied", help="Tomograms without a point in CURATED were emptied, not left alone.")
    ] = False,
    tolerance: Annotated[float, typer.Option(metavar="VOXELS", help="A point this near to a pick is that pick.")] = 2.0,
    tomogram: opt.TomogramFiles = None,
    diameter: Annotated[
        float | None,
        typer.Option(
            "--diameter", "-d", metavar="ANGSTROM", help="Of the particle, when PICKS lie in no output folder."
        ),
    ] = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Compare picks with what you made of them in 3dmod, RELION or napari: what was deleted, what was added.

    rejected.star goes to `--reject`, added.star to `--added` of the next `train` or `pick`: docs/curation.md.

    Examples:
      cetpick curate picks curated/*.mod -o round2

      cetpick curate External/job010 ManualPick/job012/annotations -o round2

      cetpick curate picks/suggest/suggested.star picks/suggest/models --kept -o round2
    """
    from cetpick.workflows.curate import run_curate
    from cetpick.workflows.inputs import InputOptions

    summary = run_curate(
        picks, curated, output=output, tomograms=tomogram or [], diameter=diameter, tolerance=tolerance, keep=kept,
        emptied=emptied, overwrite=overwrite,
        options=InputOptions(voxel_size=voxel_size, which=which.value, names=names.value, binned=binned),
    )  # fmt: skip
    if as_json:
        opt.print_json(
            vars(summary) | {"count": summary.count and summary.count._asdict(), "next": summary.next_command}
        )
        return
    opt.print_table([{"tomogram": name, **counts} for name, counts in summary.tomograms.items()])
    if summary.skipped:
        typer.echo(
            f"not in CURATED, left alone: {', '.join(summary.skipped)} (--emptied: all picks there were deleted)"
        )
    if kept and summary.untouched:
        typer.echo(
            f"unchanged, so every pick counts as a particle: {', '.join(summary.untouched)} (take files that you did "
            "not look at out of CURATED)"
        )
    for what, path in summary.files.items():
        typer.echo(f"wrote {path}: {sum(counts[what] for counts in summary.tomograms.values())} {what}")
    if summary.count:
        low, expected, high = summary.count
        typer.echo(f"from your answers: about {expected:.0f} particles ({low:.0f} to {high:.0f}) a tomogram looked at")
    if not summary.files:
        typer.echo("nothing was deleted or added")
        return
    typer.echo(f"next: {summary.next_command}")
