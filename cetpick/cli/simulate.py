"""cetpick simulate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


class DifficultyName(StrEnum):
    """--difficulty."""

    easy = "easy"
    normal = "normal"
    hard = "hard"


def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the tomograms.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many tomograms.")] = 1,
    shape: Annotated[tuple[int, int, int], typer.Option(metavar="X Y Z", help="Voxels.")] = (192, 192, 64),
    voxel_size: Annotated[float, typer.Option(metavar="ANGSTROM", help="Of the tomograms.")] = 13.0,
    diameter: Annotated[float, typer.Option("--diameter", "-d", metavar="ANGSTROM", help="Of the target.")] = 210.0,
    difficulty: Annotated[DifficultyName, typer.Option(help="Noise, crowding, look-alikes.")] = DifficultyName.normal,
    carbon: Annotated[
        float, typer.Option(min=0, metavar="ANGSTROM", help="Thickness of a carbon film whose edge crosses them.")
    ] = 0.0,
    labels: Annotated[int, typer.Option(min=0, help="Targets of each tomogram to write as labels.")] = 20,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Simulate tomograms with known particles: tilt series, CTF, noise, missing wedge, look-alikes, membrane, gold.

    Examples:
      cetpick simulate -o sim

      cetpick simulate -o hard --count 3 --difficulty hard --shape 384 384 96 --voxel-size 10 --seed 7
    """
    from dataclasses import replace

    from cetpick.simulate import preset
    from cetpick.workflows.simulate import run_simulate

    x, y, z = shape
    scenes = [
        (
            f"sim_{seed + i:03d}",
            replace(
                preset(difficulty.value, seed=seed + i, shape=(z, y, x), voxel_size=voxel_size, diameter=diameter),
                carbon=carbon,
            ),
        )
        for i in range(count)
    ]
    made = run_simulate(scenes, output=output, labels=labels, overwrite=overwrite)
    if as_json:
        opt.print_json([vars(scene) for scene in made])
        return
    for scene in made:
        typer.echo(f"{scene.tomogram}: {scene.targets} targets, truth {scene.truth}, labels {scene.labels or 'none'}")
