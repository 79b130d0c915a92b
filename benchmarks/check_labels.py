"""What `cetpick check` says of right and of broken labels: the tables in RESULTS.md.

    python benchmarks/check_labels.py DATA [DRAWS]

DATA holds one folder a set: train.mrc, train_truth.csv, train_labels_10pct.mod and labels/*.csv. DRAWS (100) random
draws of 20, 7 and 5 of the true centres, and of as many random places, are judged for the rates.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from cetpick.contrast import READINGS, Judgement, Reading, Response, judge_labels, measure_response
from cetpick.geometry import Points
from cetpick.io.coordinates import read_coordinates
from cetpick.io.tomograms import read_tomogram

DIAMETERS = {"ribosome_cell": 250.0, "ribosome_purified": 250.0, "thyroglobulin_mix": 180.0}
BROKEN = {
    "xzy": Reading(order=(0, 2, 1)),
    "rotx": Reading(order=(0, 2, 1), flips=(False, False, True)),
    "y flip": Reading(flips=(False, True, False)),
    "z flip": Reading(flips=(False, False, True)),
    "yxz": Reading(order=(1, 0, 2)),
    "x 2": Reading(scale=0.5),
    "x 1/2": Reading(scale=2.0),
}


def undo(reading: Reading, xyz: Points, response: Response) -> Points:
    """Points (n, 3) that `reading` makes into `xyz`."""
    if reading.scale != 1:
        return (xyz + 0.5) / reading.scale - 0.5
    flipped = np.where(reading.flips, np.array(response.grid.size) - 1 - xyz, xyz)
    points = np.empty_like(flipped)
    points[:, list(reading.order)] = flipped
    return points


def was_found(judged: Judgement, reading: Reading) -> bool:
    return judged.better == reading


def told(judged: Judgement, reading: Reading) -> str:
    if was_found(judged, reading):
        return f"{abs(judged.ranking[0].z):.1f}/{abs(judged.given.z):.1f}".replace("nan", "-")
    return judged.verdict


def print_labels(name: str, response: Response, folder: Path) -> None:
    draws = [f"labels/{share}_draw{number}.csv" for share in ("10pct", "n05") for number in range(3)]
    for file in ("train_labels_10pct.mod", *draws):
        xyz = read_coordinates(folder / file)[0].xyz
        judged = judge_labels(response, xyz)
        others = [abs(item.z) for item in judged.ranking if item is not judged.given]
        broken = [told(judge_labels(response, undo(reading, xyz, response)), reading) for reading in BROKEN.values()]
        cells = [name, Path(file).stem, len(xyz), judged.verdict, f"{judged.given.z:.1f}", f"{max(others):.1f}"]
        print("| " + " | ".join(map(str, [*cells, *broken])) + " |")


def print_rates(name: str, response: Response, folder: Path, count: int, draws: int) -> None:
    truth = read_coordinates(folder / "train_truth.csv")[0].xyz
    size, half = np.array(response.grid.size), response.diameter / 2
    rng = np.random.default_rng(1)
    rates = {what: Counter[str]() for what in ("truth", "random places", "half a diameter in z", "x 2")}
    for _ in range(draws):
        xyz = truth[rng.choice(len(truth), count, replace=False)]
        places = rng.uniform(0, size - 1, (count, 3))
        for points, what in zip((xyz, places, xyz + np.array([0, 0, half]), 2 * xyz + 0.5), rates, strict=True):
            rates[what][judge_labels(response, points).verdict] += 1
    readings = [reading for reading in READINGS if reading != Reading()]
    found = 0
    for reading in readings:
        xyz = truth[rng.choice(len(truth), count, replace=False)]
        found += was_found(judge_labels(response, undo(reading, xyz, response)), reading)
    cells = [", ".join(f"{verdict} {n}" for verdict, n in rate.most_common()) for rate in rates.values()]
    print(f"| {name} | {count} |", " | ".join(cells), f"| {found} of {len(readings)} |", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    data, draws = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    responses = {}
    for name, diameter in DIAMETERS.items():
        tomogram = read_tomogram(data / name / "train.mrc")
        responses[name] = measure_response(tomogram.data, tomogram.info.grid, diameter=diameter)
    print("| set | labels | n | verdict | z | best other |", " | ".join(f"{how}: right/given" for how in BROKEN), "|")
    print("|---" * (6 + len(BROKEN)) + "|")
    for name, response in responses.items():
        print_labels(name, response, data / name)
    print(f"\n{draws} draws:\n| set | n | truth | random places | half a diameter in z | x 2 | readings found |")
    print("|---" * 7 + "|")
    for count in (20, 7, 5):
        for name, response in responses.items():
            print_rates(name, response, data / name, count, draws)


if __name__ == "__main__":
    main()
