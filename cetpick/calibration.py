"""How many particles there are, and where to cut, from the scores of labels and candidates alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import expit, logit, logsumexp, ndtri

from cetpick.geometry import Points

Floats = NDArray[np.float64]

STEEPNESS = (1.5, 10.0)
"""Range of the exponent with which precision falls along the list of candidates."""
COUNT_QUANTILES = (0.1, 0.5, 0.9)
DOUBT = 0.5
"""Standard deviation of the logarithm of a count by what ranks do not show, as look-alikes (docs/experiments.md)."""
AT_THE_TOP = 0.8
"""Usual precision at the top of a list whose ranks gave a count: 1 without look-alikes, less with them."""
HINT_SPREAD = 0.5
"""Standard deviation of the logarithm of a count that a user expects."""

STRAY, MOST_STRAY = 0.1, 0.2
"""Share of labels that usually are no particles; beyond the other it is not the labels that are at fault."""
SHARES = 20
"""Shares of stray labels that are tried, up to a half."""

SHIFT, SURE = 1.5, 1e-6
"""Standard deviation of how far all logits may be off before anybody looked, and how sure a score is at most."""
EVEN = 0.5
"""Usual threshold."""


def label_matches(labels: Points, candidates: Points, scores: ArrayLike, *, radius: float) -> NDArray[np.intp]:
    """Index of the best candidate within `radius` of each label, -1 where there is none.

    Args:
        labels: (n, 3), in units of `radius`.
        candidates: (m, 3).
        scores: (m,).
        radius: reach of a label.

    Returns:
        (n,).
    """
    values = np.asarray(scores, dtype=np.float64)
    best = np.full(len(labels), -1)
    if len(candidates):
        for i, near in enumerate(cKDTree(candidates).query_ball_point(labels, radius)):
            places = np.asarray(near, dtype=np.intp)
            if len(places):
                best[i] = places[values[places].argmax()]
    return best


def label_scores(labels: Points, candidates: Points, scores: ArrayLike, *, radius: float) -> Floats:
    """Score (n,) of the best candidate within `radius` of each label, 0 where there is none; see label_matches."""
    matches = label_matches(labels, candidates, scores, radius=radius)
    return np.append(np.asarray(scores, dtype=np.float64), 0.0)[matches]


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


class Count(NamedTuple):
    """A number of particles: expected, and limits that enclose it with a probability of 80 %."""

    low: float
    expected: float
    high: float

    @property
    def spread(self) -> float:
        """Standard deviation of its logarithm; the limits must be above 0."""
        width = ndtri(COUNT_QUANTILES[2]) - ndtri(COUNT_QUANTILES[0])
        return float(np.log(self.high / self.low) / width)


def estimate_count(ranks: ArrayLike, candidates: int) -> Count:
    """Particles among the candidates, from the ranks of labels that were hidden from the training.

    Such labels are a random part of the hidden particles, so their ranks are distributed as those of all of them are: a
    share p(c) of the candidates near rank c are particles, N is the integral of p, and a label has rank c with
    probability p(c) / N. With precision falling as p(c) = 1 / (1 + (c / a)^b), N = a (pi / b) / sin(pi / b). It comes
    from its posterior on a grid of a and b, flat in log a and b. Precision is taken to be 1 at the top of the list;
    where it is less, N is too large by that factor, as look-alikes of the same rank cannot be told from particles.

    Args:
        ranks: (n,) see label_ranks; of several trainings pooled. Labels that were not found count as ranked last.
        candidates: how many there were in each training.

    Returns:
        Median and limits; all 0 when the ranks tell nothing: fewer than half of the labels were found, or one of the
        trainings found nothing at all.
    """
    ranked = np.asarray(ranks, np.float64)
    if not len(ranked) or not candidates or np.isinf(ranked).mean() > 0.5:
        return Count(0.0, 0.0, 0.0)
    number, weight = _numbers(ranked, candidates)
    order = np.argsort(number, axis=None)
    cumulative = np.cumsum(weight.ravel()[order])
    return Count(*number.ravel()[order[np.searchsorted(cumulative, COUNT_QUANTILES)]].tolist())


def _numbers(ranks: Floats, candidates: int) -> tuple[Floats, Floats]:
    """Numbers of particles for a grid of a and b, see estimate_count, and how probable each is; both (a, b)."""
    number, fallen = _fallen(ranks, candidates)
    log_posterior = -np.log1p(fallen).sum(axis=0) - len(ranks) * np.log(number)
    return number, np.exp(log_posterior - logsumexp(log_posterior))


def _fallen(ranks: Floats, candidates: int) -> tuple[Floats, Floats]:
    """Numbers of particles (a, b) for a grid of a and b, see estimate_count, and (c / a)^b of each rank (n, a, b)."""
    ranked = np.minimum(ranks, candidates) - 0.5
    a = np.geomspace(1.0, 2.0 * candidates, 200)[:, None]
    b = np.linspace(*STEEPNESS, 18)
    return a * (np.pi / b) / np.sin(np.pi / b), (ranked[:, None, None] / a) ** b


def stray_labels(ranks: ArrayLike, candidates: int) -> NDArray[np.bool_]:
    """Which labels rank so far behind the others that they are probably no particles.

    A share of the labels may lie anywhere, so that they have any rank as probably as any other; those of the others are
    distributed as in estimate_count. The share has a beta distribution beforehand.

    Args:
        ranks: (n,) see label_ranks; infinite is behind everything.
        candidates: how many there were.

    Returns:
        (n,) bool; none when more than MOST_STRAY of them are: then ranks tell nothing of labels.
    """
    ranked = np.asarray(ranks, np.float64)
    if not len(ranked) or not candidates:
        return np.zeros(len(ranked), bool)
    number, fallen = _fallen(ranked, candidates)
    share = ((np.arange(SHARES) + 0.5) / (2 * SHARES))[:, None, None]
    anywhere = share / candidates
    log_posterior = (1 / STRAY - 2) * np.log1p(-share) + np.zeros(number.shape)
    for of in fallen:
        log_posterior += np.log((1 - share) / (1 + of) / number + anywhere)
    weight = np.exp(log_posterior - logsumexp(log_posterior))
    chances = [(weight * anywhere / ((1 - share) / (1 + of) / number + anywhere)).sum() for of in fallen]
    stray = np.array(chances) > EVEN
    return stray if stray.mean() <= MOST_STRAY else np.zeros(len(ranked), bool)


def doubted(count: Count) -> Count:
    """A count that estimate_count gave, allowing for what ranks do not show: AT_THE_TOP, and DOUBT.

    Look-alikes only make it too large, so what is expected is less.
    """
    return widened(count, DOUBT)._replace(expected=AT_THE_TOP * count.expected)


def hinted(count: Count, hint: float) -> Count:
    """A count and what a user expects, believed to within a factor of about two: two independent pieces of evidence.

    Args:
        count: all 0 when nothing else is known.
        hint: the number of particles that is expected.
    """
    number, spread = float(np.log(hint)), HINT_SPREAD
    if count.low > 0:
        weight = 1 / (1 + (count.spread / HINT_SPREAD) ** 2)
        number += weight * float(np.log(count.expected / hint))
        spread = count.spread * float(np.sqrt(weight))
    return Count(*np.exp(number + spread * ndtri(COUNT_QUANTILES)).tolist())


def widened(count: Count, doubt: float) -> Count:
    """The count with limits that allow for a further standard deviation of its logarithm, independent of its own."""
    if count.low <= 0:
        return count
    beyond = doubt * ndtri(COUNT_QUANTILES[2])
    down, up = (np.hypot(np.log(of / count.expected), beyond) for of in (count.low, count.high))
    low, high = count.expected * np.exp([-down, up])
    return Count(float(low), count.expected, float(high))


def choose_threshold(probabilities: ArrayLike) -> float:
    """EVEN, so that a pick is more probably a particle than not.

    Where fewer than a quarter of the expected particles were picked so, it is the cut of the largest expected F1 score:
    of k picks, the sum of their probabilities is expected to be particles, of as many as the sum of all is.

    Args:
        probabilities: (m,) of all unlabelled candidates to be a particle.
    """
    ranked = np.sort(np.asarray(probabilities, np.float64))[::-1]
    if not len(ranked) or ranked[ranked >= EVEN].sum() >= ranked.sum() / 4:
        return EVEN
    picks = np.arange(1, len(ranked) + 1)
    best = int(np.argmax(2 * np.cumsum(ranked) / (picks + ranked.sum())))
    return float(ranked[best : best + 2].mean())


def precision_threshold(probabilities: ArrayLike, precision: float) -> float:
    """The lowest cut above which the expected precision, the mean probability of the picks, is at least `precision`.

    Args:
        probabilities: (m,) of all candidates.
        precision: 0 to 1.

    Returns:
        The probability of the last pick; when even the best candidate is too improbable, a cut above it.
    """
    ranked = np.sort(np.asarray(probabilities, np.float64))[::-1]
    # equal values are cut off together
    enough = np.cumsum(ranked) >= precision * np.arange(1, len(ranked) + 1)
    enough &= np.diff(ranked, append=-1.0) < 0
    if enough.any():
        return float(ranked[enough][-1])
    return float(np.nextafter(ranked[0], 2)) if len(ranked) else 1.0


class Expectation(NamedTuple):
    """What a cut is expected to give: so many picks, so many of them particles."""

    threshold: float
    picks: int
    particles: float


EXPECTED_AT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Thresholds of the table of expected precision and recall."""


