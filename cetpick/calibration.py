"""How many particles there are, and where to cut, from the scores of labels and candidates alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import logit

from cetpick.geometry import Points

Floats = NDArray[np.float64]

NEAR_COUNT = (0.95, 1.3)
"""Where a gap may move the threshold to, as fractions of the count."""
SMOOTHED = 3
"""Candidates on each side over which a gap is measured."""


def label_scores(labels: Points, candidates: Points, scores: ArrayLike, *, radius: float) -> Floats:
    """Score of the best candidate within `radius` of each label, 0 where there is none.

    Args:
        labels: (n, 3), in units of `radius`.
        candidates: (m, 3).
        scores: (m,).
        radius: reach of a label.

    Returns:
        (n,).
    """
    best = np.zeros(len(labels))
    values = np.asarray(scores, dtype=np.float64)
    if len(candidates):
        for i, near in enumerate(cKDTree(candidates).query_ball_point(labels, radius)):
            best[i] = values[near].max(initial=0.0)
    return best


def within(points: Points, centres: Points, radius: float) -> NDArray[np.bool_]:
    """Which of the points (n, 3) lie within `radius` of any of the centres (m, 3); shape (n,)."""
    if not len(centres):
        return np.zeros(len(points), bool)
    distance, _ = cKDTree(centres).query(points.reshape(-1, 3))
    return np.asarray(distance <= radius)


def label_ranks(of_labels: ArrayLike, scores: ArrayLike) -> Floats:
    """How many candidates score at least as high as each label; infinite for a label that was not found.

    Args:
        of_labels: (n,) scores at the labels, 0 where nothing was found.
        scores: (m,) of the candidates.
    """
    labels, ranked = np.asarray(of_labels, np.float64), np.sort(np.asarray(scores, np.float64))
    above = len(ranked) - np.searchsorted(ranked, labels, side="left")
    return np.where(labels > 0, above, np.inf)


def estimate_count(ranks: ArrayLike) -> float:
    """Particles among the candidates, from the ranks of labels that were hidden from the training.

    Such labels are a random part of the hidden particles. If a share r of them ranks among the best c candidates, c / r
    is the number of hidden particles over the precision there, so that its smallest value is the best estimate. Few
    labels make r uncertain; c is therefore taken where the upper confidence limit of that ratio is smallest (best bin
    estimation, Garg et al. 2021, arXiv 2111.00980, at peak level).

    Args:
        ranks: (n,) see label_ranks; of several trainings pooled.

    Returns:
        0 when too few labels were found to tell.
    """
    ranked = np.sort(np.asarray(ranks, np.float64))
    labels = len(ranked)
    recall = np.arange(1, labels + 1) / labels
    lower = recall - np.sqrt((recall * (1 - recall) + 1 / labels) / labels)
    usable = np.isfinite(ranked) & (lower > 0)
    if not usable.any():
        return 0.0
    best = int(np.argmin(np.divide(ranked, lower, out=np.full(labels, np.inf), where=usable)))
    return float(ranked[best] / recall[best])


def choose_threshold(scores: ArrayLike, count: float) -> float:
    """The score above which as many candidates lie as there are particles, moved into the nearest gap.

    With the right count, precision and recall are then equal. Where particles and background separate, candidates are
    sparse between them: of the places near `count` the one is taken where neighbouring logits differ most.

    Args:
        scores: (m,) of all candidates, 0 to 1.
        count: expected particles among them.

    Returns:
        A threshold between two scores; 0.5 when there is no candidate.
    """
    ranked = np.sort(np.asarray(scores, np.float64))[::-1]
    if not len(ranked):
        return 0.5
    logits = logit(np.clip(ranked, 1e-12, 1 - 1e-12))
    first, last = (int(np.clip(round(count * f), 1, len(ranked))) for f in NEAR_COUNT)
    places = np.arange(first, last + 1)
    if last >= first + 2 * SMOOTHED:
        # the widest gap over a few candidates, so that one straggler does not decide; in it the widest of single ones
        centre = places[np.argmax(_gap(logits, places, SMOOTHED))]
        places = np.clip(np.arange(centre - SMOOTHED, centre + SMOOTHED + 1), first, last)
        place = int(places[np.argmax(_gap(logits, places, 0))])
    else:
        place = int(np.clip(round(count), 1, len(ranked)))
    return float(ranked[place - 1]) if place == len(ranked) else float((ranked[place - 1] + ranked[place]) / 2)


def _gap(falling: Floats, places: NDArray[np.intp], reach: int) -> Floats:
    """Difference of falling values across each place, between `reach` values further out on both sides."""
    above, below = (np.clip(places + shift, 0, len(falling) - 1) for shift in (-1 - reach, reach))
    gaps: Floats = falling[above] - falling[below]
    return gaps
