"""How probable each candidate is a particle, from the distribution of all scores.

The logits of a trained network fall into a few populations. Those of particles that it was not shown lie about some
value, some of them far below it, as some particles are hard to see: a Gumbel distribution of smallest values.
Background is a sharp half of a bell that falls from its mode; look-alikes, gold and junk, if there are any, are an
exponential tail of it. The populations are fitted by expectation-maximisation for many numbers of particles, with and
without that tail, and averaged by how probable each of these fits is. Whether there is a tail is told by the
likelihood; the number of particles by what the scouts (scouting.py) tell of it, and by the likelihood, which is worth
the less for that the more the populations overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, isotonic_regression
from scipy.special import expit, gammaln, logit, logsumexp, ndtri

from cetpick.calibration import COUNT_QUANTILES, Count, choose_threshold

Floats = NDArray[np.float64]
Knots = tuple[tuple[float, float], ...]

SPREAD, BELIEF = 1.1, 5.0
"""Usual standard deviation of the particles' logits, and how many particles this knowledge is worth."""
TAIL_LENGTH, TAIL_BELIEF = 0.7, 5.0
"""The same for the length of the tail."""
STEEPNESS = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0])
"""Exponents that the background may fall with; from 1 on when it has a tail besides."""
NUMBERS = 33
"""Numbers of particles that are tried."""
WIDEST = 3.2
"""They lie within so many standard deviations of the expected one."""
LEAST_DOUBT = 0.1
"""Smallest standard deviation of the logarithm of the expected number."""
NO_IDEA = 1.5
"""That when scouts told nothing."""
TAIL_DOUBT = 3.0
"""How much more probable scores have to be with a tail, logarithm: backgrounds only resemble what is fitted."""
IN_DOUBT = 0.7
"""Part of the populations' overlap that their shapes do not tell, see _apart."""
TRUSTED = (0.25, 0.75)
"""How far apart the populations of other scores have to be for these to count, and to count as much, see agreed."""
STEPS, CONVERGED = 200, 1e-3
FARTHEST = 10.0
"""Scales above the middle from which on the particles' density is 0: exp(exp(10)) is more than a number can be."""
BIN = 0.2
"""Logits, of the histogram that the mode is taken from."""
SUREST = 30.0
"""Logits beyond it are taken for it: a probability of 0 or 1 has an infinite one."""
FEWEST = 20
"""Candidates that a fit needs."""
BINS = 512
"""What is fitted are counts in so many bins: large tomograms have ten thousands of candidates."""
KNOTS = 24
SURE = 1e-4
"""Probabilities nearer than this to 0 or 1 are not told apart by the fit."""
FLATTEST = 0.05
"""Least slope of the calibration: it must never make two scores one."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What the scores tell.

    Attributes:
        count: particles among the candidates.
        knots: of the calibration, see calibrate.
        apart: what the likelihood was worth in this, from 0 where the populations overlap to 1 where they do not.
    """

    count: Count
    knots: Knots
    apart: float


def fit(logits: ArrayLike, prior: Count) -> Mixture | None:
    """Fit the populations.

    Args:
        logits: (n,) of the candidates that are not labelled.
        prior: particles expected among them; all 0 when nothing is known.

    Returns:
        The mixture; None when there are too few candidates, or all are alike.
    """
    values = np.clip(np.asarray(logits, np.float64), -SUREST, SUREST)
    if len(values) < FEWEST or np.ptp(values) < 2 * BIN:
        return None
    # where little but particles was looked at, as within a tight mask, the most frequent values are theirs
    others = np.sort(values)[: max(FEWEST, len(values) - round(prior.expected))]
    counts, edges = np.histogram(others, np.arange(others.min() - BIN / 2, others.max() + BIN, BIN))
    mode = edges[counts.argmax()] + BIN / 2
    above = values[values > mode]
    if len(above) < FEWEST or not np.ptp(above):
        return None
    expected, doubt = _log_normal(prior, len(values))
    away = np.linspace(-WIDEST, WIDEST, NUMBERS)
    numbers = np.clip(np.exp(expected + doubt * away), 1.0, 0.9 * len(above))
    held, edges = np.histogram(above, BINS)
    binned = _Binned(values=(edges[1:] + edges[:-1])[held > 0] / 2, held=held[held > 0].astype(np.float64))
    fits = [_fit(binned, mode, number, tail) for tail in (True, False) for number in numbers]
    likelihood = np.array([found.likelihood for found in fits]).reshape(2, NUMBERS)
    likelihood[0] -= np.log(len(above)) + TAIL_DOUBT  # two parameters more (BIC)
    told = away**2 / 2
    weight = _normalised(likelihood - told)
    apart = _apart(_mean(fits, weight.ravel()), binned.held, float(np.exp(expected)))
    kinds = _normalised(likelihood.max(axis=1))
    weight = np.stack([kind * _normalised(apart * of - told) for kind, of in zip(kinds, likelihood, strict=True)])
    at_number = weight.sum(axis=0)
    quantiles = np.interp(COUNT_QUANTILES, np.cumsum(at_number) - at_number / 2, np.log(numbers))
    low, _, high = np.exp(quantiles).tolist()
    number = float(np.exp(at_number @ np.log(numbers)))
    knots = _knots(binned.values, _mean(fits, weight.ravel()))
    return Mixture(count=Count(min(low, number), number, max(high, number)), knots=knots, apart=apart)


