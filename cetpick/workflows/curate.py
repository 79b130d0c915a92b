"""`curate`: what people deleted from picks and added to them, as rejected places and labels for a second round."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.calibration import Count, count_from_answers, within
from cetpick.config import ModelSettings, ParticleClass
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points, as_points
from cetpick.io.atomic import all_or_none
from cetpick.io.coordinates import pair_files, read_coordinates, write_coordinates
from cetpick.io.naming import find_tomogram
from cetpick.io.table import read_table
from cetpick.metrics import match
from cetpick.records import Coordinates, TomogramInfo
from cetpick.workflows.convert import open_grids
from cetpick.workflows.inputs import InputOptions
from cetpick.workflows.record import RunRecord, prepare_output
from cetpick.workflows.results import RUN_FILE, TomogramRecord, read_tomogram_record, tomogram_files
from cetpick.workflows.runs import merge, newest_run, read_run, run_files

TOLERANCE = 2.0
"""Voxels that a point may have moved by and still be the same: RELION's picker moves all by an unbinned pixel."""
SUGGESTED, SUGGESTED_TABLE, CONSIDERED = "suggested.star", "suggested.csv", "candidates.csv"
"""What `suggest` leaves: places, with their scores, and the scores of all that they were drawn from."""
BY_CHANCE = 0.1
"""Points of another tomogram may seem to be picks that were moved, in so many cases for each that was not."""
FEWEST_AMISS, SAME_POINT = 3, 0.01
"""So many points that only another cut explains are said, to within so many voxels."""
FILES = ("rejected.star", "added.star", "kept.star")
RECORD = "curate.json"


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What became of the picks of a tomogram; tables have the columns x, y, z (voxels) and, of picks, score.

    Attributes:
        info: the tomogram.
        kept: picks that are still there.
        rejected: picks that were deleted.
        added: points that were not picked.
        moved: how many picks were deleted within half a diameter of a point that is there now: neither kept nor
            rejected.
        asked: (n,) scores of suggested places; empty when none was.
        particles: (n,) whether these are: kept, or moved to an added point.
    """

    info: TomogramInfo
    kept: pd.DataFrame
    rejected: pd.DataFrame
    added: pd.DataFrame
    moved: int
    asked: NDArray[np.float64]
    particles: NDArray[np.bool_]

    @property
    def counts(self) -> dict[str, int]:
        """In numbers."""
        tables = {"kept": self.kept, "rejected": self.rejected, "added": self.added}
        return {what: len(table) for what, table in tables.items()} | {"moved": self.moved}


@dataclass(kw_only=True)
class CurateSummary:
    """What `curate` tells.

    Attributes:
        output: folder.
        tomograms: what was kept, rejected, added and moved in each, by name.
        paths: of these tomograms, those with anything to learn from.
        skipped: names of tomograms with picks and no curated point, taken as not looked at.
        files: that were written, by what they hold.
        diameter: of the particle, angstrom.
        count: particles in a tomogram, told by the answers to places that were drawn at random; None when they tell
            none.
        command: words of the command that made the picks, when it trained on labels.
        folder: that it was given in, where that is another one than the present.
    """

    output: Path
    tomograms: dict[str, dict[str, int]] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    diameter: float
    count: Count | None = None
    command: list[str] = field(default_factory=list)
    folder: Path | None = None

    @property
    def untouched(self) -> list[str]:
        """Names of tomograms where all picks are as they were."""
        return [name for name, n in self.tomograms.items() if n["kept"] and not n["rejected"] + n["added"] + n["moved"]]

    @property
    def next_command(self) -> str:
        """The command of a second round; without what its way to train does not know."""
        paper = ("--mode", "paper") in pairwise(self.command)
        said = [
            word
            for what, path in self.files.items()
            if not (paper and what == "rejected")
            for word in ("--reject" if what == "rejected" else "--added", self._seen(path))
        ]
        said += ["--count-hint", f"{max(1.0, self.count.expected):.0f}"] if self.count else []
        if not self.command:
            return f"cetpick pick TOMOGRAMS --labels LABELS {shlex.join(said)} --diameter {self.diameter:g} -o NEW"
        words = iter(self.command)
        kept = list[str]()
        trained = set[Path]()
        for word in words:
            if word in ("-o", "--output") or (self.count and word == "--count-hint"):
                next(words)
            elif word not in ("--overwrite", "--resume"):
                kept.append(word)
                named = (self.folder or Path()) / kept[-1]
                trained |= {named.resolve()} if kept[-2:-1] == ["--train"] else set()
        # all tomograms with labels or rejected places are learned from, unless some are named
        more = [path for path in self.paths if path.resolve() not in trained] if trained else []
        said += [word for path in more for word in ("--train", self._seen(path))]
        there = f"cd {shlex.quote(str(self.folder))} && " if self.folder else ""
        return f"{there}cetpick {shlex.join([*kept, *said])} -o NEW"

    def _seen(self, path: Path) -> str:
        """A path that leads to the file from `folder` too."""
        return str(path.absolute() if self.folder else path)


def run_curate(
    picks: Path,
    curated: Sequence[Path],
    *,
    output: Path,
    tomograms: Sequence[Path] = (),
    diameter: float | None = None,
    tolerance: float = TOLERANCE,
    keep: bool = False,
    emptied: bool = False,
    options: InputOptions | None = None,
    overwrite: bool = False,
) -> CurateSummary:
    """Compare picks with what people made of them.

    Args:
        picks: output folder of `pick`; or a coordinate file, such as one in that folder or of `suggest`.
        curated: coordinate files of any known format, or folders of them, paired with tomograms as labels are.
        output: folder of rejected.star, added.star and curate.json.
        tomograms: of the picks, when they lie in no output folder.
        diameter: of the particle in angstrom, then also needed.
        tolerance: voxels that a pick may have moved by and still be the same.
        keep: write kept.star too.
        emptied: tomograms without curated points were emptied; else they are taken as not looked at.
        options: how to read the inputs.
        overwrite: replace earlier files.

    Raises:
        InputError: unusable input, or points that have nothing to do with the picks; nothing was written.
    """
    options = options or InputOptions()
    if diameter is not None:
        ParticleClass(diameter=diameter)  # checks it
    if not 0 < tolerance < np.inf:
        raise InputError("unusable --tolerance", expected="a distance above 0 voxels", found=f"{tolerance:g}")
    prepare_output(output, [*FILES, RECORD], overwrite=overwrite, inputs=[picks, *curated])
    settings = {"tolerance": tolerance, "keep": keep, "emptied": emptied, "inputs": options}
    record = RunRecord("curate", settings)
    with record.keeping_warnings():
        given, diameter = _given(picks, tomograms, diameter, options)
        labelled = _drawn(picks, given) if picks.name == SUGGESTED else {}
        infos = [info for info, _ in given]
        for path in map(Path.resolve, curated):
            if picks.is_file() and picks.resolve() in (path, path / picks.name):
                raise InputError(
                    "is compared with itself",
                    file=picks,
                    expected="another file, with what you made of it",
                    cure=f"name the files that you saved, such as {picks.parent / 'models'}",
                )
        pairs = pair_files(infos, curated, what="curated points", binned=options.binned)
        points = {info.name: coordinates.xyz for info, coordinates in pairs}
        command, folder = _command(picks)
        summary = CurateSummary(output=output, diameter=diameter, command=command, folder=folder)
        found = []
        for info, table in given:
            if info.name not in points and not (emptied and len(table)):
                summary.skipped += [info.name] if len(table) else []
                continue
            xyz = points.get(info.name, np.empty((0, 3)))
            radius = diameter / 2 / info.grid.voxel_size
            found.append(compare(info, table, xyz, tolerance=tolerance, radius=radius))
        _require_some_kept(picks, found, tolerance)
        _warn_of_kinds(pairs, {info.name: table for info, table in given}, tolerance)
        _warn_of_another_cut(picks, found)
    summary.tomograms = {of.info.name: of.counts for of in found}
    summary.count = _told_count(picks, [of for of in found if of.info.name in labelled], labelled)
    tables = {"rejected": [(of.info, of.rejected) for of in found], "added": [(of.info, of.added) for of in found]}
    if keep:
        tables["kept"] = [(of.info, of.kept) for of in found]
    used = {info.name for items in tables.values() for info, table in items if len(table)}
    summary.paths = [info.path for info in infos if info.name in used]
    relion5 = all(info.relion is not None for info in infos)
    with all_or_none(output / name for name in (*FILES, RECORD)):
        for name in FILES:
            (output / name).unlink(missing_ok=True)
        for what, items in tables.items():
            if filled := [(info, table) for info, table in items if len(table)]:
                summary.files[what] = output / f"{what}.star"
                write_coordinates(summary.files[what], filled, format="relion5" if relion5 else "relion31")
        sources = [coordinates.source for _, coordinates in pairs if coordinates.source]
        tables_read = [picks.with_name(name) for name in (SUGGESTED_TABLE, CONSIDERED)] if labelled else []
        record.add_inputs(dict.fromkeys([picks / RUN_FILE if picks.is_dir() else picks, *tables_read, *sources]))
        record.values["outputs"] = [str(path) for path in summary.files.values()]
        record.values |= {"count": summary.count and summary.count._asdict()}
        record.values |= {"diameter": diameter, "tomograms": summary.tomograms, "skipped": summary.skipped}
        record.write(output / RECORD)
    return summary


def compare(info: TomogramInfo, picks: pd.DataFrame, points: Points, *, tolerance: float, radius: float) -> Curated:
    """What became of the picks of a tomogram.

    Args:
        info: the tomogram.
        picks: columns x, y, z in voxels and, if known, score; and asked, the score, of suggested places.
        points: (n, 3) as curated, voxels.
        tolerance: voxels within which a point is the pick; every pick and point is part of one pair at most.
        radius: of the particle, voxels; a deleted pick as near to a point as that was moved.
    """
    table = picks[[name for name in ("x", "y", "z", "score") if name in picks]]
    xyz = as_points(table[["x", "y", "z"]])
    partner = match(xyz, np.zeros(len(xyz)), points, tolerance)
    kept = partner >= 0
    added = np.setdiff1d(np.arange(len(points)), partner[kept])
    moved = ~kept & within(xyz, points, radius)
    asked = picks["asked"].to_numpy() if "asked" in picks else np.empty(0)
    # one that was deleted beside another pick was a second one of the same particle
    particles = kept | within(xyz, points[added], radius)
    return Curated(
        info=info,
        kept=table[kept],
        rejected=table[~kept & ~moved],
        added=pd.DataFrame(points[added], columns=["x", "y", "z"]),
        moved=int(moved.sum()),
        asked=asked,
        particles=particles if len(asked) else np.empty(0, bool),
    )


def _drawn(picks: Path, given: Sequence[tuple[TomogramInfo, pd.DataFrame]]) -> dict[str, int]:
    """Add to suggested places the scores that they were drawn by; returns the known labels of each of their tomograms.

    Warns:
        CetpickWarning: the table is not that of these places; then nothing is added, as the rest is no fair sample.
    """
    table = picks.with_name(SUGGESTED_TABLE)
    drawn = _numbers(table, ["x", "y", "z", "score", "labels"])
    found, scores = dict[str, int](), dict[str, NDArray[np.float64]]()
    for info, places in given:
        rows = drawn[drawn["tomogram"] == info.name]
        xyz, of_rows = (as_points(of[["x", "y", "z"]]) for of in (places, rows))
        partner = match(xyz, np.zeros(len(xyz)), of_rows, TOLERANCE)
        if len(rows) != len(places) or (partner < 0).any():
            warnings.warn(
                f"{table}: does not tell the scores of the places in {picks.name}, as `cetpick suggest` wrote it "
                "beside it, so the answers tell no number of particles",
                CetpickWarning,
                stacklevel=2,
            )
            return {}
        if len(rows):
            found[info.name] = int(rows["labels"].iloc[0])
            scores[info.name] = rows["score"].to_numpy()[partner]
    for info, places in given:
        if info.name in found:
            places["asked"] = scores[info.name]
    return found


def _numbers(table: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a table by tomogram; without rows when there is none, or it cannot be used."""
    try:
        # a tomogram may be called 001, or NA
        read = pd.read_csv(table, dtype=str, keep_default_na=False)
        read = read[["tomogram"]].join(read[[*columns]].astype(float))
    except (OSError, ValueError, KeyError):
        read = pd.DataFrame(columns=["tomogram", *columns])
    usable = np.isfinite(read[[*columns]].to_numpy(float)).all() and read["score"].between(0, 1).all()
    return read if usable else read[:0]


