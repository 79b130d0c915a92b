"""The report that `train` leaves beside a model: training curves, the scouts' numbers, labels on slices."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.errors import CetpickWarning
from cetpick.report import frame
from cetpick.report.training import TrainedOn, render
from cetpick.report.views import make_planes
from cetpick.training import TrainedModel
from cetpick.workflows.inputs import Labelled
from cetpick.workflows.record import versions


def write_training_report(
    path: Path, trained: TrainedModel, labelled: Sequence[Labelled], values: Mapping[str, Any]
) -> list[Path]:
    """Make the report of a training; one that cannot be made is a warning, no error.

    Args:
        path: of the report.
        trained: what the training left.
        labelled: its tomograms, with the labels as people gave them, in the order of `trained`.
        values: of the record of the run.

    Returns:
        The file, unless it could not be made.

    Warns:
        CetpickWarning: it could not be made.
    """
    try:
        tomograms = [
            _trained_on(trained, number, len(of.labels), with_slices=number < frame.MOST_SHOWN)
            for number, of in enumerate(labelled)
        ]
        model = Path(values["outputs"][-1])
        frame.write(path, render(model.name, tomograms, values, trained.settings, _facts(values, labelled)))
    except Exception as error:  # noqa: BLE001 - the model is there and good: nothing about the report may lose it
        warnings.warn(
            f"{path}: not made, the model is complete: {type(error).__name__}: {error}", CetpickWarning, stacklevel=2
        )
        return []
    return [path]


def _trained_on(trained: TrainedModel, number: int, labels: int, *, with_slices: bool) -> TrainedOn:
    example, diameter = trained.examples[number], trained.settings.diameter
    info = example.tomogram.info
    return TrainedOn(
        name=info.name,
        grid=info.grid,
        diameter=diameter,
        given=trained.given[number],
        labels=example.labels,
        left_out=labels - len(example.labels) - len(example.stray),
        stray=example.stray,
        doubtful=example.doubtful,
        rejected=example.rejected,
        excluded_voxels=vars(example.prepared.exclusions),
        planes=make_planes(example.prepared, info.grid, diameter=diameter) if with_slices else None,
    )


def _facts(values: Mapping[str, Any], labelled: Sequence[Labelled]) -> dict[str, str]:
    """What was run, on what, with what settings."""
    settings, sizes = values["settings"]["train"], np.unique([of.info.grid.voxel_size for of in labelled])
    files = dict.fromkeys(str(file.source) for of in labelled for file in of.label_files)
    rejected = dict.fromkeys(str(file.source) for of in labelled for file in of.rejected_files)
    return {
        "Command": shlex.join(["cetpick", *values["arguments"]]),
        "Begun": str(values["started"]),
        "Tomograms": f"{', '.join(str(of.info.path) for of in labelled)}; voxels of "
        f"{', '.join(f'{size:g}' for size in sizes)} A",
        "Labels": ", ".join(files),
        **({"Rejected places": ", ".join(rejected)} if rejected else {}),
        "Particle": f"diameter {settings.diameter:g} A",
        "Mode": settings.mode,
        "Seed": str(values["seed"]),
        "Device": str(values["device"]),
        "Time": f"{values['seconds']['training']:.0f} s",
        "Versions": versions(values),
        "Everything else": "the record beside the model, *.run.json: settings, hashes of inputs, the curve",
    }