def calibrate(logits: ArrayLike, knots: Sequence[tuple[float, float]]) -> Floats:
    """Logits of the probability to be a particle, from those of a network; strictly increasing.

    Args:
        logits: of any shape.
        knots: pairs of both, rising; straight lines between them, of slope 1 beyond them. The same values without any.
    """
    values = np.asarray(logits, np.float64)
    if not len(knots):
        return values
    before, after = np.array(knots).T
    beyond = np.minimum(values - before[0], 0) + np.maximum(values - before[-1], 0)
    result: Floats = np.interp(values, before, after) + beyond
    return result


def agreed(logits: ArrayLike, mixture: Mixture, likeness: ArrayLike, other: Mixture) -> Mixture:
    """What two kinds of scores of the same candidates tell together.

    A particle is like the others by both; a look-alike may be by one. So the probability of a candidate is the
    geometric mean of both, as far as the other one tells its populations apart (TRUSTED), and the calibration of the
    first kind of scores the curve that rises with these and is nearest to that.

    Args:
        logits: (n,) that calibrate is to be given.
        mixture: of these.
        likeness: (n,) the other scores of the candidates.
        other: mixture of these.
    """
    trust = float(np.interp(other.apart, TRUSTED, (0, 1)))
    if not trust:
        return mixture
    values = np.asarray(logits, np.float64)
    first = expit(calibrate(values, mixture.knots))
    both = (1 - trust) * first + trust * np.sqrt(first * expit(calibrate(likeness, other.knots)))
    order = np.argsort(values, kind="stable")
    rising = isotonic_regression(both[order]).x
    before = np.array([value for value, _ in mixture.knots])
    knots = _knots(before, np.interp(before, values[order], rising))
    number = float(both.sum())
    # as far off as each is, and as they are from each other
    share, apart = trust / 2, trust / 2 * np.log(other.count.expected / mixture.count.expected)
    doubt = np.sqrt((1 - share) * mixture.count.spread**2 + share * other.count.spread**2 + apart**2)
    low, _, high = number * np.exp(doubt * ndtri(COUNT_QUANTILES))
    return Mixture(count=Count(float(low), number, float(high)), knots=knots, apart=mixture.apart)


def picks_if(number: float, probabilities: ArrayLike) -> int:
    """How many of the candidates would be picked if it were known how many of them are particles.

    All logits are shifted alike until the probabilities add up to that number.

    Args:
        number: of particles among them.
        probabilities: (n,) of the candidates.
    """
    logits = logit(np.clip(np.asarray(probabilities, np.float64), SURE, 1 - SURE))
    if not len(logits):
        return 0
    wanted = min(max(number, 0.5), len(logits) - 0.5)
    shift = brentq(lambda by: float(expit(logits + by).sum()) - wanted, -SUREST, SUREST)
    shifted = expit(logits + shift)
    return int((shifted >= choose_threshold(shifted)).sum())


@dataclass(frozen=True, kw_only=True)
class _Binned:
    """Rising values (n,), and how many candidates each stands for."""

    values: Floats
    held: Floats

    def quantile(self, share: float) -> float:
        """The value that this share of the candidates lies below."""
        return float(np.interp(share * self.held.sum(), np.cumsum(self.held) - self.held / 2, self.values))


@dataclass(frozen=True)
class _Fit:
    probability: Floats
    likelihood: float


