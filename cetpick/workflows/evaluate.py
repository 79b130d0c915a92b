"""`evaluate`: picks and reference coordinates in, average precision, F1 and localisation error out."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.config import ParticleClass
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.coordinates import coordinate_files, read_coordinates, tells_tomogram
from cetpick.io.naming import NAME_ENDINGS as LABEL_ENDINGS
from cetpick.io.naming import find_tomogram, named_after, plain_name
from cetpick.io.tomograms import same_voxel_size
from cetpick.metrics import Margin, Result, Scene, Score, evaluate
from cetpick.peaks import suppress
from cetpick.records import Coordinates, TomogramInfo
from cetpick.workflows.convert import open_grids, require_agreement
from cetpick.workflows.inputs import InputOptions
from cetpick.workflows.record import RunRecord, prepare_output
from cetpick.workflows.report_evaluation import plot_file, write_evaluation_report
from cetpick.workflows.results import EVALUATION_FILE, RUN_FILE, read_tomogram_record, tomogram_files, view_file

DEFAULT_RADIUS = 5.0
"""Voxels."""
TRUTH_ENDINGS = ("_truth", "_reference")
NAME_ENDINGS = (*LABEL_ENDINGS, *TRUTH_ENDINGS, "_gold", "_candidates")
"""What files of picks and truth carry after the name of their tomogram."""


@dataclass(frozen=True, kw_only=True)
class PickRun:
    """What run.json of `cetpick pick` says of a tomogram.

    Attributes:
        threshold: the score from which a candidate is a pick.
        voxel_size: angstrom.
        diameter: of the particle, angstrom.
        size: voxels along x, y, z.
        separation: no pick is nearer to a better one than this fraction of the diameter; None: as candidates are.
        view: where its pictures are, if the report was made.
        excluded: voxels that were left out, by the reason.
    """

    threshold: float
    voxel_size: float
    diameter: float
    size: tuple[int, int, int] | None
    separation: float | None = None
    view: Path | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)

    def thinned(self, candidates: Coordinates) -> Coordinates:
        """The candidates that `cetpick repick --separation` has left."""
        if self.separation is None:
            return candidates
        distance = self.separation * self.diameter / self.voxel_size
        kept = suppress(candidates.xyz, candidates.table["score"].to_numpy(), distance=distance)
        return replace(candidates, table=candidates.table.iloc[kept].reset_index(drop=True))


@dataclass(frozen=True, kw_only=True)
class PointSet:
    """The picks, or the reference points, of one tomogram.

    Attributes:
        tomogram: its name.
        source: the file.
        origin: what the user named: that file, or its folder.
        coordinates: the points.
        run: the run of `cetpick pick` that made them, if one did.
    """

    tomogram: str
    source: Path
    origin: Path
    coordinates: Coordinates
    run: PickRun | None = None

    @property
    def voxel_size(self) -> float | None:
        """Angstrom, as far as the file tells."""
        return self.run.voxel_size if self.run else self.coordinates.voxel_size


@dataclass(frozen=True, kw_only=True)
class EvaluateSummary:
    """What `evaluate` tells.

    Attributes:
        tomograms: picks and reference points of each.
        thresholds: the tool's own cut in each tomogram, or that given; None where there is none.
        scored: the picks have scores; without them average precision and best F1 mean nothing.
        voxel_size: angstrom, when it is known and the same in all tomograms.
        radius_is: where the radius comes from.
        cut_is: whose the thresholds are.
        results: one for each radius.
        scenes: what was compared, by tomogram.
        report: the report, if one was asked for.
        plot: precision against recall as a file, likewise.
        lacking: why it has no slices, by tomogram.
    """

    tomograms: list[tuple[PointSet, PointSet]]
    thresholds: list[float | None]
    scored: bool
    voxel_size: float | None
    radius_is: str
    cut_is: str
    results: list[Result]
    scenes: list[Scene]
    report: Path | None = None
    plot: Path | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "tomograms": [
                {
                    "name": picks.tomogram,
                    "picks": {"file": str(picks.source), "count": len(picks.coordinates), "threshold": threshold},
                    "truth": {"file": str(truth.source), "count": len(truth.coordinates)},
                }
                for (picks, truth), threshold in zip(self.tomograms, self.thresholds, strict=True)
            ],
            "voxel_size": self.voxel_size,
            "radius_is": self.radius_is,
            **({} if self.report is None else {"report": str(self.report), "lacking": self.lacking}),
            "results": [self._result(result) for result in self.results],
        }

    def angstrom(self, voxels: float | None) -> float | None:
        """A length in angstrom, None when unknown."""
        return None if voxels is None or self.voxel_size is None else voxels * self.voxel_size

    def length(self, voxels: float) -> str:
        """A length in words."""
        angstrom = self.angstrom(voxels)
        return f"{voxels:.4g} voxels" + ("" if angstrom is None else f" ({angstrom:.4g} A)")

    def sets(self, result: Result) -> list[tuple[str, Score, float | None]]:
        """The sets of picks that a result judges: name, worth and threshold."""
        common = self.thresholds[0] if len(set(self.thresholds)) == 1 else None
        return [
            *([("best F1", result.best, result.best.threshold)] if self.scored else []),
            *([(self.cut_is, result.at_threshold, common)] if result.at_threshold else []),
            ("all", result.all_picks, None),
        ]

    def _result(self, result: Result) -> dict[str, Any]:
        return {
            "radius": result.radius,
            "radius_angstrom": self.angstrom(result.radius),
            "average_precision": result.average_precision if self.scored else None,
            "best": _score(result.best) if self.scored else None,
            "at_threshold": _score(result.at_threshold),
            "all_picks": _score(result.all_picks),
            "localisation_error": result.all_picks.localisation_error,
            "localisation_error_angstrom": self.angstrom(result.all_picks.localisation_error),
            "ignored_picks": result.ignored_picks,
            "ignored_truths": result.ignored_truths,
        }


def run_evaluate(
    picks: Sequence[Path],
    truth: Sequence[Path],
    *,
    radii: Sequence[float] = (),
    diameter: float | None = None,
    margin: Margin | None = None,
    size: tuple[int, int, int] | None = None,
    tomograms: Sequence[Path] = (),
    threshold: float | None = None,
    options: InputOptions | None = None,
    report: Path | None = None,
    leave_report: bool = True,
    plots: str | None = None,
    overwrite: bool = False,
) -> EvaluateSummary:
    """Compare picks with reference coordinates, several tomograms pooled.

    Args:
        picks: coordinate files, folders of them, and output folders of `cetpick pick`.
        truth: coordinate files named like the tomograms, folders of them, and output folders, for their picks; of
            several files for one tomogram in a folder the one that ends in _truth or _reference.
        radii: of a match, voxels; by default half the diameter, if it is known, else DEFAULT_RADIUS.
        diameter: of the particle, angstrom, in the place of that which output folders tell.
        margin: x, y, z voxels along the faces of the volume that do not count.
        size: of all volumes along x, y, z, voxels.
        tomograms: tomogram files and tomograms.star files, in the place of `size`.
        threshold: the score from which candidates are picks, in the place of the tool's own.
        options: how to read the inputs.
        report: HTML file to write the report to.
        leave_report: without `report`, and when an output folder of `cetpick pick` is all there is to judge, write it
            there as EVALUATION_FILE, in the place of an earlier one.
        plots: draw precision against recall as a file in plots/ beside it, png, svg or pdf.
        overwrite: replace an earlier one.

    Raises:
        InputError: unusable input, nothing to compare, a margin without the volume's size, or a diameter without
            voxel size; nothing was written.
        CetpickError: the report cannot be written.

    Warns:
        CetpickWarning: picks without truth and truth without picks, by name; voxel sizes that disagree; no scores; no
            report could be left in the output folder.
    """
    options = options or InputOptions()
    asked = report is not None
    if threshold is not None and not math.isfinite(threshold):
        raise InputError("unusable --threshold", expected="a score", found=f"{threshold:g}", cure="give a number")
    if asked and not leave_report:
        raise InputError("--report and --no-report contradict each other", cure="leave one of them out")
    if not asked and leave_report and len(picks) == 1 and (picks[0] / RUN_FILE).exists():
        report = picks[0] / EVALUATION_FILE
    if size is not None and tomograms:
        raise InputError("the size is given twice", cure="give either --tomogram or --shape")
    if radii and diameter is not None:
        raise InputError(
            "the radius of a match is given twice",
            expected="--radius in voxels, or --diameter in angstrom: twice the radius",
            found=f"--radius {', '.join(f'{radius:g}' for radius in radii)} and --diameter {diameter:g}",
            cure="give one of them",
        )
    if plots is not None and report is None:
        raise InputError("--plots lie beside the report", cure="add --report FILE.html")
    if report is not None and report.suffix.lower() != ".html":
        raise InputError("the report is a page", expected="a name that ends in .html", found=report, cure="name it so")
    if report is not None and asked:
        names, inputs = [report.name, *([plot_file(plots)] if plots else [])], [*picks, *truth, *tomograms]
        prepare_output(report.parent, names, overwrite=overwrite, inputs=inputs, option="--report")
    record = RunRecord("evaluate", {"radii": radii, "diameter": diameter, "margin": margin, "inputs": options})
    with record.keeping_warnings():
        infos = open_grids(tomograms, options)
        known_grids = infos or _picked_in(picks)
        found_sets = read_point_sets(picks, known_grids, options=options)
        truth_sets = read_point_sets(truth, known_grids, options=options, truth=True)
        found_sets, truth_sets = _by_file(found_sets, truth_sets), _by_file(truth_sets, found_sets)
        _add_empty(found_sets, truth_sets, infos)
        pairs = pair_by_name(found_sets, truth_sets)
        for found, wanted in pairs:
            _require_apart(found, wanted)
            if options.voxel_size is not None:
                cure = "leave out --voxel-size, which is that of the picks"
                require_agreement(found.source, found.voxel_size, options.voxel_size, cure=cure)
        scored = _are_scored([found for found, _ in pairs], threshold)
        scenes = [_scene(found, wanted, infos, size, threshold) for found, wanted in pairs]
        voxel_size = options.voxel_size or _common([found.voxel_size or wanted.voxel_size for found, wanted in pairs])
        radius_is = "as given"
        known = diameter or _common([found.run.diameter if found.run else None for found, _ in pairs])
        if not radii:
            radii, radius_is = _radius(diameter, known, voxel_size)
        summary = EvaluateSummary(
            tomograms=pairs,
            thresholds=[scene.threshold for scene in scenes],
            scored=scored,
            voxel_size=voxel_size,
            radius_is=radius_is,
            cut_is="tool's cut" if threshold is None else "--threshold",
            results=[evaluate(scenes, radius, margin) for radius in radii],
            scenes=scenes,
        )
        if report is not None:
            plot = report.parent / plot_file(plots) if plots else None
            try:
                lacking = write_evaluation_report(
                    report, summary, infos, record.values, margin=margin, diameter=known, plot=plot
                )
                summary = replace(summary, report=report, plot=plot, lacking=lacking)
            except CetpickError as error:
                if asked:
                    raise
                # the figures are there: a folder that cannot be written to takes nothing from them
                warnings.warn(f"no report: {error}", CetpickWarning, stacklevel=2)
    return summary


def read_point_sets(
    paths: Sequence[Path],
    infos: Sequence[TomogramInfo],
    *,
    options: InputOptions,
    truth: bool = False,
) -> dict[str, PointSet]:
    """Read points, by the name of their tomogram.

    Args:
        paths: coordinate files, folders of them, and output folders of `cetpick pick`.
        infos: tomograms, as far as known.
        options: how to read the files.
        truth: they are reference points: of output folders the picks, not all candidates; of several files for one
            tomogram in a folder those whose names end in TRUTH_ENDINGS.

    Raises:
        InputError: an unusable file, or two files with points in one tomogram.
    """
    files = [(path, *item) for path in paths for item in _files(path, truth=truth)]
    sets: dict[str, PointSet] = {}
    for path, file, name, run in files:
        known = _tomograms_of(file, name, infos, alone=len(files) == 1)
        for record in read_coordinates(file, tomograms=known, binned=options.binned, voxel_size=options.voxel_size):
            tomogram = record.tomogram or name
            if tomogram in sets:
                if sets[tomogram].source == file:
                    raise InputError(
                        f"two of its tomograms are called {tomogram}",
                        file=file,
                        cure="name them with --tomogram, and --names parent",
                    )
                raise InputError(
                    f"a second file with points in tomogram {tomogram}",
                    file=file,
                    found=f"the first is {sets[tomogram].source}",
                    cure="give one of them",
                )
            coordinates = run.thinned(record) if run else record
            sets[tomogram] = PointSet(tomogram=tomogram, source=file, origin=path, coordinates=coordinates, run=run)
    return sets


def _picked_in(picks: Sequence[Path]) -> list[TomogramInfo]:
    """The tomograms of output folders of `cetpick pick`, or of those that files are in, as far as records are there."""
    found = {}
    for folder in dict.fromkeys(path if path.is_dir() else path.parent for path in picks):
        for name in read_run(folder) if _is_output(folder) else ():
            if (record := read_tomogram_record(folder, name)) is not None:
                found[name] = record.info
    return list(found.values())


def _by_file(sets: Mapping[str, PointSet], others: Mapping[str, PointSet]) -> dict[str, PointSet]:
    """Sets that name a tomogram without a partner in `others` by their files' names, where these have one."""
    named = dict(sets)
    for name, item in sets.items():
        plain = _name(item.source)
        alone = sum(of.source == item.source for of in sets.values()) == 1
        if name not in others and plain in others and plain not in named and alone:
            named[plain] = replace(named.pop(name), tomogram=plain)
    return named


