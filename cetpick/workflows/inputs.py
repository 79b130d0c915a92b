"""Tomograms and labels as the commands are given them."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cetpick.calibration import within
from cetpick.config import TrainSettings
from cetpick.contrast import judge_labels, measure_response
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.geometry import Points, as_points
from cetpick.io.coordinates import pair_files, pair_labels
from cetpick.io.formats import recognise
from cetpick.io.handler import ReadOptions
from cetpick.io.naming import find_tomogram, named_after
from cetpick.io.omezarr import is_store
from cetpick.io.tomograms import Listed, list_inputs, require_voxel_size, tomogram_name
from cetpick.preprocess import PRONOUNCED_SKEWNESS
from cetpick.records import DEFAULT_CLASS, Coordinates, Region, Tomogram, TomogramInfo, Unwanted
from cetpick.workflows.record import size_and_time

Places = Mapping[Path, Sequence[Coordinates]]
"""What a person says of tomograms, as the files have it, by the real paths of those of which there is anything."""
SHOWN = 5
"""So many places are named in a message."""


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How to read what the user named.

    Attributes:
        voxel_size: angstrom, of all tomograms, None to take it from tomograms.star or header.
        which: tomograms of a tomograms.star to read.
        names: name tomograms by file, or by parent folder and file.
        binned: RELION coordinates are in binned voxels (True), unbinned pixels (False), or told from the file (None).
        mask: a volume that is above 0 where particles are looked for, or a folder with one for each tomogram, called
            like it; see find_mask.
        slab: from and to along z, angstrom, where they are looked for.
        keep: what not to look for and leave out.
        trust_labels: train on labels that are clearly off.

    Raises:
        InputError: a voxel size or slab that no tomogram has, or no such mask: said once, however many there are.
    """

    voxel_size: float | None = None
    which: Literal["reconstructed", "denoised"] = "reconstructed"
    names: Literal["file", "parent"] = "file"
    binned: bool | None = None
    mask: Path | None = None
    slab: tuple[float, float] | None = None
    keep: tuple[Unwanted, ...] = ()
    trust_labels: bool = False

    def __post_init__(self) -> None:
        if self.voxel_size is not None:
            require_voxel_size(self.voxel_size)
        if self.mask is not None and not self.mask.exists():
            raise InputError("no such mask", file=self.mask, cure="check --mask: a volume, or a folder of them")
        if self.slab is not None and not 0 <= self.slab[0] < self.slab[1] < math.inf:
            low, high = self.slab
            raise InputError(
                "unusable --slab",
                expected="two distances along z in angstrom, 0 <= FROM < TO",
                found=f"{low:g} {high:g}",
                cure="give both from the tomogram's first slice, such as --slab 300 900",
            )

    @property
    def region(self) -> Region:
        """As it limits all tomograms; the mask may be a folder of masks."""
        return Region(mask=self.mask and self.mask.absolute(), slab=self.slab, keep=self.keep)


def limited(info: TomogramInfo, options: InputOptions) -> TomogramInfo:
    """The tomogram with the region that the options give.

    Raises:
        InputError: there is no mask for it.
    """
    if options.mask is None and options.slab is None:
        return replace(info, region=Region(keep=options.keep))
    mask = None if options.mask is None else find_mask(options.mask, info)
    version = None if mask is None else size_and_time(mask)
    region = Region(mask=mask, mask_version=version, slab=options.slab, keep=options.keep)
    return replace(info, region=region)


def find_mask(path: Path, info: TomogramInfo) -> Path:
    """The mask of a tomogram: `path` itself, or the file in that folder called like the tomogram.

    Its name is that of the tomogram (with or without the ending _mask), with any ending of a volume.

    Raises:
        InputError: there is none, or more than one.
    """
    if not path.is_dir() or is_store(path):
        return path.absolute()
    found = sorted(
        file
        for file in path.iterdir()
        if tomogram_name(file).removesuffix("_mask") in (info.name, tomogram_name(info.path))
        and file.resolve() != info.path.resolve()  # masks may lie beside tomograms
    )
    if len(found) != 1:
        raise InputError(
            f"not one mask of tomogram {info.name}",
            file=path,
            expected=f"a volume {info.name}.mrc or {info.name}_mask.mrc",
            found=", ".join(file.name for file in found) or "none",
            cure="put one there, or give a single volume as --mask",
        )
    return found[0].absolute()


