"""From stored voxels to what a network sees: valid voxels, normalisation, resampling to the working grid."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from cetpick.config import ModelSettings
from cetpick.errors import CetpickWarning, InputError
from cetpick.records import Tomogram

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
STATISTICS_SAMPLE = 4_000_000
"""Voxels at most that median and MAD are taken from; their error is then below 1e-3 sigma."""


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """How many voxels of a tomogram carry no signal, and why.

    Attributes:
        not_finite: NaN or infinite voxels.
        padding: voxels of constant padding that touches the border.
        total: voxels in the volume.
    """

    not_finite: int
    padding: int
    total: int

    @property
    def fraction(self) -> float:
        """Excluded share of the volume, 0 to 1."""
        return (self.not_finite + self.padding) / self.total


def padding_mask(data: NDArray[Any]) -> Mask:
    """Voxels (z, y, x) of constant padding: blocks of at least 3 x 3 x 3 equal voxels that reach a face of the volume.

    Aligned and reconstructed tomograms are padded with zeros or a mean value where no data was. Only the values found
    in the corner and edge-centre blocks, and zero, are looked for, so single voxels of that value inside never count.
    """
    mask = np.zeros(data.shape, bool)
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
    cube = np.ones((3, 3, 3), bool)
    for value in values:
        same = np.asarray(data) == value
        if same.sum() < 27:
            continue
        # the border is repeated outwards, so that padding thinner than the cube survives the opening
        opened = ndimage.binary_opening(np.pad(same, 2, mode="edge"), cube)[2:-2, 2:-2, 2:-2]
        components, _ = ndimage.label(opened)
        faces = [components.take(side, axis) for axis in range(3) for side in (0, -1)]
        touching = np.unique(np.concatenate([face.ravel() for face in faces]))
        sizes = np.bincount(components.ravel())
        mask |= np.isin(components, touching[(touching > 0) & (sizes[touching] >= cube.size)])
    return mask


def valid_voxels(tomogram: Tomogram) -> tuple[Mask | None, Exclusions]:
    """Voxels that carry signal, as a mask (z, y, x), or None when all do.

    Raises:
        InputError: more than half of the volume carries none, or all voxels are equal.

    Warns:
        CetpickWarning: some voxels were left out, with their number.
    """
    data = tomogram.data
    sample = data.reshape(-1)[:: max(1, data.size // STATISTICS_SAMPLE)]
    seen = sample[np.isfinite(sample)]
    if not len(seen) or seen.min() == seen.max():
        raise InputError(
            "all voxels are equal" if len(seen) else "no voxel is a finite number",
            file=tomogram.info.path,
            expected="a reconstruction with contrast",
            found=f"the value {seen[0]} everywhere" if len(seen) else "NaN or infinite values everywhere",
            cure="give the reconstructed tomogram, not a mask or an empty file",
        )
    finite = np.isfinite(data) if np.issubdtype(data.dtype, np.floating) else None
    not_finite = 0 if finite is None else int(finite.size - finite.sum())
    padding = padding_mask(data)
    padded = int(padding.sum())
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
    valid = ~padding
    if finite is not None:
        valid &= finite
    return valid, found


def centre_and_spread(data: NDArray[Any], valid: Mask | None = None) -> tuple[float, float]:
    """Median and robust standard deviation (1.4826 MAD) of the valid voxels, from an even sample of them.

    Args:
        data: (z, y, x).
        valid: the voxels that count, None for all.
    """
    flat = data.reshape(-1)
    step = max(1, flat.size // STATISTICS_SAMPLE)
    # an odd step never walks along a column of a volume whose sides are powers of two
    sample = flat[:: step | 1].astype(np.float32)
    if valid is not None:
        sample = sample[valid.reshape(-1)[:: step | 1]]
    median = float(np.median(sample))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(sample - median)))
    if spread == 0:  # few grey levels, such as a binary mask: fall back on the plain spread
        spread = float(sample.std())
    return median, spread


def _standardise(volume: Volume, valid: Mask | None, *, clip: float) -> Volume:
    """Robust z-score, clipped to +-clip, 0 in invalid voxels."""
    median, spread = centre_and_spread(volume, valid)
    with np.errstate(invalid="ignore"):
        volume = (volume - np.float32(median)) / np.float32(spread or 1.0)
    np.clip(volume, -clip, clip, out=volume)
    if valid is not None:
        volume[~valid] = 0
    return volume


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


def resample(volume: Volume, scale: tuple[float, float, float]) -> Volume:
    """Resample (z, y, x) by `scale` = stored / working voxel size along each axis, with an anti-aliasing filter.

    Voxel centres map as `geometry.rescale` says. A scale of 1 returns the axis untouched.
    """
    shape = working_shape(volume.shape, scale)
    for axis in range(3):
        if scale[axis] == 1:
            continue
        matrix = _resampling_matrix(volume.shape[axis], shape[axis], scale[axis]).astype(np.float32)
        moved = np.moveaxis(volume, axis, 0)
        flat = matrix @ moved.reshape(moved.shape[0], -1)
        volume = np.moveaxis(flat.reshape(shape[axis], *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(volume)


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
        valid: like volume, False where the tomogram holds no data; None when it holds data everywhere.
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
        values = self.volume if self.valid is None else self.volume[self.valid]
        deviation = values - values.mean(dtype=np.float64)
        return float((deviation**3).mean(dtype=np.float64) / (deviation**2).mean(dtype=np.float64) ** 1.5)


def prepare(tomogram: Tomogram, settings: ModelSettings) -> Prepared:
    """Normalise a tomogram and bring it to the working grid of a model.

    `default` mode: robust z-score, clipped (gold, hot pixels), resampled, robust z-score again, since resampling takes
    noise away. `paper` mode: resampled if need be, z pairs merged by maximum, plain z-score.

    Raises:
        InputError: more than half of the volume holds no data, or all voxels are equal.
    """
    valid, exclusions = valid_voxels(tomogram)
    paper = settings.mode == "paper"
    merged = 2 if paper else 1
    stored = tomogram.info.grid.voxel_size
    z, y, x = (stored / size for size in settings.voxel_size)
    scale = (z * merged, y, x)
    volume = tomogram.data.astype(np.float32)
    volume = _plain_score(volume, valid) if paper else _standardise(volume, valid, clip=settings.clip)
    volume = resample(volume, scale)
    if valid is not None:
        valid = resample(valid.astype(np.float32), scale) > 0.5
    if paper:
        volume = merge_slice_pairs(volume)
        valid = None if valid is None else merge_slice_pairs(valid.astype(np.float32)) > 0.5
        volume = _plain_score(volume, valid)
    else:
        volume = _standardise(volume, valid, clip=settings.clip)
    return Prepared(volume=volume, valid=valid, voxel_size=settings.voxel_size, exclusions=exclusions)


def _plain_score(volume: Volume, valid: Mask | None) -> Volume:
    """Mean 0 and standard deviation 1 over the valid voxels, 0 in the others."""
    values = volume if valid is None else volume[valid]
    scored = (volume - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)
    if valid is not None:
        scored[~valid] = 0
    result: Volume = scored.astype(np.float32)
    return result
