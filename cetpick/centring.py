"""Better centres: each candidate is matched with the mean of all that are probably particles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cetpick.peaks import refine
from cetpick.voxels import Volume

Floats = NDArray[np.float64]

RADIUS = 0.6
"""Of the sphere that is compared, diameters: the particle and the dark or bright rim around it."""
REACH = 0.2
"""How far a centre is looked for, diameters; one that seems to lie farther off stays where it is."""
WEIGHT = 0.4
"""Of the matched centre against the network's: their errors are independent, so that a mean is nearer than either; less
than half, as the network's is the better one where particles are small or crowded (docs/experiments.md)."""
ENOUGH = 10.0
"""Particles that a mean needs."""
SURE = 0.5
"""Candidates of this weight tell where the network puts centres; where these are not ENOUGH, the likeliest do."""
PROBABLE = 0.01
"""Candidates of a lower weight stay where they are."""
CHUNK = 256
"""Candidates matched at once; bounds the memory."""


def centred(volume: Volume, positions: Floats, weights: Floats, *, diameter: tuple[float, float, float]) -> Floats:
    """Centres moved towards where the mean particle of this volume fits best.

    The mean is taken over all candidates, each with its weight, and over the symmetries of the grid, so it needs no
    orientations. Its own centre is the mean of the network's: the shifts of sure candidates have a median of zero.

    Args:
        volume: (z, y, x) grey values.
        positions: (n, 3) z, y, x of candidates, voxels.
        weights: (n,) how probable it is that each is a particle, 0 to 1.
        diameter: of the particle along z, y, x, voxels.

    Returns:
        (n, 3). `positions` themselves when less than ENOUGH particles are expected among them.
    """
    if weights.sum() < ENOUGH:
        return positions
    size = np.array(diameter)
    radius = np.ceil(RADIUS * size).astype(int)
    reach = np.maximum(1, np.ceil(REACH * size)).astype(int)
    probable = np.flatnonzero(weights >= PROBABLE)
    template = _mean(volume, positions[probable], weights[probable], radius, size)
    around = [np.arange(-r, r + 1) for r in radius + reach]
    moved = positions.copy()
    for start in range(0, len(probable), CHUNK):
        chunk = probable[start : start + CHUNK]
        whole = np.clip(np.rint(positions[chunk]).astype(int), 0, np.array(volume.shape) - 1)
        boxes = np.stack([_box(volume, centre, around) for centre in whole])
        moved[chunk] = whole - reach + _best_fit(boxes, template)
    shifts = moved - positions
    shifts[(np.abs(shifts) > reach).any(axis=1)] = 0
    # improbable candidates, of which there may be more, have no centre
    sure = max(int(ENOUGH), int((weights >= SURE).sum()))
    surest = probable[np.argsort(-weights[probable], kind="stable")[:sure]]
    shifts[probable] -= np.median(shifts[surest], axis=0)
    return positions + WEIGHT * shifts


def _box(volume: Volume, centre: NDArray[np.intp], around: Sequence[NDArray[np.intp]]) -> Volume:
    """The voxels around a centre (z, y, x); the border is repeated outwards."""
    axes = [np.clip(place + offsets, 0, n - 1) for place, offsets, n in zip(centre, around, volume.shape, strict=True)]
    return volume[np.ix_(*axes)]


def _mean(volume: Volume, centres: Floats, weights: Floats, radius: NDArray[np.intp], size: Floats) -> Volume:
    """Weighted mean of the boxes around centres, made symmetric, of mean zero within RADIUS and zero outside."""
    box = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in radius), indexing="ij"))
    total = np.zeros(box.shape[1:], np.float32)
    for centre, weight in zip(centres, weights, strict=True):
        points = box + centre[:, None, None, None]
        total += weight * ndimage.map_coordinates(volume, points, order=1, mode="nearest")
    flipped = total + total[::-1]
    flipped = flipped + flipped[:, ::-1]
    flipped = flipped + flipped[:, :, ::-1]
    mean = flipped + flipped.transpose(0, 2, 1)
    distance = np.sqrt(((box / size[:, None, None, None]) ** 2).sum(axis=0))
    inside = np.clip((RADIUS - distance) * size.max() + 0.5, 0, 1)  # a soft edge, one voxel wide
    result: Volume = ((mean - (mean * inside).sum() / inside.sum()) * inside).astype(np.float32)
    return result


def _best_fit(boxes: Volume, template: Volume) -> Floats:
    """Where (n, 3) in boxes (n, z, y, x) the template fits best, as the shift from their corner, sub-voxel."""
    shape = boxes.shape[1:]
    spectrum = fft.rfftn(boxes, axes=(1, 2, 3)) * fft.rfftn(template, shape).conj()
    valid = [slice(0, whole - part + 1) for whole, part in zip(shape, template.shape, strict=True)]
    fit = fft.irfftn(spectrum, shape, axes=(1, 2, 3))[(slice(None), *valid)]
    best = np.stack(np.unravel_index(fit.reshape(len(fit), -1).argmax(axis=1), fit.shape[1:]), axis=1)
    return np.stack([refine(one, cell[None])[0] for one, cell in zip(fit, best, strict=True)])
