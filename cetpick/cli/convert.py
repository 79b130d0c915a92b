"""cetpick convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Coordinates in any known format; a folder of them.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write; without an ending a folder, one file a tomogram.")
    ],
    tomogram: opt.TomogramFiles = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="imod, relion5, relion4, relion31, warp, eman2, table, coords, model2point, or an ending such as tsv; "
            "by default as OUT ends.",
        ),
    ] = None,
    diameter: Annotated[
        float | None, typer.Option("--diameter", "-d", metavar="ANGSTROM", help="Of the particles, for their radius.")
    ] = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Convert particle coordinates between IMOD, RELION, Warp, EMAN2 and tables.

    Formats that count from the tomogram's centre, or in other pixels, need the tomogram or RELION's tomograms.star.

    Examples:
      cetpick convert tomo1.mod tomo1.csv --tomogram tomo1.rec

      cetpick convert tomo1.csv particles.star --tomograms-star tomograms.star

      cetpick convert particles.star models --format imod -d 250 --tomograms-star tomograms.star
    """
    from cetpick.workflows.convert import run_convert
    from cetpick.workflows.inputs import InputOptions

    summary = run_convert(
        source, output, tomograms=tomogram or [], format=format_name, diameter=diameter,
        options=InputOptions(voxel_size=voxel_size, which=which.value, names=names.value, binned=binned),
        overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        opt.print_json(vars(summary))
        return
    opt.print_fields(summary.read)
    for path, count in summary.written.items():
        typer.echo(f"wrote {path}: {count} points, format {summary.format}")
