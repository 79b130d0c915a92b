"""Grey values of volumes: what is typical of them, and other grids, a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cetpick import scratch

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
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


def mean_and_spread(data: NDArray[Any], valid: Mask | None) -> tuple[float, float]:
    """Mean and standard deviation of the valid voxels."""

    def values() -> Iterator[NDArray[np.float32]]:
        for slab in scratch.slabs(data.shape):
            yield (data[slab] if valid is None else data[slab][valid[slab]]).astype(np.float32)

    count = sum(part.size for part in values())
    mean = sum(float(part.sum(dtype=np.float64)) for part in values()) / count
    variance = sum(float(((part - np.float32(mean)) ** 2).sum(dtype=np.float64)) for part in values()) / count
    return mean, float(np.sqrt(variance))
