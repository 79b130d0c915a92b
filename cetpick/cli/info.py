"""cetpick info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def info(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            readable=False,
            help="Tomograms, coordinates, tomograms.star, model files, or output folders.",
        ),
    ],
    tomogram: opt.TomogramFiles = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    as_json: opt.Json = False,
) -> None:
    """Tell what is in a tomogram, coordinate, tomograms.star or model file, or how an output folder was made.

    Examples:
      cetpick info tomo1.rec tomo1.mod

      cetpick info model.safetensors --json

      cetpick info info/tomo1_info.json --tomogram tomograms/tomo1.mrc
    """
    from cetpick.workflows.convert import open_grids
    from cetpick.workflows.info import run_info
    from cetpick.workflows.inputs import InputOptions

    infos = open_grids(tomogram or [], InputOptions(voxel_size=voxel_size, which=which.value))
    descriptions, failures = run_info(paths, tomograms=infos, which=which.value)
    if as_json:
        opt.print_json(descriptions)
    else:
        for description in descriptions:
            opt.print_fields(description)
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    raise typer.Exit(1 if failures else 0)