def _add_empty(picks: dict[str, PointSet], truth: Mapping[str, PointSet], infos: Sequence[TomogramInfo]) -> None:
    """Add empty sets for tomograms that were named, and have truth, but no particle in files that name tomograms."""
    if not picks or not all(_named(item) and item.run is None for item in picks.values()):
        return
    like = next(iter(picks.values()))
    table = like.coordinates.table.iloc[:0]
    for name in (info.name for info in infos if info.name in truth and info.name not in picks):
        none = replace(like.coordinates, table=table, tomogram=name, left_out=0)
        picks[name] = replace(like, tomogram=name, coordinates=none, run=None)


def pair_by_name(picks: dict[str, PointSet], truth: dict[str, PointSet]) -> list[tuple[PointSet, PointSet]]:
    """Pair picks and truth of the same tomogram; one file of each belong together whatever the files are called.

    Raises:
        InputError: nothing pairs.

    Warns:
        CetpickWarning: what has no partner, by name; voxel sizes that disagree.
    """
    pairs = [(found, truth[name]) for name, found in picks.items() if name in truth]
    if len(picks) == len(truth) == 1 and not (_named(*picks.values()) and _named(*truth.values())):
        if not pairs:
            (name, found), (other, wanted) = *picks.items(), *truth.items()
            if _named(found) or found.run is not None or _named(wanted) or wanted.run is not None:
                warnings.warn(
                    f"picks of {name} are compared with truth of {other} ({wanted.source}), whose names differ",
                    CetpickWarning,
                    stacklevel=2,
                )
        pairs = list(zip(picks.values(), truth.values(), strict=True))
    if not pairs:
        raise InputError(
            "no picks and truth belong to the same tomogram",
            expected=f"truth named after {', '.join(picks) or 'a tomogram with picks'}",
            found=", ".join(f"{name} ({wanted.source})" for name, wanted in truth.items()) or "no points",
            cure="rename the files after their tomograms",
        )
    paired = {id(item) for pair in pairs for item in pair}
    for problem, sets in (("picks without truth", picks), ("truth without picks", truth)):
        if lone := [
            f"{name} ({item.source}, {len(item.coordinates)} points)"
            for name, item in sets.items()
            if id(item) not in paired
        ]:
            warnings.warn(f"{problem}, left out: {', '.join(lone)}", CetpickWarning, stacklevel=2)
    for found, wanted in pairs:
        if found.voxel_size and wanted.voxel_size and not _common([found.voxel_size, wanted.voxel_size]):
            warnings.warn(
                f"{wanted.source}: {wanted.voxel_size:g} angstrom a voxel, but {found.voxel_size:g} in {found.source}; "
                "their voxels are compared as they are",
                CetpickWarning,
                stacklevel=2,
            )
    return pairs


