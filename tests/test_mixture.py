from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from cetpick.calibration import Count
from cetpick.mixture import agreed, calibrate, fit, picks_if

BROAD = Count(50, 100, 200)


def populations(particles: int, look_alikes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits as networks give them, particles with a skewness of -.8, and which of them are particles."""
    rng = np.random.default_rng(seed)
    background = -5 + np.abs(rng.normal(0, 0.3, 2000))
    tail = -5 + rng.exponential(0.8, look_alikes)
    hidden = -1.5 + (np.log(rng.gamma(2, size=particles)) - 0.42) / 0.8
    values = np.concatenate([hidden, background, tail, -5 - rng.exponential(0.2, 2000)])
    return values, np.arange(len(values)) < particles


@pytest.mark.parametrize("look_alikes", [0, 60])
@pytest.mark.parametrize("prior", [BROAD, Count(60, 200, 600), Count(0, 0, 0)])
def test_count_and_probabilities_of_known_populations(look_alikes: int, prior: Count) -> None:
    gaps, counts = [], []
    for seed in range(3):
        logits, true = populations(120, look_alikes, seed)
        found = fit(logits, prior)
        assert found is not None
        probability = expit(calibrate(logits, found.knots))
        counts.append(found.count)
        for low, high in pairwise(np.linspace(0.05, 1, 5)):
            inside = (probability >= low) & (probability < high)
            gaps.append((inside.sum() * (true[inside].mean() - probability[inside].mean())) if inside.any() else 0.0)
    low, expected, high = np.mean(counts, axis=0)
    assert expected == pytest.approx(120, rel=0.2)
    assert 0.9 * low < 120 < 1.1 * high
    assert 1.05 * low < expected < high / 1.05
    assert np.abs(np.reshape(gaps, (3, -1)).sum(axis=0)).sum() / (3 * 120) < 0.12  # over- and underestimates cancel


def test_picks_follow_a_known_number_where_scores_leave_it_open() -> None:
    logits, _ = populations(120, 60, 0)
    found = fit(logits, BROAD)
    assert found is not None
    probabilities = expit(calibrate(logits, found.knots))
    few, right, many = (picks_if(number, probabilities) for number in (60, 120, 240))
    assert few < right < many
    assert right == pytest.approx(120, rel=0.15)
    apart = np.repeat([1e-4, 1 - 1e-4], [3000, 120])
    assert [picks_if(number, apart) for number in (110, 120, 130)] == [120] * 3
    assert picks_if(5, []) == 0


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_second_opinion_tells_look_alikes_that_score_as_particles_do(doubtful: bool) -> None:
    """A heap of 40 of them lies just below 100 particles by the first scores, and far away by the others."""
    rng = np.random.default_rng(0)
    background, second = (-6 + np.abs(rng.normal(0, 0.4, 3000)) for _ in range(2))
    first = np.concatenate([rng.normal(1, 0.6, 100), rng.normal(-1, 0.4, 40), background])
    like = rng.normal(1, 0.6, 100)
    other = np.concatenate([like, rng.normal(-5 if not doubtful else 1, 0.4, 40), second])
    alone, beside = fit(first, BROAD), fit(other, BROAD)
    assert alone is not None
    assert beside is not None
    together = agreed(first, alone, other, beside)
    picked = (expit(calibrate(first, together.knots)) >= 0.5).sum()
    assert (expit(calibrate(first, alone.knots)) >= 0.5).sum() > 130
    assert (picked > 130) == doubtful
    assert doubtful or picked == pytest.approx(100, abs=5)
    assert together.count.expected == pytest.approx(140 if doubtful else 105, abs=10)
    assert together.count.low < together.count.expected < together.count.high
    assert alone.count.spread < together.count.spread or doubtful  # they differ


def test_a_second_opinion_without_one_changes_nothing() -> None:
    logits, _ = populations(120, 60, 0)
    noise = np.random.default_rng(0).exponential(0.8, len(logits)) - 5
    alone, beside = fit(logits, BROAD), fit(noise, BROAD)
    assert alone is not None
    assert beside is not None
    assert agreed(logits, alone, noise, beside) == alone


def test_scouts_decide_where_scores_do_not() -> None:
    """Without a gap the number of particles is open; then it is what the scouts told."""
    logits = -5 + np.random.default_rng(0).exponential(0.8, 3000)
    few, many = (fit(logits, Count(0.8 * n, n, 1.25 * n)) for n in (40, 160))
    assert few is not None
    assert many is not None
    assert few.count.expected < 80 < many.count.expected
    assert expit(calibrate([-1.0], few.knots)) < expit(calibrate([-1.0], many.knots))


@pytest.mark.parametrize("prior", [Count(30, 50, 85), Count(150, 250, 420)])
def test_scores_decide_where_they_leave_a_gap(prior: Count) -> None:
    logits, _ = populations(120, 0, 0)
    found = fit(logits, prior)
    assert found is not None
    assert found.count.expected == pytest.approx(120, rel=0.07)


@pytest.mark.parametrize("seed", range(3))
def test_a_tail_needs_evidence(seed: int) -> None:
    """Particles that lie near the background, and of which scouts told a third, are not taken for look-alikes."""
    logits, true = populations(120, 0, seed)
    found = fit(np.where(true, logits - 1.5, logits), Count(20, 40, 80))
    assert found is not None
    assert found.count.expected == pytest.approx(120, rel=0.2)


def test_a_fit_that_finds_hardly_any_particles_is_not_trusted_for_it() -> None:
    """A network of few steps tells nothing apart; then scouts are right, not a handful of candidates at the end."""
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-3, 0.5, 600), [-1.2, -1.0]])
    found = fit(logits, Count(25, 40, 64))
    assert found is not None
    assert found.apart < 0.1
    assert found.count.expected == pytest.approx(40, rel=0.15)


@pytest.mark.parametrize("others", [20, 60, 400])
def test_particles_are_not_taken_for_background_where_there_is_little_of_it(others: int) -> None:
    """As within a tight mask."""
    rng = np.random.default_rng(others)
    logits = np.concatenate([rng.normal(3, 0.7, 100), rng.normal(-5, 0.5, others)])
    found = fit(logits, Count(60, 100, 160))
    assert found is not None
    assert found.count.expected == pytest.approx(100, rel=0.2)
    assert (expit(calibrate(logits[:100], found.knots)) > 0.5).sum() >= 95


def test_scores_that_cannot_be_surer_are_like_very_sure_ones() -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(3, 0.5, 50), rng.normal(-6, 0.5, 500)])
    logits[:2] = np.inf
    found = fit(logits, Count(30, 50, 80))
    assert found is not None
    assert found.count.expected == pytest.approx(50, abs=5)


def test_too_little_to_fit() -> None:
    assert fit([], BROAD) is None
    assert fit(np.full(500, -3.0), BROAD) is None
    assert fit(np.linspace(-5, 1, 10), BROAD) is None
    assert fit(np.repeat([-6.0, 8.0], [400, 40]), BROAD) is None  # all above the mode are alike


def test_few_particles_are_no_fewer_than_expected() -> None:
    """Numbers below 1 are taken for 1, which gets their weight and no more."""
    rng = np.random.default_rng(0)
    told = []
    for _ in range(6):
        logits = np.concatenate([rng.gumbel(0, 0.8, 3) * -1 - 2, -6 + np.abs(rng.normal(0, 0.6, 400))])
        found = fit(logits, Count(0.7, 4, 20))
        assert found is not None
        told.append(found.count.expected)
    assert np.mean(told) == pytest.approx(3, rel=0.2)


def test_calibration_never_joins_or_swaps_two_scores() -> None:
    logits, _ = populations(120, 60, 0)
    found = fit(logits, BROAD)
    assert found is not None
    grid = np.linspace(-12, 12, 5000)
    assert (np.diff(calibrate(grid, found.knots)) > 0).all()
    np.testing.assert_array_equal(calibrate(grid, ()), grid)
    knots = ((0.0, -1.0), (1.0, 3.0))
    np.testing.assert_allclose(calibrate([-2.0, 0.5, 4.0], knots), [-3.0, 1.0, 6.0])
