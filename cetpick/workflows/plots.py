"""Pictures for papers and slides: the folder of results of `pick` in, files in its folder plots/ out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cetpick import scratch
from cetpick.config import ModelSettings
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.table import read_table
from cetpick.io.tomograms import read_tomogram
from cetpick.preprocess import prepare
from cetpick.report.frame import curve_values, excluded_text
from cetpick.report.overlay import draw_averages, draw_labels
from cetpick.report.plots import DPI, plot_scores, plot_training
from cetpick.report.views import MOST_AVERAGED
from cetpick.workflows.results import PLOTS, Cut, TomogramRecord, tomogram_files


@dataclass(kw_only=True)
class Plots:
    """What was drawn.

    Attributes:
        files: the pictures.
        lacking: why there are no slices and no average, by tomogram.
    """

    files: list[Path] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)


def write_plots(
    output: Path,
    kind: str,
    records: Sequence[TomogramRecord],
    shown: Sequence[str],
    *,
    model: ModelSettings,
    cut: Cut,
    training: Mapping[str, Any],
    say: Callable[[str], None],
) -> Plots:
    """Draw scores and training curves of a run, and slices and the average of the best picks of tomograms.

    Args:
        output: folder of results.
        kind: of files: png, svg or pdf.
        records: of all tomograms.
        shown: names of those to draw; they are read.
        model: settings of the model.
        cut: of the run.
        training: what is known of the training.
        say: told in a line of every tomogram that is read.

    Raises:
        CetpickError: a file cannot be written.
        OSError: candidates cannot be read.
    """
    made, folder = Plots(), output / PLOTS
    picked, others = [np.empty(0)], [np.empty(0)]
    for record in records:
        table = record.cut.apart(
            record.info, read_table(tomogram_files(output, record.info.name)[2]).table, diameter=model.diameter
        )
        scores = table["score"].to_numpy(np.float64)
        picked.append(scores[: record.picks])
        others.append(scores[record.picks :])
    common = cut.threshold if cut.precision is None and cut.top is None else None
    path = folder / f"scores.{kind}"
    plot_scores(path, np.concatenate(picked), np.concatenate(others), cut=common)
    made.files.append(path)
    if curves := curve_values(training):
        path = folder / f"training.{kind}"
        plot_training(path, curves)
        made.files.append(path)
    for record in records:
        if record.info.name not in shown:
            continue
        try:
            made.files += _draw(output, kind, record, model)
            say(f"drew {record.info.name} for {PLOTS}")
        except CetpickError as error:
            made.lacking[record.info.name] = str(error)
    return made


def _draw(output: Path, kind: str, record: TomogramRecord, model: ModelSettings) -> list[Path]:
    """Slices and average of a tomogram.

    Raises:
        CetpickError: its file is not the same any more, or a picture cannot be written.
    """
    if not record.input.fits(record.file):
        raise InputError("is not there, or not the file any more that was picked", file=record.file)
    name, grid, diameter = record.info.name, record.info.grid, model.diameter
    picks = read_table(tomogram_files(output, name)[1]).table
    xyz, scores = picks[["x", "y", "z"]].to_numpy(np.float64), picks["score"].to_numpy(np.float64)
    slices, average = (output / PLOTS / f"{name}_{what}.{kind}" for what in ("slices", "average"))
    told = excluded_text(record.excluded_voxels, picks=record.excluded_picks)
    with warnings.catch_warnings(), scratch.using(output):
        warnings.simplefilter("ignore", CetpickWarning)  # given when it was picked
        tomogram = read_tomogram(replace(record.info, path=record.file))
        valid = prepare(tomogram, model).valid if told else None
        title = f"{name}: {record.picks} picks\n{told}".strip()
        draw_labels(
            slices, tomogram.data, grid, xyz,
            diameter=diameter, title=title, scores=scores, valid=valid, what="picks", dpi=DPI,
        )  # fmt: skip
        if not len(xyz):
            return [slices]
        best = {"best picks": xyz[:MOST_AVERAGED]}
        draw_averages(average, tomogram.data, grid, best, diameter=diameter, title=f"{name}, not aligned", dpi=DPI)
    return [slices, average]
