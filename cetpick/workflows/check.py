"""`check`: tomograms and labels in; whether the labels are on particles, and pictures that show it, out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.config import ParticleClass
from cetpick.contrast import FEWEST_LABELS, Judgement, Ranked, clearer_diameter, judge_labels, measure_response
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.geometry import Points
from cetpick.io.coordinates import pair_labels
from cetpick.io.tomograms import read_tomogram, same_voxel_size
from cetpick.preprocess import require_fitting
from cetpick.records import Tomogram, TomogramInfo
from cetpick.report.overlay import draw_averages, draw_labels
from cetpick.workflows.inputs import InputOptions, all_points, open_tomograms, points_in_file, telling_unusable
from cetpick.workflows.record import RunRecord, prepare_output

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check` tells of one tomogram.

    Attributes:
        info: the tomogram.
        labels: the label file.
        judgement: of the labels.
        diameter: of the particle, angstrom.
        diameter_note: on a diameter with more contrast, None when it is not known of one.
        voxel_size_note: on a header that disagrees with the voxel size used, None when it does not.
        pictures: files.
    """

    info: TomogramInfo
    labels: Path
    judgement: Judgement
    diameter: float
    diameter_note: str | None
    voxel_size_note: str | None
    pictures: tuple[Path, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Whether nothing looks wrong: the labels are on particles, and header and tomograms.star agree.

        A header of 1 A, which nobody set, and one that the user overrules are no fault.
        """
        return self.judgement.verdict == "fine" and not _disagree(self.info)

    @property
    def message(self) -> str:
        """The finding, in a sentence."""
        if self.judgement.verdict == "fine" and _disagree(self.info):
            told = self.judgement.message.removeprefix("fine: ")
            return f"wrong voxel size in the header or in tomograms.star; {told}"
        return self.judgement.message

    @property
    def notes(self) -> list[str]:
        """What else a user should know, a sentence each."""
        return [*self.judgement.notes, *filter(None, (self.diameter_note, self.voxel_size_note))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; lengths in voxels unless said otherwise."""
        judged = self.judgement
        shift = judged.shift
        return {
            "name": self.info.name,
            "file": str(self.info.path),
            "labels": {"file": str(self.labels), "count": judged.labels, "outside": judged.given.outside},
            "diameter_angstrom": self.diameter,
            "voxel_size": self.info.grid.voxel_size,
            "header_voxel_size": self.info.header_voxel_size,
            "fine": self.is_fine,
            "verdict": judged.verdict,
            "message": self.message,
            "contrast": judged.contrast,
            "z": judged.given.z,
            "better": judged.better.name if judged.better else None,
            "rule": judged.better.rule if judged.better else None,
            "shift": shift and {"xyz": shift.xyz, "error": shift.error, "z": shift.z},
            "ranking": [_ranked(item) for item in judged.ranking],
            "impossible": judged.impossible,
            "notes": self.notes,
            "pictures": [str(path) for path in self.pictures],
        }


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """What `check` tells.

    Attributes:
        checked: each tomogram with labels.
        failures: one message a tomogram that could not be used.
    """

    checked: list[Checked] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when nothing looks wrong, else 1."""
        return 0 if not self.failures and all(item.is_fine for item in self.checked) else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"tomograms": [item.to_dict() for item in self.checked], "failures": self.failures}


def run_check(
    tomograms: Sequence[Path],
    labels: Sequence[Path],
    *,
    diameter: float,
    output: Path | None = None,
    options: InputOptions | None = None,
    overwrite: bool = False,
) -> CheckSummary:
    """Tell whether labels are on particles, or would be if they were read in another way.

    Args:
        tomograms: tomograms and tomograms.star files.
        labels: label files, one a tomogram, or folders or STAR files for several.
        diameter: of the particle, angstrom.
        output: folder for pictures and run.json; None for neither.
        options: how to read the inputs.
        overwrite: replace earlier results.

    Raises:
        InputError: unusable input; nothing was written.
    """
    options = options or InputOptions()
    ParticleClass(diameter=diameter)  # checks it
    record = RunRecord("check", {"diameter": diameter, "inputs": options})
    with record.keeping_warnings():
        if overwrite and output is None:
            warnings.warn("--overwrite changes nothing without --output", CetpickWarning, stacklevel=2)
        infos, failures = open_tomograms(tomograms, options)
        with telling_unusable(failures):
            labelled = _labelled(infos, labels, options)
        if output is not None:
            names = [path.name for info, _, _ in labelled for path in picture_files(output, info.name)]
            inputs = [*(info.path for info, _, _ in labelled), *labels]
            prepare_output(output, [*names, RUN_FILE], overwrite=overwrite, inputs=inputs)
        summary = CheckSummary()
        for info, file, points in labelled:
            try:
                summary.checked.append(check_labels(info, file, points, diameter=diameter, output=output))
            except CetpickError as error:
                failures.append(error)
        summary.failures.extend(map(str, failures))
        if not summary.checked:
            listed = "\n".join(summary.failures)
            raise InputError(f"no labels could be checked\n{listed}")
        if output is not None:
            record.add_inputs(dict.fromkeys(path for item in summary.checked for path in (item.info.path, item.labels)))
            record.values |= summary.to_dict()
            record.values["outputs"] = [str(path) for item in summary.checked for path in item.pictures]
            record.write(output / RUN_FILE)
    return summary


def check_labels(
    info: TomogramInfo, file: Path, points: Points, *, diameter: float, output: Path | None = None
) -> Checked:
    """Judge the labels of one tomogram, and draw them if there is a folder for it.

    Args:
        info: the tomogram, not yet read.
        file: where the labels are from.
        points: (n, 3) in voxels of the tomogram, those outside of it too.
        diameter: of the particle, angstrom.
        output: folder for pictures.

    Raises:
        CetpickError: the tomogram cannot be used, not with this diameter, or a picture not be written.
    """
    require_fitting(info, diameter)
    tomogram = read_tomogram(info)
    response = measure_response(tomogram.data, info.grid, diameter=diameter)
    if not np.nanmax(np.abs(response.values), initial=0) > 0:
        raise InputError("holds no contrast: its voxels are equal, constant padding or NaN", file=info.path)
    judgement = judge_labels(response, points)
    clearer = None
    if judgement.verdict in ("fine", "undecidable") and judgement.labels >= FEWEST_LABELS:
        clearer = clearer_diameter(tomogram.data, response, points)
    checked = Checked(
        info=info, labels=file, judgement=judgement, diameter=diameter,
        diameter_note=clearer and "is --diameter right? {:g} A gives a clearer contrast ({:.1f})".format(*clearer),
        voxel_size_note=_voxel_size_note(info),
    )  # fmt: skip
    if output is None:
        return checked
    heading = f"{info.path.name} with {file.name}: {judgement.labels} labels, {diameter:g} A\n{checked.message}"
    return replace(checked, pictures=tuple(_draw(output, tomogram, points, judgement, diameter, heading)))


def picture_files(output: Path, name: str) -> tuple[Path, Path, Path]:
    """Pictures of a tomogram: labels as given, their averages, and labels in the better reading."""
    return output / f"{name}_labels.png", output / f"{name}_average.png", output / f"{name}_mended.png"


def _labelled(
    infos: Sequence[TomogramInfo], labels: Sequence[Path], options: InputOptions
) -> list[tuple[TomogramInfo, Path, Points]]:
    """Tomograms with their label files and all points in them.

    One tomogram and one file are a pair even though all of its points lie outside: `check` is to tell why.
    """
    if not labels:
        raise InputError("no labels given", cure="add --labels with the file of particle centres")
    if len(infos) == len(labels) == 1 and not labels[0].is_dir():
        return [(infos[0], labels[0], points_in_file(labels[0], infos[0], binned=options.binned))]
    pairs = pair_labels(infos, labels, binned=options.binned)
    return [
        (info, coordinates.source or labels[0], all_points(info, coordinates, binned=options.binned))
        for info, coordinates in pairs
    ]


def _draw(
    output: Path, tomogram: Tomogram, points: Points, judgement: Judgement, diameter: float, heading: str
) -> Iterator[Path]:
    grid, data = tomogram.info.grid, tomogram.data
    labels, averages, mended = picture_files(output, tomogram.info.name)
    draw_labels(labels, data, grid, points, diameter=diameter, title=heading)
    yield labels
    sets = {"labels as given": points}
    best = points
    mended.unlink(missing_ok=True)
    if better := judgement.mended(points, grid):
        how, best = better
        draw_labels(mended, data, grid, best, diameter=diameter, title=f"{heading}\nhere the labels are {how}")
        yield mended
        sets[f"labels {how}"] = best
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, len(points))
    aside = 1.5 * diameter / grid.voxel_size * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    sets["1.5 diameters aside of these"] = best + aside
    draw_averages(averages, data, grid, sets, diameter=diameter, title=heading)
    yield averages


def _voxel_size_note(info: TomogramInfo) -> str | None:
    used, header = info.grid.voxel_size, info.header_voxel_size
    if header is None:
        return f"the header holds no usable voxel size; {used:g} A is used"
    if same_voxel_size(header, used):
        return None
    source = info.relion.star if _is_of_star(info) and info.relion else "--voxel-size"
    return f"the voxel size is {header:g} A in the header, but {used:g} A by {source}, which counts"


def _is_of_star(info: TomogramInfo) -> bool:
    return info.relion is not None and info.relion.voxel_size == info.grid.voxel_size


def _disagree(info: TomogramInfo) -> bool:
    header = info.header_voxel_size
    return header not in (None, 1.0) and _is_of_star(info) and not same_voxel_size(header, info.grid.voxel_size)


def _ranked(item: Ranked) -> dict[str, Any]:
    return {"reading": item.reading.name, "z": item.z, "outside": item.outside, "moved": item.moved}
