"""From stored voxels to what a network sees: valid voxels, normalisation, resampling to the working grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from cetpick import scratch
from cetpick.config import ModelSettings
from cetpick.errors import CetpickWarning, InputError
from cetpick.records import Tomogram

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
STATISTICS_SAMPLE = 4_000_000
"""Voxels at most that median and MAD are taken from; their error is then below 1e-3 sigma."""
CUBE = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """How many voxels of a tomogram carry no signal, and why.

    Attributes:
        not_finite: NaN or infinite voxels.
        padding: voxels of constant padding that touches the border.
        off_slab: other voxels that lie outside of the slab where particles are looked for.
        masked: voxels that lie in the slab, and outside of the mask.
        total: voxels in the volume.
    """

    not_finite: int
    padding: int
    off_slab: int = 0
    masked: int = 0
    total: int

    @property
    def fraction(self) -> float:
        """Share of the volume without data, 0 to 1."""
        return (self.not_finite + self.padding) / self.total


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
        touching &= sizes >= CUBE.size
        for slab in scratch.slabs(data.shape):
            mask[slab] |= touching[components[slab]]
    return mask


def _blocks_of(data: NDArray[Any], value: float) -> Mask | None:
    """Voxels in cubes of 3 x 3 x 3 equal to `value`; None if there are none."""
    opened: Mask | None = None
    for slab in scratch.slabs(data.shape):
        first, last = max(0, slab.start - 2), min(data.shape[0], slab.stop + 2)
        same = np.asarray(data[first:last]) == value
        if same.sum() < CUBE.size:
            continue
        # the border is repeated outwards, so that padding thinner than the cube survives the opening
        beyond = [(2 - (slab.start - first), 2 - (last - slab.stop)), (2, 2), (2, 2)]
        found = ndimage.binary_opening(np.pad(same, beyond, mode="edge"), CUBE)[2:-2, 2:-2, 2:-2]
        if found.any():
            opened = scratch.zeros(data.shape, bool) if opened is None else opened
            opened[slab] = found
    return opened


def valid_voxels(tomogram: Tomogram) -> tuple[Mask | None, Exclusions]:
    """Voxels that carry signal, as a mask (z, y, x), or None when all do.

    Raises:
        InputError: more than half of the volume carries none, or all voxels are equal.

    Warns:
        CetpickWarning: some voxels were left out, with their number.
    """
    data = tomogram.data
    sample = _every(data, max(1, data.size // STATISTICS_SAMPLE))
    seen = sample[np.isfinite(sample)]
    if not len(seen) or seen.min() == seen.max():
        raise InputError(
            "all voxels are equal" if len(seen) else "no voxel is a finite number",
            file=tomogram.info.path,
            expected="a reconstruction with contrast",
            found=f"the value {seen[0]} everywhere" if len(seen) else "NaN or infinite values everywhere",
            cure="give the reconstructed tomogram, not a mask or an empty file",
        )
    not_finite = 0
    if np.issubdtype(data.dtype, np.floating):
        not_finite = sum(int(np.count_nonzero(~np.isfinite(data[slab]))) for slab in scratch.slabs(data.shape))
    padding = padding_mask(data)
    padded = sum(int(padding[slab].sum()) for slab in scratch.slabs(data.shape))
    found = Exclusions(not_finite=not_finite, padding=padded, total=data.size)
    if found.fraction > 0.5:
        raise InputError(
            "more than half of the tomogram holds no data",
            file=tomogram.info.path,
            expected="at most 50 % of NaN, infinite or padding voxels",
            found=f"{found.fraction:.0%} ({not_finite} not finite, {padded} constant padding)",
            cure="reconstruct or trim the tomogram again; check that it is not truncated or empty",
        )
    if not not_finite and not padded:
        return None, found
    warnings.warn(
        f"{tomogram.info.path}: {not_finite} NaN or infinite and {padded} constant padding voxels "
        f"({found.fraction:.1%}) are left out",
        CetpickWarning,
        stacklevel=2,
    )
    valid = padding
    for slab in scratch.slabs(data.shape):
        valid[slab] = ~padding[slab]
        if not_finite:
            valid[slab] &= np.isfinite(data[slab])
    return valid, found


def within_region(tomogram: Tomogram, present: Mask | None, exclusions: Exclusions) -> tuple[Mask | None, Exclusions]:
    """Which of the voxels (z, y, x) that hold data count, None when all do, and what was left out.

    Args:
        tomogram: with its region, and the region's mask.
        present: voxels that hold data, None when all do; see valid_voxels.
        exclusions: found there.

    Raises:
        InputError: none counts.
    """
    region, mask, shape = tomogram.info.region, tomogram.mask, tomogram.data.shape
    if mask is None and region.slab is None:
        return present, exclusions
    low, high = region.slab or (-np.inf, np.inf)
    # which voxels of the mask those of the tomogram lie in
    z, y, x = ((np.arange(n) + 0.5) * m / n for n, m in zip(shape, shape if mask is None else mask.shape, strict=True))
    plane = np.ix_(y.astype(int), x.astype(int))
    counted: Mask = scratch.zeros(shape, bool)
    number, in_slab = 0, 0
    for i in range(shape[0]):
        if low <= (i + 0.5) * tomogram.info.grid.voxel_size <= high:
            counted[i] = True if mask is None else (np.asarray(mask[int(z[i])]) > 0)[plane]
            if present is not None:
                counted[i] &= present[i]
            in_slab += counted[i].size if present is None else int(present[i].sum())
            number += int(counted[i].sum())
    if not number:
        raise InputError(
            "nothing of the tomogram is left to look at",
            file=tomogram.info.path,
            expected="voxels with data within the mask and the slab",
            found=f"none within mask {region.mask} and slab {region.slab}",
            cure="check --mask (above 0 where particles are) and --slab (angstrom along z)",
        )
    holding_data = tomogram.data.size - exclusions.not_finite - exclusions.padding
    return counted, replace(exclusions, off_slab=holding_data - in_slab, masked=in_slab - number)


def _every(data: NDArray[Any], step: int) -> NDArray[Any]:
    """Every step-th voxel of a volume (z, y, x), which is never copied as a whole."""
    if data.flags.c_contiguous:
        return data.reshape(-1)[::step]
    return data[np.unravel_index(np.arange(0, data.size, step), data.shape)]


def centre_and_spread(data: NDArray[Any], valid: Mask | None = None) -> tuple[float, float]:
    """Median and robust standard deviation (1.4826 MAD) of the valid voxels, from an even sample of them.

    Args:
        data: (z, y, x).
        valid: the voxels that count, None for all.
    """
    # an odd step never walks along a column of a volume whose sides are powers of two
    step = max(1, data.size // STATISTICS_SAMPLE) | 1
    sample = _every(data, step).astype(np.float32)
    if valid is not None:
        sample = sample[_every(valid, step)]
    median = float(np.median(sample))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(sample - median)))
    if spread == 0:  # few grey levels, such as a binary mask: fall back on the plain spread
        spread = float(sample.std())
    return median, spread


def working_shape(shape: tuple[int, int, int], scale: tuple[float, float, float]) -> tuple[int, int, int]:
    """Voxels along (z, y, x) after resampling by `scale` = stored / working voxel size along each axis."""
    z, y, x = (max(1, round(n * s)) for n, s in zip(shape, scale, strict=True))
    return z, y, x


def _resampling_matrix(n_in: int, n_out: int, scale: float) -> sparse.csr_array:
    """Weights (n_out, n_in) of a triangle filter as wide as the coarser of the two grids; rows sum to 1.

    Output voxel i is centred at (i + 0.5) / scale - 0.5 of the input: both grids share their outer corner.
    """
    centres = (np.arange(n_out) + 0.5) / scale - 0.5
    reach = max(1.0, 1 / scale)
    first = np.floor(centres - reach).astype(int)
    columns = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = np.clip(1 - np.abs(columns - centres[:, None]) / reach, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(n_out), columns.shape[1])
    # the outermost voxels stand for what lies beyond the border
    return sparse.csr_array((weights.ravel(), (rows, np.clip(columns, 0, n_in - 1).ravel())), shape=(n_out, n_in))


def resampled(
    read: Callable[[slice, slice], Volume], shape: tuple[int, int, int], scale: tuple[float, float, float]
) -> Iterator[tuple[slice, Volume]]:
    """Resample a volume (z, y, x) slab by slab, with an anti-aliasing filter.

    Voxel centres map as `geometry.rescale` says. A scale of 1 leaves an axis as it is.

    Args:
        read: gives the voxels of some slices and rows of the volume.
        shape: voxels of the volume.
        scale: stored / working voxel size along each axis.

    Yields:
        Slices of the result, an even number of them but for the last ones, and their voxels.
    """
    size = working_shape(shape, scale)
    matrices = [_resampling_matrix(*axis).astype(np.float32) for axis in zip(shape, size, scale, strict=True)]
    for slab in scratch.slabs((size[0], shape[1], shape[2]), multiple=2):
        weights, part = matrices[0][slab], slab
        if scale[0] != 1:
            part = slice(int(weights.indices.min()), int(weights.indices.max()) + 1)
        # many slices are read for one of the result, so only some rows at a time
        step = max(1, scratch.SLAB // ((part.stop - part.start) * shape[2]))
        blocks = []
        for first in range(0, shape[1], step):
            block = read(part, slice(first, first + step))
            if scale[0] != 1:
                flat = weights[:, part] @ block.reshape(len(block), -1)
                block = flat.reshape(-1, *block.shape[1:])
            blocks.append(block)
        volume = np.concatenate(blocks, axis=1)
        for axis in (1, 2):
            if scale[axis] == 1:
                continue
            moved = np.moveaxis(volume, axis, 0)
            flat = matrices[axis] @ moved.reshape(moved.shape[0], -1)
            volume = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)
        yield slab, np.ascontiguousarray(volume)


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
        voxel_size: (z, y, x) angstrom of the working grid.
        exclusions: what was left out.
    """

    volume: Volume
    valid: Mask | None
    voxel_size: tuple[float, float, float]
    exclusions: Exclusions

    @property
    def skewness(self) -> float:
        """Skewness of the valid grey values: below zero where protein is dark."""
        mean, spread = _mean_and_spread(self.volume, self.valid)
        cubes, count = 0.0, 0
        for slab in scratch.slabs(self.volume.shape):
            values = self.volume[slab] if self.valid is None else self.volume[slab][self.valid[slab]]
            cubes += float((((values - np.float32(mean)) / np.float32(spread)) ** 3).sum(dtype=np.float64))
            count += values.size
        return cubes / count


