import numpy as np
import pytest

from cetpick.calibration import choose_threshold, estimate_count, label_ranks, label_scores, within


def test_label_scores_take_the_best_candidate_in_reach() -> None:
    labels = np.array([[0, 0, 0], [10, 0, 0], [50, 0, 0]], float)
    candidates = np.array([[0, 0, 3], [0, 0, -2], [11, 0, 0]], float)
    assert label_scores(labels, candidates, [0.5, 0.7, 0.2], radius=4).tolist() == [0.7, 0.2, 0]
    assert label_scores(labels, np.empty((0, 3)), [], radius=4).tolist() == [0, 0, 0]


def test_within_tells_the_points_near_a_centre() -> None:
    points = np.array([[0, 0, 0], [3, 4, 0], [9, 0, 0]], float)
    assert within(points, np.zeros((1, 3)), 5).tolist() == [True, True, False]
    assert within(points, np.empty((0, 3)), 5).tolist() == [False] * 3


def test_ranks_count_the_candidates_at_or_above_a_label() -> None:
    assert label_ranks([0.5, 0.9, 0.0], [0.9, 0.7, 0.5, 0.5, 0.1]).tolist() == [4, 1, np.inf]


def test_count_of_two_separate_populations_is_exact() -> None:
    # 20 of 100 particles are labels, at every fifth rank; then comes junk
    assert estimate_count(np.arange(5, 101, 5)) == pytest.approx(100)


def test_overlapping_populations_give_the_truth_on_average() -> None:
    estimates = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        particles, junk = rng.normal(0.7, 0.12, 300), rng.normal(0.35, 0.1, 3000)
        ranks = label_ranks(particles[:40], np.concatenate([particles, junk]))
        estimates.append(estimate_count(ranks))
    assert np.median(estimates) == pytest.approx(300, rel=0.15)
    assert max(estimates) < 500


def test_count_of_labels_that_were_not_found_is_untold() -> None:
    assert estimate_count([np.inf, np.inf]) == 0
    assert estimate_count(np.repeat(np.arange(1, 31), 2)) == pytest.approx(30)


def test_threshold_moves_into_the_gap_near_the_count() -> None:
    rng = np.random.default_rng(0)
    particles, junk = rng.uniform(0.6, 0.9, 100), rng.uniform(0, 0.3, 1000)
    scores = np.concatenate([particles, junk])
    for count in (80, 90, 100):
        threshold = choose_threshold(scores, count)
        assert (scores >= threshold).sum() == 100
        assert 0.3 < threshold < 0.6


def test_threshold_without_a_gap_keeps_near_the_count() -> None:
    scores = 1 / (1 + np.exp(np.linspace(4, -4, 400)))
    assert 80 <= (scores >= choose_threshold(scores, 100)).sum() <= 130


def test_threshold_of_few_or_no_candidates() -> None:
    assert choose_threshold([], 10) == 0.5
    assert choose_threshold([0.4], 10) == 0.4
    assert choose_threshold([0.2, 0.8], 1) == 0.5
