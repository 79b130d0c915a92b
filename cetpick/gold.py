"""Fiducial gold, and what else is far denser than the particle (thick ice, contamination, a foil's edge).

Protein, ice and noise differ little at a resolution of VOXEL; gold is an order of magnitude darker. How dark the
particle is there, its labels tell, so a particle that is dense itself is never taken for gold. No particle's centre
lies in gold, nor right at its surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cetpick import scratch
from cetpick.geometry import Points, rescale
from cetpick.voxels import Mask, Volume, centre_and_spread, resampled, working_shape

VOXEL = 40.0
"""Angstrom, of the grid on which gold is looked for."""
DARKER = 3.0
"""Gold is so many times as dark as a typical label."""
LEAST = 8.0
"""Standard deviations that are not yet gold, however faint the labels are."""
FRINGE = 0.6
"""What touches gold and is so dark, in units of gold's least, is a part of it: its streaks."""
SURFACE = 0.25
"""Diameters from gold within which no particle has its centre."""
CUBE = np.ones((3, 3, 3), bool)


class Gold(NamedTuple):
    """Gold in a tomogram.

    Attributes:
        mask: where no particle's centre is, (z, y, x) on a grid of the same extent.
        places: connected parts of it.
    """

    mask: Mask
    places: int


def coarse(data: NDArray[Any], present: Mask | None, voxel_size: float) -> Volume:
    """A tomogram on the grid on which gold is looked for, in standard deviations from its median.

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
    centre, spread = centre_and_spread(volume, volume != 0)  # 0 where there are no data
    volume -= np.float32(centre)
    volume /= np.float32(spread or 1.0)
    return volume


def darkness(volume: Volume, labels: Points, voxel_size: float) -> NDArray[np.float64]:
    """The lowest value (n,) within a voxel of each label, standard deviations.

    Args:
        volume: see coarse.
        labels: (n, 3) x, y, z in stored voxels.
        voxel_size: as stored, angstrom.
    """
    centres = rescale(labels, from_voxel_size=voxel_size, to_voxel_size=VOXEL)[:, ::-1]
    cells = np.clip(np.rint(centres).astype(int), 0, np.array(volume.shape) - 1)
    return np.array([volume[tuple(slice(max(0, i - 1), i + 2) for i in cell)].min() for cell in cells], np.float64)


def least_of_gold(darkness_of_labels: Sequence[NDArray[np.float64]]) -> float:
    """Standard deviations below the median from which a voxel is gold, from what `darkness` tells of all labels."""
    return max(LEAST, DARKER * -float(np.median(np.concatenate(darkness_of_labels))))


def find_gold(volume: Volume, least: float, *, diameter: float) -> Gold | None:
    """Where no particle's centre can be for gold; None when there is none.

    Args:
        volume: see coarse.
        least: standard deviations below the median that are gold.
        diameter: of the particle, angstrom.
    """
    if volume.min() > -least:
        return None
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
    return Gold(mask=mask, places=int(is_gold.sum()))
