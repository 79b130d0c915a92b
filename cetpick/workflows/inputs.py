"""Tomograms and labels as the commands are given them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cetpick.contrast import judge_labels, measure_response
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.geometry import Points
from cetpick.io.coordinates import pair_labels
from cetpick.io.formats import recognise
from cetpick.io.handler import ReadOptions
from cetpick.io.naming import find_tomogram, named_after
from cetpick.io.omezarr import is_store
from cetpick.io.tomograms import Listed, list_inputs, open_inputs, tomogram_name
from cetpick.records import Coordinates, Region, Tomogram, TomogramInfo
from cetpick.workflows.record import size_and_time


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
    """

    voxel_size: float | None = None
    which: Literal["reconstructed", "denoised"] = "reconstructed"
    names: Literal["file", "parent"] = "file"
    binned: bool | None = None
    mask: Path | None = None
    slab: tuple[float, float] | None = None


def limited(info: TomogramInfo, options: InputOptions) -> TomogramInfo:
    """The tomogram with the region that the options give.

    Raises:
        InputError: there is no mask for it, or the slab is none.
    """
    if options.mask is None and options.slab is None:
        return info
    mask = None if options.mask is None else find_mask(options.mask, info)
    if options.slab is not None and not 0 <= options.slab[0] < options.slab[1]:
        low, high = options.slab
        raise InputError("unusable --slab", expected="two distances, 0 <= FROM < TO", found=f"{low:g} {high:g}")
    version = None if mask is None else size_and_time(mask)
    return replace(info, region=Region(mask=mask, mask_version=version, slab=options.slab))


def find_mask(path: Path, info: TomogramInfo) -> Path:
    """The mask of a tomogram: `path` itself, or the file in that folder called like the tomogram.

    Its name is that of the tomogram (with or without the ending _mask), with any ending of a volume.

    Raises:
        InputError: there is none, or more than one.
    """
    if not path.exists():
        raise InputError("no such mask", file=path)
    if not path.is_dir() or is_store(path):
        return path.absolute()
    found = sorted(
        file
        for file in path.iterdir()
        if tomogram_name(file).removesuffix("_mask") in (info.name, tomogram_name(info.path))
    )
    if len(found) != 1:
        raise InputError(
            f"not one mask of tomogram {info.name}",
            file=path,
            expected=f"a volume {info.name}.mrc or {info.name}_mask.mrc",
            found=", ".join(file.name for file in found) or "none",
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
    infos, failures = open_inputs(paths, voxel_size=options.voxel_size, which=options.which, names=options.names)
    infos = [limited(info, options) for info in infos]
    if not infos:
        raise none_usable(failures)
    return infos, failures


def none_usable(failures: Sequence[CetpickError]) -> InputError:
    """The error when no tomogram can be opened, for these reasons."""
    if len(failures) == 1:
        return InputError(f"no usable tomogram\n{failures[0]}")
    listed = "\n".join(str(failure) for failure in failures)
    return InputError(f"none of the {len(failures)} tomograms is usable\n{listed}")


def open_labelled(
    tomograms: Sequence[Path],
    labels: Sequence[Path],
    options: InputOptions,
    *,
    among: Sequence[TomogramInfo] = (),
) -> list[tuple[TomogramInfo, Coordinates]]:
    """Training tomograms with their labels; every one of them must be usable.

    Args:
        tomograms: files; empty to look for the labels' tomograms `among` those already opened.
        labels: label files.
        options: how to read them.
        among: tomograms already opened.

    Raises:
        InputError: an unusable tomogram or label file, or labels that cannot be paired.

    Warns:
        CetpickWarning: labels given for one tomogram are named after another; they are used as they are given.
    """
    if not labels:
        raise InputError("no labels given", cure="add --labels with the file of particle centres")
    infos = list(among)
    if tomograms:
        infos, failures = open_tomograms(tomograms, options)
        if failures:
            raise InputError(f"unusable training tomogram\n{failures[0]}")
    pairs = pair_labels(infos, labels, binned=options.binned)
    _warn_of_names(pairs, among)
    return pairs


def _warn_of_names(pairs: Sequence[tuple[TomogramInfo, Coordinates]], others: Sequence[TomogramInfo]) -> None:
    """Warn of label files named after one of the `others` instead of a training tomogram."""
    trained = [info for info, _ in pairs]
    for info, labels in pairs:
        if labels.source is None or recognise(labels.source).holds.tomogram or named_after(labels.source, trained):
            continue
        if other := named_after(labels.source, others):
            warnings.warn(
                f"{labels.source}: taken as labels of tomogram {info.name}, as given, though it is named after "
                f"{other.name} ({other.path})",
                CetpickWarning,
                stacklevel=3,
            )


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
    raise InputError(f"holds no points of tomogram {info.name}", file=path)


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


def warn_of_labels(tomogram: Tomogram, labels: Coordinates, diameter: float, *, binned: bool | None = None) -> None:
    """Warn when labels look swapped, scaled or shifted.

    Args:
        tomogram: with its voxels.
        labels: read for it.
        diameter: of the particle, angstrom.
        binned: see InputOptions.

    Warns:
        CetpickWarning: another reading of the labels clearly fits better.
    """
    points = all_points(tomogram.info, labels, binned=binned)
    response = measure_response(tomogram.data, tomogram.info.grid, diameter=diameter)
    judgement = judge_labels(response, points)
    if judgement.verdict in ("swapped", "scaled", "shifted"):
        warnings.warn(
            f"{labels.source or 'labels'} on {tomogram.info.path}: {judgement.message}; see `cetpick check`",
            CetpickWarning,
            stacklevel=2,
        )


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


PRONOUNCED_SKEWNESS = 0.03
"""Below this the sign of a skewness says nothing; noise of a volume of a million voxels has one of .003."""
