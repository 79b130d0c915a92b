"""Does a second round help? A few labels alone, with corrected errors, with suggested places, with random labels.

    python -m benchmarks.curation run OUT --data DATA --sets ribosome_cell --labels n10 --seeds 0 1 2
    python -m benchmarks.curation table OUT

Runs are processes of their own and leave OUT/runs/<key>.json; those that are there already are skipped. See README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import accuracy
from benchmarks.accuracy import DataSet, points
from cetpick.calibration import count_from_answers, within
from cetpick.errors import InputError
from cetpick.geometry import Points, as_points
from cetpick.io.atomic import replacing
from cetpick.io.table import write_table
from cetpick.metrics import match

ARMS = ("base", "corrected", "suggested", "random", "checked")
"""Labels alone; and with corrections: of errors, of suggested places, and as many more labels of random particles; of
errors by somebody who looks at every pick, so that those left are labels, too."""
STYLES = ("exact", "contrasted")
"""Labels, and the further ones of `random`, are of all particles, or of the third that a person sees best."""
CORRECTIONS = 20
TRAIN_PICKS = "train_picks"
"""Folder of what the first round picks in the training tomogram."""
FIGURES = ("average_precision", "best_f1", "f1_at_cut", "calibration_error")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell of the benchmark."""

    set: str
    labels: str
    arm: str
    seed: int
    corrections: int
    steps: int | None = None
    style: str = "exact"

    @property
    def key(self) -> str:
        steps = f"{self.steps}steps" if self.steps else None
        style = None if self.style == "exact" else self.style
        corrections = None if self.arm == "base" else f"{self.corrections}corrections"
        parts = (self.set, self.labels, style, self.arm, corrections, steps, f"seed{self.seed}")
        return "__".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a person has said of the training tomogram.

    Attributes:
        labels: further ones.
        rejected: places that are no particles.
        count: what the answers tell of the number of particles, labels included.
    """

    labels: Points
    rejected: Points
    count: float | None = None


def errors(picks: Points, truth: Points, labels: Points, radius: float) -> Known:
    """All that is wrong with picks: particles that are missed and not labelled, and picks farther off than `radius`."""
    missed = truth[~within(truth, picks, radius) & ~within(truth, labels, radius)]
    return Known(labels=missed, rejected=picks[~within(picks, truth, radius)])


def drawn(known: Known, number: int, rng: np.random.Generator) -> Known:
    """At random so many of the corrections, all when there are not more."""
    both = np.vstack([known.labels, known.rejected])
    chosen = np.zeros(len(both), bool)
    chosen[rng.choice(len(both), min(number, len(both)), replace=False)] = True
    is_label = np.arange(len(both)) < len(known.labels)
    return Known(labels=both[chosen & is_label], rejected=both[chosen & ~is_label])


def checked(picks: Points, said: Known) -> Known:
    """As `cetpick curate --kept` does: all picks that are not rejected are labels, also those that nobody corrected."""
    kept = picks[~within(picks, said.rejected, 0.5)]
    return dataclasses.replace(said, labels=np.vstack([said.labels, kept]))


def answered(suggested: pd.DataFrame, considered: pd.DataFrame, truth: Points, radius: float) -> Known:
    """Places as a person answers who knows the truth: one on each particle is kept where it is, others are rejected.

    A second one on a particle is neither: `curate` takes it for moved.

    Args:
        suggested: table of `cetpick suggest`.
        considered: its table of all candidates.
        truth: (n, 3) particles, voxels.
        radius: of a particle, voxels.
    """
    places = as_points(suggested[["x", "y", "z"]])
    kept = match(places, np.zeros(len(places)), truth, radius) >= 0
    hidden = count_from_answers(considered["score"], suggested["score"], kept)
    count = hidden.expected + float(suggested["labels"].iloc[0])
    return Known(labels=places[kept], rejected=places[~within(places, truth, radius)], count=count)


def corrections(run: Run, dataset: DataSet, base: Path, work: Path, labels: Points) -> Known:
    """What the person says in the second round; `base` is the first one's folder."""
    truth = points(dataset.folder / "train_truth.csv")
    radius = dataset.diameter / 2 / dataset.grid.voxel_size
    # not the stream that the labels were drawn from; `checked` corrects what `corrected` does
    rng = np.random.default_rng([run.seed, ARMS.index("corrected" if run.arm == "checked" else run.arm)])
    if run.arm == "random":
        pool = accuracy.most_contrasted(dataset, truth) if run.style == "contrasted" else truth
        others = pool[~within(pool, labels, 0.5)]
        return drawn(Known(labels=others, rejected=np.empty((0, 3))), run.corrections, rng)
    if run.arm in ("corrected", "checked"):
        picks = as_points(pd.read_csv(base / TRAIN_PICKS / "train.csv")[["x", "y", "z"]])
        said = drawn(errors(picks, truth, labels, radius), run.corrections, rng)
        return said if run.arm == "corrected" else checked(picks, said)
    command = ["suggest", base / TRAIN_PICKS, "--number", run.corrections, "--labels", base / "labels", "--overwrite"]
    tool([*command, "--seed", run.seed], work / "suggest.txt", None)
    folder = base / TRAIN_PICKS / "suggest"
    return answered(*(pd.read_csv(folder / name) for name in ("suggested.csv", "candidates.csv")), truth, radius)