def expectations(probabilities: ArrayLike, *, everything: float | None = None) -> list[Expectation]:
    """What each cut of EXPECTED_AT, after that of 0, is expected to give.

    Of several tomograms, picks and particles add up; the particles at 0 are all there are expected to be.

    Args:
        probabilities: (m,) of the candidates that a cut chooses from.
        everything: particles that there are expected to be, where some candidates are no choice; None: those of the m.
    """
    values = np.asarray(probabilities, np.float64)
    cuts = [Expectation(at, int((values >= at).sum()), float(values[values >= at].sum())) for at in EXPECTED_AT]
    return [Expectation(0.0, len(values), float(values.sum()) if everything is None else everything), *cuts]


def sampling_chances(weights: ArrayLike, number: int) -> Floats:
    """Chance of each candidate to be one of `number` that are looked at, in proportion to its weight, 1 at most.

    Args:
        weights: (m,), above 0.
        number: how many are drawn.

    Returns:
        (m,), their sum is `number`, or m if that is less.
    """
    values = np.asarray(weights, np.float64)
    if len(values) <= number:
        return np.ones(len(values))
    sure = np.zeros(len(values), bool)
    while True:
        chances = np.where(sure, 1.0, (number - sure.sum()) * values / values[~sure].sum())
        if (chances <= 1).all():
            return chances
        sure |= chances >= 1