def list_tomograms(paths: Sequence[Path], options: InputOptions) -> list[Listed]:
    """The tomograms that were named, not opened yet; those that cannot be used are among them.

    Raises:
        InputError: none is named, or two have one name.
    """
    _require_some(paths)
    return list_inputs(paths, which=options.which, names=options.names)


def _require_some(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("no tomogram given", cure="name one or more tomograms, or a tomograms.star")


def open_tomograms(paths: Sequence[Path], options: InputOptions) -> tuple[list[TomogramInfo], list[CetpickError]]:
    """Headers of the tomograms that were named, and the errors of those that cannot be used.

    Raises:
        InputError: none is usable, or two have one name.
    """
    _require_some(paths)
    infos, failures = [], list[CetpickError]()
    for entry in list_tomograms(paths, options):
        try:
            infos.append(limited(entry.open(voxel_size=options.voxel_size), options))
        except CetpickError as error:
            failures.append(error)
    if not infos:
        raise none_usable(failures)
    return infos, failures


def none_usable(failures: Sequence[CetpickError]) -> InputError:
    """The error when no tomogram can be opened, for these reasons."""
    if len(failures) == 1:
        return InputError(f"no usable tomogram\n{failures[0]}")
    listed = "\n".join(str(failure) for failure in failures)
    return InputError(f"none of the {len(failures)} tomograms is usable\n{listed}")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A training tomogram and what people say of it.

    Attributes:
        info: the tomogram.
        labels: of all files together, each particle once.
        chosen: which labels (n,) were found by looking at picks: no random ones of the particles.
        label_files: the labels as each file has them.
        rejected_files: places that were looked at and are no particles, as each file has them.
    """

    info: TomogramInfo
    labels: Coordinates
    chosen: NDArray[np.bool_]
    label_files: Sequence[Coordinates]
    rejected_files: Sequence[Coordinates] = ()

    @property
    def rejected(self) -> Points:
        """Places (n, 3) that are no particles, voxels."""
        return joined_points(self.rejected_files)


def open_training(
    tomograms: Sequence[Path], options: InputOptions, *, among: Sequence[TomogramInfo] = ()
) -> list[TomogramInfo]:
    """The tomograms to train on, if they have labels: those named, else `among` those already opened.

    Those named need no mask yet, see open_labelled.

    Raises:
        InputError: one of those named is not usable.
    """
    if not tomograms:
        return list(among)
    try:
        return [entry.open(voxel_size=options.voxel_size) for entry in list_tomograms(tomograms, options)]
    except CetpickError as error:
        raise InputError(f"unusable training tomogram\n{error}") from error


@contextmanager
def telling_unusable(failures: Sequence[CetpickError]) -> Iterator[None]:
    """Add to an InputError the tomograms that cannot be used: labels of them seem to have none."""
    try:
        yield
    except InputError as error:
        if not failures:
            raise
        raise InputError("\n".join(map(str, (error, *failures)))) from error


def read_places(
    paths: Sequence[Path],
    tomograms: Sequence[TomogramInfo],
    options: InputOptions,
    *,
    what: str,
    others: Sequence[TomogramInfo] = (),
    needed: bool = True,
) -> Places:
    """Places of which a person says something, paired with tomograms as labels are.

    Args:
        paths: coordinate files.
        tomograms: those that files may be given for in order.
        options: how to read them.
        what: they are, for messages.
        others: further tomograms, which may be the same.
        needed: it is an error when the places of a file belong to none of these tomograms.

    Raises:
        InputError: unusable files, or places that belong to no tomogram.
    """
    known = {info.path.resolve() for info in tomograms}
    others = [info for info in others if info.path.resolve() not in known]
    found: dict[Path, list[Coordinates]] = {}
    if not paths:
        return found
    pairs = pair_files(tomograms, paths, others=others, what=what, several=True, needed=needed, binned=options.binned)
    for info, record in pairs:
        found.setdefault(info.path.resolve(), []).append(record)
    return found


def open_labelled(
    tomograms: Sequence[TomogramInfo],
    labels: Sequence[Path],
    settings: TrainSettings,
    options: InputOptions,
    *,
    rejected: Places | None = None,
    added: Places | None = None,
    others: Sequence[TomogramInfo] = (),
    option: str | None = None,
) -> list[Labelled]:
    """Those of the tomograms that have labels or rejected places, with both, and limited as the options say.

    Args:
        tomograms: already opened, see open_training.
        labels: label files. Several may hold labels of one tomogram; those on one particle, as near as its radius,
            count once.
        settings: of the training.
        options: how to read the files.
        rejected: places that are no particles, see read_places.
        added: labels that were found by looking at picks.
        others: tomograms that are not trained on, to notice labels named after them.
        option: that names tomograms to train on, for messages; None for arguments.

    Raises:
        InputError: an unusable label file, labels that cannot be paired, places that are labelled and rejected,
            rejected places where the training knows none, or no mask for a tomogram with labels.

    Warns:
        CetpickWarning: labels given for one tomogram are named after another, and are used as they are given; labels
            of two files on one particle.
    """
    if not labels:
        raise InputError("no labels given", cure="add --labels with the file of particle centres")
    rejected, added = rejected or {}, added or {}
    if rejected and (settings.mode != "default" or settings.hidden not in ("peaks", "none")):
        raise InputError(
            "rejected places are no part of this way to train",
            expected="`default` mode",
            found=f"`{settings.mode}` mode" if settings.mode != "default" else f"hidden={settings.hidden}",
            cure="leave --reject out, or --mode",
        )
    pairs = pair_labels(tomograms, labels, several=True, binned=options.binned, option=option, besides=added)
    _warn_of_names(pairs, others)
    found = []
    for info in tomograms:
        given = [record for labelled, record in pairs if labelled is info]
        records = [*given, *added.get(info.path.resolve(), [])]
        refused = rejected.get(info.path.resolve(), [])
        radius = settings.diameter / 2 / info.grid.voxel_size
        _refuse_contradictions(info, records, refused, radius)
        if records or refused:
            together, lengths = _joined(records, radius)
            found.append(
                Labelled(
                    info=limited(info, options),
                    labels=together,
                    chosen=np.arange(len(together)) >= sum(lengths[: len(given)]),
                    label_files=records,
                    rejected_files=refused,
                )
            )
    return found


def foreign_files(labelled: Sequence[Labelled]) -> Iterator[str]:
    """What was taken as given, a line for each file that has not the name of its tomogram."""
    for of in labelled:
        for what, files in (("labels", of.label_files), ("rejected places", of.rejected_files)):
            for file in files:
                if file.source and _foreign(file.source, [of.info]):
                    yield f"{file.source}: {len(file)} {what} for {of.info.name}"


def joined_points(records: Sequence[Coordinates]) -> Points:
    """Points (n, 3) of several records of one tomogram."""
    return as_points(np.vstack([np.empty((0, 3)), *(record.xyz for record in records)]))


def _joined(records: Sequence[Coordinates], radius: float) -> tuple[Coordinates, list[int]]:
    """Labels of all files one after another, and how many of each.

    Those of a later file within `radius` (voxels) of one of an earlier file are left out; of those in one file that are
    as near to each other the mean counts.
    """
    records = [_once(record, radius) for record in records]
    if len(records) == 1:
        return records[0], [len(records[0])]
    tables: list[pd.DataFrame] = []
    for number, record in enumerate(records):
        earlier = joined_points(records[:number])
        again = within(record.xyz, earlier, radius)
        if again.any():
            warnings.warn(
                f"{record.source}: {again.sum()} of {len(record)} labels are on particles that other label files have "
                "too; they count once",
                CetpickWarning,
                stacklevel=3,
            )
        table = record.table[~again]
        kinds = [table[column].nunique() for column in ("class", "object") if column in table]
        if max(kinds, default=0) <= 1:  # files name the same particle differently
            table = table[["x", "y", "z"]].assign(**{"class": DEFAULT_CLASS})
        tables.append(table)
    if not tables:
        return Coordinates.from_points([]), []
    joined = Coordinates(table=pd.concat(tables, ignore_index=True), source=records[0].source)
    return joined, [len(table) for table in tables]


def _once(record: Coordinates, radius: float) -> Coordinates:
    """The labels of a file, where clicks on one particle, in several slices perhaps, are one label at their mean."""
    points = record.xyz
    first = np.arange(len(points))
    for i, j in sorted(cKDTree(points).query_pairs(radius)) if len(points) else []:
        if first[i] == i and first[j] == j:
            first[j] = i
    if again := int((first != np.arange(len(points))).sum()):
        warnings.warn(
            f"{record.source}: {again} of {len(points)} labels lie within half a diameter of another and are taken for "
            "clicks on the same particle; they count once",
            CetpickWarning,
            stacklevel=4,
        )
        means = pd.DataFrame(points, columns=["x", "y", "z"]).groupby(first).mean()
        table = record.table.loc[means.index].assign(x=means["x"], y=means["y"], z=means["z"])
        record = replace(record, table=table.reset_index(drop=True))
    return record


def _refuse_contradictions(
    info: TomogramInfo, labels: Sequence[Coordinates], rejected: Sequence[Coordinates], radius: float
) -> None:
    """Raise an InputError for places that are both labelled and rejected: as near as `radius`, voxels."""
    told = []
    for refused in rejected:
        for given in labels:
            pairs = cKDTree(refused.xyz).query_ball_tree(cKDTree(given.xyz), radius)
            told += [
                f"rejected {_place(refused.xyz[i])} of {refused.source}, label {_place(given.xyz[j])} of {given.source}"
                for i, near in enumerate(pairs)
                for j in near
            ]
    if told:
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        raise InputError(
            f"places of tomogram {info.name} are both labelled and rejected",
            expected=f"rejected places at least {radius:.1f} voxels, half the diameter, from every label",
            found="\n         ".join([*told[:SHOWN], *more]),
            cure="take each out of one of the two files",
        )


def _place(xyz: Points) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in xyz) + ")"


def _warn_of_names(pairs: Sequence[tuple[TomogramInfo, Coordinates]], others: Sequence[TomogramInfo]) -> None:
    """Warn of label files named after one of the `others` instead of a training tomogram."""
    trained = [info for info, _ in pairs]
    for info, labels in pairs:
        if labels.source is None or not _foreign(labels.source, trained):
            continue
        if other := named_after(labels.source, others):
            warnings.warn(
                f"{labels.source}: taken as labels of tomogram {info.name}, as given, though it is named after "
                f"{other.name} ({other.path})",
                CetpickWarning,
                stacklevel=3,
            )


def _foreign(file: Path, tomograms: Sequence[TomogramInfo]) -> bool:
    """Whether a file neither names tomograms nor has the name of one of these."""
    return not recognise(file).holds.tomogram and named_after(file, tomograms) is None


def points_in_file(path: Path, info: TomogramInfo, *, binned: bool | None = None) -> Points:
    """Points (n, 3) of one tomogram, in its voxels, as a file has them: those that lie outside of it too.

    Args:
        path: a coordinate file of any known format.
        info: the tomogram.
        binned: see InputOptions.

    Raises:
        InputError: an unusable file, or one without points in this tomogram.
    """
    for record in recognise(path).read(path, [info], ReadOptions(binned=binned)):
        if len(record) and find_tomogram(record.tomogram, [info]):
            return record.xyz
    raise InputError(
        f"holds no points of tomogram {info.name}",
        file=path,
        expected="the centres of particles in it",
        cure="click them (3dmod: Model mode, middle mouse button) and save; where the file calls the tomogram "
        "otherwise, give the tomograms.star that does, or a link of that name. `cetpick info` tells what is in a file",
    )


def all_points(info: TomogramInfo, labels: Coordinates, *, binned: bool | None = None) -> Points:
    """Points (n, 3) of labels that were read, with those outside of the tomogram, which reading leaves out.

    Args:
        info: the tomogram.
        labels: read for it.
        binned: see InputOptions.
    """
    if labels.source is None:
        return labels.xyz
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)  # given when the labels were read
        return points_in_file(labels.source, info, binned=binned)


def require_right_labels(
    tomogram: Tomogram, labels: Sequence[Coordinates], diameter: float, options: InputOptions | None = None
) -> None:
    """Stop where labels are clearly swapped or scaled, warn where they may be, look shifted, or have no contrast.

    Args:
        tomogram: with its voxels.
        labels: read for it, as each file has them; each is judged.
        diameter: of the particle, angstrom.
        options: how they were read, and whether to trust them.

    Raises:
        InputError: there is no clear contrast at the labels, but there is in another reading of them: what is learned
            from such labels finds nothing.

    Warns:
        CetpickWarning: another reading of the labels clearly fits better, or they may not be on particles.
    """
    options = options or InputOptions()
    if not labels:
        return
    info = tomogram.info
    response = measure_response(tomogram.data, info.grid, diameter=diameter)
    for record in labels:
        judgement = judge_labels(response, all_points(info, record, binned=options.binned))
        told = judgement.message.removeprefix("cannot be told: ")
        words = ["cetpick", "check", info.path, "--labels", record.source or "LABELS", "-d", f"{diameter:g}"]
        pictures = f"`{shlex.join(map(str, words))} -o DIR` draws them"
        if judgement.is_clearly_off and not options.trust_labels:
            raise InputError(
                "labels that are not on particles as they are",
                file=record.source,
                expected=f"labels on particles of {info.path}",
                found=told,
                cure=f"{judgement.notes[0]}; {pictures}. If they are right as they are, add --trust-labels",
            )
        if judgement.verdict in ("swapped", "scaled", "shifted") or judgement.is_faint:
            message = f"{record.source or 'labels'} on {info.path}: {told}; {pictures}"
            warnings.warn(message, CetpickWarning, stacklevel=2)


def warn_of_scale(info: TomogramInfo, trained: float) -> None:
    """Warn when a tomogram's voxels are far from those of the training tomograms (angstrom a voxel).

    Warns:
        CetpickWarning: more than a factor of 1.5 apart.
    """
    ratio = info.grid.voxel_size / trained if trained else 1.0
    if not 1 / 1.5 <= ratio <= 1.5:
        warnings.warn(
            f"{info.path}: {info.grid.voxel_size:g} angstrom a voxel, but the model was trained at {trained:g}; "
            "it is resampled, but finer or coarser data look different. Check the voxel size",
            CetpickWarning,
            stacklevel=2,
        )


def warn_of_thinness(info: TomogramInfo, diameter: float) -> None:
    """Warn of a tomogram that no particle (diameter in angstrom) fits into.

    Warns:
        CetpickWarning: an axis is shorter than the particle.
    """
    shortest = min(info.grid.shape) * info.grid.voxel_size
    if shortest < diameter:
        warnings.warn(
            f"{info.path}: its shortest side, {shortest:.0f} angstrom, is less than the particle's diameter of "
            f"{diameter:g}; picks mean little. Check the voxel size, and whether this is the whole tomogram",
            CetpickWarning,
            stacklevel=2,
        )


def warn_of_contrast(info: TomogramInfo, skewness: float, trained: float) -> None:
    """Warn when protein seems dark in one and bright in the other, by the sign of the grey values' skewness.

    Warns:
        CetpickWarning: the signs differ and both are pronounced.
    """
    if skewness * trained < 0 and min(abs(skewness), abs(trained)) > PRONOUNCED_SKEWNESS:
        found, wanted = ("bright", "dark") if trained < 0 else ("dark", "bright")
        warnings.warn(
            f"{info.path}: protein seems {found} here but was {wanted} in training (skewness {skewness:+.2f} against "
            f"{trained:+.2f}); invert the contrast of the tomogram if the picks look wrong",
            CetpickWarning,
            stacklevel=2,
        )
