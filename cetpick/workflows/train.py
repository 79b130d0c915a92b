"""`train`: tomograms and a few labels in, one model file out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cetpick import scratch
from cetpick.checkpoint import save_model
from cetpick.config import ModelSettings, TrainSettings
from cetpick.devices import device_name, resolve_device
from cetpick.errors import CetpickWarning, InputError, TrainingError
from cetpick.interrupts import held_signals
from cetpick.io.lock import alone_in
from cetpick.io.model import read_settings
from cetpick.io.tomograms import read_tomogram
from cetpick.optimisation import Progress
from cetpick.resume import Checkpoint
from cetpick.training import TrainedModel, train
from cetpick.workflows.inputs import (
    InputOptions,
    Labelled,
    foreign_files,
    open_labelled,
    open_training,
    read_places,
    require_right_labels,
)
from cetpick.workflows.record import (
    RunRecord,
    checkpoint_beside,
    prepare_output,
    record_beside,
    refuse_earlier,
    report_beside,
    revision,
)
from cetpick.workflows.report_training import write_training_report

POINTS = 200
"""Of a training curve in the record."""


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What `train` tells.

    Attributes:
        model: the model file.
        record: the run's record beside it.
        report: its report beside it, None when none was made now.
        settings: of the model.
        rejected: number of places that were given as no particles.
        done_before: the model was there already, made by this very training.
    """

    model: Path
    record: Path
    report: Path | None = None
    settings: ModelSettings
    rejected: int = 0
    done_before: bool = False

    @property
    def labels(self) -> int:
        """How many it learned from."""
        return sum(self.settings.provenance["labels"].values())


