"""From stored voxels to what a network sees: valid voxels, normalisation, resampling to the working grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cetpick import scratch
from cetpick.config import ModelSettings
from cetpick.contamination import coarse, find
from cetpick.errors import CetpickWarning, InputError
from cetpick.records import Region, Tomogram, TomogramInfo
from cetpick.voxels import (
    STATISTICS_SAMPLE,
    Mask,
    Score,
    Volume,
    background,
    centre_and_spread,
    every,
    mean_and_spread,
    resampled,
    specimen,
    spreads_of_slices,
    widened,
    working_shape,
)

FEWEST_VOXELS = 4.0
"""Stored voxels along a diameter; with fewer the diameter is a mistake of units, or the tomogram too coarse."""
CUBE = 3**3
"""Voxels in the smallest block that is padding."""
MOST_EMPTY = 0.5
"""Share of voxels without data from which on a tomogram, or what is to be looked at in it, is refused."""
EMPTY = 0.25
"""A slice is empty if its grey values spread less than that, in units of what is typical of slices."""
KEPT, SHARE = 0.8, 0.1
"""Where less than that of a region would be kept, as of a membrane's mask, a share of a working voxel is enough."""
PRONOUNCED_SKEWNESS = 0.03
"""Below this the sign of a skewness says nothing; noise of a volume of a million voxels has one of .003."""
AROUND = 1.0
"""Diameters around its region that a tomogram's grey values are judged by: a tight mask holds little but particles."""


def require_fitting(info: TomogramInfo, diameter: float) -> None:
    """Raise an InputError unless a particle (diameter in angstrom) has enough voxels and fits into a tomogram."""
    grid = info.grid
    if diameter < FEWEST_VOXELS * grid.voxel_size:
        raise InputError(
            "the particle is too small for this tomogram",
            file=info.path,
            expected=f"a diameter of at least {FEWEST_VOXELS:g} voxels of {grid.voxel_size:g} angstrom",
            found=f"{diameter:g} angstrom",
            cure="give --diameter in angstrom (10 to a nanometre), or a tomogram with finer voxels",
        )
    shortest = min(grid.shape) * grid.voxel_size
    if diameter > shortest:
        raise InputError(
            "the particle is larger than the tomogram",
            file=info.path,
            expected=f"a diameter below {shortest:.0f} angstrom, its shortest side",
            found=f"{diameter:g} angstrom at {grid.voxel_size:g} angstrom a voxel",
            cure="check --diameter (angstrom) and the voxel size",
        )


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """How many voxels of a tomogram carry no signal, and why.

    Attributes:
        not_finite: NaN or infinite voxels.
        padding: voxels of constant padding that touches the border.
        empty: other voxels in slices of nearly constant values.
        off_slab: other voxels that lie outside of the slab where particles are looked for.
        masked: voxels that lie in the slab, and outside of the mask.
        gold: other voxels in and about gold, to the precision of the working grid.
        gold_places: connected parts of these.
        carbon: other voxels at edges of carbon.
        total: voxels in the volume.
    """

    not_finite: int
    padding: int
    empty: int = 0
    off_slab: int = 0
    masked: int = 0
    gold: int = 0
    gold_places: int = 0
    carbon: int = 0
    total: int

    @property
    def fraction(self) -> float:
        """Share of the volume without data, 0 to 1."""
        return (self.not_finite + self.padding + self.empty) / self.total


