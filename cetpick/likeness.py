"""How like the labels each candidate is, by features that no training on these labels has touched.

The network that was trained knows its labels by heart, so it does not tell how high particles score that it was not
shown. The pretrained network has seen none of them: a linear discriminant on its features that was not shown a label
scores it as it scores hidden particles. So it tells particles from look-alikes by other evidence than the network does,
and errs about others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cetpick.config import ModelSettings
from cetpick.dataset import Example, to_cells
from cetpick.geometry import Points
from cetpick.mixture import SPREAD
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.fold import folded
from cetpick.networks.pretrained import load_pretrained
from cetpick.tiling import features_at

Floats = NDArray[np.float64]

SURE = 0.5
"""What ranks so high, in units of the number of particles expected among the candidates, is one."""
NONE = 2.0
"""What ranks lower than this is none."""
FOLDS = 5
"""Parts of the candidates; each is scored by a discriminant that has seen the others."""
SHRUNK = 0.1
"""Part of the covariances of features that is left out, as these are from few candidates."""
FEWEST = 20
"""Candidates of each kind that a discriminant needs."""


def pretrained_features(
    example: Example, places: Points, model: ModelSettings, *, device: torch.device
) -> NDArray[np.float32]:
    """Features (n, c) of the pretrained network at places (n, 3) x, y, z in stored voxels of a training tomogram."""
    network = DefaultNetwork(classes=model.fused, width=model.width, fused=model.fused)
    load_pretrained(network)
    with torch.no_grad():  # the features themselves in the place of logits
        network.heatmap.weight.copy_(torch.eye(model.fused)[..., None, None, None])
        torch.nn.init.zeros_(network.heatmap.bias)  # type: ignore[arg-type]
    network = folded(network.to(device).eval())
    cells = to_cells(torch.from_numpy(example.on_working_grid(places)), network.stride)
    return features_at(network, example.prepared.volume, cells.numpy()[:, ::-1], device=device)


def likeness(
    features: Sequence[NDArray[np.float32]],
    labelled: Sequence[NDArray[np.bool_]],
    scores: Sequence[Floats],
    *,
    particles: float,
    seed: int,
) -> Floats | None:
    """Scores (n,) of the candidates of all training tomograms, by discriminants that have not seen them.

    Args:
        features: (n, c) of the candidates of each tomogram.
        labelled: (n,) which of them are labels.
        scores: (n,) of the network that was trained.
        particles: expected among those that are no labels.
        seed: of the parts.

    Returns:
        In units in which particles scatter by mixture.SPREAD; None when there are too few candidates.
    """
    x, label, score = np.concatenate(features).astype(np.float64), np.concatenate(labelled), np.concatenate(scores)
    rank = np.full(len(score), -1)
    others = np.flatnonzero(~label)
    rank[others[np.argsort(-score[others], kind="stable")]] = np.arange(len(others))
    like, unlike = label | (rank < SURE * particles), ~label & (rank > NONE * particles)
    if min(like.sum(), unlike.sum()) < FEWEST:
        return None
    part = np.random.default_rng(seed).integers(0, FOLDS, len(score))
    result = np.zeros(len(score))
    for own in (part == number for number in range(FOLDS)):
        of_like, of_unlike = x[like & ~own], x[unlike & ~own]
        spread = (len(of_like) * np.cov(of_like.T) + len(of_unlike) * np.cov(of_unlike.T)) / (
            len(of_like) + len(of_unlike)
        )
        spread = (1 - SHRUNK) * spread + SHRUNK * np.diag(np.diag(spread))
        direction = np.linalg.lstsq(spread, of_like.mean(axis=0) - of_unlike.mean(axis=0), rcond=None)[0]
        scale = np.sqrt(direction @ np.cov(of_unlike.T) @ direction)
        result[own] = (x[own] - of_unlike.mean(axis=0)) @ direction / max(scale, np.finfo(float).tiny)
    scatter = result[like].std()
    return result * SPREAD / scatter if scatter > 0 else None
