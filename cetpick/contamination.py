"""Gold and carbon: what is in the ice besides the specimen, and can be told from it without a network.

Protein, ice and noise differ little at a resolution of VOXEL. Gold (and what else is as dense: thick ice, foil) is an
order of magnitude darker, and no particle's centre lies in it, nor right at its surface. The edge of a carbon film is
not that dark, but goes on for longer than any particle or aggregate of them, and its density does not average out over
SMOOTH, as that of a membrane does. How strong the particle is in both respects its labels tell, so one that is dense
itself is never taken for either.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cetpick import scratch
from cetpick.geometry import Points, rescale
from cetpick.voxels import STATISTICS_SAMPLE, Mask, Volume, background, centre_and_spread, resampled, working_shape

VOXEL = 40.0
"""Angstrom, of the grid on which gold is looked for."""
RAMP = 750.0
"""Angstrom, of the Gaussian; grey values that vary over more than that are a ramp's, not gold's or an edge's."""
BLOCK = 5
VARIED, QUIET = 80.0, 0.33
"""Blocks of so many voxels along each side hold no specimen if they vary by less than that share of this percentile."""
DARKER = 3.0
"""Gold is so many times as dark as a typical label."""
LEAST = 8.0
"""Standard deviations that are not yet gold, however faint the labels are."""
FRINGE = 0.6
"""What touches gold and is so dark, in units of gold's least, is a part of it: its streaks."""
SURFACE = 0.25
"""Diameters from gold within which no particle has its centre."""

SMOOTH = 120.0
"""Angstrom, of the grid on which carbon is looked for, and standard deviation of the Gaussian it is seen through."""
TRIANGLE = 0.41
"""Standard deviation, in voxels, of what bringing a volume to a coarser grid has smoothed already."""
STRONGER = 2.5
"""An edge of carbon is so many times as strong as a typical label there."""
LEAST_CARBON = 3.5
"""Standard deviations that are not yet carbon, however faint the labels are."""
LENGTH = 8.0
SHORTEST = 1500.0
"""Diameters and angstrom in the plane that an edge of carbon goes on for, at least; see _length."""
CUBE = np.ones((3, 3, 3), bool)


class Contamination(NamedTuple):
    """What was found in a tomogram, (z, y, x) on grids of the same extent; None where there is none of it.

    Attributes:
        gold: where no particle's centre is for gold.
        gold_places: connected parts of that.
        carbon: edges of carbon.
    """

    gold: Mask | None
    gold_places: int
    carbon: Mask | None


def coarse(data: NDArray[Any], present: Mask | None, voxel_size: float) -> Volume:
    """A tomogram on the grid on which contamination is looked for, in standard deviations from its median.

    Args:
        data: (z, y, x) as stored.
        present: voxels that hold data, None when all do.
        voxel_size: as stored, angstrom.
    """
    scale = (voxel_size / VOXEL,) * 3
    centre, spread = centre_and_spread(data, present)

    def read(*part: slice) -> Volume:
        values = (data[part].astype(np.float32) - np.float32(centre)) / np.float32(spread or 1.0)
        return values if present is None else np.where(present[part], values, np.float32(0))

    volume: Volume = scratch.zeros(working_shape(data.shape, scale), np.float32)
    for slab, values in resampled(read, data.shape, scale):
        volume[slab] = values
    _without_ramps(volume)
    centre, spread = _of_specimen(volume)
    volume -= np.float32(centre)
    volume /= np.float32(spread or 1.0)
    return volume


def _without_ramps(volume: Volume) -> None:
    """Take away what varies over more than RAMP, but for foil: it may be larger than that, and is no ramp."""
    centre, spread = _of_specimen(volume)
    usual, typical = scratch.zeros(volume.shape, bool), scratch.zeros(volume.shape, np.float32)
    for slab in scratch.slabs(volume.shape):
        usual[slab] = (volume[slab] != 0) & (volume[slab] > centre - LEAST * spread)  # 0 where there are no data
        typical[slab] = np.where(usual[slab], volume[slab], 0)
    for slab, level in background(typical, usual, (RAMP / VOXEL,) * 3):
        volume[slab] = np.where(volume[slab] == 0, 0, volume[slab] - level)


def _clipped_power(volume: Volume, power: int, *part: slice) -> Volume:
    clipped: Volume = np.clip(volume[part], -LEAST, LEAST) ** power
    return clipped


