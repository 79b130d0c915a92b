"""Run a network over a whole tomogram, in tiles that equal the whole, and turn the heatmap into candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from scipy.special import expit
from torch import Tensor, nn

from cetpick.centring import centred
from cetpick.config import ModelSettings
from cetpick.devices import autocast
from cetpick.mixture import calibrate
from cetpick.networks import Output
from cetpick.peaks import local_maxima, refine, suppress
from cetpick.preprocess import Prepared
from cetpick.records import Grid

TILE = (32, 512, 512)
"""Voxels (z, y, x) of a tile's inner part."""
SMOOTHING = 0.5
"""Cells; a slight Gaussian joins the twin maxima of one particle."""
PAPER_NEIGHBOURHOOD = (3, 5, 5)
SYMMETRIES = [(transpose, axes) for transpose in (False, True) for axes in ([], [-1], [-2], [-2, -1])]
"""The eight in-plane symmetries: transposition, then flips."""


class TileableNetwork(Protocol):
    """What tiling needs to know of a network; see networks.default."""

    stride: tuple[int, int, int]
    halo: tuple[int, int, int]
    alignment: tuple[int, int, int]

    def __call__(self, x: Tensor) -> Output: ...  # noqa: D102

    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _spans(length: int, tile: int, halo: int, alignment: int) -> Iterator[tuple[slice, slice]]:
    """Along one axis: the voxels to read, and those of them (in the padded axis) that the tile answers for."""
    tile, halo = _round_up(tile, alignment), _round_up(halo, alignment)
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield slice(max(0, start - halo), min(length, stop + halo)), slice(start, stop)


def heatmap(
    network: TileableNetwork,
    volume: Tensor,
    *,
    tile: tuple[int, int, int] = TILE,
    symmetries: bool = False,
) -> Tensor:
    """Heatmap logits of a whole prepared volume, computed tile by tile with a halo, equal to one pass over the whole.

    Args:
        network: in eval mode, on the volume's device.
        volume: (z, y, x) normalised grey values.
        tile: inner voxels (z, y, x) of a tile; rounded up to the network's alignment.
        symmetries: average over the eight in-plane symmetries (eight times the work, a little more accurate).

    Returns:
        (C, z', y', x') float32 logits on the volume's device; cell i covers voxels i*s to i*s + s - 1 of stride s.
    """
    shape = volume.shape
    # zeros up to the alignment, so that every tile and every flip sees the same pooling cells
    padding = [p for n, a in zip(shape[::-1], network.alignment[::-1], strict=True) for p in (0, _round_up(n, a) - n)]
    padded = nn.functional.pad(volume, padding)
    cells = [n // s for n, s in zip(padded.shape, network.stride, strict=True)]
    result: Tensor | None = None
    spans = [
        list(_spans(n, t, h, a)) for n, t, h, a in zip(padded.shape, tile, network.halo, network.alignment, strict=True)
    ]
    with torch.inference_mode(), autocast(volume.device):
        for z_read, z_own in spans[0]:
            for y_read, y_own in spans[1]:
                for x_read, x_own in spans[2]:
                    logits = _logits(network, padded[z_read, y_read, x_read], symmetries)
                    if result is None:
                        result = logits.new_empty((logits.shape[0], *cells))
                    own = tuple(
                        slice(o.start // s, o.stop // s)
                        for o, s in zip((z_own, y_own, x_own), network.stride, strict=True)
                    )
                    inner = tuple(
                        slice((o.start - r.start) // s, (o.stop - r.start) // s)
                        for o, r, s in zip((z_own, y_own, x_own), (z_read, y_read, x_read), network.stride, strict=True)
                    )
                    result[(slice(None), *own)] = logits[(slice(None), *inner)]
    assert result is not None
    covered = [-(-n // s) for n, s in zip(shape, network.stride, strict=True)]
    return result[:, : covered[0], : covered[1], : covered[2]]


def _logits(network: TileableNetwork, tile: Tensor, symmetries: bool) -> Tensor:
    """Logits (C, z', y', x') of one tile (z, y, x), averaged over the symmetries if asked."""
    total: Tensor | None = None
    chosen = SYMMETRIES if symmetries else SYMMETRIES[:1]
    for transpose, axes in chosen:
        turned = tile.transpose(-1, -2) if transpose else tile
        logits = network(turned.flip(axes)[None, None]).heatmap[0].float().flip(axes)
        logits = logits.transpose(-1, -2) if transpose else logits
        total = logits if total is None else total + logits
    assert total is not None
    return total / len(chosen)


def find_candidates(
    network: TileableNetwork,
    prepared: Prepared,
    grid: Grid,
    settings: ModelSettings,
    *,
    symmetries: bool = True,
) -> pd.DataFrame:
    """All scored candidates of a prepared tomogram.

    `default` mode: maxima of the slightly smoothed logits, refined to sub-cell positions, thinned by distance, centred.
    `paper` mode: maxima over (3, 5, 5) cells, positions of the cells, no thinning.

    Args:
        network: in eval mode, on the device to compute on.
        prepared: the tomogram on the working grid.
        grid: of the tomogram as stored.
        settings: of the model.
        symmetries: average over the eight in-plane symmetries; `default` mode only.

    Returns:
        Columns x, y, z (voxels as stored), score, class; by falling score. No candidate lies where there is no data.
    """
    device = next(network.parameters()).device
    paper = settings.mode == "paper"
    volume = torch.from_numpy(prepared.volume).to(device)
    logits = heatmap(network, volume, symmetries=symmetries and not paper)[0].cpu().numpy()
    floor = float(np.log(settings.floor / (1 - settings.floor)))
    if paper:
        cells = local_maxima(logits, floor=floor, size=PAPER_NEIGHBOURHOOD)
        positions = cells.astype(np.float64)
    else:
        logits = ndimage.gaussian_filter(logits, SMOOTHING)
        cells = local_maxima(logits, floor=floor)
        positions = refine(logits, cells)
    scores = expit(calibrate(logits[tuple(cells.T)], settings.calibration))
    working = (positions[:, ::-1] + 0.5) * network.stride[::-1] - 0.5
    # the last cell of an odd axis is half padding, its centre on the very edge of the volume
    edge = np.array(grid.size) * grid.voxel_size
    angstrom = np.clip((working + 0.5) * np.array(settings.voxel_size[::-1]), 0, np.nextafter(edge, 0))
    keep = np.arange(len(scores))
    if prepared.valid is not None:
        last = np.array(prepared.valid.shape) - 1
        nearest = np.clip(np.rint(working[:, ::-1]).astype(int), 0, last)
        keep = keep[prepared.valid[tuple(nearest.T)]]
    distance = 0.0 if paper else settings.separation * settings.diameter
    keep = keep[suppress(angstrom[keep], scores[keep], distance=distance)]
    angstrom = angstrom[keep]
    if settings.calibration:  # else the scores are no probabilities
        size, places = np.array(settings.voxel_size), angstrom[:, ::-1]
        places = centred(prepared.volume, places / size - 0.5, scores[keep], diameter=tuple(settings.diameter / size))
        angstrom = np.clip((places + 0.5)[:, ::-1] * size[::-1], 0, np.nextafter(edge, 0))
    table = pd.DataFrame(angstrom / grid.voxel_size - 0.5, columns=["x", "y", "z"])
    table["score"] = scores[keep]
    table["class"] = settings.classes[0].name
    return table[grid.contains(table[["x", "y", "z"]])].reset_index(drop=True)
