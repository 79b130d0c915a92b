"""`repick`: the stored candidates of a folder, cut again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cetpick.config import ModelSettings, PickSettings
from cetpick.errors import InputError
from cetpick.io.lock import alone_in
from cetpick.workflows.collect import CollectSummary, run_collect
from cetpick.workflows.record import revision, write_json
from cetpick.workflows.results import DATASET_FILES, Cut, read_tomogram_record, remove, tomogram_files, write_tomogram
from cetpick.workflows.runs import merge, newest_run, plan_values


def run_repick(
    output: Path,
    settings: PickSettings,
    *,
    separation: float | None = None,
    report: bool = True,
    say: Callable[[str], None] | None = None,
) -> CollectSummary:
    """Apply another cut to the candidates that `pick` has stored, and collect the results.

    When it is stopped, the same call does the rest.

    Args:
        output: folder of results.
        settings: threshold or precision, and number of picks; what is None is as `pick` was told.
        separation: no pick is nearer to a better one than this fraction of the diameter.
        report: make report.html.
        say: told in a line of every tomogram that is seen to.

    Raises:
        InputError: no results of `pick`, an unusable separation, or another run is at work there; nothing was written.
    """
    say = say or (lambda _: None)
    runs, _ = newest_run(output)
    values, plan = merge(runs)
    model = ModelSettings.from_dict(values["model"])
    picked = PickSettings(**values["settings"]["pick"])
    _check_separation(separation, model)
    top = picked.top if settings.top is None else settings.top
    kept = picked if settings.threshold is None and settings.precision is None else settings
    cut = Cut.chosen(replace(kept, top=top), model, separation=separation)
    records = [(name, read_tomogram_record(output, name)) for name in plan.listing]
    usable = {
        name: record
        for name, record in records
        if record is not None and record.maker == plan.maker and record.holds(output, tomogram_files(output, name)[2])
    }
    if not usable:
        raise InputError("holds no candidates to cut again", file=output, cure="pick with `cetpick pick` first")
    plan = replace(plan, begun=time.time(), cut=cut)
    values |= {
        "repicked": {
            "cetpick": revision(),
            "arguments": sys.argv[1:],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "cut": cut,
        },
        **plan_values(plan),
    }
    run_file = output / plan.shard.run_file
    with alone_in(output, run_file.name):
        write_json(run_file, values)
        remove(output / name for name in DATASET_FILES)
        for number, (name, record) in enumerate(usable.items(), start=1):
            if record.cut != cut or not record.holds(output, *tomogram_files(output, name)):
                record = write_tomogram(output, replace(record, cut=cut), diameter=model.diameter)
            say(f"{number}/{len(usable)} cut {name}: {record.picks} picks of {record.candidates} candidates")
        summary = run_collect(output, report=report)
        run_file.unlink()
    return summary


def _check_separation(separation: float | None, model: ModelSettings) -> None:
    """Raise an InputError for a separation that is none, or that would bring back what picking has left out."""
    if separation is None:
        return
    least = 0.0 if model.mode == "paper" else model.separation
    if not least <= separation <= LARGEST_SEPARATION:
        raise InputError(
            "unusable --separation",
            expected=f"{least:g} to {LARGEST_SEPARATION:g} diameters; the candidates are {least:g} apart already",
            found=f"{separation:g}",
        )


LARGEST_SEPARATION = 5.0
"""Diameters; more is a mistake of units."""
