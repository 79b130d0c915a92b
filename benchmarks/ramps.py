"""Are particles found where grey values rise from one side of a tomogram to the other?

make demo
python benchmarks/ramps.py demo/picks/model.safetensors demo/test.mrc demo/truth/test.csv

The tomogram is picked with ramps, a bowl and waves added to it, by the model as it is, which takes away what varies
over more than ModelSettings.background, and without that. Amplitudes are in standard deviations of the voxels.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cetpick.checkpoint import load_model
from cetpick.inference import find_candidates
from cetpick.io.coordinates import read_coordinates
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.metrics import Scene, evaluate
from cetpick.preprocess import prepare
from cetpick.voxels import Volume


def added(shape: tuple[int, int, int]) -> dict[str, Volume]:
    """What is added, by name, (z, y, x) or what broadcasts to it."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    ramps = {f"ramp along x, -{strength} to {strength}": strength * x for strength in (1, 2, 4)}
    return {
        "nothing": 0 * x,
        **ramps,
        "ramp along z, -2 to 2": 2 * z,
        "bowl in x and y, 0 to 4": 2 * (x**2 + y**2),
        "wave along x, two periods, -1 to 1": np.sin(2 * np.pi * x),
        "wave along x, four periods, -1 to 1": np.sin(4 * np.pi * x),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tomogram", type=Path)
    parser.add_argument("truth", type=Path)
    given = parser.parse_args()
    device = torch.device("cpu")
    network, settings = load_model(given.model, device)
    info = read_info(given.tomogram)
    tomogram = read_tomogram(info)
    data = np.asarray(tomogram.data, np.float32)
    truth = read_coordinates(given.truth, tomograms=[info])[0].xyz
    radius = settings.diameter / 2 / info.grid.voxel_size
    print("| added | AP | F1 at the model's cut | AP, left as it is | F1 |\n|---|---|---|---|---|")
    for what, values in added(info.grid.shape).items():
        cells = []
        for background in (settings.background, None):
            seen = replace(settings, background=background)
            prepared = prepare(replace(tomogram, data=data + data.std() * values), seen)
            found = find_candidates(network, prepared, info.grid, seen)
            scene = Scene(
                name=info.name,
                picks=found[["x", "y", "z"]].to_numpy(),
                scores=found["score"].to_numpy(),
                truth=truth,
                threshold=settings.threshold,
            )
            result = evaluate([scene], radius)
            assert result.at_threshold is not None
            cells += [f"{result.average_precision:.3f}", f"{result.at_threshold.f1:.3f}"]
        print(f"| {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
