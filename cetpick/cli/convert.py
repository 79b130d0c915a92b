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
            help="imod, relion5, relion4, relion31, warp, eman2, dynamo, copick, portal, motl, stopgap, pytom, cbox, "
            "table, coords, model2point, or an ending such as tsv; by default as OUT ends.",
        ),
    ] = None,
    diameter: Annotated[
        float | None, typer.Option("--diameter", "-d", metavar="ANGSTROM", help="Of the particles, for their radius.")
    ] = None,
    voxel_size: opt.VoxelSize = None,
    to_tomogram: Annotated[
        list[Path] | None,
        typer.Option(
            "--to-tomogram", metavar="FILE", help="The tomogram OUT is for, if another: points move to its grid."
        ),
    ] = None,
    to_voxel_size: Annotated[
        float | None,
        typer.Option(metavar="ANGSTROM", help="Voxel size of OUT's grid, in the place of its tomogram or header."),
    ] = None,
    binning: Annotated[
        float | None, typer.Option("--bin", metavar="N", help="Or how many voxels of IN make one of OUT's grid.")
    ] = None,
    axes: Annotated[
        opt.Axes | None,
        typer.Option(
            help="How OUT's volume was made from IN's: clip rotx (trimvol -rx), its inverse, or clip flipyz "
            "(trimvol -yz)."
        ),
    ] = None,
    shift: Annotated[
        tuple[float, float, float],
        typer.Option(metavar="X Y Z", help="Voxels of IN to add to all points, such as `cetpick check` tells."),
    ] = (0.0, 0.0, 0.0),
    z: Annotated[
        float | None, typer.Option("--z", metavar="SECTION", help="z of all points of a 2D .box file.")
    ] = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to lose what OUT cannot hold.")] = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Convert particle coordinates between the formats of the field.

    Formats that count from the tomogram's centre, or in other pixels, need the tomogram or RELION's tomograms.star.

    Examples:
      cetpick convert tomo1.mod tomo1.csv --tomogram tomo1.rec

      cetpick convert tomo1.csv particles.star --tomograms-star tomograms.star

      cetpick convert particles.star models --format imod -d 250 --tomograms-star tomograms.star

      cetpick convert bin8.mod bin4.mod --tomogram tomo1_bin8.rec --to-tomogram tomo1_bin4.rec

      cetpick convert full.mod rot.csv --tomogram tomo1_full.rec --axes rotx
    """
    from cetpick.workflows.convert import run_convert
    from cetpick.workflows.inputs import InputOptions

    summary = run_convert(
        source, output, tomograms=tomogram or [], to_tomograms=to_tomogram or [], to_voxel_size=to_voxel_size,
        binning=binning, axes=None if axes is None else axes.value, shift=shift, z=z, format=format_name,
        diameter=diameter,
        options=InputOptions(voxel_size=voxel_size, which=which.value, names=names.value, binned=binned),
        strict=strict, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        opt.print_json(vars(summary))
        return
    opt.print_fields(summary.read)
    if summary.placed:
        typer.echo("in the volume they are for, voxels")
        opt.print_table([{key: opt.shown(value) for key, value in row.items()} for row in summary.placed])
    for path, count in summary.written.items():
        typer.echo(f"wrote {path}: {count} points, format {summary.format}")
