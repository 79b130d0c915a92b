"""Is all gold found, and nothing else? On tomograms with *_truth.csv and *_gold.csv beside them.

python benchmarks/gold.py DATA/SET --diameter 250
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.geometry import rescale
from cetpick.gold import VOXEL, coarse, darkness, find_gold, least_of_gold
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.preprocess import valid_voxels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--diameter", type=float, required=True, help="of the particle, angstrom")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 20, 10_000], help="true places that are drawn")
    arguments = parser.parse_args()
    rows = []
    for file in sorted(arguments.folder.glob("*_gold.csv")):
        path = file.with_name(file.name.replace("_gold.csv", ".mrc"))
        tomogram = read_tomogram(read_info(path))
        size = tomogram.info.grid.voxel_size
        gold, truth = (
            pd.read_csv(path.with_name(f"{path.stem}_{of}.csv"))[["x", "y", "z"]].to_numpy(float)
            for of in ("gold", "truth")
        )
        begin = time.monotonic()
        volume = coarse(tomogram.data, valid_voxels(tomogram)[0], size)
        seconds = time.monotonic() - begin
        for number in arguments.labels:
            labels = np.random.default_rng(0).permutation(truth)[:number]
            least = least_of_gold([darkness(volume, labels, size)])
            found = find_gold(volume, least, diameter=arguments.diameter)
            mask = np.zeros(volume.shape, bool) if found is None else found.mask

            def inside(points: np.ndarray, mask: np.ndarray = mask, size: float = size) -> int:
                cells = np.rint(rescale(points, from_voxel_size=size, to_voxel_size=VOXEL)[:, ::-1]).astype(int)
                return int(mask[tuple(np.clip(cells, 0, np.array(mask.shape) - 1).T)].sum())

            rows.append({
                "tomogram": path.stem, "labels": len(labels), "gold": len(gold), "gold left out": inside(gold),
                "particles": len(truth), "particles left out": inside(truth), "places": found.places if found else 0,
                "volume": f"{mask.mean():.2%}", "seconds": round(seconds, 2),
            })  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
