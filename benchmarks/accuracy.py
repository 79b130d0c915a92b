"""How accurate the methods are: data sets x labels x label styles x seeds x methods, one table. See README.md.

    python benchmarks/accuracy.py run OUT --data DATA --sets ribosome_cell --labels 10pct --methods default trees
    python benchmarks/accuracy.py table OUT

Each run is a process of its own and leaves OUT/runs/<key>.json; runs that are there already are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cetpick.baselines import blob_response
from cetpick.calibration import within
from cetpick.errors import InputError
from cetpick.geometry import Points, as_points
from cetpick.io.atomic import replacing
from cetpick.io.coordinates import read_coordinates
from cetpick.io.mrc import write_mrc
from cetpick.io.table import write_table
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.metrics import Margin, Result, Scene, evaluate, match
from cetpick.records import Grid
from cetpick.simulate import PRESETS, Difficulty, preset, simulate

PICKERS = Path(__file__).with_name("pickers.py")
METHODS = ("default", "paper", "paper-no-contrastive", "paper-no-pu", "blobs", "trees")
WITH_STEPS = METHODS[:4]
STYLES = ("exact", "jittered", "wrong", "lookalike", "contrasted", "slab")

JITTER = (1.5, 1.5, 2.5)
"""Standard deviation along x, y, z, voxels."""
WRONG_SHARE = 0.1
SLAB = 10
"""Slices."""
CALIBRATED_FROM, CALIBRATION_BINS = 0.05, 10
CHANCES = 200
"""Draws of calibration_by_chance."""

DEVELOPMENT: Mapping[str, Mapping[str, Any]] = {
    "ribosome_cell": {"diameter": 250.0, "radius": 5.0, "margin": (21.0, 21.0, 0.0)},
    "ribosome_purified": {"diameter": 250.0, "radius": 5.0, "margin": (21.0, 21.0, 0.0)},
    "thyroglobulin_mix": {"diameter": 180.0, "radius": 5.0, "margin": (21.0, 21.0, 0.0)},
}
"""What dataset.json holds, for sets known by name."""
SIMULATED_SEEDS = {"train": 9000, "val": 9001, "val2": 9002}


# --- data sets and labels ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A folder with train.mrc, train_truth.csv, val*.mrc and val*_truth.csv; see README.md.

    Attributes:
        name, folder: of the set.
        diameter: angstrom.
        radius: of a match, voxels.
        margin: x, y, z in voxels; what lies in it is not judged.
    """

    name: str
    folder: Path
    diameter: float
    radius: float
    margin: Margin

    @property
    def train(self) -> Path:
        return self.folder / "train.mrc"

    @property
    def judges(self) -> list[Path]:
        return sorted(self.folder.glob("val*.mrc"))

    @property
    def grid(self) -> Grid:
        return read_info(self.train).grid


def open_set(name: str, data: Path | None, out: Path, given: Mapping[str, Any]) -> DataSet:
    """A set by name: sim_easy, sim_normal and sim_hard are made in OUT/data, others are folders of `data`.

    `given` (diameter, radius, margin) goes before dataset.json, and that before what is known by name.

    Raises:
        InputError: there is no such set, or its diameter is not known.
    """
    if name.removeprefix("sim_") in PRESETS and name.startswith("sim_"):
        folder = simulated(name, out / "data" / name)
    elif data is None or not (data / name / "train.mrc").exists():
        raise InputError(f"no data set {name}", expected="a folder with train.mrc", found=data, cure="give --data")
    else:
        folder = data / name
    file = folder / "dataset.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    settings = {**DEVELOPMENT.get(name, {}), **told, **given}
    if "diameter" not in settings:
        raise InputError(f"the diameter of {name} is not known", file=file, cure=f"write it, or --diameter {name}=A")
    diameter = float(settings["diameter"])
    radius = settings.get("radius") or diameter / 2 / read_info(folder / "train.mrc").grid.voxel_size
    x, y, z = settings.get("margin", (0, 0, 0))
    return DataSet(name=name, folder=folder, diameter=diameter, radius=float(radius), margin=(x, y, z))


