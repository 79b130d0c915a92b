"""How many particles there are, and where to cut, from the scores of labels and candidates alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cetpick.geometry import Points

Floats = NDArray[np.float64]

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


def _recall_and_count(of_labels: Floats, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """At each label's score as threshold: the threshold, recall of the labels, and candidates at or above it."""
    thresholds = np.sort(of_labels[of_labels > 0])[::-1]
    recall = np.array([(of_labels >= t).mean() for t in thresholds])
    ranked = np.sort(scores)
    count = len(ranked) - np.searchsorted(ranked, thresholds, side="left")
    return thresholds, recall, count.astype(np.float64)


def estimate_count(of_labels: ArrayLike, scores: ArrayLike) -> float:
    """Particles in a tomogram, from the share of labels and the number of candidates above a threshold.

    If labels are a random part of the particles, (candidates above t) / (recall of the labels at t) is the number of
    particles over the precision at t, so that its smallest value is the best estimate. Few labels make recall
    uncertain; t is therefore taken where the upper confidence limit of that ratio is smallest (best bin estimation,
    Garg et al. 2021, arXiv 2111.00980, at peak level).

    Args:
        of_labels: (n,) scores at the labels, 0 where nothing was found.
        scores: (m,) of all candidates, those of the labels included.

    Returns:
        At least the number of labels.
    """
    labels, values = np.asarray(of_labels, np.float64), np.asarray(scores, np.float64)
    _, recall, count = _recall_and_count(labels, values)
    lower = recall - np.sqrt((recall * (1 - recall) + 1 / len(labels)) / len(labels))
    if not (lower > 0).any():
        return float(len(labels))
    limit = np.divide(count, lower, out=np.full_like(count, np.inf), where=lower > 0)
    best = int(np.argmin(limit))
    return max(float(len(labels)), float(count[best] / recall[best]))


def choose_threshold(of_labels: ArrayLike, scores: ArrayLike, count: float) -> float:
    """The threshold with the best expected F1 if there are `count` particles.

    At a threshold t expect count * recall(t) true picks among the candidates above it, so that
    F1 = 2 count recall / (count + candidates).

    Args:
        of_labels: (n,) scores at the labels, 0 where nothing was found.
        scores: (m,) of all candidates.
        count: expected particles.

    Returns:
        A threshold between the lowest accepted label score and the candidate below it; 0.5 when no label was found.
    """
    labels, values = np.asarray(of_labels, np.float64), np.asarray(scores, np.float64)
    thresholds, recall, candidates = _recall_and_count(labels, values)
    if not len(thresholds):
        return 0.5
    expected = 2 * count * recall / (count + candidates)
    best = thresholds[int(np.argmax(expected))]
    below = values[values < best]
    return float((best + below.max()) / 2) if len(below) else float(best)