def padding_mask(data: NDArray[Any]) -> Mask:
    """Voxels (z, y, x) of constant padding: blocks of at least 3 x 3 x 3 equal voxels that reach a face of the volume.

    Aligned and reconstructed tomograms are padded with zeros or a mean value where no data was. Only the values found
    in the corner and edge-centre blocks, and zero, are looked for, so single voxels of that value inside never count.
    """
    mask: Mask = scratch.zeros(data.shape, bool)
    if min(data.shape) < 3:
        return mask
    steps = [sorted({0, (n - 3) // 2, n - 3}) for n in data.shape]
    values = {0.0}
    for z in steps[0]:
        for y in steps[1]:
            for x in steps[2]:
                if not (z in (0, data.shape[0] - 3) or y in (0, data.shape[1] - 3) or x in (0, data.shape[2] - 3)):
                    continue
                block = np.asarray(data[z : z + 3, y : y + 3, x : x + 3])
                if np.isfinite(block).all() and (block == block.flat[0]).all():
                    values.add(float(block.flat[0]))
    for value in values:
        opened = _blocks_of(data, value)
        if opened is None:
            continue
        components = scratch.zeros(data.shape, np.int32)
        number = ndimage.label(opened, output=components)
        faces = [components.take(side, axis) for axis in range(3) for side in (0, -1)]
        touching = np.zeros(number + 1, bool)
        touching[np.concatenate([face.ravel() for face in faces])] = True
        touching[0] = False
        sizes = np.zeros(number + 1, np.int64)
        for slab in scratch.slabs(data.shape):
            sizes += np.bincount(components[slab].ravel(), minlength=number + 1)
        touching &= sizes >= CUBE
        for slab in scratch.slabs(data.shape):
            mask[slab] |= touching[components[slab]]
    return mask


def _blocks_of(data: NDArray[Any], value: float) -> Mask | None:
    """Voxels in cubes of 3 x 3 x 3 equal to `value`; None if there are none."""
    opened: Mask | None = None
    for slab in scratch.slabs(data.shape):
        first, last = max(0, slab.start - 2), min(data.shape[0], slab.stop + 2)
        same = np.asarray(data[first:last]) == value
        if same.sum() < CUBE:
            continue
        # the border is repeated outwards, so that padding thinner than the cube survives the opening
        beyond = [(2 - (slab.start - first), 2 - (last - slab.stop)), (2, 2), (2, 2)]
        found = np.pad(same, beyond, mode="edge")
        for axis in range(3):
            found = _of_three(np.logical_and, found, axis)
        if found.any():
            for axis in range(3):
                found = _of_three(np.logical_or, found, axis)
            opened = scratch.zeros(data.shape, bool) if opened is None else opened
            opened[slab] = found
    return opened


def _of_three(combine: np.ufunc, mask: Mask, axis: int) -> Mask:
    """What each voxel and its two neighbours along an axis are together, without the first and last voxel.

    A cube is three of these: a tenth of the time of scipy's opening with the 27 voxels of a cube.
    """
    along = np.moveaxis(mask, axis, 0)
    combined: Mask = np.moveaxis(combine(combine(along[:-2], along[1:-1]), along[2:]), 0, axis)
    return combined


def empty_slices(data: NDArray[Any], padding: Mask) -> NDArray[np.bool_]:
    """Which slices (z,) hold next to nothing: their grey values spread less than EMPTY of what is typical of slices.

    Args:
        data: (z, y, x).
        padding: see padding_mask; a slice of nothing else is not meant.
    """
    spread = spreads_of_slices(data, left_out=padding)
    varied = spread[spread > 0]
    empty: NDArray[np.bool_] = spread < EMPTY * (np.median(varied) if len(varied) else 0)
    return empty


def valid_voxels(tomogram: Tomogram) -> tuple[Mask | None, Exclusions]:
    """Voxels that carry signal, as a mask (z, y, x), or None when all do.

    Raises:
        InputError: more than half of the volume carries none, and it has no region (see within_region), or all voxels
            are equal.

    Warns:
        CetpickWarning: some voxels were left out, with their number.
    """
    data = tomogram.data
    sample = every(data, max(1, data.size // STATISTICS_SAMPLE))
    seen = sample[np.isfinite(sample)]
    if not len(seen) or seen.min() == seen.max():
        raise InputError(
            "all voxels are equal" if len(seen) else "no voxel is a finite number",
            file=tomogram.info.path,
            expected="a reconstruction with contrast",
            found=f"the value {seen[0]} everywhere" if len(seen) else "NaN or infinite values everywhere",
            cure="give the reconstructed tomogram, not a mask or an empty file",
        )
    keep, not_finite = tomogram.info.region.keep, 0
    if np.issubdtype(data.dtype, np.floating):
        not_finite = sum(int(np.count_nonzero(~np.isfinite(data[slab]))) for slab in scratch.slabs(data.shape))
    padding = scratch.zeros(data.shape, bool) if "padding" in keep else padding_mask(data)
    padded = sum(int(padding[slab].sum()) for slab in scratch.slabs(data.shape))
    empty = np.zeros(len(data), bool) if "empty" in keep else empty_slices(data, padding)
    if not not_finite and not padded and not empty.any():
        return None, Exclusions(not_finite=0, padding=0, total=data.size)
    valid, in_empty = padding, 0
    for slab in scratch.slabs(data.shape):
        held = ~padding[slab]
        if not_finite:
            held &= np.isfinite(data[slab])
        in_empty += int(held[empty[slab]].sum())
        held[empty[slab]] = False
        valid[slab] = held
    found = Exclusions(not_finite=not_finite, padding=padded, empty=in_empty, total=data.size)
    told = f"{not_finite} not finite, {padded} constant padding, {in_empty} in empty slices"
    limited = tomogram.mask is not None or tomogram.info.region.slab is not None
    if found.fraction > MOST_EMPTY and not limited:
        raise _hardly_any_data(tomogram, "tomogram", f"{found.fraction:.0%} ({told})")
    warnings.warn(
        f"{tomogram.info.path}: {found.fraction:.1%} of the voxels are left out ({told})", CetpickWarning, stacklevel=2
    )
    return valid, found


def _lying_in(fine: int, coarse: int) -> NDArray[np.intp]:
    """Which of `coarse` voxels along an axis the centres of `fine` ones of the same extent lie in."""
    return ((np.arange(fine) + 0.5) * coarse / fine).astype(np.intp)


def within_region(tomogram: Tomogram, present: Mask | None, exclusions: Exclusions) -> tuple[Mask | None, Exclusions]:
    """Which of the voxels (z, y, x) that hold data count, None when all do, and what was left out.

    Args:
        tomogram: with its region, and the region's mask.
        present: voxels that hold data, None when all do; see valid_voxels.
        exclusions: found there.

    Raises:
        InputError: none counts, or more than half of those within the region hold no data.
    """
    region, mask, shape = tomogram.info.region, tomogram.mask, tomogram.data.shape
    if mask is None and region.slab is None:
        return present, exclusions
    low, high = region.slab or (-np.inf, np.inf)
    z, y, x = (_lying_in(n, m) for n, m in zip(shape, shape if mask is None else mask.shape, strict=True))
    plane = np.ix_(y, x)
    counted: Mask = scratch.zeros(shape, bool)
    number, in_slab, inside = 0, 0, 0
    for i in range(shape[0]):
        if low <= (i + 0.5) * tomogram.info.grid.voxel_size <= high:
            counted[i] = True if mask is None else (np.asarray(mask[z[i]]) > 0)[plane]
            inside += int(counted[i].sum())
            if present is not None:
                counted[i] &= present[i]
            in_slab += counted[i].size if present is None else int(present[i].sum())
            number += int(counted[i].sum())
    if not number:
        thickness = shape[0] * tomogram.info.grid.voxel_size
        limits = [f"mask {region.mask}"] if region.mask else []
        limits += [f"slab {low:g} to {high:g} angstrom"] if region.slab else []
        raise InputError(
            "nothing of the tomogram is left to look at",
            file=tomogram.info.path,
            expected=f"voxels with data within the mask and the slab; along z it goes from 0 to {thickness:g} angstrom",
            found=f"none within {' and '.join(limits)}",
            cure="check --mask (above 0 where particles are) and --slab (angstrom along z)",
        )
    if number < (1 - MOST_EMPTY) * inside:
        raise _hardly_any_data(tomogram, "region within --mask and --slab", f"{1 - number / inside:.0%}")
    holding_data = tomogram.data.size - exclusions.not_finite - exclusions.padding - exclusions.empty
    return counted, replace(exclusions, off_slab=holding_data - in_slab, masked=in_slab - number)


def _hardly_any_data(tomogram: Tomogram, what: str, found: str) -> InputError:
    return InputError(
        f"more than half of the {what} holds no data",
        file=tomogram.info.path,
        expected=f"at most {MOST_EMPTY:.0%} of NaN, infinite or padding voxels, or voxels in empty slices",
        found=found,
        cure="check that it is not truncated; name the part that holds data with --slab or --mask, or trim it",
    )


def merge_slice_pairs(volume: Volume) -> Volume:
    """The larger of each two neighbouring z slices (z, y, x) -> (z // 2, y, x), as the paper's code merges them."""
    pairs = volume.shape[0] // 2
    merged: Volume = volume[: 2 * pairs].reshape(pairs, 2, *volume.shape[1:]).max(axis=1)
    return merged


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A tomogram as a network sees it.

    Attributes:
        volume: (z, y, x) float32, normalised, on the working grid.
        valid: like volume, False where the tomogram holds no data, or lies outside of its region; None when all counts.
        judged: like volume, True where its grey values tell what is typical: its region and what is around it, without
            contamination; None when all does.
        voxel_size: (z, y, x) angstrom of the working grid.
        exclusions: what was left out.
        coarse: the tomogram as contamination.py looks for gold and carbon in it; None when it is not to, or has.
        contaminated: like volume, True in these, where `valid` is False; None when there are none.
    """

    volume: Volume
    valid: Mask | None
    judged: Mask | None = None
    voxel_size: tuple[float, float, float]
    exclusions: Exclusions
    coarse: Volume | None = None
    contaminated: Mask | None = None

    @property
    def skewness(self) -> float:
        """Skewness of the grey values that are judged: below zero where protein is dark."""
        mean, spread = mean_and_spread(self.volume, self.judged)
        cubes, count = 0.0, 0
        for slab in scratch.slabs(self.volume.shape):
            values = self.volume[slab] if self.judged is None else self.volume[slab][self.judged[slab]]
            scores = (values - np.float32(mean)) / np.float32(spread)
            cubes += float((scores * scores * scores).sum(dtype=np.float64))  # a power of 3 takes ten times as long
            count += values.size
        return cubes / count


def prepare(tomogram: Tomogram, settings: ModelSettings) -> Prepared:
    """Normalise a tomogram and bring it to the working grid of a model.

    `default` mode: robust z-score, clipped (gold, hot pixels), resampled, robust z-score again, since resampling takes
    noise away; gold and carbon are left out if the settings tell what is. `paper` mode: resampled if need be, z pairs
    merged by maximum, plain z-score.

    Raises:
        InputError: more than half of the volume, or of its region, holds no data, or all voxels are equal.
    """
    present, exclusions = valid_voxels(tomogram)
    counted, exclusions = within_region(tomogram, present, exclusions)
    paper, data = settings.mode == "paper", tomogram.data
    merged = 2 if paper else 1
    stored = tomogram.info.grid.voxel_size
    z, y, x = (stored / size for size in settings.voxel_size)
    scale = (z * merged, y, x)
    limit = np.inf if paper else settings.clip

    def levels(grey: NDArray[Any], where: Mask | None) -> tuple[float, float]:
        return mean_and_spread(grey, where) if paper else centre_and_spread(grey, specimen(grey, where))

    def around(region: Mask | None, held: Mask | None, voxel_size: Sequence[float]) -> Mask | None:
        z, y, x = (AROUND * settings.diameter / size for size in voxel_size)
        return held if region is None or counted is present else widened(region, (z, y, x), held)

    score = Score(*levels(data, around(counted, present, (stored,) * 3)), limit)
    depth, height, width = working_shape(data.shape, scale)
    volume: Volume = scratch.zeros((depth // merged, height, width), np.float32)

    def read(*part: slice) -> Volume:
        return score(data[part], None if present is None else present[part])

    def place(slab: slice, values: Volume) -> tuple[slice, Volume]:
        if not paper:
            return slab, values
        values = merge_slice_pairs(values)
        return slice(slab.start // 2, slab.start // 2 + len(values)), values

    def place_mask(mask: Mask | None, *, share: float = 0.5) -> Mask | None:
        if mask is None:
            return None
        placed: Mask = scratch.zeros(volume.shape, bool)
        for slab, values in resampled(lambda *part: mask[part].astype(np.float32), data.shape, scale):
            where, values = place(slab, (values > share).astype(np.float32))
            placed[where] = values > 0.5
        return placed

    holds_data = place_mask(present)
    valid = holds_data if counted is present else place_mask(counted)
    if valid is not None and counted is not None and _share(valid) < KEPT * _share(counted):
        valid = place_mask(counted, share=SHARE)
    if valid is not None and not _share(valid):
        raise InputError(
            "nothing of the tomogram is left to look at",
            file=tomogram.info.path,
            expected=f"a region as thick as a working voxel ({settings.voxel_size[0]:.3g} angstrom along z) somewhere",
            found="none in the mask, the slab, and the data",
            cure="widen --mask or --slab",
        )
    for slab, values in resampled(read, data.shape, scale):
        where, values = place(slab, values)
        volume[where] = values
    if settings.background is not None:
        reach = settings.background * settings.diameter
        z, y, x = (reach / size for size in settings.voxel_size)
        for slab, values in background(volume, holds_data, (z, y, x)):
            volume[slab] -= values
    judged = around(valid, holds_data, settings.voxel_size)
    score = Score(*levels(volume, judged), limit)
    for slab in scratch.slabs(volume.shape):
        # a particle at the border of its region is seen whole
        volume[slab] = score(volume[slab], None if holds_data is None else holds_data[slab])
    look = not paper and not {"gold", "carbon"} <= set(tomogram.info.region.keep)
    prepared = Prepared(
        volume=volume,
        valid=valid,
        judged=judged,
        voxel_size=settings.voxel_size,
        exclusions=exclusions,
        coarse=coarse(data, present, stored) if look else None,
    )
    if settings.gold is None and settings.carbon is None:
        return prepared
    return without_contamination(prepared, settings, tomogram.info.region)


def _share(mask: Mask) -> float:
    """Of a mask that is True, which is never copied as a whole."""
    return sum(int(np.count_nonzero(mask[slab])) for slab in scratch.slabs(mask.shape)) / mask.size


def without_contamination(prepared: Prepared, settings: ModelSettings, region: Region) -> Prepared:
    """The same tomogram, where gold and carbon are no place for a particle.

    Args:
        prepared: as prepare leaves it without that.
        settings: tell what is gold and carbon.
        region: tells which of these to keep.
    """
    if prepared.coarse is None:
        return prepared
    found = find(
        prepared.coarse,
        gold=None if "gold" in region.keep else settings.gold,
        carbon=None if "carbon" in region.keep else settings.carbon,
        diameter=settings.diameter,
    )
    prepared = replace(prepared, coarse=None)
    masks = {"gold": found.gold, "carbon": found.carbon}
    if found.gold is None and found.carbon is None:
        return prepared
    shape = prepared.volume.shape
    contaminated, valid, judged = (scratch.zeros(shape, bool) for _ in range(3))
    numbers = dict.fromkeys(masks, 0)
    for i in range(shape[0]):
        clean = np.ones(shape[1:], bool) if prepared.valid is None else prepared.valid[i].copy()
        judged[i] = True if prepared.judged is None else prepared.judged[i]
        for what, mask in masks.items():
            if mask is not None:
                z, y, x = (_lying_in(n, m) for n, m in zip(shape, mask.shape, strict=True))
                found_here = mask[z[i]][np.ix_(y, x)]
                judged[i] &= ~found_here
                here = clean & found_here
                numbers[what] += int(here.sum())
                contaminated[i] |= here
                clean &= ~here
        valid[i] = clean
    lost = {what: round(prepared.exclusions.total * n / prepared.volume.size) for what, n in numbers.items()}
    exclusions = replace(prepared.exclusions, **lost, gold_places=found.gold_places)
    return replace(prepared, valid=valid, judged=judged, contaminated=contaminated, exclusions=exclusions)
