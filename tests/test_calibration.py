import numpy as np
import pytest

from cetpick.calibration import (
    Count,
    choose_threshold,
    doubted,
    estimate_count,
    expectations,
    hinted,
    label_ranks,
    label_scores,
    precision_threshold,
    stray_labels,
    within,
)


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


def test_count_of_two_separate_populations() -> None:
    # 20 of 100 particles are labels, at every fifth rank; then comes junk
    low, count, high = estimate_count(np.arange(3, 101, 5), 5000)
    assert count == pytest.approx(100, rel=0.1)
    assert 0.75 * count <= low <= count <= high <= 1.35 * count


def test_counts_of_overlapping_populations_are_right_and_so_are_their_limits() -> None:
    counts = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        particles, junk = rng.normal(0.7, 0.12, 300), rng.normal(0.3, 0.1, 3000)
        scores = np.concatenate([particles, junk])
        counts.append(estimate_count(label_ranks(particles[:20], scores), len(scores)))
    low, expected, high = np.array(counts).T
    assert np.median(expected) == pytest.approx(300, rel=0.1)
    assert np.quantile(expected, 0.1) > 225
    assert np.quantile(expected, 0.9) < 375
    assert 0.65 <= ((low <= 300) & (high >= 300)).mean() <= 0.95


def test_two_lucky_labels_do_not_make_the_count() -> None:
    """Ranks as scouts gave them to 12 labels of a tomogram with 123 particles."""
    ranks = [2, 72, 50, 67, 5, 114, 81, 43, 13, 105, 104, 1]
    assert 90 <= estimate_count(ranks, 2000).expected <= 140


def test_labels_that_rank_far_behind_the_others_are_stray() -> None:
    """Ranks as scouts gave them to labels of which the last ones were put where no particle is."""
    easy = [5, 6, 19, 21, 22, 27, 33, 39, 41, 52, 63]
    assert stray_labels([*easy, 573], 2000).tolist() == [False] * 11 + [True]
    hard = [1, 4, 6, 7, 10, 10, 16, 22, 23, 26, 28, 64, 68, 89, 127, 128, 192, 221, 314]
    assert stray_labels([*hard, 3062, np.inf], 4300).tolist() == [False] * 19 + [True] * 2
    assert stray_labels([*easy, np.inf], 2000)[-1]
    assert not stray_labels([*easy, 120], 2000).any()
    # of so few labels more than one may rank anywhere
    assert not stray_labels([5, 20, 81, 96, 310, 1282, np.inf], 2000).any()
    assert not stray_labels([657, 801, 1059, 526, 522, 103, 85, 499, 374, 502, 478, 296, 488, 204], 2000).any()
    assert not stray_labels([30, 60, 900], 2000).any()
    # scouts that find a third of the labels nowhere tell nothing of labels
    assert not stray_labels([*easy[:6], np.inf, np.inf, np.inf], 2000).any()
    assert stray_labels([], 2000).tolist() == []
    assert stray_labels([np.inf, np.inf], 0).tolist() == [False, False]


def test_true_labels_are_hardly_ever_stray() -> None:
    stray = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        particles, junk = rng.normal(0.7, 0.12, 300), rng.normal(0.3, 0.1, 1700)
        labels = np.concatenate([rng.choice(particles, 18, replace=False), rng.choice(junk, 2, replace=False)])
        stray.append(stray_labels(label_ranks(labels, np.concatenate([particles, junk])), 2000))
    assert np.mean(stray, axis=0)[:18].mean() < 0.02
    assert np.mean(stray, axis=0)[18:].mean() > 0.8


def test_a_hint_is_evidence_beside_the_ranks() -> None:
    ranks = doubted(estimate_count(np.arange(3, 101, 5), 5000))  # 80, a standard deviation of .5
    both = hinted(ranks, ranks.expected)
    same = both.expected
    assert same == pytest.approx(ranks.expected)
    assert 0.6 * ranks.spread < both.spread < 0.8 * ranks.spread
    # as good as the ranks, so that half of its error remains
    for factor in (1 / 3, 3):
        assert hinted(ranks, factor * ranks.expected).expected == pytest.approx(same * factor**0.5, rel=0.1)
    # of a count that is sure little
    assert hinted(Count(95, 100, 105), 300).expected == pytest.approx(100, rel=0.02)


def test_count_of_labels_that_were_not_found_is_untold() -> None:
    assert estimate_count([np.inf, np.inf], 100) == (0, 0, 0)
    assert estimate_count([], 100) == (0, 0, 0)
    # one of two trainings may find nothing at all
    assert estimate_count([3, np.inf], 0) == (0, 0, 0)
    low, expected, high = hinted(estimate_count([np.inf, np.inf], 100), 50)
    assert expected == pytest.approx(50)
    assert low < 30
    assert high > 80


def test_threshold_is_even_where_particles_stand_out() -> None:
    assert choose_threshold([0.99, 0.98, 0.97, 0.3, *[0.01] * 20]) == 0.5
    assert choose_threshold([]) == 0.5


def test_threshold_of_doubtful_candidates_is_the_cut_of_the_best_expected_f1() -> None:
    probabilities = np.array([0.6, *[0.4] * 10, *[0.1] * 20])
    f1 = [2 * probabilities[:k].sum() / (k + probabilities.sum()) for k in range(1, 32)]
    assert int(np.argmax(f1)) == 10  # eleven picks
    assert choose_threshold(probabilities) == pytest.approx(0.25)
    assert choose_threshold(probabilities[::-1]) == pytest.approx(0.25)


def test_cut_of_an_expected_precision() -> None:
    probabilities = [0.5, 0.9, 0.7, 0.1]  # means of the best: .9, .8, .7, .55
    assert [precision_threshold(probabilities, p) for p in (0.9, 0.8, 0.75, 0.6, 0.5)] == [0.9, 0.7, 0.7, 0.5, 0.1]
    none = precision_threshold(probabilities, 0.95)
    assert not (np.array(probabilities) >= none).any()
    assert precision_threshold([], 0.9) == 1
    assert precision_threshold([0.9, 0.5, 0.5, 0.5], 0.65) == 0.9  # one of three equal ones would do


def test_expectations_of_cuts() -> None:
    told = {cut: (picks, particles) for cut, picks, particles in expectations([0.96, 0.5, 0.3, 0.01])}
    assert told[0] == (4, pytest.approx(1.77))
    assert told[0.5] == (2, pytest.approx(1.46))
    assert told[0.95] == (1, 0.96)
    assert expectations([])[0] == (0, 0, 0)


@pytest.mark.parametrize("hint", [1, 1e7])
def test_an_absurd_hint_leaves_a_number(hint: float) -> None:
    """Labels found at the very top of 5000 candidates, or all over 40 of them."""
    for ranks, candidates in (([1, 1, 2], 5000), ([7, 13, 22, 40], 40)):
        low, expected, high = hinted(doubted(estimate_count(ranks, candidates)), hint)
        assert 0 < low < expected < high < np.inf


def test_doubt_widens_limits_and_expects_look_alikes() -> None:
    low, expected, high = doubted(Count(80, 100, 150))
    assert expected == 80
    # a standard deviation of .5 is a factor of 1.9 at the quantile of 90 %
    assert low == pytest.approx(100 * np.exp(-np.hypot(np.log(1.25), 0.5 * 1.2816)), rel=1e-3)
    assert high == pytest.approx(100 * np.exp(np.hypot(np.log(1.5), 0.5 * 1.2816)), rel=1e-3)
    assert doubted(Count(0, 0, 0)) == (0, 0, 0)
