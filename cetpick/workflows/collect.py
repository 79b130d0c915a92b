"""`collect`: the results of single tomograms in, particles.star, optimisation_set.star and run.json out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.atomic import remove_leftovers
from cetpick.io.relion import write_optimisation_set, write_particles
from cetpick.io.table import read_table, write_table
from cetpick.report.handover import EXPORTS
from cetpick.workflows.record import keeping_warnings, size_and_time, write_json
from cetpick.workflows.report import write_report
from cetpick.workflows.results import (
    ALL_TOGETHER,
    DATASET_FILES,
    Cut,
    TomogramRecord,
    record_file,
    remove,
    told_of_cut,
    tomogram_files,
    view_file,
)
from cetpick.workflows.runs import (
    SPOILED,
    Plan,
    Run,
    complete_record,
    merge,
    newest_run,
    optimisation_set,
    plan_values,
    spoiled,
)

SHOWN = 8
"""Names in a message, at most."""


@dataclass(kw_only=True)
class CollectSummary:
    """What `collect` tells.

    Attributes:
        output: folder.
        cut: which candidates are picks.
        picks: number of picks by tomogram.
        candidates: number of candidates by tomogram.
        particles: how many are expected in all of them, None when scores are no probabilities.
        true_picks: how many of the picks are expected to be particles.
        files: what the results are, run.json last.
        failures: one message a tomogram that could not be picked.
        missing: why, by tomogram, for those of the run that have no complete results.
    """

    output: Path
    cut: Cut
    picks: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    particles: float | None = None
    true_picks: float = 0.0
    files: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when all is there, else 1."""
        return 1 if self.failures or self.missing else 0

    @property
    def told(self) -> str:
        """The cut and what it is expected to give, in a line."""
        picks = sum(self.picks.values())
        return told_of_cut(self.cut, picks=picks, particles=self.true_picks, everything=self.particles)


def run_collect(output: Path, *, report: bool = True, redraw: Callable[[str], None] | None = None) -> CollectSummary:
    """Make particles.star, optimisation_set.star, report.html and run.json of the results of the run begun last.

    Neither tomograms, but to redraw, nor the model are read. What the run set out to do and is not there is named in
    run.json.

    Args:
        output: folder of results; shards may still be at work in it.
        report: make report.html.
        redraw: draw pictures that are not there, as of a run that was killed, and tell it in a line of each.

    Raises:
        InputError: it holds no results of `pick`, or those of no tomogram; nothing was written.

    Warns:
        CetpickWarning: a tomogram without picks, particles of several tomograms.star, no report.
    """
    runs, others = newest_run(output)
    values, plan = merge(runs)
    shards = runs[0].plan.shard.count
    summary = CollectSummary(output=output, cut=plan.cut)
    complete: list[TomogramRecord] = []
    for place, name in enumerate(plan.listing):
        if place in plan.failures:
            summary.failures.append(plan.failures[place])
        elif (record := complete_record(output, name, plan)) is not None:
            complete.append(record)
        else:
            reason = _reason(place % shards + 1, shards, runs, others)
            summary.missing[name] = SPOILED if spoiled(output, name, plan) else reason
    if not complete:
        listed = "\n".join([*summary.failures, *_by_reason(summary.missing)])
        raise InputError(f"no tomogram has been picked\n{listed}", file=output)
    told = [*plan.warnings, *(text for record in complete for text in record.warnings)]
    with keeping_warnings(told):
        _warn_of_empty(complete, plan)
        particles, pointers, expected, page, run_file = (output / name for name in DATASET_FILES)
        remove(output / file for file in ALL_TOGETHER)
        tables = [(record.info, read_table(tomogram_files(output, record.info.name)[1]).table) for record in complete]
        write_particles(particles, plan.star, tables)
        summary.files += [path for record in complete for path in tomogram_files(output, record.info.name)]
        summary.files.append(particles)
        if (named := optimisation_set(output, plan)) is not None:
            write_optimisation_set(pointers, **named)
            summary.files.append(pointers)
        else:
            pointers.unlink(missing_ok=True)
            _warn_of_several_stars(complete, plan)
    if plan.maker.calibrated:
        write_table(expected, expected_precision(complete))
        summary.files.append(expected)
        summary.particles = sum(record.expected[0].particles for record in complete)
        summary.true_picks = sum(record.particles for record in complete)
    else:
        expected.unlink(missing_ok=True)
    summary.picks = {record.info.name: record.picks for record in complete}
    summary.candidates = {record.info.name: record.candidates for record in complete}
    values["inputs"] |= {
        str(record.info.path): {"bytes": record.input.bytes, "sha256": record.input.sha256} for record in complete
    }
    values |= {
        "device": ", ".join(dict.fromkeys(record.device for record in complete)),
        "threshold": plan.cut.threshold,
        "expected_particles": summary.particles,
        "star": plan.star,
        "tomograms": {record.info.name: record.note() for record in complete},
        "failures": summary.failures,
        "missing": summary.missing,
        "warnings": list(dict.fromkeys(told)),
        **plan_values(plan),
    }
    with keeping_warnings(values["warnings"]):
        _warn_of_exports(output, complete)
    page.unlink(missing_ok=True)
    if report:
        with keeping_warnings(values["warnings"]):
            summary.files += write_report(output, values, plan, complete, redraw=redraw)
    if plan.finished:  # a worker or shard that was killed is not at work any more
        files = [(*tomogram_files(output, n), record_file(output, n), view_file(output, n)) for n in plan.listing]
        remove_leftovers(path for of in files for path in of)
    values["outputs"] = [*([values["model_file"]] if "training" in values else []), *map(str, summary.files)]
    write_json(run_file, values)
    summary.files.append(run_file)
    return summary


