import numpy as np
import pytest

from cetpick.calibration import choose_threshold, estimate_count, label_scores


def test_label_scores_take_the_best_candidate_in_reach() -> None:
    labels = np.array([[0, 0, 0], [10, 0, 0], [50, 0, 0]], float)
    candidates = np.array([[0, 0, 3], [0, 0, -2], [11, 0, 0]], float)
    assert label_scores(labels, candidates, [0.5, 0.7, 0.2], radius=4).tolist() == [0.7, 0.2, 0]
    assert label_scores(labels, np.empty((0, 3)), [], radius=4).tolist() == [0, 0, 0]


def test_count_and_threshold_of_two_separate_populations() -> None:
    rng = np.random.default_rng(0)
    particles, junk = rng.uniform(0.6, 0.9, 100), rng.uniform(0, 0.3, 1000)
    labels = particles[:20]
    scores = np.concatenate([particles, junk])
    assert estimate_count(labels, scores) == pytest.approx(100, rel=0.15)
    threshold = choose_threshold(labels, scores, 100)
    assert 0.3 < threshold < 0.65


def test_overlapping_populations_give_an_upper_bound_near_the_truth() -> None:
    estimates = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        particles, junk = rng.normal(0.7, 0.12, 300), rng.normal(0.35, 0.1, 3000)
        estimates.append(estimate_count(particles[:40], np.concatenate([particles, junk])))
    assert np.median(estimates) == pytest.approx(300, rel=0.15)
    assert max(estimates) < 500


def test_labels_that_were_not_found() -> None:
    assert estimate_count([0, 0, 0], [0.4, 0.3]) == 3
    assert choose_threshold([0, 0, 0], [0.4, 0.3], 3) == 0.5


def test_count_is_never_below_the_labels() -> None:
    assert estimate_count([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]) == 3