def tool(arguments: Sequence[object], log: Path, threads: int | None) -> dict[str, float]:
    """Run cetpick; its cost as accuracy.measured has it."""
    return accuracy.measured([sys.executable, "-m", "cetpick", *map(str, arguments)], log, threads)


def run_one(run: Run, dataset: DataSet, out: Path, *, threads: int | None, device: str) -> dict[str, Any]:
    """Train and pick, judge the candidates, and write OUT/runs/<key>.json."""
    work = out / "details" / run.key
    base = out / "details" / dataclasses.replace(run, arm="base").key
    work.mkdir(parents=True, exist_ok=True)
    labels = accuracy.draw_labels(dataset, run.labels, run.style, run.seed).given
    said = Known(labels=np.empty((0, 3)), rejected=np.empty((0, 3)))
    if run.arm != "base":
        said = corrections(run, dataset, base, work, labels)
    common = ["--device", device, "--quiet", *(["--threads", threads] if threads else [])]
    command = ["pick", *dataset.judges, "--train", dataset.train, "--diameter", f"{dataset.diameter:g}"]
    command += ["--seed", run.seed, "--output", work / "picks", "--overwrite", "--no-report"]
    command += ["--steps", run.steps] if run.steps else []
    # named after the training tomogram, so that several files of labels find it
    files = {"labels": labels, "added": said.labels, "rejected": said.rejected}
    for what, xyz in files.items():
        if len(xyz):
            file = work / what / "train.csv"
            write_table(file, pd.DataFrame(xyz, columns=["x", "y", "z"]))
            option = {"rejected": "--reject", "added": "--labels" if run.arm == "random" else "--added"}
            command += [option.get(what, "--labels"), file.parent]
    command += ["--count-hint", f"{said.count:.0f}"] if said.count else []
    cost = tool([*command, *common], work / "log.txt", threads)
    if run.arm == "base":  # what the second round begins with
        model = ["--model", work / "picks" / "model.safetensors", "--output", work / TRAIN_PICKS]
        command = ["pick", dataset.train, *model, "--overwrite", "--no-report"]
        tool([*command, *common], work / "train.txt", threads)

    record, scenes = accuracy.read_scenes(work / "picks", dataset.judges)
    figures = accuracy.judge(
        scenes,
        radius=dataset.radius,
        margin=dataset.margin,
        count=record["model"]["count"],
        particles=len(points(dataset.folder / "train_truth.csv")),
    )
    result = {
        **dataclasses.asdict(run), "given_labels": len(labels), "added": len(said.labels),
        "rejected": len(said.rejected), "count_hint": said.count, "threads": threads, "device": record["device"],
        "cetpick": record["cetpick"],
        "figures": figures | cost,
    }  # fmt: skip
    with replacing(out / "runs" / f"{run.key}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """All runs as a Markdown table: a row for each set, labels and arm, over its seeds.

    The last column is the gain in average precision over `base` with the same seed.
    """

    def draw(result: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(result[name] for name in ("set", "labels", "style", "steps", "seed"))

    base = {draw(r): r["figures"]["average_precision"] for r in results if r["arm"] == "base"}

    def case(result: Mapping[str, Any]) -> tuple[str, ...]:
        number = "" if result["arm"] == "base" else result["corrections"]
        order = ARMS.index(result["arm"])
        first = (result[name] for name in ("set", "labels", "style"))
        return tuple(str(v) for v in (*first, result["steps"] or "", order, number))

    headings = [accuracy.COLUMNS[name][0] for name in FIGURES]
    lines = [
        ["set", "labels", "style", "steps", "arm", "corrections", "added", "rejected", "seeds", *headings, "AP gained"]
    ]
    lines.append(["---"] * len(lines[0]))
    for of_case, group in itertools.groupby(sorted(results, key=case), key=case):
        runs = sorted(group, key=lambda result: result["seed"])
        cells = [
            accuracy.mean_and_spread([run["figures"][name] for run in runs], accuracy.COLUMNS[name][2])
            for name in FIGURES
        ]
        gains = [run["figures"]["average_precision"] - base[draw(run)] for run in runs if draw(run) in base]
        name, labels, style, steps, _, number = of_case
        said = [accuracy.mean_and_spread([float(run[what]) for run in runs], 0) for what in ("added", "rejected")]
        seeds = ", ".join(str(run["seed"]) for run in runs)
        gain = "" if runs[0]["arm"] == "base" else accuracy.mean_and_spread(gains, 3)
        lines.append([name, labels, style, steps, runs[0]["arm"], number, *said, seeds, *cells, gain])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do the runs that are not there yet")
    run.add_argument("out", type=Path)
    run.add_argument("--data", type=Path, help="folder of the sets; sim_easy, sim_normal and sim_hard need none")
    run.add_argument("--sets", nargs="+", default=["ribosome_cell"], metavar="SET")
    run.add_argument("--labels", nargs="+", default=["n10"], metavar="LABELS", help="10pct, n05, ...")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    run.add_argument("--arms", nargs="+", default=ARMS[1:], choices=ARMS, help="`base` comes before them in any case")
    run.add_argument("--corrections", type=int, default=CORRECTIONS, metavar="N")
    run.add_argument("--steps", type=int, help="of trainings, to try things out; a case of its own")
    run.add_argument("--style", default="exact", choices=STYLES, help="of the labels")
    accuracy.running_options(run)
    show = commands.add_parser("table", help="print the table of all runs in the folder")
    show.add_argument("out", type=Path)
    return top


def do_runs(options: argparse.Namespace) -> int:
    """Returns how many runs failed."""
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    works = []
    for name in options.sets:
        dataset = accuracy.open_set(name, options.data, options.out, {})
        # all arms of a seed before the next seed, so that a stopped benchmark compares as many as it can
        for labels, seed in itertools.product(options.labels, options.seeds):
            works.append(functools.partial(do_arms, dataset, labels, seed, options))
    return accuracy.at_a_time(options.jobs, works)


def do_arms(dataset: DataSet, labels: str, seed: int, options: argparse.Namespace) -> int:
    """Do the runs of a seed that are not there yet, and print how they went; returns how many failed."""
    failed = 0
    for arm in dict.fromkeys(["base", *options.arms]):
        run = Run(
            set=dataset.name, labels=labels, arm=arm, seed=seed, corrections=options.corrections, steps=options.steps,
            style=options.style,
        )  # fmt: skip
        if (options.out / "runs" / f"{run.key}.json").exists():
            print(f"{run.key}: there already", flush=True)
            continue
        try:
            result = run_one(run, dataset, options.out, threads=options.threads, device=options.device)
        except (InputError, RuntimeError) as error:
            failed += 1
            print(f"{run.key}: failed: {error}", file=sys.stderr, flush=True)
            if arm == "base":
                break  # the others begin with it
            continue
        figures = result["figures"]
        told = f"AP {figures['average_precision']:.3f}, {figures['seconds']:.0f} s"
        print(f"{run.key}: {result['added']} added, {result['rejected']} rejected, {told}", flush=True)
    return failed


def main() -> None:
    accuracy.command_line(parser().parse_args(), do_runs, table)


if __name__ == "__main__":
    main()
