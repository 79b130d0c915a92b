"""`simulate`: synthetic tomograms with truth and labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.errors import CetpickWarning
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.mrc import write_mrc
from cetpick.io.table import write_table
from cetpick.io.tomograms import read_info
from cetpick.simulate import SimulationSettings, simulate
from cetpick.workflows.record import RunRecord, prepare_output

TARGET = "target"


@dataclass(frozen=True, kw_only=True)
class SimulatedTomogram:
    """Files of one synthetic tomogram.

    Attributes:
        tomogram: `<name>.mrc`.
        truth: `truth/<name>.csv`, centres of the targets in voxels.
        species: `species/<name>.csv`, centres of everything in it, with a column `species`.
        labels: `labels/<name>.mod`, a random part of the targets, or None when none were asked for.
        targets: number of targets.
    """

    tomogram: Path
    truth: Path
    species: Path
    labels: Path | None
    targets: int


def run_simulate(
    scenes: Sequence[tuple[str, SimulationSettings]], *, output: Path, labels: int = 20, overwrite: bool = False
) -> list[SimulatedTomogram]:
    """Make a tomogram for each named scene.

    Args:
        scenes: name and settings of each tomogram.
        output: folder.
        labels: how many random targets of each tomogram to write as labels; 0 for none.
        overwrite: replace earlier files.

    Raises:
        InputError: impossible settings, or files are in the way.

    Warns:
        CetpickWarning: fewer targets than labels asked for.
    """
    prepare_output(output, ["run.json", *(f"{name}.mrc" for name, _ in scenes)], overwrite=overwrite)
    record = RunRecord("simulate", {"scenes": dict(scenes), "labels": labels})
    made = []
    for name, settings in scenes:
        with record.timed(name):
            made.append(_simulate_one(name, settings, output, labels))
    record.values["outputs"] = [str(scene.tomogram) for scene in made]
    record.write(output / "run.json")
    return made


def _simulate_one(name: str, settings: SimulationSettings, output: Path, labels: int) -> SimulatedTomogram:
    scene = simulate(settings)
    targets = scene.truth[scene.truth["species"] == TARGET].drop(columns="species").reset_index(drop=True)
    if labels > len(targets):
        warnings.warn(f"{name}: only {len(targets)} targets to label, not {labels}", CetpickWarning, stacklevel=2)
        labels = len(targets)
    files = SimulatedTomogram(
        tomogram=output / f"{name}.mrc",
        truth=output / "truth" / f"{name}.csv",
        species=output / "species" / f"{name}.csv",
        labels=output / "labels" / f"{name}.mod" if labels else None,
        targets=len(targets),
    )
    write_mrc(files.tomogram, scene.data, voxel_size=scene.voxel_size)
    write_table(files.truth, targets)
    write_table(files.species, scene.truth)
    if files.labels is not None:
        info = read_info(files.tomogram, voxel_size=scene.voxel_size)
        chosen = np.random.default_rng([settings.seed, labels]).choice(len(targets), labels, replace=False)
        drawn: pd.DataFrame = targets.iloc[np.sort(chosen)]
        coordinates_to_mod(files.labels, info, drawn, radius=settings.diameter / 2)
    return files
