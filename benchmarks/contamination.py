"""Are gold and edges of carbon found, and nothing else?

python benchmarks/contamination.py gold DATA/SET --diameter 250 --ramp 2
python benchmarks/contamination.py carbon --seeds 3

`gold` reads tomograms with *_truth.csv and *_gold.csv beside them; `carbon` simulates scenes with the edge of a carbon
film, with none, and with membranes longer than the field of view.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick import simulate
from cetpick.contamination import coarse, darkness, find, least_of_carbon, least_of_gold, smoothed, strength
from cetpick.geometry import Points
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.preprocess import valid_voxels
from cetpick.voxels import Mask, centre_and_spread

LABELS = (5, 20, 10_000)
"""True places that are drawn as labels, or all there are."""
DIFFICULTIES = ("easy", "normal", "hard")
LONG = (8.0, 14.0)
"""Radii of long membranes, target diameters."""


def share(mask: Mask | None) -> str:
    return f"{0 if mask is None else mask.mean():.2%}"


def inside(mask: Mask | None, points: Points, shape: tuple[int, ...]) -> int:
    """How many points, in voxels of a volume of that shape (z, y, x), lie in a mask of the same extent."""
    if mask is None:
        return 0
    cells = ((points[:, ::-1] + 0.5) * np.array(mask.shape) / np.array(shape)).astype(int)
    return int(mask[tuple(np.clip(cells, 0, np.array(mask.shape) - 1).T)].sum())


def judged(
    data: NDArray[Any],
    present: Mask | None,
    voxel_size: float,
    diameter: float,
    truth: Points,
    gold: Points,
) -> Iterator[dict[str, object]]:
    """What is left out of a tomogram, with different numbers of labels."""
    volume = coarse(data, present, voxel_size)
    smooth = smoothed(volume)
    for number in LABELS:
        labels = np.random.default_rng(0).permutation(truth)[:number]
        found = find(
            volume,
            gold=least_of_gold([darkness(volume, labels, voxel_size)]),
            carbon=least_of_carbon([strength(smooth, labels, voxel_size)]),
            diameter=diameter,
        )
        yield {
            "labels": len(labels), "gold": len(gold), "gold left out": inside(found.gold, gold, data.shape),
            "places": found.gold_places, "volume for gold": share(found.gold), "for carbon": share(found.carbon),
            "particles": len(truth), "in gold": inside(found.gold, truth, data.shape),
            "in carbon": inside(found.carbon, truth, data.shape),
        }  # fmt: skip


def places(file: Path) -> Points:
    return pd.read_csv(file)[["x", "y", "z"]].to_numpy(float)


def of_set(folder: Path, diameter: float, ramp: float) -> Iterator[dict[str, object]]:
    for file in sorted(folder.glob("*_gold.csv")):
        path = file.with_name(file.name.replace("_gold.csv", ".mrc"))
        tomogram = read_tomogram(read_info(path))
        present, size = valid_voxels(tomogram)[0], tomogram.info.grid.voxel_size
        truth = places(path.with_name(f"{path.stem}_truth.csv"))
        data = tomogram.data.astype(np.float32)
        data += np.linspace(-ramp, ramp, data.shape[2], dtype=np.float32) * centre_and_spread(data, present)[1]
        for row in judged(data, present, size, diameter, truth, places(file)):
            yield {"tomogram": path.stem, **row}


def simulated(seeds: int) -> Iterator[dict[str, object]]:
    for what, difficulty, seed in itertools.product(("carbon", "none", "membranes"), DIFFICULTIES, range(seeds)):
        settings = simulate.preset(difficulty, seed=seed)
        # room for the film
        settings = dataclasses.replace(settings, counts={of: round(0.7 * n) for of, n in settings.counts.items()})
        radii = simulate.VESICLE_RADII
        if what == "carbon":
            settings = dataclasses.replace(settings, carbon=150.0)
        if what == "membranes":
            settings, radii = dataclasses.replace(settings, vesicles=4), LONG
        with mock.patch.object(simulate, "VESICLE_RADII", radii):
            scene = simulate.simulate(settings)
        truth, gold = (
            scene.truth.loc[scene.truth["species"] == of, ["x", "y", "z"]].to_numpy() for of in ("target", "gold")
        )
        for row in judged(scene.data, None, scene.voxel_size, settings.diameter, truth, gold):
            yield {"scene": what, "difficulty": difficulty, "seed": seed, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    gold = commands.add_parser("gold")
    gold.add_argument("folder", type=Path)
    gold.add_argument("--diameter", type=float, required=True, help="of the particle, angstrom")
    gold.add_argument("--ramp", type=float, default=0.0, help="added along x, from minus to plus so many deviations")
    carbon = commands.add_parser("carbon")
    carbon.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.command == "gold":
        rows = of_set(arguments.folder, arguments.diameter, arguments.ramp)
    else:
        rows = simulated(arguments.seeds)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
