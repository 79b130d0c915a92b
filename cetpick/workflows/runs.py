"""What a run of `pick`, or a shard of it, set out to do and how it fared: its file in the folder of results.

`run.<i>of<N>.json` tells it of shard i of N; a whole run is called 1of1 until it is done. `run.json` tells it of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cetpick.config import ModelSettings, PickSettings
from cetpick.errors import InputError
from cetpick.io.relion import Flavour, seen_from
from cetpick.records import EVERYWHERE, Region
from cetpick.workflows.record import RunRecord, read_record, revision
from cetpick.workflows.results import (
    DATASET_FILES,
    FORMAT,
    RUN_FILE,
    Cut,
    Maker,
    TomogramRecord,
    read_region,
    read_tomogram_record,
    tomogram_files,
)

SPOILED = (
    "files changed or removed since they were written; `cetpick repick` makes picks again and keeps edited ones aside, "
    "from which `cetpick curate` learns"
)
"""Why a tomogram that was picked has no complete results, and what helps."""
PLAN = "plan"
"""Where a run file has its Plan."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of the tomograms: those at every `count`-th place of the listing, from place `number` on.

    Attributes:
        number: from 1.
        count: of shards.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3/8".

        Raises:
            InputError: it is something else.
        """
        first, _, second = text.partition("/")
        if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
            expected = "I/N with whole numbers, I from 1 to N"
            raise InputError("unusable --shard", expected=expected, found=text, cure="such as --shard 3/8")
        return cls(number=int(first), count=int(second))

    def positions(self, listed: int) -> range:
        """The places, from 0, that are its own of so many."""
        return range(self.number - 1, listed, self.count)

    @property
    def run_file(self) -> str:
        """Name of its run file."""
        return f"run.{self.number}of{self.count}.json"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run, or one shard of it, set out to do, and how it fared.

    Attributes:
        begun: seconds since 1970; of several runs in a folder the last counts.
        shard: which part of the listing is its own.
        listing: names of the tomograms of all shards.
        maker: of the candidates.
        cut: of the candidates.
        star: flavour of particles.star.
        region: as the options limit it: the mask, or the folder of masks, slab, and what is kept.
        project: RELION's project folder, and tomograms.star as it is found from there; None without one tomograms.star.
        failures: by place in the listing, from 0, what is wrong with a tomogram.
        warnings: that the run gave.
        finished: it came to its end.
    """

    begun: float
    shard: Shard = Shard()
    listing: Sequence[str]
    maker: Maker
    cut: Cut
    star: Flavour
    region: Region = EVERYWHERE
    project: tuple[Path, str] | None = None
    failures: Mapping[int, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run file.

    Attributes:
        path: the file.
        values: all that it holds, as RunRecord writes it.
        plan: what the run set out to do.
    """

    path: Path
    values: dict[str, Any]
    plan: Plan


def write_run(output: Path, record: RunRecord, plan: Plan) -> Path:
    """Write the run file of a shard, or of a run that is not done yet; returns it."""
    record.values |= plan_values(replace(plan, warnings=list(record.values["warnings"])))
    path = output / plan.shard.run_file
    record.write(path)
    return path


def plan_values(plan: Plan) -> dict[str, Any]:
    """What a run file holds of a plan."""
    return {PLAN: {"format": FORMAT, **vars(plan)}}


def read_run(path: Path) -> Run | None:
    """A run file of `pick`, None when it is something else, or of a version with other settings."""
    record = read_record(path)
    if record is None or not isinstance(values := record.get(PLAN), dict) or values.get("format") != FORMAT:
        return None
    try:
        ModelSettings.from_dict(record["model"])
        PickSettings(**record["settings"]["pick"])
        plan = Plan(
            **{key: value for key, value in values.items() if key != "format"}
            | {
                "shard": Shard(**values["shard"]),
                "maker": Maker(**values["maker"]),
                "cut": Cut(**values["cut"]),
                "region": read_region(values["region"]),
                "project": values["project"] and (Path(values["project"][0]), values["project"][1]),
                "failures": {int(place): message for place, message in values["failures"].items()},
            }
        )
    except (KeyError, TypeError, AttributeError, ValueError, InputError):
        return None
    return Run(path=path, values=record, plan=plan)


def run_files(output: Path) -> list[Path]:
    """The run files of shards in a folder, and that of a run that is not done yet."""
    return sorted(output.glob("run.*of*.json"))


def known_runs(output: Path) -> list[Run]:
    """All run files in a folder that can be read, run.json last."""
    return [run for path in (*run_files(output), output / RUN_FILE) if (run := read_run(path)) is not None]


def require_folder(output: Path) -> None:
    """Raise an InputError unless there is such a folder."""
    if not output.is_dir():
        raise InputError("no such folder", file=output, expected="the folder that `cetpick pick` was given with -o")


def refuse_other_version(output: Path) -> None:
    """Raise an InputError if run files in a folder cannot be read because another version of cetpick wrote them."""
    for path in (*run_files(output), output / RUN_FILE):
        record = read_record(path)
        if record is not None and PLAN in record and record["cetpick"] != revision() and read_run(path) is None:
            raise InputError(
                "is of another version of cetpick, and this one cannot read it",
                file=path,
                expected=revision(),
                found=record["cetpick"],
                cure="use that version, or pick again with --overwrite",
            )


def newest_run(output: Path) -> tuple[list[Run], list[Run]]:
    """The files of the run that was begun last, and those of others.

    Shards belong to one run when they share the listing, its division, the maker, the region and the cut. A shard's own
    file goes before a run.json that was made of it.

    Raises:
        InputError: there is none.
    """
    require_folder(output)
    runs = known_runs(output)
    if not runs:
        refuse_other_version(output)
        raise InputError(
            "holds no results of cetpick pick",
            file=output,
            expected="a folder with run.json or run.<i>of<N>.json",
            cure="give the folder that `cetpick pick` was given with -o",
        )
    newest = max(runs, key=lambda run: (run.plan.begun, run.path.name != RUN_FILE))
    if newest.path.name == RUN_FILE:
        return [newest], []
    shards = [run for run in runs if run.path.name != RUN_FILE]

    def identity(run: Run) -> tuple[object, ...]:
        return run.plan.shard.count, run.plan.listing, run.plan.maker, run.plan.region, run.plan.cut

    same = [run for run in shards if identity(run) == identity(newest)]
    return same, [run for run in shards if run not in same]


def merge(runs: Sequence[Run]) -> tuple[dict[str, Any], Plan]:
    """One record and plan of all shards of a run.

    Settings, versions and arguments are those of the shard that began last; inputs, warnings and seconds of all.
    """
    last = max(runs, key=lambda run: run.plan.begun)
    values = dict(last.values)
    if last.plan.shard.count > 1:
        values["shards"] = [
            {
                "shard": str(run.plan.shard),
                "started": run.values["started"],
                "device": run.values.get("device"),
                "seconds": run.values["seconds"].get("total"),
                "finished": run.plan.finished,
            }
            for run in sorted(runs, key=lambda run: run.plan.shard.number)
        ]
    values["inputs"] = {name: entry for run in runs for name, entry in run.values["inputs"].items()}
    spent = [run.values["seconds"] for run in runs]
    parts = dict.fromkeys(what for seconds in spent for what in seconds)
    values["seconds"] = {what: round(sum(seconds.get(what, 0.0) for seconds in spent), 3) for what in parts}
    failures = {place: message for run in runs for place, message in run.plan.failures.items()}
    warned = list(dict.fromkeys(text for run in runs for text in run.plan.warnings))
    finished = len({run.plan.shard.number for run in runs if run.plan.finished}) == last.plan.shard.count
    return values, replace(last.plan, shard=Shard(), failures=failures, warnings=warned, finished=finished)


def complete_record(output: Path, name: str, plan: Plan) -> TomogramRecord | None:
    """The record of a tomogram when its results are complete and those that the plan asks for."""
    record = _asked_for(output, name, plan)
    return record if record is not None and record.holds(output, *tomogram_files(output, name)) else None


def complete_records(output: Path, plan: Plan) -> list[TomogramRecord]:
    """The complete ones of all tomograms of a run but those that it failed to pick."""
    names = (name for place, name in enumerate(plan.listing) if place not in plan.failures)
    return [record for name in names if (record := complete_record(output, name, plan)) is not None]


def spoiled(output: Path, name: str, plan: Plan) -> bool:
    """Whether results of a tomogram are those that the plan asks for, but somebody has changed or removed files."""
    record, files = _asked_for(output, name, plan), tomogram_files(output, name)
    written = record is not None and len(record.outputs) == len(files)
    return record is not None and written and not record.holds(output, *files)


def _asked_for(output: Path, name: str, plan: Plan) -> TomogramRecord | None:
    """The record of a tomogram when it is of what the plan asks for."""
    record = read_tomogram_record(output, name)
    if record is None or (record.maker, record.cut) != (plan.maker, plan.cut):
        return None
    here, asked = record.info.region, plan.region
    masks = (None,) if here.mask is None else (here.mask, here.mask.parent)
    return record if (here.slab, here.keep) == (asked.slab, asked.keep) and asked.mask in masks else None


def optimisation_set(output: Path, plan: Plan) -> dict[str, str] | None:
    """How optimisation_set.star in a folder names its two files, None without one tomograms.star."""
    if plan.project is None:
        return None
    project, tomograms = plan.project
    return {"particles": str(seen_from(project, output / DATASET_FILES[0])), "tomograms": tomograms}