def run_train(
    tomograms: Sequence[Path],
    labels: Sequence[Path],
    settings: TrainSettings,
    *,
    output: Path,
    reject: Sequence[Path] = (),
    added: Sequence[Path] = (),
    options: InputOptions | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainSummary:
    """Train on labelled tomograms and write a model file, its run record and report; once only, with the same inputs.

    Args:
        tomograms: training tomograms, or tomograms.star files.
        labels: label files, one a tomogram, or folders or STAR files for several.
        settings: of the training.
        output: the model file; the record is written beside it as `<stem>.run.json`, the report as
            `<stem>.report.html`.
        reject: files of places that are no particles, paired with tomograms as labels are.
        added: files of further labels, which were found by looking at picks.
        options: how to read the inputs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads.
        resume: go on from the checkpoint of a training that was stopped, if there is one.
        overwrite: replace an earlier model, and without `resume` a checkpoint.
        report: make the report.
        progress: told of every step.
        say: told in a line of each file that is not named after its tomogram.

    Raises:
        InputError: unusable input, or another process trains this model; nothing was written.
        TrainingError: the training failed; nothing was written.
    """
    options = options or InputOptions()
    names = [output.name, record_beside(output).name, report_beside(output).name]
    prepare_output(output.parent, names, overwrite=True, inputs=[*tomograms, *labels, *reject, *added])
    record = RunRecord("train", {"train": settings, "inputs": options})
    with record.keeping_warnings(), scratch.using(output.parent):
        infos = open_training(tomograms, options)
        rejected = read_places(reject, infos, options, what="rejected places")
        more = read_places(added, infos, options, what="added labels")
        labelled = open_labelled(infos, labels, settings, options, rejected=rejected, added=more)
        if say is not None:
            for line in foreign_files(labelled):
                say(line)
        refused = sum(len(of.rejected) for of in labelled)
        if not overwrite:
            if is_model_of(output, labelled, settings, record):
                return TrainSummary(
                    model=output, record=record_beside(output), settings=read_settings(output), rejected=refused,
                    done_before=True,
                )  # fmt: skip
            refuse_earlier(output.parent, names)
        with alone_in(output.parent, output.name):
            trained = train_and_save(
                labelled, settings, output, record, options=options, device=device, threads=threads, resume=resume,
                overwrite=overwrite, report=report, progress=progress,
            )  # fmt: skip
    page = report_beside(output)
    return TrainSummary(
        model=output, record=record_beside(output), report=page if page.exists() else None, settings=trained.settings,
        rejected=refused,
    )  # fmt: skip


def note_inputs(labelled: Sequence[Labelled], record: RunRecord) -> None:
    """Note the files that a training reads in its record, with their hashes."""
    inputs: list[Any] = [of.info.path for of in labelled]
    inputs += [of.info.relion.star for of in labelled if of.info.relion is not None]
    inputs += [of.info.region.mask for of in labelled if of.info.region.mask is not None]
    inputs += [file.source for of in labelled for file in (*of.label_files, *of.rejected_files) if file.source]
    record.add_inputs(path for path in dict.fromkeys(inputs) if str(path) not in record.values["inputs"])


def is_model_of(
    model: Path,
    labelled: Sequence[Labelled],
    settings: TrainSettings,
    record: RunRecord,
) -> bool:
    """Whether a model file is there and is what this training made; then `record` gets the hashes of its inputs."""
    if not model.is_file():
        return False
    try:
        provenance = read_settings(model).provenance
    except InputError:
        return False
    note_inputs(labelled, record)
    return provenance.get("training") == _hash(_identity(labelled, settings, record))


def train_and_save(
    labelled: Sequence[Labelled],
    settings: TrainSettings,
    output: Path,
    record: RunRecord,
    *,
    options: InputOptions,
    device: str,
    threads: int | None,
    resume: bool = False,
    overwrite: bool = False,
    make_way: Callable[[], None] | None = None,
    report: bool = True,
    progress: Progress | None,
) -> TrainedModel:
    """Train, write the model file, note all of it in `record`, and write that, and the report, beside the model.

    The state of the training is kept beside the model in `<stem>.checkpoint` until it is done. What `make_way` removes
    is there until the model is.

    Raises:
        InputError: the checkpoint of a stopped training is there and it was not said what to do with it, or it is of
            another training; labels are clearly swapped or scaled.
        TrainingError: the training failed.

    Warns:
        CetpickWarning: labels that may be swapped, scaled or shifted; they are used as they are. No report.
    """
    resolved = resolve_device(device, threads=threads)
    note_inputs(labelled, record)
    identity = _identity(labelled, settings, record)
    checkpoint = Checkpoint(
        checkpoint_beside(output),
        identity=identity,
        environment=f"{resolved.type} with {torch.get_num_threads()} threads and torch {torch.__version__}",
    )
    if resume:
        checkpoint.load()
    elif checkpoint.path.exists() and not overwrite:
        raise InputError(
            "a training was stopped here",
            file=checkpoint.path,
            cure="add --resume to go on with it, or --overwrite to start again",
        )
    examples = [(read_tomogram(of.info), of.labels) for of in labelled]
    rejected = [of.rejected for of in labelled]
    with record.timed("checking labels"):
        for (tomogram, _), of in zip(examples, labelled, strict=True):
            require_right_labels(tomogram, of.label_files, settings.diameter, options)
    if not resume:
        checkpoint.remove()
    with record.timed("training"):
        try:
            trained = train(
                examples,
                settings,
                rejected=rejected,
                chosen=[of.chosen for of in labelled],
                device=resolved,
                progress=progress,
                checkpoint=checkpoint,
            )
        except TrainingError:
            checkpoint.remove()  # it leads to the same failure again
            raise
        except (KeyboardInterrupt, SystemExit):
            if checkpoint.path.exists():
                warnings.warn(
                    f"{checkpoint.path}: the state of the training; the same command with --resume goes on with it",
                    CetpickWarning,
                    stacklevel=2,
                )
            raise
    known = {
        "labels": {e.tomogram.info.name: len(e.labels) for e in trained.examples},
        "added": {of.info.name: int(of.chosen.sum()) for of in labelled if of.chosen.any()},
        "rejected": {of.info.name: len(of.rejected) for of in labelled if len(of.rejected)},
    }
    stray = {e.tomogram.info.name: e.stray.round(2).tolist() for e in trained.examples if len(e.stray)}
    provenance = {"cetpick": revision(), "seed": settings.seed, "steps": len(trained.log), **known}
    provenance["training"] = _hash(identity)
    trained = replace(trained, settings=replace(trained.settings, provenance=provenance))
    last = trained.log[-1]
    record.values |= {
        "device": device_name(resolved),
        "seed": settings.seed,
        "model": trained.settings,
        "training": {
            "steps": len(trained.log),
            **known,
            "stray_labels": stray,
            "identity": provenance["training"],
            "resumed": checkpoint.resumed,
            "recipe": trained.recipe,
            "final": last,
            "clamped_share": _share(trained.log, "clamped"),
            "curve": thinned(trained.log),
            "scouts": [
                {
                    "hidden": scout.hidden,
                    "found": scout.found,
                    "ranks": [int(rank) if np.isfinite(rank) else None for rank in scout.ranks],
                    "curve": thinned(scout.log),
                }
                for scout in trained.scouts
            ],
        },
    }
    record.values["outputs"].append(str(output))
    with held_signals():
        if make_way is not None:
            make_way()
        save_model(output, trained.network, trained.settings)
        record.write(record_beside(output))
        checkpoint.remove()
        report_beside(output).unlink(missing_ok=True)  # an old one would tell of another model
    if report:
        with record.timed("pictures"):
            made = write_training_report(report_beside(output), trained, labelled, record.values)
        record.values["outputs"] += map(str, made)
        record.write(record_beside(output))
    return trained


def thinned(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Evenly chosen steps of a training's log, from POINTS to twice as many if there are more."""
    return list(log[:: max(1, len(log) // POINTS)])


def _identity(labelled: Sequence[Labelled], settings: TrainSettings, record: RunRecord) -> dict[str, str]:
    """What tells a training from others, by what it is called; the hashes of its tomograms are those in `record`.

    Not the paths: a training that was moved is the same.
    """
    values: dict[str, Any] = {"version of cetpick": revision()}
    values |= {name.replace("_", "-"): value for name, value in dataclasses.asdict(settings).items()}
    for number, of in enumerate(labelled, start=1):
        region = of.info.region
        of_it = {
            "voxels": record.values["inputs"][str(of.info.path)],
            "voxel size": of.info.grid.voxel_size,
            "mask": region.mask_version,
            "slab": region.slab,
            "keep": region.keep,
            "labels": _hash_of(of.labels.xyz),
            "added labels": _hash_of(of.labels.xyz[of.chosen]),
            "rejected places": _hash_of(of.rejected),
        }
        values |= {f"{what} of tomogram {number}": value for what, value in of_it.items()}
    return {what: json.dumps(value) for what, value in values.items()}


def _hash(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _hash_of(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _share(log: Sequence[dict[str, float]], key: str) -> float | None:
    values = [entry[key] for entry in log if key in entry]
    return sum(values) / len(values) if values else None
