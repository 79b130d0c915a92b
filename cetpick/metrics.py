"""How well picks agree with reference coordinates: precision, recall, F1, average precision, localisation error.

Points are (n, 3) with columns x, y, z in voxels; distances and radii are in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cetpick.errors import InputError
from cetpick.geometry import Points, as_points

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Margin = tuple[float, float, float]


def match(picks_xyz: ArrayLike, scores: ArrayLike, truth_xyz: ArrayLike, radius: float) -> Indices:
    """Match picks to reference points one to one, greedily by descending score.

    A pick takes the nearest reference point within the radius that no pick of a higher score has taken. Among picks of
    equal score the shortest distances are served first, so that their order cannot matter.

    Args:
        picks_xyz: picks (n, 3).
        scores: of the picks (n,), higher is better.
        truth_xyz: reference points (m, 3).
        radius: largest distance of a match, included, voxels.

    Returns:
        For each pick the index of its reference point, -1 for none; shape (n,).
    """
    picks, truth = as_points(picks_xyz), as_points(truth_xyz)
    partner = np.full(len(picks), -1, dtype=np.intp)
    if len(picks) == 0 or len(truth) == 0:
        return partner
    pairs = cKDTree(picks).sparse_distance_matrix(cKDTree(truth), radius, output_type="ndarray")
    free = np.ones(len(truth), dtype=bool)
    for pair in np.lexsort((pairs["v"], -np.asarray(scores, dtype=np.float64)[pairs["i"]])):
        pick, point = pairs["i"][pair], pairs["j"][pair]
        if partner[pick] < 0 and free[point]:
            partner[pick], free[point] = point, False
    return partner


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The picks and the reference of one tomogram.

    Attributes:
        name: of the tomogram, for messages.
        picks: (n, 3), voxels.
        scores: (n,), higher is better.
        truth: reference points (m, 3), voxels.
        shape: voxels of the tomogram along (z, y, x), needed with a margin.
        threshold: the score from which a pick is accepted in this tomogram, if one was chosen.

    Raises:
        InputError: scores and picks differ in number, or a coordinate or score is not finite.
    """

    name: str
    picks: Points
    scores: Floats
    truth: Points
    shape: tuple[int, int, int] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "picks", as_points(self.picks))
        object.__setattr__(self, "truth", as_points(self.truth))
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64).reshape(-1))
        if len(self.scores) != len(self.picks):
            raise InputError(
                f"{self.name}: every pick needs one score", expected=len(self.picks), found=len(self.scores)
            )
        if not all(np.isfinite(numbers).all() for numbers in (self.picks, self.scores, self.truth)):
            raise InputError(f"{self.name}: a coordinate or a score is not a finite number")


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a set of picks is worth.

    Attributes:
        threshold: the lowest score in the set; None for all picks, or when each tomogram has its own.
        picks: how many picks were judged.
        matched: how many of them matched a reference point.
        truths: how many reference points there were.
        localisation_error: root mean square distance of the matched pairs, voxels; None without a match.
    """

    threshold: float | None
    picks: int
    matched: int
    truths: int
    localisation_error: float | None

    @property
    def precision(self) -> float:
        """Matched picks over picks; 0 without picks."""
        return self.matched / self.picks if self.picks else 0.0

    @property
    def recall(self) -> float:
        """Matched picks over reference points."""
        return self.matched / self.truths

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 2 matched / (picks + truths)."""
        return 2 * self.matched / (self.picks + self.truths)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Picks judged at one radius, several tomograms pooled.

    Attributes:
        radius: of a match, voxels.
        all_picks: the score of all picks given.
        at_threshold: the score of the picks at or above their tomogram's threshold, None unless every scene has one.
        best: the score at the threshold of the highest F1; of several the highest threshold.
        average_precision: sum over the distinct scores, falling, of precision times the step of recall.
        ignored_picks, ignored_truths: left out because of the margin.
        thresholds, precision, recall: the precision-recall curve, one value a distinct score, by falling score.
        picked, matched: picks at or above each threshold, and how many of them matched.
    """

    radius: float
    all_picks: Score
    at_threshold: Score | None
    best: Score
    average_precision: float
    ignored_picks: int
    ignored_truths: int
    thresholds: Floats
    precision: Floats
    recall: Floats
    picked: Indices
    matched: Indices


def evaluate(pairs: Sequence[Scene], radius: float, margin: Margin | None = None) -> Result:
    """Judge the picks of several tomograms together.

    Picks are matched by `match` in each tomogram, then pooled by their scores; equal scores enter together, so their
    order cannot matter. With a margin, a point lies in it when it is less than `margin` from a face of the volume,
    which spans [-0.5, n - 0.5), along x, y or z; an axis with margin 0 leaves nothing out. Then a truth in the margin
    is ignored, picks that match an ignored truth are ignored, and picks in the margin that match nothing are ignored.

    Args:
        pairs: the tomograms.
        radius: largest distance of a match, included, voxels.
        margin: x, y, z in voxels.

    Raises:
        InputError: radius or margin is unusable, a margin is given for a tomogram of unknown size, or no reference
            point is left to compare with.
    """
    if not 0 < radius < np.inf:
        raise InputError(
            "unusable radius of a match", expected="voxels, more than 0", found=radius, cure="such as --radius 5"
        )
    judged = [_judge(scene, radius, margin) for scene in pairs]
    truths = sum(part.truths for part in judged)
    ignored_truths = sum(part.ignored_truths for part in judged)
    if truths == 0:
        raise InputError(
            "there is no reference point to compare the picks with",
            expected="at least one in these tomograms, outside the margin",
            found=f"{ignored_truths} in the margin, none elsewhere",
            cure="give the coordinates of these tomograms, or a smaller margin",
        )
    scores = np.concatenate([part.scores for part in judged])
    distances = np.concatenate([part.distances for part in judged])
    accepted = np.concatenate([part.accepted for part in judged])
    hit = np.isfinite(distances)

    def worth(chosen: Mask, threshold: float | None = None) -> Score:
        of = distances[hit & chosen]
        error = float(np.sqrt(np.mean(of**2))) if len(of) else None
        return Score(
            threshold=threshold, picks=int(chosen.sum()), matched=len(of), truths=truths, localisation_error=error
        )

    thresholds, picks, matched = _cumulative_counts(scores, hit)
    precision, recall = matched / picks, matched / truths
    cut = float(thresholds[np.argmax(matched / (picks + truths))]) if len(scores) else None
    return Result(
        radius=radius,
        all_picks=worth(np.ones(len(scores), dtype=bool)),
        at_threshold=worth(accepted) if all(scene.threshold is not None for scene in pairs) else None,
        best=worth(scores >= (-np.inf if cut is None else cut), cut),
        average_precision=float((precision * np.diff(recall, prepend=0.0)).sum()),
        ignored_picks=sum(part.ignored_picks for part in judged),
        ignored_truths=ignored_truths,
        thresholds=thresholds,
        precision=precision,
        recall=recall,
        picked=picks,
        matched=matched,
    )


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What becomes of the points of one tomogram.

    Attributes:
        partner: for each pick the index of its reference point, -1 for none; (n,).
        ignored_picks: picks left out because of the margin; (n,).
        ignored_truths: reference points left out because of it; (m,).
    """

    partner: Indices
    ignored_picks: Mask
    ignored_truths: Mask