def _require_apart(picks: PointSet, truth: PointSet) -> None:
    """Raise an InputError when both are one file, or of one output folder."""
    same_run = picks.run is not None and picks.origin.resolve() == truth.origin.resolve()
    if same_run or picks.source.resolve() == truth.source.resolve():
        raise InputError(
            "is compared with itself",
            file=picks.origin,
            expected="reference coordinates that were found otherwise",
            cure="name these as --truth",
        )


def read_run(folder: Path) -> dict[str, PickRun]:
    """What run.json in an output folder of `cetpick pick` says of each tomogram.

    Raises:
        InputError: it is no such file.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        diameter = float(record["model"]["classes"][0]["diameter"])
        return {
            str(name): PickRun(
                threshold=float(entry.get("threshold", record["threshold"])),
                voxel_size=float(entry["voxel_size"]),
                diameter=diameter,
                size=_size(entry.get("size")),
                separation=entry.get("separation"),
                view=view_file(folder, str(name)),
                excluded=entry.get("excluded_voxels", {}),
            )
            for name, entry in record["tomograms"].items()
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            "not what `cetpick pick` writes",
            file=path,
            found=f"{type(error).__name__}: {error}",
            cure="name the files with the picks in the place of the folder",
        ) from None


def _size(values: Sequence[int] | None) -> tuple[int, int, int] | None:
    if values is None:
        return None
    x, y, z = map(int, values)
    return x, y, z


def _named(item: PointSet) -> bool:
    """Whether the file itself, not only its name, says which tomogram its points are in."""
    return item.coordinates.tomogram is not None


def _is_output(path: Path) -> bool:
    return (path / RUN_FILE).is_file() and (path / "candidates").is_dir()


def _files(path: Path, *, truth: bool) -> Iterator[tuple[Path, str, PickRun | None]]:
    """The coordinate files that `path` stands for, the tomograms they are named after, and their runs."""
    if _is_output(path):
        for name, run in read_run(path).items():
            _, picks, candidates = tomogram_files(path, name)
            file = picks if truth else candidates
            if not file.exists():
                raise InputError(
                    f"is missing, though {RUN_FILE} names its tomogram",
                    file=file,
                    cure="pick again into the folder, or name files in the place of the folder",
                )
            yield file, name, None if truth else run
    elif path.is_dir():
        files, preferred = coordinate_files(path), TRUTH_ENDINGS if truth else ()
        clear = {_name(file) for file in files if file.stem.endswith(preferred)}
        yield from (
            (file, _name(file), None) for file in files if _name(file) not in clear or file.stem.endswith(preferred)
        )
    else:
        yield path, _name(path), None


def _name(path: Path) -> str:
    stem = next((path.stem.removesuffix(ending) for ending in NAME_ENDINGS if path.stem.endswith(ending)), path.stem)
    return plain_name(stem)


def _tomograms_of(file: Path, name: str, infos: Sequence[TomogramInfo], *, alone: bool) -> Sequence[TomogramInfo]:
    """Where the points of a file may lie; a file that is the only one belongs to the only tomogram."""
    if not infos or tells_tomogram(file, infos) or (alone and len(infos) == 1):
        return infos
    info = find_tomogram(name, infos) or named_after(file, infos)
    return [info] if info else []


def _are_scored(picks: Sequence[PointSet], threshold: float | None) -> bool:
    some = [item for item in picks if len(item.coordinates)]
    bare = [item for item in some if "score" not in item.coordinates.table]
    names = ", ".join(str(item.source) for item in bare)
    if bare and (threshold is not None or len(bare) < len(some)):
        raise InputError(
            "the picks of these files have no scores",
            expected="scores in all files" if threshold is None else "scores, to apply --threshold to",
            found=names,
        )
    if bare:
        warnings.warn(
            f"{names}: no scores, so there is neither an average precision nor a best threshold",
            CetpickWarning,
            stacklevel=3,
        )
    return not bare


def _scene(
    picks: PointSet,
    truth: PointSet,
    infos: Sequence[TomogramInfo],
    size: tuple[int, int, int] | None,
    threshold: float | None,
) -> Scene:
    table = picks.coordinates.table
    info = find_tomogram(picks.tomogram, infos)
    size = size or (info.grid.size if info else picks.run.size if picks.run else None)
    return Scene(
        name=picks.tomogram,
        picks=picks.coordinates.xyz,
        scores=table["score"].to_numpy(dtype=np.float64) if "score" in table else np.ones(len(table)),
        truth=truth.coordinates.xyz,
        shape=None if size is None else (size[2], size[1], size[0]),
        threshold=picks.run.threshold if threshold is None and picks.run else threshold,
    )


def _radius(given: float | None, diameter: float | None, voxel_size: float | None) -> tuple[tuple[float], str]:
    """Half the diameter, in voxels, and in words where it comes from.

    Args:
        given: the diameter that the user gave, angstrom, if so.
        diameter: that, or the one of the picks, if it is known.
        voxel_size: angstrom.
    """
    if given is not None:
        ParticleClass(diameter=given)  # checks it
        if voxel_size is None:
            raise InputError(
                "--diameter needs the voxel size, which is not known or not the same in all tomograms",
                expected="angstrom a voxel",
                cure="give --voxel-size ANGSTROM or --tomogram FILE, or --radius in voxels",
            )
    if diameter is None or voxel_size is None:
        return (DEFAULT_RADIUS,), f"the default of {DEFAULT_RADIUS:g} voxels"
    return (diameter / 2 / voxel_size,), f"half the diameter of {diameter:g} angstrom"


def _common(values: Sequence[float | None]) -> float | None:
    """The value that all agree on, up to what makes two voxel sizes different; None when one is unknown."""
    known = [value for value in values if value is not None]
    agree = len(known) == len(values) and same_voxel_size(max(known), min(known))
    return known[0] if agree else None


def _score(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {
        "threshold": score.threshold,
        "picks": score.picks,
        "matched": score.matched,
        "truths": score.truths,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "localisation_error": score.localisation_error,
    }
