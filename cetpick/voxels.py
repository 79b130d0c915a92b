"""Grey values of volumes: what is typical of them, and other grids, a few slices at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.interpolate import make_interp_spline

from cetpick import scratch

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
ROWS = 32
"""Rows at least that the spread of a slice is taken from, when it has more."""
VARIED, QUIET = 90.0, 0.2
"""Slices above or below the specimen hold none if they vary by less than that share of this percentile of all."""
FEWEST_VARIED = 0.25
"""Share of the slices that vary more, from which on they are the specimen though they reach a face of what counts."""
STATISTICS_SAMPLE = 4_000_000
"""Voxels at most that median and MAD are taken from; their error is then below 1e-3 sigma."""


def every(data: NDArray[Any], step: int) -> NDArray[Any]:
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
    sample = every(data, step).astype(np.float32)
    if valid is not None:
        sample = sample[every(valid, step)]
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


def widened(mask: Mask, reach: tuple[float, float, float], within: Mask | None) -> Mask:
    """A mask (z, y, x) and what is near it: by blocks, whose sides are a quarter of the reach, and 2 voxels at least.

    Args:
        mask: what is to be widened.
        reach: (z, y, x) how far, voxels; up to two blocks more.
        within: at most these voxels, None for all.
    """
    sides = [max(2, int(length / 4)) for length in reach]
    starts = [np.arange(0, n, side) for n, side in zip(mask.shape, sides, strict=True)]
    layers = []
    for first in starts[0]:
        plane = np.zeros(mask.shape[1:], bool)
        for z in range(first, min(first + sides[0], mask.shape[0])):
            plane |= mask[z]
        layers.append(np.logical_or.reduceat(np.logical_or.reduceat(plane, starts[1], axis=0), starts[2], axis=1))
    blocks = np.stack(layers)
    steps = [2 * math.ceil(length / side) + 1 for length, side in zip(reach, sides, strict=True)]
    blocks = ndimage.maximum_filter(blocks, steps, mode="constant")
    wide: Mask = scratch.zeros(mask.shape, bool)
    _, y, x = (np.arange(n) // side for n, side in zip(mask.shape, sides, strict=True))
    for z in range(mask.shape[0]):
        wide[z] = blocks[z // sides[0]][np.ix_(y, x)]
        if within is not None:
            wide[z] &= within[z]
    return wide


def spreads_of_slices(
    data: NDArray[Any], valid: Mask | None = None, *, left_out: Mask | None = None
) -> NDArray[np.float64]:
    """Robust standard deviation of each slice (z,), from some of its rows; NaN where nothing counts.

    Args:
        data: (z, y, x); what is not finite does not count.
        valid: the voxels that count, None for all.
        left_out: voxels that do not.
    """
    spread = np.full(len(data), np.nan)
    step = max(1, data.shape[1] // ROWS)
    for z in range(len(data)):
        rows = data[z, ::step].astype(np.float32)
        counted = np.isfinite(rows)
        if valid is not None:
            counted &= valid[z, ::step]
        if left_out is not None:
            counted &= ~left_out[z, ::step]
        rows = rows[counted]
        if len(rows):
            spread[z] = centre_and_spread(rows)[1]
    return spread


def specimen(data: NDArray[Any], valid: Mask | None) -> Mask | None:
    """The valid voxels but for slices above and below the specimen, None for all.

    Grey values may hardly differ there, as denoising leaves them: where that is much of the tomogram, the spread of all
    its voxels is not that of the specimen. A few slices at a face that vary more than all others, as ice on the surface
    makes them, are not taken for the specimen.

    Args:
        data: (z, y, x).
        valid: the voxels that count, None for all.
    """
    spread = spreads_of_slices(data, valid)
    known = np.flatnonzero(spread > 0)
    if not len(known):
        return valid
    varied = np.flatnonzero(spread >= QUIET * np.percentile(spread[known], VARIED))
    (bottom, top), (first, last) = ((slices[0], slices[-1] + 1) for slices in (known, varied))
    at_face = first == bottom or last == top
    if (first, last) == (bottom, top) or (at_face and last - first < FEWEST_VARIED * (top - bottom)):
        return valid
    held: Mask = scratch.zeros(data.shape, bool)
    for z in range(first, last):
        held[z] = True if valid is None else valid[z]
    return held


class Score(NamedTuple):
    """Grey values in units of their spread, limited, 0 where they are not valid."""

    centre: float
    spread: float
    limit: float

    def __call__(self, values: NDArray[Any], valid: Mask | None) -> Volume:
        """The grey values of voxels as stored, of which those that are not `valid` become 0."""
        with np.errstate(invalid="ignore", over="ignore"):
            scored = (values.astype(np.float32) - np.float32(self.centre)) / np.float32(self.spread or 1.0)
        np.clip(scored, -self.limit, self.limit, out=scored)
        if valid is not None:
            scored[~valid] = 0
        return scored


def background(data: Volume, valid: Mask | None, sigma: tuple[float, float, float]) -> Iterator[tuple[slice, Volume]]:
    """The grey value about each voxel, slab by slab: local linear regression (Cleveland and Devlin 1988).

    It follows what varies over more than the width of its Gaussian, and ramps right up to the border, where a plain
    mean would not.

    Args:
        data: (z, y, x), 0 where it is not valid.
        valid: the voxels that count, None for all.
        sigma: (z, y, x) of the Gaussian, voxels; its grid has cells of half of that, at least 3 along each axis.

    Yields:
        Slices, and the grey values about their voxels.
    """
    z, y, x = (min(n, max(3, round(2 * n / s))) for n, s in zip(data.shape, sigma, strict=True))
    scale = (z / data.shape[0], y / data.shape[1], x / data.shape[2])

    def cells(read: Callable[[slice, slice], Volume]) -> NDArray[np.float64]:
        return np.concatenate([values for _, values in resampled(read, data.shape, scale)]).astype(np.float64)

    total = cells(lambda *part: data[part])
    held = np.ones_like(total) if valid is None else cells(lambda *part: valid[part].astype(np.float32))
    level = _local_regression(total, held)
    for slab in scratch.slabs(data.shape):
        values = level
        for axis, (n, part) in enumerate(zip(data.shape, (slab, slice(None), slice(None)), strict=True)):
            at = ((np.arange(n) + 0.5) * scale[axis] - 0.5)[part]
            cell = np.arange(values.shape[axis])
            if len(cell) == 1:
                values = values.repeat(len(at), axis)
            else:  # unlike other interpolation, it goes on beyond the centres of the outermost cells
                values = make_interp_spline(cell, values, k=1, axis=axis)(at)
        yield slab, values.astype(np.float32)


def _local_regression(total: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear function fitted about each cell (z, y, x), at the cell; cells weigh by a Gaussian of 2 of them.

    Args:
        total: sums of the valid values in the cells.
        held: how much of each cell is valid, in the same units.
    """
    terms = [np.ones_like(held), *np.indices(held.shape, np.float64)]
    about = functools.partial(ndimage.gaussian_filter, sigma=2.0, mode="constant")
    products = [[about(held * a * b) for b in terms] for a in terms]
    sums = [about(total * a) for a in terms]
    # far from all that is valid, and along an axis of one cell, there is no slope to be seen
    least = np.diag([1e-6, 1e-3, 1e-3, 1e-3])
    level = np.empty_like(held)
    for z in range(len(level)):  # all of it at a time is large
        matrix = np.moveaxis(np.array([[of[z] for of in row] for row in products]), (0, 1), (-2, -1)) + least
        fitted = np.linalg.solve(matrix, np.stack([of[z] for of in sums], axis=-1)[..., None])[..., 0]
        level[z] = sum(fitted[..., i] * term[z] for i, term in enumerate(terms))
    return level


def mean_and_spread(data: NDArray[Any], valid: Mask | None) -> tuple[float, float]:
    """Mean and standard deviation of the valid voxels."""

    def values() -> Iterator[NDArray[np.float32]]:
        for slab in scratch.slabs(data.shape):
            yield (data[slab] if valid is None else data[slab][valid[slab]]).astype(np.float32)

    count = sum(part.size for part in values())
    mean = sum(float(part.sum(dtype=np.float64)) for part in values()) / count
    variance = sum(float(((part - np.float32(mean)) ** 2).sum(dtype=np.float64)) for part in values()) / count
    return mean, float(np.sqrt(variance))