def prepare(tomogram: Tomogram, settings: ModelSettings) -> Prepared:
    """Normalise a tomogram and bring it to the working grid of a model.

    `default` mode: robust z-score, clipped (gold, hot pixels), resampled, robust z-score again, since resampling takes
    noise away. `paper` mode: resampled if need be, z pairs merged by maximum, plain z-score.

    Raises:
        InputError: more than half of the volume holds no data, or all voxels are equal.
    """
    present, exclusions = valid_voxels(tomogram)
    counted, exclusions = within_region(tomogram, present, exclusions)
    paper, data = settings.mode == "paper", tomogram.data
    merged = 2 if paper else 1
    stored = tomogram.info.grid.voxel_size
    z, y, x = (stored / size for size in settings.voxel_size)
    scale = (z * merged, y, x)
    levels = _mean_and_spread if paper else centre_and_spread
    limit = np.inf if paper else settings.clip
    score = _Score(*levels(data, counted), limit)
    depth, height, width = working_shape(data.shape, scale)
    volume: Volume = scratch.zeros((depth // merged, height, width), np.float32)

    def read(*part: slice) -> Volume:
        return score(data[part], None if present is None else present[part])

    def place(slab: slice, values: Volume) -> tuple[slice, Volume]:
        if not paper:
            return slab, values
        values = merge_slice_pairs(values)
        return slice(slab.start // 2, slab.start // 2 + len(values)), values

    def place_mask(mask: Mask | None) -> Mask | None:
        if mask is None:
            return None
        placed: Mask = scratch.zeros(volume.shape, bool)
        for slab, values in resampled(lambda *part: mask[part].astype(np.float32), data.shape, scale):
            where, values = place(slab, (values > 0.5).astype(np.float32))
            placed[where] = values > 0.5
        return placed

    holds_data = place_mask(present)
    valid = holds_data if counted is present else place_mask(counted)
    for slab, values in resampled(read, data.shape, scale):
        where, values = place(slab, values)
        volume[where] = values
    score = _Score(*levels(volume, valid), limit)
    for slab in scratch.slabs(volume.shape):
        # a particle at the border of its region is seen whole
        volume[slab] = score(volume[slab], None if holds_data is None else holds_data[slab])
    return Prepared(volume=volume, valid=valid, voxel_size=settings.voxel_size, exclusions=exclusions)


class _Score(NamedTuple):
    """Grey values in units of their spread, limited, 0 where they are not valid."""

    centre: float
    spread: float
    limit: float

    def __call__(self, values: NDArray[Any], valid: Mask | None) -> Volume:
        with np.errstate(invalid="ignore", over="ignore"):
            scored = (values.astype(np.float32) - np.float32(self.centre)) / np.float32(self.spread or 1.0)
        np.clip(scored, -self.limit, self.limit, out=scored)
        if valid is not None:
            scored[~valid] = 0
        return scored


def _mean_and_spread(data: NDArray[Any], valid: Mask | None) -> tuple[float, float]:
    """Mean and standard deviation of the valid voxels."""

    def values() -> Iterator[NDArray[np.float32]]:
        for slab in scratch.slabs(data.shape):
            yield (data[slab] if valid is None else data[slab][valid[slab]]).astype(np.float32)

    count = sum(part.size for part in values())
    mean = sum(float(part.sum(dtype=np.float64)) for part in values()) / count
    variance = sum(float(((part - np.float32(mean)) ** 2).sum(dtype=np.float64)) for part in values()) / count
    return mean, float(np.sqrt(variance))