def _fit(binned: _Binned, mode: float, number: float, tail: bool) -> _Fit:
    """Fit the populations to values above the mode with a given number of particles; the logarithm of the posterior.

    Particles are fitted by mean and standard deviation: what is most likely is decided by a few of the highest values.
    """
    values, held = binned.values, binned.held
    height = np.maximum(values - mode, 1e-3)
    powers = height[None] ** STEEPNESS[:, None]
    candidates = float(held.sum())
    middle, spread = binned.quantile(1 - max(3.0, min(number, candidates / 2)) / 2 / candidates), SPREAD
    others = max(candidates - number, 1.0)
    tails, length = 0.1 * others * tail, 1.0
    background, scale, steepness = others - tails, 1.5 * max(binned.quantile(0.5) - mode, 1e-3), 1.0
    previous = -np.inf
    for _ in range(STEPS):
        of_particles = number * _gumbel(values, middle, spread)
        of_tail = tails / length * np.exp(-height / length)
        falling = np.exp(-((height / scale) ** steepness) - gammaln(1 / steepness))
        of_background = background * steepness / scale * falling
        total = of_particles + of_tail + of_background + 1e-300
        probability = of_particles / total
        likelihood = float(held @ np.log(total) - number - tails - background)
        likelihood -= BELIEF * (np.log(spread) + (SPREAD / spread) ** 2 / 2)
        if likelihood - previous < CONVERGED:
            break
        previous = likelihood
        share = float(held @ probability) + 1e-9
        middle = float(held @ (probability * values)) / share
        squares = float(held @ (probability * (values - middle) ** 2))
        spread = float(np.sqrt((squares + BELIEF * SPREAD**2) / (share + BELIEF)))
        if tail:
            tails = float(held @ (of_tail / total))
            reach = float(held @ (of_tail / total * height))
            length = (reach + TAIL_BELIEF * TAIL_LENGTH) / (tails + TAIL_BELIEF)
        weights = held * of_background / total
        background = float(weights.sum()) + 1e-9
        scales = (STEEPNESS * (powers @ weights) / background + 1e-12) ** (1 / STEEPNESS)
        fitness = np.log(STEEPNESS / scales) - gammaln(1 / STEEPNESS) - 1 / STEEPNESS
        best = np.where(tail & (STEEPNESS < 1), -np.inf, fitness).argmax()
        scale, steepness = float(scales[best]), float(STEEPNESS[best])
    return _Fit(probability, likelihood)


def _gumbel(values: Floats, mean: float, deviation: float) -> Floats:
    """Density (n,) of the Gumbel distribution of smallest values with this mean and standard deviation."""
    scale = deviation * np.sqrt(6) / np.pi
    z = (values - mean) / scale - np.euler_gamma
    density: Floats = np.exp(z - np.exp(np.minimum(z, FARTHEST))) / scale
    return density


def _mean(fits: Sequence[_Fit], weights: Floats) -> Floats:
    """Of the probabilities (n,)."""
    mean: Floats = np.tensordot(weights, [found.probability for found in fits], 1)
    return mean


def _normalised(log_weights: Floats) -> Floats:
    """Weights that add up to 1."""
    weights: Floats = np.exp(log_weights - logsumexp(log_weights))
    return weights


def _apart(probability: Floats, held: Floats, expected: float) -> float:
    """What the likelihood is worth in the comparison of numbers of particles.

    Were the populations shaped like those that are fitted, it would tell the logarithm of the number to within the
    inverse root of its information. Real ones only resemble these; so of what may be a particle or not, their overlap,
    the part IN_DOUBT is in doubt besides.

    Args:
        probability: (n,) of each value to be a particle.
        held: (n,) candidates that it stands for.
        expected: particles; a fit that finds hardly any has hardly any information, and is not to be trusted for that.
    """
    information = max(float(held @ probability**2), expected)
    overlap = held @ (probability * (1 - probability)) / max(float(held @ probability), 1e-9)
    return float(1 / (1 + information * (IN_DOUBT * overlap) ** 2))


def _log_normal(prior: Count, candidates: int) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the number of particles."""
    if prior.expected <= 0:
        return float(np.log(max(3.0, 0.02 * candidates))), NO_IDEA
    told = Count(*(max(1.0, number) for number in prior))
    return float(np.log(told.expected)), max(LEAST_DOUBT, told.spread)


def _knots(values: Floats, probability: Floats) -> Knots:
    """Knots of the calibration through values (n,) and the probabilities found for them."""
    order = np.argsort(values)
    rising = np.maximum.accumulate(probability[order])
    before = np.linspace(values.min(), values.max(), KNOTS)
    after = logit(np.clip(np.interp(before, values[order], rising), SURE, 1 - SURE))
    steps = [max(high - low, FLATTEST * (before[1] - before[0])) for low, high in pairwise(after)]
    after = after[0] + np.concatenate([[0.0], np.cumsum(steps)])
    return tuple(zip(before.tolist(), after.tolist(), strict=True))