def _told_count(picks: Path, found: Sequence[Curated], labelled: Mapping[str, int]) -> Count | None:
    """Particles in a tomogram, labels included, in the mean of those whose suggested places were looked at.

    None when no place is a particle: that there are few may as well be bad luck.
    """
    considered = _numbers(picks.with_name(CONSIDERED), ["score"])
    scores = considered["score"][considered["tomogram"].isin([of.info.name for of in found])]
    if not len(scores) or not any(of.particles.any() for of in found):
        return None
    asked, particles = (np.concatenate(of) for of in zip(*((o.asked, o.particles) for o in found), strict=True))
    hidden = count_from_answers(scores, asked, particles)
    labels = sum(labelled[of.info.name] for of in found)
    return Count(*((number + labels) / len(found) for number in hidden))


def _command(picks: Path) -> tuple[list[str], Path | None]:
    """Words of the command that made the picks, none when it is not known or trained nothing; and its working folder.

    The latter is None when it is the present one, not known, or not there any more.
    """
    folder = results_folder(picks)
    run = read_run(folder / RUN_FILE) if folder else None
    words = separated(run.values.get("arguments", ())) if run else []
    given_in = Path(run.values.get("folder", "")) if run else Path()
    elsewhere = given_in.is_dir() and given_in.resolve() != Path.cwd().resolve()
    trains = words[:1] == ["pick"] and bool({"--labels", "-l"} & set(words))
    return (words, given_in if elsewhere else None) if trains else ([], None)


