"""The results of a tomogram in the folder of `pick`: its files, and a record beside them.

`records/<name>.json` is written before the files of a tomogram, without them, and again after them: what it names is
complete. What a run set out to do is in runs.py. Nothing here needs torch, or the voxels of a tomogram.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from cetpick.calibration import Expectation, expectations, precision_threshold
from cetpick.config import Mode, ModelSettings, PickSettings
from cetpick.errors import InputError
from cetpick.geometry import Points, as_points
from cetpick.interrupts import held_signals
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.table import read_table, write_table
from cetpick.peaks import suppress
from cetpick.records import Grid, Picks, Region, RelionTomogram, TomogramInfo
from cetpick.workflows.record import Stamp, read_json, revision, set_aside, size_and_time, write_json

FORMAT = 1
"""Of records and plans; what has another one is not read."""
RUN_FILE = "run.json"
RECORDS = "records"
"""Folder of the records of the tomograms."""
VIEWS = "views"
"""Folder of their pictures for the report."""
REPORT_FILE = "report.html"
EVALUATION_FILE = "evaluation.html"
"""Left by `evaluate`, and removed with the picks that it is of."""
PLOTS = "plots"
"""Folder of pictures as files, which go with the picks that they are of."""
PLOT_KINDS = ("png", "svg", "pdf")
DATASET_FILES = ("particles.star", "optimisation_set.star", "expected_precision.csv", REPORT_FILE, RUN_FILE)
ALL_TOGETHER = (
    EVALUATION_FILE,
    *(f"{PLOTS}/{what}.{kind}" for what in ("scores", "training", "precision_recall") for kind in PLOT_KINDS),
)
"""What `evaluate` and `report` may have drawn of all tomograms together, besides the report itself."""
Todo = Literal["pick", "cut", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What decides the candidates besides the tomogram.

    Attributes:
        cetpick: version and code.
        model: SHA-256 of the model file.
        calibrated: its scores are probabilities.
    """

    cetpick: str = field(default_factory=revision)
    model: str
    calibrated: bool

    def unlike(self, other: Maker) -> str | None:
        """How `other` differs, for a message; None when it does not."""
        if self.cetpick != other.cetpick:
            return f"made by cetpick {other.cetpick}, this is {self.cetpick}"
        if self.model != other.model:
            return f"made with another model, SHA-256 {other.model[:12]}... and not {self.model[:12]}..."
        return None if self == other else "made with scores of another kind"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which candidates are picks.

    Attributes:
        threshold: the score from which a candidate is one.
        precision: instead, from the score on down to which this precision is expected in the tomogram; None: no.
        top: at most this many of them, the best ones; None for all.
        separation: none nearer to a better one than this fraction of the diameter; None: as candidates are.
    """

    threshold: float
    precision: float | None = None
    top: int | None = None
    separation: float | None = None

    @classmethod
    def chosen(cls, settings: PickSettings, model: ModelSettings, *, separation: float | None = None) -> Self:
        """What the user asked for, where nothing was asked for with the model's own threshold.

        Raises:
            InputError: a precision, of a model whose scores are no probabilities.
        """
        if not model.calibration:
            refuse_precision(settings, model.mode)
        threshold = model.threshold if settings.threshold is None else settings.threshold
        return cls(threshold=threshold, precision=settings.precision, top=settings.top, separation=separation)

    @property
    def told(self) -> str:
        """In a few words."""
        told = f"threshold {self.threshold:.3f}" if self.precision is None else f"target precision {self.precision:g}"
        if self.top is not None:
            told += f", at most {self.top} picks a tomogram"
        return told if self.separation is None else f"{told}, {self.separation:g} diameters apart"

    def apart(self, info: TomogramInfo, candidates: pd.DataFrame, *, diameter: float) -> pd.DataFrame:
        """The candidates that `separation` leaves, those as they are without one; arguments as of apply."""
        if self.separation is None:
            return candidates
        points = candidates[["x", "y", "z"]].to_numpy() * info.grid.voxel_size
        kept = suppress(points, candidates["score"].to_numpy(), distance=self.separation * diameter)
        return candidates.iloc[kept]

    def apply(self, info: TomogramInfo, candidates: pd.DataFrame, *, diameter: float) -> Picks:
        """Cut the candidates of a tomogram (columns x, y, z in voxels, score); diameter in angstrom."""
        candidates = self.apart(info, candidates, diameter=diameter)
        threshold = self.threshold
        if self.precision is not None:
            threshold = precision_threshold(candidates["score"], self.precision)
        return Picks(info=info, candidates=candidates, threshold=threshold, top=self.top)


def told_of_cut(cut: Cut, *, picks: int, particles: float, everything: float | None) -> str:
    """A cut and what it is expected to give in all tomograms, in a line.

    Args:
        cut: the cut.
        picks: number of picks.
        particles: how many of them are expected to be particles.
        everything: how many particles are expected in all, None when scores are no probabilities.
    """
    if everything is None or not picks:
        return cut.told
    return (
        f"{cut.told}; expected: {particles:.0f} of the {picks} picks are particles "
        f"(precision {particles / picks:.0%}), of {everything:.0f} in the tomograms "
        f"(recall {particles / everything:.0%})"
    )


def refuse_precision(settings: PickSettings, mode: Mode) -> None:
    """Raise an InputError for a target precision, of a model of `mode` whose scores are no probabilities."""
    if settings.precision is not None:
        raise InputError(
            "--target-precision needs scores that are probabilities",
            expected="a model of `default` mode, fully trained",
            found=f"one of `{mode}` mode"
            + ("" if mode == "paper" else " with too few steps or candidates to calibrate its scores"),
            cure="give --threshold",
        )


@dataclass(frozen=True, kw_only=True)
class TomogramRecord:
    """How the results of one tomogram were made.

    Attributes:
        maker: what decided the candidates.
        file: the tomogram, its real path.
        input: of the tomogram's file.
        info: what is known of it without its voxels; without what else its header says.
        device: that computed.
        picked: when.
        seconds: that it took.
        candidates: how many there are.
        best_score: of them, None when there is none.
        excluded_voxels: how many, by the reason.
        excluded_picks: how many more candidates with a score from the model's threshold on lie where nothing counts.
        warnings: that were given.
        cut: which of the candidates are picks.
        labels: x, y, z of the labels in it that the training was given, voxels; none when they are not known.
        rejected: x, y, z of places that are no particles, voxels; nothing within half a diameter is a candidate.
        rejected_candidates: how many were left out for that.
        picks: how many are.
        lowest: the score from which they are, also when the cut's `top` or `precision` decides.
        particles: how many of the picks are expected to be particles.
        expected: what other thresholds are expected to give.
        outputs: files in the folder of results; those that are not complete are missing.
    """

    maker: Maker
    file: Path
    input: Stamp
    info: TomogramInfo
    device: str
    picked: str
    seconds: float
    candidates: int
    best_score: float | None
    excluded_voxels: Mapping[str, int]
    warnings: Sequence[str]
    cut: Cut
    labels: Sequence[Sequence[float]] = ()
    rejected: Sequence[Sequence[float]] = ()
    rejected_candidates: int = 0
    excluded_picks: int = 0
    picks: int = 0
    lowest: float = 0.0
    particles: float = 0.0
    expected: Sequence[Expectation] = ()
    outputs: Mapping[str, Stamp] = field(default_factory=dict)

    def holds(self, output: Path, *paths: Path) -> bool:
        """Whether these files of it are complete, and as they were written."""
        return all((stamp := self.outputs.get(_key(output, path))) and stamp.fits(path) for path in paths)

    @property
    def found(self) -> TomogramInfo:
        """`info`, with a path that leads to the file from the present working folder too."""
        leads = self.info.path.resolve() == self.file or not self.file.exists()  # of a folder that was moved
        return self.info if leads else replace(self.info, path=self.file)

    def note(self) -> dict[str, Any]:
        """What run.json tells of the tomogram."""
        return {
            "file": self.info.path,
            "size": self.info.grid.size,
            "voxel_size": self.info.grid.voxel_size,
            "threshold": self.lowest,
            **({} if self.cut.separation is None else {"separation": self.cut.separation}),
            "picks": self.picks,
            "candidates": self.candidates,
            **(
                {"rejected": len(self.rejected), "rejected_candidates": self.rejected_candidates}
                if self.rejected
                else {}
            ),
            **self._expected(),
            "excluded_voxels": self.excluded_voxels,
            "excluded_picks": self.excluded_picks,
            "device": self.device,
            "picked": self.picked,
            "seconds": self.seconds,
        }

    def _expected(self) -> dict[str, float]:
        if not self.expected:
            return {}
        everything = self.expected[0].particles
        told = {"expected_particles": everything}
        if self.picks:
            told |= {"expected_precision": self.particles / self.picks, "expected_recall": self.particles / everything}
        return {name: round(value, 3) for name, value in told.items()}


def tomogram_files(output: Path, name: str) -> tuple[Path, Path, Path]:
    """Model, table and candidates of a tomogram."""
    return output / f"{name}.mod", output / f"{name}.csv", output / "candidates" / f"{name}.csv"


def record_file(output: Path, name: str) -> Path:
    """The record of a tomogram."""
    return output / RECORDS / f"{name}.json"


def recorded(output: Path) -> list[str]:
    """Names of the tomograms of which a folder has records; hidden files, as a killed process leaves them, are none."""
    return sorted(path.stem for path in (output / RECORDS).glob("*.json") if not path.name.startswith("."))


def view_file(output: Path, name: str) -> Path:
    """The pictures of a tomogram for the report."""
    return output / VIEWS / f"{name}.json"


def plot_files(output: Path, name: str) -> tuple[Path, ...]:
    """Pictures of a tomogram as files, as there may be."""
    return tuple(output / PLOTS / f"{name}_{what}.{kind}" for what in ("slices", "average") for kind in PLOT_KINDS)


def files_of(output: Path, name: str) -> tuple[Path, ...]:
    """All that there may be of a tomogram, its record first."""
    return record_file(output, name), *tomogram_files(output, name), view_file(output, name), *plot_files(output, name)


def read_tomogram_record(output: Path, name: str) -> TomogramRecord | None:
    """The record of a tomogram, None when there is none that can be read."""
    values = read_json(record_file(output, name))
    if values is None or values.pop("format", None) != FORMAT:
        return None
    try:
        return TomogramRecord(
            **values
            | {
                "maker": Maker(**values["maker"]),
                "file": Path(values["file"]),
                "input": Stamp(**values["input"]),
                "info": _info(values["info"]),
                "cut": Cut(**values["cut"]),
                "expected": [Expectation(*line) for line in values["expected"]],
                "outputs": {file: Stamp(**stamp) for file, stamp in values["outputs"].items()},
            }
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def judge(
    output: Path,
    info: TomogramInfo,
    record: TomogramRecord | None,
    maker: Maker,
    cut: Cut,
    *,
    rejected: Points,
) -> tuple[Todo, str | None]:
    """What is to be done for a tomogram in a folder that may hold results of it.

    Args:
        output: the folder.
        info: the tomogram.
        record: of it, if there is one.
        maker: that is to make the candidates.
        cut: that is to be applied.
        rejected: places (n, 3) in it where nothing is to be picked, voxels.

    Returns:
        What to do; and what makes the results that are there those of something else, None when they are not.
    """
    files = tomogram_files(output, info.name)
    if record is None:
        file = record_file(output, info.name)
        if file.exists() and read_json(file) is None:  # cut off when the machine stopped
            return "pick", None
        present = [_key(output, path) for path in files if path.exists()]
        return "pick", f"{', '.join(present)}: no record of how they were made" if present else None
    name = _key(output, record_file(output, info.name))
    if unlike := maker.unlike(record.maker):
        return "pick", f"{name}: {unlike}"
    moved = info.path.resolve() != record.file
    same = record.input.fits(info.path, content=moved)
    if moved and not same:
        return "pick", f"{name}: of another tomogram of this name, {record.file}"
    changed = (record.info.grid, record.info.region) != (info.grid, info.region)
    changed |= not np.array_equal(as_points(record.rejected), rejected)
    if not same or changed or not record.holds(output, files[2]):
        return "pick", None
    return "nothing" if record.cut == cut and record.holds(output, *files) else "cut", None


def renewed(output: Path, record: TomogramRecord, info: TomogramInfo) -> TomogramRecord:
    """The record of results that stay, with the tomogram as it is called now; saved when that changes anything.

    Files that were copied get their new time, so that they need not be read again the next time.
    """
    outputs = {
        name: replace(stamp, modified=size_and_time(output / name)[1])
        for name, stamp in record.outputs.items()
        if stamp.fits(output / name)
    }
    now = replace(
        record,
        info=replace(info, header={}),
        file=info.path.resolve(),
        input=replace(record.input, modified=size_and_time(info.path)[1]),
        outputs=outputs,
    )
    if now != record:
        save_record(output, now)
    return now


def save_record(output: Path, record: TomogramRecord) -> None:
    """Write the record of a tomogram, atomically."""
    write_json(record_file(output, record.info.name), {"format": FORMAT, **vars(record)})


def write_tomogram(
    output: Path, record: TomogramRecord, *, diameter: float, candidates: pd.DataFrame | None = None
) -> TomogramRecord:
    """Write the files of a tomogram, its record before and after them.

    Args:
        output: the folder.
        record: of the tomogram; its cut is applied.
        diameter: of the particle, angstrom.
        candidates: of the tomogram; None for those that are there already.

    Returns:
        The record as it is now.

    Raises:
        CetpickError: a file cannot be written.
        OSError: the candidates cannot be read.
    """
    model, table, stored = tomogram_files(output, record.info.name)
    key = _key(output, stored)
    outputs = {key: record.outputs[key]} if candidates is None else {}
    found = read_table(stored).table if candidates is None else candidates
    picks = record.cut.apply(record.info, found, diameter=diameter)
    with held_signals():
        set_edited_aside(output, record.info.name)
        save_record(output, replace(record, outputs=outputs))
        remove(plot_files(output, record.info.name))
        coordinates_to_mod(model, record.info, picks.accepted, radius=diameter / 2)
        write_table(table, picks.accepted)
        written = [model, table]
        if candidates is not None:
            write_table(stored, candidates)
            written.append(stored)
        outputs |= {_key(output, file): Stamp.of(file) for file in written}
        record = replace(
            record,
            picks=len(picks.accepted),
            lowest=picks.cut,
            particles=float(picks.accepted["score"].sum()) if record.maker.calibrated else 0.0,
            expected=expectations(
                picks.candidates["score"].nlargest(record.cut.top or len(found)), everything=float(found["score"].sum())
            )
            if record.maker.calibrated
            else (),
            outputs=outputs,
        )
        save_record(output, record)
    return record


def set_edited_aside(output: Path, name: str) -> None:
    """Rename picks of a tomogram that are not as they were written, or not by cetpick for all that is known.

    They are somebody's work in 3dmod, which is not written over.

    Warns:
        CetpickWarning: some were.
    """
    before = read_tomogram_record(output, name)
    for path in tomogram_files(output, name)[:2]:
        stamp = None if before is None else before.outputs.get(_key(output, path))
        if before is None or stamp is not None:
            set_aside(path, stamp)


def remove(paths: Iterable[Path]) -> None:
    """Remove files, those that are there."""
    for path in paths:
        # the second where a file has the name that a folder of ours has
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def discard(output: Path, name: str) -> None:
    """Remove what there is of a tomogram, its record first, but for what somebody has edited."""
    set_edited_aside(output, name)
    remove(files_of(output, name))


def clear(output: Path, names: Iterable[str], *, together: bool = True) -> None:
    """Remove what there is of these tomograms, as `discard` does, and what tells of all `together`."""
    if together:
        remove(output / file for file in (*DATASET_FILES, *ALL_TOGETHER))
    for name in names:
        discard(output, name)


def read_region(values: Mapping[str, Any]) -> Region:
    """A region that was written as JSON."""
    return Region(
        mask=values["mask"] and Path(values["mask"]),
        mask_version=values["mask_version"] and tuple(values["mask_version"]),
        slab=values["slab"] and tuple(values["slab"]),
        keep=tuple(values.get("keep", ())),
    )


def _key(output: Path, path: Path) -> str:
    return path.relative_to(output).as_posix()


def _info(values: Mapping[str, Any]) -> TomogramInfo:
    grid, relion = values["grid"], values["relion"]
    return TomogramInfo(
        name=values["name"],
        path=Path(values["path"]),
        grid=Grid(shape=tuple(grid["shape"]), voxel_size=grid["voxel_size"], origin=tuple(grid["origin"])),
        header_voxel_size=values["header_voxel_size"],
        relion=relion
        and RelionTomogram(
            **relion | {"size": tuple(relion["size"]), "star": Path(relion["star"]), "project": Path(relion["project"])}
        ),
        region=read_region(values["region"]),
    )