def match_scene(scene: Scene, radius: float, margin: Margin | None = None) -> Matches:
    """Match the picks of a tomogram; arguments, rules and errors are those of evaluate.

    The matches of the picks from any score on are those of all picks, as better ones are matched first.
    """
    partner = match(scene.picks, scene.scores, scene.truth, radius)
    matched = partner >= 0
    ignored_truths = _in_margin(scene, scene.truth, margin)
    ignored_picks = _in_margin(scene, scene.picks, margin)
    ignored_picks[matched] = ignored_truths[partner[matched]]
    return Matches(partner=partner, ignored_picks=ignored_picks, ignored_truths=ignored_truths)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """The picks of one tomogram that count: scores, distances to their truths (inf for none), accepted or not."""

    scores: Floats
    distances: Floats
    accepted: Mask
    truths: int
    ignored_picks: int
    ignored_truths: int


def _judge(scene: Scene, radius: float, margin: Margin | None) -> _Judged:
    matches = match_scene(scene, radius, margin)
    partner, counted = matches.partner, ~matches.ignored_picks
    matched = partner >= 0
    distances = np.full(len(partner), np.inf)
    distances[matched] = np.linalg.norm(scene.picks[matched] - scene.truth[partner[matched]], axis=1)
    scores = scene.scores[counted]
    return _Judged(
        scores=scores,
        distances=distances[counted],
        accepted=scores >= (-np.inf if scene.threshold is None else scene.threshold),
        truths=int((~matches.ignored_truths).sum()),
        ignored_picks=int(matches.ignored_picks.sum()),
        ignored_truths=int(matches.ignored_truths.sum()),
    )


def _in_margin(scene: Scene, xyz: Points, margin: Margin | None) -> Mask:
    """Which of the points (n, 3) lie in the margin; shape (n,)."""
    if margin is None:
        return np.zeros(len(xyz), dtype=bool)
    if scene.shape is None:
        raise InputError(
            f"{scene.name}: a margin needs the size of the volume",
            expected="the size in voxels, or the tomogram",
            cure="give --tomogram FILE or --shape X,Y,Z",
        )
    width, size = np.asarray(margin, dtype=np.float64), np.array(scene.shape[::-1])
    if width.shape != (3,) or not (width >= 0).all() or (2 * width >= size).any():
        raise InputError(
            f"{scene.name}: this margin leaves nothing of the volume, or is no margin",
            expected=f"x, y, z in voxels, each from 0 to below half of {', '.join(map(str, size))}",
            found=margin,
        )
    inside = (xyz >= width - 0.5) & (xyz < size - 0.5 - width)
    return np.asarray((~inside & (width > 0)).any(axis=1), dtype=np.bool_)


def _cumulative_counts(score: Floats, hit: Mask) -> tuple[Floats, Indices, Indices]:
    """Distinct scores, falling, with the numbers of picks and of matched picks at or above each."""
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last: Indices = np.flatnonzero(np.diff(falling, append=-np.inf))  # of each run of equal scores
    matched: Indices = np.cumsum(hit[order], dtype=np.intp)[last]
    return falling[last], last + 1, matched