def expected_precision(records: Sequence[TomogramRecord]) -> pd.DataFrame:
    """What thresholds are expected to give in all tomograms: picks, particles among them, precision, recall."""
    cuts = zip(*(record.expected for record in records), strict=True)
    rows = [(of[0].threshold, sum(cut.picks for cut in of), sum(cut.particles for cut in of)) for of in cuts]
    table = pd.DataFrame(rows, columns=["threshold", "picks", "particles"])
    everything = table["particles"].iloc[0]
    table["precision"] = table["particles"] / table["picks"]
    table["recall"] = table["particles"] / everything if everything else np.nan
    return table[table["threshold"] > 0].round({"particles": 1, "precision": 3, "recall": 3})


def _reason(number: int, shards: int, runs: Sequence[Run], others: Sequence[Run]) -> str:
    """Why a tomogram of this shard has no results."""
    what = f"shard {number}/{shards}" if shards > 1 else "the run"
    run = next((run for run in runs if run.plan.shard.number == number), None)
    if run is not None:
        return f"{what} ended without them" if run.plan.finished else f"{what} has not come to its end"
    if any((run.plan.shard.number, run.plan.shard.count) == (number, shards) for run in others):
        return f"{what} was last run with other tomograms, model, region or cut than what was run or cut again last"
    return f"{what} has not begun"


def _by_reason(missing: dict[str, str]) -> Iterator[str]:
    for reason in dict.fromkeys(missing.values()):
        yield f"{reason}: {', '.join(name for name, why in missing.items() if why == reason)}"


def _warn_of_empty(complete: Sequence[TomogramRecord], plan: Plan) -> None:
    for record in complete:
        if not record.picks:
            best = "there is none" if record.best_score is None else f"best score {record.best_score:.3g}"
            warnings.warn(
                f"{record.info.path}: no candidate is good enough for the {plan.cut.told} ({best}); is it like the "
                "training tomogram? `cetpick repick` with a lower --threshold gives the candidates",
                CetpickWarning,
                stacklevel=3,
            )


def _warn_of_exports(output: Path, complete: Sequence[TomogramRecord]) -> None:
    """Warn of what other programs were given of picks that are others now."""
    written = max(stamp.modified for record in complete for stamp in record.outputs.values())
    names = [*EXPORTS, *(f"{record.info.name}.coords" for record in complete)]
    stale = [name for name in names if (output / name).is_file() and size_and_time(output / name)[1] < written]
    if stale:
        warnings.warn(
            f"{output}: {', '.join(stale[:SHOWN])}{' ...' if len(stale) > SHOWN else ''}: older than the picks; "
            "`cetpick report` tells the commands that make them anew",
            CetpickWarning,
            stacklevel=3,
        )


def _warn_of_several_stars(complete: Sequence[TomogramRecord], plan: Plan) -> None:
    stars = {record.info.relion.star for record in complete if record.info.relion is not None}
    if plan.star == "relion5":
        warnings.warn(
            f"no optimisation_set.star, which names one tomograms.star, and these were {len(stars)}; pick them one by "
            "one for it",
            CetpickWarning,
            stacklevel=3,
        )