def systematic_sample(chances: ArrayLike, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw candidates with these chances, each stretch of the list as often as its chances add up to.

    Args:
        chances: (m,) see sampling_chances.
        rng: gives where to begin.

    Returns:
        Rising indices.
    """
    reached = np.floor(np.cumsum(chances) + rng.random())
    return np.flatnonzero(np.diff(reached, prepend=0.0) > 0)


def count_from_answers(scores: ArrayLike, asked: ArrayLike, particles: ArrayLike) -> Count:
    """Particles among candidates of which some were looked at that were chosen by nothing but their scores.

    The answers tell by how much all logits are too high or too low. That has a posterior, with a normal prior, and
    each shift a number of particles.

    Args:
        scores: (m,) of all candidates, probabilities.
        asked: (n,) of those that were looked at.
        particles: (n,) whether they are.

    Returns:
        Median and limits.
    """
    shifts = np.linspace(-4 * SHIFT, 4 * SHIFT, 241)[:, None]
    logits, of_asked = (logit(np.clip(np.asarray(of, np.float64), SURE, 1 - SURE)) for of in (scores, asked))
    found, answered = of_asked + shifts, np.asarray(particles, bool)
    log_weight = -np.logaddexp(0, np.where(answered, -found, found)).sum(axis=1) - (shifts[:, 0] / SHIFT) ** 2 / 2
    held, edges = np.histogram(logits, 512)
    numbers = expit((edges[1:] + edges[:-1]) / 2 + shifts) @ held
    cumulative = np.cumsum(np.exp(log_weight - log_weight.max()))
    return Count(*np.interp(COUNT_QUANTILES, cumulative / cumulative[-1], numbers).tolist())
