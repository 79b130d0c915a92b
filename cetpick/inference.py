"""From a prepared tomogram and a network to scored candidates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.special import expit

from cetpick.centring import centred
from cetpick.config import ModelSettings
from cetpick.mixture import calibrate
from cetpick.networks.fold import folded
from cetpick.peaks import local_maxima, refine, suppress
from cetpick.preprocess import Prepared
from cetpick.records import Grid
from cetpick.tiling import TileableNetwork, heatmap

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
        outside of the region; how many would with a score from the threshold on is `attrs["excluded"]`.
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
    # the last cell of an odd axis is half padding, its centre on the very edge of the volume
    edge = np.array(grid.size) * grid.voxel_size
    angstrom = np.clip((working + 0.5) * np.array(settings.voxel_size[::-1]), 0, np.nextafter(edge, 0))
    keep, excluded = np.arange(len(scores)), np.arange(0)
    if prepared.valid is not None:
        last = np.array(prepared.valid.shape) - 1
        nearest = np.clip(np.rint(working[:, ::-1]).astype(int), 0, last)
        valid = prepared.valid[tuple(nearest.T)]
        keep, excluded = np.flatnonzero(valid), np.flatnonzero(~valid)
    distance = 0.0 if paper else settings.separation * settings.diameter
    keep, excluded = (at[suppress(angstrom[at], scores[at], distance=distance)] for at in (keep, excluded))
    angstrom = angstrom[keep]
    if settings.calibration:  # else the scores are no probabilities
        size, places = np.array(settings.voxel_size), angstrom[:, ::-1]
        places = centred(prepared.volume, places / size - 0.5, scores[keep], diameter=tuple(settings.diameter / size))
        angstrom = np.clip((places + 0.5)[:, ::-1] * size[::-1], 0, np.nextafter(edge, 0))
    table = pd.DataFrame(angstrom / grid.voxel_size - 0.5, columns=["x", "y", "z"])
    table["score"] = scores[keep]
    table["class"] = settings.classes[0].name
    table.attrs["excluded"] = int((scores[excluded] >= settings.threshold).sum())
    return table[grid.contains(table[["x", "y", "z"]])].reset_index(drop=True)