def separated(arguments: Sequence[str]) -> list[str]:
    """The words of a command with each value apart from its option: --output=FOLDER and -oFOLDER are two."""
    words = list[str]()
    for word in arguments:
        length = word.find("=") if word.startswith("--") else 2 * word.startswith(("-o", "-l", "-d"))
        words += [word] if length <= 0 else filter(None, [word[:length], word[length:].removeprefix("=")])
    return words


def results_folder(path: Path) -> Path | None:
    """The output folder of `pick` that `path` is, or that a file lies in or one below; None when there is none."""
    folders = [path] if path.is_dir() else [path.absolute().parent, path.absolute().parent.parent]
    return next((folder for folder in folders if (folder / RUN_FILE).is_file() or run_files(folder)), None)


def read_results(folder: Path) -> tuple[list[TomogramRecord], ModelSettings]:
    """The records of the tomograms of the newest run in an output folder, and the settings of its model.

    Picks may have been edited since.

    Raises:
        InputError: it holds no results of `pick`.

    Warns:
        CetpickWarning: it holds some that another model made.
    """
    values, plan = merge(newest_run(folder)[0])
    names = (name for place, name in enumerate(plan.listing) if place not in plan.failures)
    found = [record for name in names if (record := read_tomogram_record(folder, name)) is not None]
    records = [record for record in found if record.maker == plan.maker]
    if others := [record.info.name for record in found if record.maker != plan.maker]:
        warnings.warn(
            f"{folder}: left out, as their candidates are of another model than those of the newest run: "
            f"{', '.join(others)}",
            CetpickWarning,
            stacklevel=2,
        )
    return records, ModelSettings.from_dict(values["model"])