def _of_specimen(volume: Volume) -> tuple[float, float]:
    """Median and robust standard deviation of a coarse volume where the specimen is.

    In vacuum, above and below a thin specimen or beside it, grey values hardly differ: where that is most of the
    tomogram, particles would be as far from its median as gold.
    """
    n = [min(BLOCK, side) for side in volume.shape]
    z, y, x = (side // size for side, size in zip(volume.shape, n, strict=True))
    step = max(1, volume.size // STATISTICS_SAMPLE)
    layers = [
        volume[i * n[0] : (i + 1) * n[0], : y * n[1], : x * n[2]]
        .reshape(n[0], y, n[1], x, n[2])
        .transpose(1, 3, 0, 2, 4)
        .reshape(y * x, -1)[i % step :: step]
        .copy()  # else it would hold all of its layer
        for i in range(z)
    ]
    blocks = np.concatenate(layers)
    blocks = blocks[(blocks != 0).all(axis=1)]  # 0 where there are no data
    if not len(blocks):
        return centre_and_spread(volume, volume != 0)
    varied = blocks.std(axis=1)
    return centre_and_spread(blocks[varied >= QUIET * np.percentile(varied, VARIED)])


def darkness(volume: Volume, labels: Points, voxel_size: float) -> NDArray[np.float64]:
    """How dark (n,) each label is: the lowest value within a voxel of it, standard deviations.

    Args:
        volume: see coarse.
        labels: (n, 3) x, y, z in stored voxels.
        voxel_size: as stored, angstrom.
    """
    cells = _cells(volume, labels, voxel_size, VOXEL)
    return np.array([volume[tuple(slice(max(0, i - 1), i + 2) for i in cell)].min() for cell in cells], np.float64)


def smoothed(volume: Volume) -> Volume:
    """The volume as carbon is looked for in it, in standard deviations from its median.

    Args:
        volume: see coarse.
    """
    scale = (VOXEL / SMOOTH,) * 3
    smooth, squares = (np.zeros(working_shape(volume.shape, scale), np.float32) for _ in range(2))
    for power, target in ((1, smooth), (2, squares)):
        read = functools.partial(_clipped_power, volume, power)
        for slab, values in resampled(read, volume.shape, scale):
            target[slab] = values
    varied = np.sqrt(np.maximum(squares - smooth**2, 0))
    smooth = ndimage.gaussian_filter(smooth, (1 - TRIANGLE**2) ** 0.5)
    centre, spread = centre_and_spread(smooth, varied >= QUIET * np.percentile(varied, VARIED))
    scored: Volume = (smooth - np.float32(centre)) / np.float32(spread or 1.0)
    return scored


def strength(smooth: Volume, labels: Points, voxel_size: float) -> NDArray[np.float64]:
    """How far (n,) each label is from the median, standard deviations.

    Args:
        smooth: see smoothed.
        labels: (n, 3) x, y, z in stored voxels.
        voxel_size: as stored, angstrom.
    """
    seen: NDArray[np.float64] = np.abs(smooth[tuple(_cells(smooth, labels, voxel_size, SMOOTH).T)]).astype(np.float64)
    return seen


def _cells(volume: Volume, points: Points, voxel_size: float, coarse_voxel_size: float) -> NDArray[np.intp]:
    """Nearest voxels (n, 3) z, y, x of a coarse volume to points in stored voxels."""
    centres = rescale(points, from_voxel_size=voxel_size, to_voxel_size=coarse_voxel_size)[:, ::-1]
    cells: NDArray[np.intp] = np.clip(np.rint(centres).astype(np.intp), 0, np.array(volume.shape) - 1)
    return cells


def least_of_gold(darkness_of_labels: Sequence[NDArray[np.float64]]) -> float:
    """Standard deviations below the median from which a voxel is gold, from what `darkness` tells of all labels."""
    return max(LEAST, DARKER * -float(np.median(np.concatenate(darkness_of_labels))))


def least_of_carbon(strength_of_labels: Sequence[NDArray[np.float64]]) -> float:
    """Standard deviations from which a voxel may be carbon, from what `strength` tells of all labels."""
    return max(LEAST_CARBON, STRONGER * float(np.median(np.concatenate(strength_of_labels))))


def find(volume: Volume, *, gold: float | None, carbon: float | None, diameter: float) -> Contamination:
    """Gold and carbon in a tomogram.

    Args:
        volume: see coarse.
        gold: see least_of_gold; None not to look for it.
        carbon: see least_of_carbon; None not to look for it.
        diameter: of the particle, angstrom.
    """
    mask, places = (None, 0) if gold is None else _find_gold(volume, gold, diameter)
    return Contamination(
        gold=mask, gold_places=places, carbon=None if carbon is None else _find_carbon(volume, carbon, diameter)
    )


def _find_gold(volume: Volume, least: float, diameter: float) -> tuple[Mask | None, int]:
    if volume.min() > -least:
        return None, 0
    dark = volume < -FRINGE * least
    parts = scratch.zeros(volume.shape, np.int32)
    number = ndimage.label(dark, CUBE, output=parts)
    # few voxels are that dark, so only these are looked at one by one
    at = np.flatnonzero(dark)
    part = parts.reshape(-1)[at]
    deepest = np.zeros(number + 1, np.float32)
    np.minimum.at(deepest, part, volume.reshape(-1)[at])
    is_gold = deepest <= -least
    cells = np.stack(np.unravel_index(at[is_gold[part]], volume.shape), axis=1)
    mask = np.zeros(volume.shape, bool)
    reach = SURFACE * diameter / VOXEL
    lattice = np.indices((2 * int(reach) + 1,) * 3).reshape(3, -1).T - int(reach)
    for offset in lattice[np.linalg.norm(lattice, axis=1) <= reach]:
        mask[tuple(np.clip(cells + offset, 0, np.array(volume.shape) - 1).T)] = True
    return mask, int(is_gold.sum())


def _find_carbon(volume: Volume, least: float, diameter: float) -> Mask | None:
    smooth, longest = smoothed(volume), max(LENGTH * diameter, SHORTEST)
    found = np.zeros(smooth.shape, bool)
    for sign in (-1, 1):  # beside the dark edge, the transfer function makes a bright one
        parts, _ = ndimage.label(sign * smooth > least, CUBE)
        for number, box in enumerate(ndimage.find_objects(parts), 1):
            part = parts[box] == number
            if _length(part) * SMOOTH >= longest:
                found[box] |= part
    return found if found.any() else None


def _length(part: Mask) -> float:
    """Of the straight line in the plane that spreads as far along itself as a part (z, y, x), voxels.

    So a round part counts as shorter than its diameter.
    """
    _, y, x = np.nonzero(part)
    spread = np.linalg.eigvalsh(np.cov(np.stack([y, x]), bias=True))[-1]
    return float(np.sqrt(12 * spread))