def simulated(name: str, folder: Path) -> Path:
    """The set of one of cetpick.simulate's presets, made if it is not there."""
    difficulty: Difficulty = name.removeprefix("sim_")  # type: ignore[assignment]
    if (folder / "dataset.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for part, seed in SIMULATED_SEEDS.items():
        settings = preset(difficulty, seed=seed)
        scene = simulate(settings)
        write_mrc(folder / f"{part}.mrc", scene.data, voxel_size=scene.voxel_size)
        for species, suffix in (("target", "truth"), ("decoy", "lookalikes")):
            write_table(
                folder / f"{part}_{suffix}.csv", scene.truth.loc[scene.truth["species"] == species, list("xyz")]
            )
    with replacing(folder / "dataset.json") as temporary:  # last: it says that the set is complete
        temporary.write_text(json.dumps({"diameter": settings.diameter}) + "\n")
    return folder


def points(path: Path) -> Points:
    return read_coordinates(path)[0].xyz


@dataclass(frozen=True)
class Labels:
    """Labels as a method gets them, and the true centres (m, 3) that were labelled with them."""

    given: Points
    labelled: Points


def draw_labels(dataset: DataSet, labels: str, style: str, seed: int) -> Labels:
    """Labels of the training tomogram.

    Args:
        dataset: the set.
        labels: name of a file labels/<name>_draw<seed>.csv; when there is none, `<N>pct` or `n<N>` of train_truth.csv.
        style: one of STYLES; `contrasted` and `slab` draw as many labels from fewer particles, or all of these.
        seed: of the draw and of the style.
    """
    truth = points(dataset.folder / "train_truth.csv")
    file = dataset.folder / "labels" / f"{labels}_draw{seed}.csv"
    count = len(points(file)) if file.exists() else label_count(labels, len(truth))
    drawing, changing = np.random.default_rng(seed).spawn(2)
    pool = truth
    if style == "contrasted":
        pool = most_contrasted(dataset, truth)
    elif style == "slab":
        pool = in_slab(truth, drawing)
    elif file.exists():
        pool = points(file)
    chosen = pool[drawing.choice(len(pool), min(count, len(pool)), replace=False)]
    if style == "jittered":
        return Labels(jittered(chosen, dataset.grid, changing), chosen)
    if style in ("wrong", "lookalike"):
        others = look_alikes(dataset) if style == "lookalike" else random_places(dataset.grid, truth, dataset, changing)
        return with_wrong(chosen, others, changing)
    return Labels(chosen, chosen)


def label_count(labels: str, particles: int) -> int:
    """Labels that `10pct` or `n05` stand for.

    Raises:
        InputError: it is something else.
    """
    if found := re.fullmatch(r"(\d+)pct", labels):
        return max(1, round(int(found[1]) / 100 * particles))
    if found := re.fullmatch(r"n(\d+)", labels):
        return min(int(found[1]), particles)
    raise InputError("unusable --labels", expected="such as 10pct, n05, or the name of label draws", found=labels)


def jittered(xyz: Points, grid: Grid, rng: np.random.Generator) -> Points:
    """Points moved at random by JITTER, inside the volume."""
    return np.clip(xyz + rng.normal(0, JITTER, xyz.shape), 0, np.array(grid.size) - 1)


def with_wrong(xyz: Points, others: Points, rng: np.random.Generator) -> Labels:
    """Labels of which WRONG_SHARE, at least one, lie on others of the points instead."""
    number = min(max(1, round(WRONG_SHARE * len(xyz))), len(others))
    order = rng.permutation(len(xyz))
    given = xyz.copy()
    given[order[:number]] = others[rng.choice(len(others), number, replace=False)]
    return Labels(given, xyz[np.sort(order[number:])])


def random_places(grid: Grid, truth: Points, dataset: DataSet, rng: np.random.Generator) -> Points:
    """Places (n, 3) in the volume, half a diameter or more from every particle."""
    places = rng.uniform(0, np.array(grid.size) - 1, (10_000, 3))
    return places[~within(places, truth, dataset.diameter / 2 / grid.voxel_size)]


def look_alikes(dataset: DataSet) -> Points:
    files = [dataset.folder / f"train_{what}.csv" for what in ("lookalikes", "gold")]
    for file in files:
        if file.exists() and len(xyz := points(file)):
            return xyz
    raise InputError(f"{dataset.name} has no look-alikes", expected=f"{files[0]} or {files[1]}")


def most_contrasted(dataset: DataSet, truth: Points) -> Points:
    """The third of the particles whose blob response is strongest; protein is dark."""
    tomogram = read_tomogram(read_info(dataset.train))
    size = dataset.diameter / tomogram.info.grid.voxel_size
    response = -blob_response(tomogram.data.astype(np.float32), diameter=size)
    x, y, z = np.clip(np.rint(truth).astype(int), 0, np.array(tomogram.info.grid.size) - 1).T
    return truth[np.argsort(-response[z, y, x], kind="stable")[: max(1, len(truth) // 3)]]


def in_slab(truth: Points, rng: np.random.Generator) -> Points:
    """The particles in SLAB slices around a random one of them."""
    middle = truth[rng.integers(len(truth)), 2]
    return truth[(truth[:, 2] >= middle - SLAB / 2) & (truth[:, 2] < middle + SLAB / 2)]


# --- judging -------------------------------------------------------------------------------------------------------


def unlabelled_scene(scene: Scene, labelled: Points, radius: float) -> Scene:
    """The scene without the labelled particles and the picks that match them."""
    is_labelled = within(scene.truth, labelled, 0.5)
    partner = match(scene.picks, scene.scores, scene.truth, radius)
    kept = (partner < 0) | ~is_labelled[partner]
    return dataclasses.replace(
        scene, picks=scene.picks[kept], scores=scene.scores[kept], truth=scene.truth[~is_labelled]
    )


def calibration_error(result: Result) -> float | None:
    """Expected calibration error of scores as the probability of a match; None without a score to judge.

    Picks from CALIBRATED_FROM on, in CALIBRATION_BINS equal bins of [0, 1]: |mean score - matched share| of each bin,
    weighted by its picks.
    """
    scores, picks, matched = judged_scores(result)
    return binned_error(scores, picks, matched) if len(scores) else None


def calibration_by_chance(result: Result) -> float | None:
    """What calibration_error shows in the mean when each score is exactly right, for as many picks: it is never 0."""
    scores, picks, _ = judged_scores(result)
    rng = np.random.default_rng(0)
    drawn = (binned_error(scores, picks, rng.binomial(picks, scores)) for _ in range(CHANCES))
    return float(np.mean(list(drawn))) if len(scores) else None


def judged_scores(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different scores from CALIBRATED_FROM on, and how many picks and matches have each."""
    kept = result.thresholds >= CALIBRATED_FROM
    picks, matched = (np.diff(counts, prepend=0)[kept] for counts in (result.picked, result.matched))
    return result.thresholds[kept], picks, matched


def binned_error(scores: np.ndarray, picks: np.ndarray, matched: np.ndarray) -> float:
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=matched - scores * picks)).sum() / picks.sum())


def read_scenes(output: Path, tomograms: Sequence[Path]) -> tuple[dict[str, Any], list[Scene]]:
    """run.json of an output folder of `pick`, and the candidates in it with the truth beside each tomogram."""
    record = json.loads((output / "run.json").read_text())
    scenes = []
    for path in tomograms:
        info = read_info(path)
        found = pd.read_csv(output / "candidates" / f"{info.name}.csv")
        scene = Scene(
            name=info.name,
            picks=as_points(found[["x", "y", "z"]].to_numpy()),
            scores=found["score"].to_numpy(),
            truth=points(path.with_name(f"{path.stem}_truth.csv")),
            shape=info.grid.shape,
            threshold=record["threshold"],
        )
        scenes.append(scene)
    return record, scenes


def judge(
    scenes: Sequence[Scene],
    *,
    radius: float,
    margin: Margin,
    count: float | None,
    particles: int,
    probabilities: bool = True,
) -> dict[str, Any]:
    """The figures of one run.

    Args:
        scenes: all candidates and the truth of the tomograms, pooled.
        radius, margin: voxels.
        count: particles in the training tomogram as the method estimates, None or 0 when it does not.
        particles: as they are.
        probabilities: the scores are meant as such.
    """
    result = evaluate(scenes, radius, margin)
    best = result.best
    return {
        "average_precision": result.average_precision,
        "best_f1": best.f1,
        "f1_at_cut": result.at_threshold.f1 if result.at_threshold else None,
        "localisation_error": best.localisation_error,
        "count_error": (count - particles) / particles if count else None,
        "calibration_error": calibration_error(result) if probabilities else None,
        "calibration_by_chance": calibration_by_chance(result) if probabilities else None,
        "truths": best.truths,
    }


# --- runs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell of the benchmark."""

    set: str
    labels: str
    style: str
    method: str
    seed: int
    judge: str
    steps: int | None = None

    @property
    def key(self) -> str:
        steps = f"{self.steps}steps" if self.steps else None
        parts = (self.set, self.labels, self.style, self.method, steps, f"seed{self.seed}", self.judge)
        return "__".join(part for part in parts if part)


def measured(command: Sequence[str], log: Path, threads: int | None) -> dict[str, float]:
    """Run a command; its wall and CPU time in seconds and the peak memory of it and its children in MiB.

    Raises:
        RuntimeError: it failed; its output is in `log`.
    """
    path = os.pathsep.join([str(PICKERS.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    if threads:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        # not resource.getrusage(RUSAGE_CHILDREN): its peak is the largest of all runs so far
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()[-5:]
        raise RuntimeError("\n".join([f"exit code {process.returncode}, see {log}", *lines]))
    return {
        "seconds": time.monotonic() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def run_one(run: Run, dataset: DataSet, out: Path, *, threads: int | None, device: str) -> dict[str, Any]:
    """Train and pick in a process of its own, judge the candidates, and write OUT/runs/<key>.json."""
    work = out / "details" / run.key
    work.mkdir(parents=True, exist_ok=True)
    labels = draw_labels(dataset, run.labels, run.style, run.seed)
    write_table(work / "train_labels.csv", pd.DataFrame(labels.given, columns=["x", "y", "z"]))
    tomograms = [dataset.train] if run.judge == "train" else dataset.judges
    if not tomograms:
        raise InputError(f"{dataset.name} has no val*.mrc to judge by", file=dataset.folder)
    command = [sys.executable, str(PICKERS), run.method, *map(str, tomograms), "--train", str(dataset.train)]
    command += ["--labels", str(work / "train_labels.csv"), "--diameter", f"{dataset.diameter:g}"]
    command += ["--output", str(work / "picks"), "--seed", str(run.seed)]
    if run.method in WITH_STEPS:
        command += ["--overwrite", "--quiet", "--no-report", "--device", device]
        command += ["--steps", str(run.steps)] if run.steps else []
        command += ["--threads", str(threads)] if threads else []
    cost = measured(command, work / "log.txt", threads)

    record, scenes = read_scenes(work / "picks", tomograms)
    if run.judge == "train":
        scenes = [unlabelled_scene(scene, labels.labelled, dataset.radius) for scene in scenes]
    particles = len(points(dataset.folder / "train_truth.csv"))
    count = record.get("model", {}).get("count")
    figures = judge(
        scenes,
        radius=dataset.radius,
        margin=dataset.margin,
        count=count,
        particles=particles,
        probabilities=run.method != "blobs",
    )
    result = {
        **dataclasses.asdict(run), "diameter": dataset.diameter, "radius": dataset.radius, "margin": dataset.margin,
        "given_labels": len(labels.given), "threads": threads, "device": record.get("device", "cpu"),
        "cetpick": record.get("cetpick"), "figures": figures | cost,
    }  # fmt: skip
    file = out / "runs" / f"{run.key}.json"
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result


# --- table ---------------------------------------------------------------------------------------------------------

CASE = ("set", "labels", "style", "method", "steps", "judge", "radius", "margin")
COLUMNS: Mapping[str, tuple[str, float, int]] = {
    "average_precision": ("AP", 1, 3),
    "best_f1": ("best F1", 1, 3),
    "f1_at_cut": ("F1 at its cut", 1, 3),
    "localisation_error": ("localisation error, voxels", 1, 2),
    "count_error": ("count error, %", 100, 0),
    "calibration_error": ("calibration error", 1, 3),
    "calibration_by_chance": ("the same by chance", 1, 3),
    "seconds": ("minutes", 1 / 60, 1),
    "cpu_seconds": ("CPU minutes", 1 / 60, 1),
    "peak_mib": ("peak memory, GiB", 1 / 1024, 2),
}
"""Heading, factor and decimals of each figure."""


def mean_and_spread(values: Iterable[float | None], decimals: int) -> str:
    """Mean and sample standard deviation of the values that are known; how many they are, if not all."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    if not known:
        return "-"
    told = f"{np.mean(known):.{decimals}f}"
    if len(known) > 1:
        told += f" ± {np.std(known, ddof=1):.{decimals}f}"
    return told if len(known) == len(listed) else f"{told} ({len(known)} of {len(listed)})"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """All runs as a Markdown table, a row for each case, over its seeds."""

    def case(result: Mapping[str, Any]) -> tuple[str, ...]:
        margin = ",".join(f"{width:g}" for width in result["margin"])
        values = {**result, "steps": result["steps"] or "", "radius": f"{result['radius']:.3g}", "margin": margin}
        return tuple(str(values[name]) for name in CASE)

    headings = [*CASE, "n labels", "seeds", *(heading for heading, _, _ in COLUMNS.values())]
    lines = [headings, ["---"] * len(headings)]
    for of_case, group in itertools.groupby(sorted(results, key=case), key=case):
        runs = sorted(group, key=lambda result: result["seed"])
        cells = [
            mean_and_spread([None if (v := run["figures"].get(name)) is None else v * factor for run in runs], decimals)
            for name, (_, factor, decimals) in COLUMNS.items()
        ]
        labels = sorted({run["given_labels"] for run in runs})
        seeds = ", ".join(str(run["seed"]) for run in runs)
        lines.append([*of_case, "-".join(map(str, dict.fromkeys((labels[0], labels[-1])))), seeds, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- command line --------------------------------------------------------------------------------------------------


def of_set(text: str) -> tuple[str, tuple[float, ...]]:
    """NAME=NUMBER or NAME=X,Y,Z."""
    name, _, numbers = text.partition("=")
    return name, tuple(float(number) for number in numbers.split(","))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do the runs that are not there yet")
    run.add_argument("out", type=Path)
    run.add_argument("--data", type=Path, help="folder of the sets; sim_easy, sim_normal and sim_hard need none")
    run.add_argument("--sets", nargs="+", default=[*DEVELOPMENT], metavar="SET")
    run.add_argument("--labels", nargs="+", default=["10pct"], metavar="LABELS", help="10pct, n05, ...")
    run.add_argument("--styles", nargs="+", default=["exact"], choices=STYLES)
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    run.add_argument("--methods", nargs="+", default=["default"], choices=METHODS)
    run.add_argument("--judge", choices=("val", "train"), default="val", help="train: its unlabelled particles")
    run.add_argument(
        "--diameter", nargs="+", type=of_set, default=[], metavar="SET=A", help="angstrom, before dataset.json"
    )
    run.add_argument("--radius", nargs="+", type=of_set, default=[], metavar="SET=VOXELS", help="of a match")
    run.add_argument(
        "--margin", nargs="+", type=of_set, default=[], metavar="SET=X,Y,Z", help="voxels that are not judged"
    )
    run.add_argument("--steps", type=int, help="of trainings, to try things out; a case of its own")
    running_options(run)
    show = commands.add_parser("table", help="print the table of all runs in the folder")
    show.add_argument("out", type=Path)
    return top


def running_options(run: argparse.ArgumentParser) -> None:
    """Options of how runs are done."""
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; see README.md for GPUs")
    run.add_argument("--threads", type=int, help="of each run")
    run.add_argument("--device", default="auto")


def do_runs(options: argparse.Namespace) -> int:
    """Returns how many runs failed."""
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    given = {what: dict(getattr(options, what)) for what in ("diameter", "radius", "margin")}
    works = []
    for name in options.sets:
        overrides = {
            what: values[name] if what == "margin" else values[name][0]
            for what, values in given.items()
            if name in values
        }
        dataset = open_set(name, options.data, options.out, overrides)
        # all methods of a seed before the next seed, so that a stopped benchmark compares as many as it can
        for labels, style, seed, method in itertools.product(
            options.labels, options.styles, options.seeds, options.methods
        ):
            steps = options.steps if method in WITH_STEPS else None
            run = Run(
                set=name, labels=labels, style=style, method=method, seed=seed, judge=options.judge, steps=steps
            )  # fmt: skip
            works.append(functools.partial(do_run, run, dataset, options))
    return at_a_time(options.jobs, works)


def do_run(run: Run, dataset: DataSet, options: argparse.Namespace) -> int:
    """Do a run if it is not there yet, and print how it went; returns how many failed."""
    if (options.out / "runs" / f"{run.key}.json").exists():
        print(f"{run.key}: there already", flush=True)
        return 0
    try:
        figures = run_one(run, dataset, options.out, threads=options.threads, device=options.device)["figures"]
    except (InputError, RuntimeError) as error:
        print(f"{run.key}: failed: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"{run.key}: AP {figures['average_precision']:.3f}, {figures['seconds']:.0f} s", flush=True)
    return 0


def at_a_time(jobs: int, works: Iterable[Callable[[], int]]) -> int:
    """Do all works, so many at a time; the sum of what they return.

    Raises:
        InputError: less than one at a time.
    """
    if jobs < 1:
        raise InputError("unusable --jobs", expected="at least 1", found=jobs, cure="leave it out for one at a time")
    pool = ThreadPoolExecutor(jobs)
    try:
        return sum(pool.map(lambda work: work(), works))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C none begins


def command_line(
    options: argparse.Namespace,
    do_runs: Callable[[argparse.Namespace], int],
    table: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Do the runs, with an exit code, or print the table of those that are there."""
    if options.command == "table":
        results = [json.loads(file.read_text()) for file in sorted((options.out / "runs").glob("*.json"))]
        print(table(results) if results else f"no runs in {options.out}")
        return
    try:
        sys.exit(1 if do_runs(options) else 0)
    except InputError as error:
        sys.exit(str(error))


def main() -> None:
    command_line(parser().parse_args(), do_runs, table)


if __name__ == "__main__":
    main()