def _given(
    picks: Path, tomograms: Sequence[Path], diameter: float | None, options: InputOptions
) -> tuple[list[tuple[TomogramInfo, pd.DataFrame]], float]:
    """Tomograms with their picks, and the diameter."""
    folder, records = None if tomograms else results_folder(picks), list[TomogramRecord]()
    if folder is None and picks.is_dir():
        newest_run(picks)  # says what is wrong with it
    if folder is not None:
        found, model = read_results(folder)
        records += found
        infos, diameter = [record.found for record in records], diameter or model.diameter
    else:
        infos = open_grids(tomograms, options)
    if not infos or diameter is None:
        lacking = "the tomograms of the picks" if not infos else "the particle's diameter"
        raise InputError(
            f"{lacking} must be known",
            file=picks,
            expected="a file in an output folder of `cetpick pick`, or --tomogram and --diameter",
            cure="add --tomogram FILE" if not infos else "add --diameter ANGSTROM",
        )
    tables = dict.fromkeys((info.name for info in infos), pd.DataFrame(columns=["x", "y", "z"], dtype=float))
    if picks.is_dir():
        for record in records:
            table = tomogram_files(picks, record.info.name)[1]
            if not record.holds(picks, table):
                raise InputError("is not as `cetpick pick` wrote it", file=table, cure="repeat the command that did")
            tables[record.info.name] = read_table(table, record.info).table
    else:
        for points in read_coordinates(picks, tomograms=infos, binned=options.binned):
            if (info := find_tomogram(points.tomogram, infos)) is not None:
                tables[info.name] = points.table
    return [(info, tables[info.name]) for info in infos], diameter


