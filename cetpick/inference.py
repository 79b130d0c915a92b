"""From a prepared tomogram and a network to scored candidates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from cetpick.centring import PROBABLE, centred
from cetpick.config import ModelSettings
from cetpick.geometry import Points
from cetpick.mixture import calibrate
from cetpick.networks.fold import folded
from cetpick.peaks import local_maxima, refine, suppress
from cetpick.preprocess import Prepared
from cetpick.records import Grid
from cetpick.tiling import TileableNetwork, heatmap
from cetpick.voxels import Mask

SMOOTHING = 0.5
"""Cells; a slight Gaussian joins the twin maxima of one particle."""
PAPER_NEIGHBOURHOOD = (3, 5, 5)


def find_candidates(
    network: TileableNetwork,
    prepared: Prepared,
    grid: Grid,
    settings: ModelSettings,
    *,
    memory: float | None = None,
) -> pd.DataFrame:
    """All scored candidates of a prepared tomogram.

    `default` mode: maxima of the slightly smoothed logits, refined to sub-cell positions, thinned by distance, centred.
    `paper` mode: maxima over (3, 5, 5) cells, positions of the cells, no thinning.

    Args:
        network: in eval mode, on the device to compute on.
        prepared: the tomogram on the working grid.
        grid: of the tomogram as stored.
        settings: of the model.
        memory: bytes that a tile may take; see tiling.heatmap.

    Returns:
        Columns x, y, z (voxels as stored), score, class; by falling score. No candidate lies where there is no data, or
        outside of the region, to the precision of the working grid; how many would with a score from the threshold on
        is `attrs["excluded"]`. In `default` mode none is nearer to another than the settings' separation.
    """
    device = next(network.parameters()).device
    paper = settings.mode == "paper"
    logits = heatmap(folded(network), prepared.volume, device=device, memory=memory, both_ways=not paper)
    floor = float(np.log(settings.floor / (1 - settings.floor)))
    if paper:
        cells = local_maxima(logits, floor=floor, size=PAPER_NEIGHBOURHOOD)
        positions = cells.astype(np.float64)
    else:
        ndimage.gaussian_filter(logits, SMOOTHING, output=logits)
        cells = local_maxima(logits, floor=floor)
        positions = refine(logits, cells)
    scores = expit(calibrate(logits[tuple(cells.T)], settings.calibration))
    working = (positions[:, ::-1] + 0.5) * network.stride[::-1] - 0.5
    size = np.array(settings.voxel_size)
    # not beyond the centres of the outermost voxels, where a program that rounds finds none; the last cell of an odd
    # axis is half padding
    first, last = 0.5 * grid.voxel_size, (np.array(grid.size) - 0.5) * grid.voxel_size
    angstrom = np.clip((working + 0.5) * size[::-1], first, last)
    valid = _counts(prepared.valid, working[:, ::-1])
    keep, excluded = np.flatnonzero(valid), np.flatnonzero(~valid)
    distance = 0.0 if paper else settings.separation * settings.diameter
    keep, excluded = (at[suppress(angstrom[at], scores[at], distance=distance)] for at in (keep, excluded))
    angstrom = angstrom[keep]
    if settings.calibration:  # else the scores are no probabilities
        places = angstrom[:, ::-1] / size - 0.5
        places = centred(prepared.volume, places, scores[keep], diameter=tuple(settings.diameter / size))
        moved = np.clip((places + 0.5)[:, ::-1] * size[::-1], first, last)
        allowed = _counts(prepared.valid, places)
        angstrom, left = _apart(angstrom, moved, allowed, scores[keep], distance=distance)
        keep = keep[left]
    table = pd.DataFrame(angstrom / grid.voxel_size - 0.5, columns=["x", "y", "z"])
    table["score"] = scores[keep]
    table["class"] = settings.classes[0].name
    table.attrs["excluded"] = int((scores[excluded] >= settings.threshold).sum())
    return table


def _counts(valid: Mask | None, places: Points) -> Mask:
    """Which places (n, 3) z, y, x, in voxels of the working grid, lie where something may be picked."""
    if valid is None:
        return np.ones(len(places), bool)
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(valid.shape) - 1)
    counted: Mask = valid[tuple(nearest.T)]
    return counted


def _apart(
    before: Points, moved: Points, allowed: Mask, scores: NDArray[np.float64], *, distance: float
) -> tuple[Points, NDArray[np.intp]]:
    """Moved points (n, 3), best first, and which of them are left: none is nearer to another than `distance`.

    What is not `allowed` to move stays. Of two that would come too near, the better one moves, where that is enough; an
    improbable one, which is never moved, gives way.
    """
    points = np.where(allowed[:, None], moved, before)
    probable = int((scores >= PROBABLE).sum())
    while True:
        pairs = cKDTree(points[:probable]).query_pairs(np.nextafter(distance, 0), output_type="ndarray")
        elsewhere = (points != before).any(axis=1)
        pairs = pairs[elsewhere[pairs].any(axis=1)]
        if not len(pairs):
            break
        better, worse = pairs.min(axis=1), pairs.max(axis=1)
        back = np.where(elsewhere[worse], worse, better)
        points[back] = before[back]
    near, _ = cKDTree(points[:probable]).query(points[probable:], distance_upper_bound=distance)
    left = np.concatenate([np.arange(probable), probable + np.flatnonzero(np.isinf(near))])
    return points[left], left