def _warn_of_kinds(
    pairs: Sequence[tuple[TomogramInfo, Coordinates]], tables: Mapping[str, pd.DataFrame], tolerance: float
) -> None:
    """Warn of objects or classes of curated points none of which was a pick: they may be no particles at all."""
    for info, coordinates in pairs:
        kinds = coordinates.table["class"].astype(str).to_numpy()
        was_pick = within(coordinates.xyz, as_points(tables[info.name][["x", "y", "z"]]), tolerance)
        known = set(kinds[was_pick])
        for kind in sorted(set(kinds) - known) if known else ():
            warnings.warn(
                f"{coordinates.source}: none of the {(kinds == kind).sum()} points of {kind} was a pick; they are "
                "taken for particles that were missed. If they are something else, delete them and repeat",
                CetpickWarning,
                stacklevel=3,
            )


def _warn_of_another_cut(picks: Path, found: Sequence[Curated]) -> None:
    """Warn when the picks seem to have been cut again since they were copied: what differs is not a person's work."""
    if not picks.is_dir():
        return
    for of in found:
        rejected, kept, candidates = of.rejected, of.kept, tomogram_files(picks, of.info.name)[2]
        what = None
        if len(kept) and len(rejected) >= FEWEST_AMISS and rejected["score"].max() <= kept["score"].min():
            what = f"{len(rejected)} rejected picks score lower than all that are left"
        elif len(of.added) >= FEWEST_AMISS and candidates.is_file():
            stored = as_points(read_table(candidates, of.info).table[["x", "y", "z"]])
            copied = int(within(as_points(of.added), stored, SAME_POINT).sum())
            if copied >= FEWEST_AMISS:
                what = f"{copied} added points are candidates that are no picks"
        if what is not None:
            warnings.warn(
                f"{of.info.name}: {what}. If {picks} was cut again after the curated file was copied, give `cetpick "
                "repick` the cut of before, and repeat",
                CetpickWarning,
                stacklevel=3,
            )


def _require_some_kept(picks: Path, found: Sequence[Curated], tolerance: float) -> None:
    """Raise an InputError when points have nothing to do with the picks: there are some, and none where a pick was.

    Warns:
        CetpickWarning: this is so of places of `suggest`; they are few, and may all be wrong.
    """
    strange = [
        of.info.name
        for of in found
        if len(of.rejected) and len(of.added) and not len(of.kept) and of.moved <= BY_CHANCE * len(of.rejected)
    ]
    if strange and picks.name == SUGGESTED:
        warnings.warn(
            f"{picks}: all places in {', '.join(strange)} are taken for rejected, as no curated point there is near "
            "one; if they were not deleted, the points are of another tomogram or binning",
            CetpickWarning,
            stacklevel=2,
        )
    elif strange:
        raise InputError(
            f"no pick is among the curated points of {', '.join(strange)}, though there are such",
            file=picks,
            expected=f"points made from these very picks: most of them within {tolerance:g} voxels of one",
            cure="give the picks that the curation began with (`cetpick repick` changes them), or a larger "
            "--tolerance. Is it the same tomogram, in the same binning?",
        )
