import dataclasses
import itertools

import numpy as np
import pytest

from cetpick.errors import InputError
from cetpick.metrics import Scene, evaluate, match


def on_line(*x: float) -> np.ndarray:
    return np.array([[value, 0.0, 0.0] for value in x])


def scene(picks, scores, truth, **more) -> Scene:
    return Scene(name="tomo", picks=picks, scores=scores, truth=truth, **more)


def test_match_serves_higher_scores_first():
    # the pick at 1 is nearer to the truth at 0, but the one at -2 has the better score
    assert match(on_line(1, -2), [0.5, 0.9], on_line(0), 2).tolist() == [-1, 0]


def test_match_takes_the_nearest_free_truth():
    assert match(on_line(4, 5), [0.9, 0.8], on_line(0, 5), 6).tolist() == [1, 0]


def test_match_includes_the_radius_and_nothing_beyond():
    assert match(on_line(3, 13.001), [2, 1], on_line(0, 10), 3).tolist() == [0, -1]
    assert match([[1, 2, 2]], [1], [[0, 0, 0]], 3).tolist() == [0]


def test_match_of_equal_scores_does_not_depend_on_their_order():
    # the pick at 1 is nearer to 0; the other one is left with nothing, whichever comes first
    assert match(on_line(1, 2), [1, 1], on_line(0), 5).tolist() == [0, -1]
    assert match(on_line(2, 1), [1, 1], on_line(0), 5).tolist() == [-1, 0]


def test_match_without_picks_or_truth():
    assert match([], [], on_line(1), 1).tolist() == []
    assert match(on_line(1, 2), [1, 2], [], 1).tolist() == [-1, -1]


def greedy(picks, scores, truth, radius):
    """The definition, slowly: each pick by falling score takes the nearest free truth within the radius."""
    free, partner = set(range(len(truth))), [-1] * len(picks)
    for pick in sorted(range(len(picks)), key=lambda i: -scores[i]):
        near = [(np.linalg.norm(picks[pick] - truth[t]), t) for t in free]
        near = [pair for pair in near if pair[0] <= radius]
        if near:
            partner[pick] = min(near)[1]
            free.remove(min(near)[1])
    return partner


def test_match_equals_the_slow_definition():
    rng = np.random.default_rng(0)
    for _ in range(20):
        picks, truth = rng.uniform(0, 20, (60, 3)), rng.uniform(0, 20, (40, 3))
        scores = rng.permutation(60)
        assert match(picks, scores, truth, 4).tolist() == greedy(picks, scores, truth, 4)


def test_evaluate_by_hand():
    # falling scores: hit at distance 1, miss, hit at distance 2, miss; one truth of four is never found
    result = evaluate([scene(on_line(1, 50, 22, 70), [0.9, 0.8, 0.7, 0.6], on_line(0, 20, 100, 200))], 3)
    assert result.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert result.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert result.recall == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4])
    assert result.average_precision == pytest.approx(1 * 1 / 4 + 2 / 3 * 1 / 4)
    assert (result.all_picks.picks, result.all_picks.matched, result.all_picks.truths) == (4, 2, 4)
    assert (result.all_picks.precision, result.all_picks.recall, result.all_picks.f1) == (0.5, 0.5, 0.5)
    assert (result.best.threshold, result.best.picks, result.best.f1) == (0.7, 3, pytest.approx(4 / 7))
    assert result.all_picks.localisation_error == pytest.approx(np.sqrt((1 + 4) / 2))
    assert result.at_threshold is None


def test_evaluate_pools_tomograms_and_takes_each_threshold():
    first = scene(on_line(0, 30), [0.9, 0.4], on_line(0), threshold=0.5)
    second = scene(on_line(0, 10), [0.3, 0.2], on_line(0, 10), threshold=0.3)
    result = evaluate([first, second], 1)
    assert result.precision == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4])
    assert result.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert result.at_threshold is not None
    assert (result.at_threshold.picks, result.at_threshold.matched, result.at_threshold.truths) == (2, 2, 3)
    assert result.at_threshold.f1 == pytest.approx(4 / 5)


@pytest.mark.parametrize("order", list(itertools.permutations((0, 10, 50))))
def test_equal_scores_enter_together(order):
    result = evaluate([scene(on_line(*order, 70), [0.5, 0.5, 0.5, 0.1], on_line(0, 10, 99))], 1)
    assert result.thresholds.tolist() == [0.5, 0.1]
    assert result.precision == pytest.approx([2 / 3, 2 / 4])
    assert result.average_precision == pytest.approx(2 / 3 * 2 / 3)


def test_best_f1_of_a_draw_is_the_highest_threshold():
    # F1 is 2/3 after the first pick and again after the fourth (2 of 4, 2 truths)
    result = evaluate([scene(on_line(0, 30, 40, 10), [4, 3, 2, 1], on_line(0, 10))], 1)
    assert (result.best.threshold, result.best.f1) == (4, pytest.approx(2 / 3))


def test_average_precision_equals_a_sum_over_hits():
    rng = np.random.default_rng(1)
    picks, truth, scores = rng.uniform(0, 30, (80, 3)), rng.uniform(0, 30, (50, 3)), rng.random(80)
    hits = [greedy(picks, scores, truth, 5)[i] >= 0 for i in np.argsort(-scores)]
    expected = sum(sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit) / 50
    assert evaluate([scene(picks, scores, truth)], 5).average_precision == pytest.approx(expected)


def test_margin():
    # 100 voxels along x, margin 10: inside is [9.5, 89.5)
    truth = on_line(5, 12, 50)
    picks = on_line(
        7,  # inside the margin, matches the ignored truth at 5: ignored
        9,  # inside the margin, matches the truth at 12: a hit
        2,  # inside the margin, matches nothing: ignored
        50,  # a hit
        80,  # a miss
        95,  # inside the margin, matches nothing: ignored
    )
    box = {"shape": (20, 40, 100)}
    result = evaluate([scene(picks, [6, 5, 4, 3, 2, 1], truth, **box)], 3, margin=(10, 0, 0))
    assert (result.ignored_truths, result.ignored_picks) == (1, 3)
    assert (result.all_picks.picks, result.all_picks.matched, result.all_picks.truths) == (3, 2, 2)
    assert result.all_picks.localisation_error == pytest.approx(np.sqrt(9 / 2))


def test_a_pick_outside_the_margin_on_an_ignored_truth_is_ignored():
    result = evaluate([scene(on_line(11, 50), [2, 1], on_line(9, 50), shape=(9, 9, 100))], 3, margin=(10, 0, 0))
    assert (result.ignored_picks, result.all_picks.picks, result.all_picks.matched) == (1, 1, 1)


def test_the_margin_is_x_y_z_and_starts_at_the_outer_face():
    shape = (50, 100, 200)
    truth = [[20.4, 50, 25], [20.5, 50, 25], [178.4, 50, 25], [178.5, 50, 25], [100, 9.4, 25], [100, 50, 4.4]]
    result = evaluate([scene([], [], truth, shape=shape)], 5, margin=(21, 10, 5))
    assert result.all_picks.truths == 2
    assert evaluate([scene([], [], truth, shape=shape)], 5, margin=(21, 10, 0)).all_picks.truths == 3


def test_a_margin_needs_the_size():
    with pytest.raises(InputError, match="size of the volume"):
        evaluate([scene(on_line(1), [1], on_line(1))], 5, margin=(1, 1, 0))


@pytest.mark.parametrize("margin", [(-1, 0, 0), (50, 0, 0), (np.nan, 0, 0)])
def test_an_impossible_margin(margin):
    with pytest.raises(InputError, match="margin"):
        evaluate([scene(on_line(1), [1], on_line(1), shape=(9, 9, 100))], 5, margin=margin)


def test_no_picks():
    result = evaluate([scene([], [], on_line(1, 2), threshold=0.5)], 5)
    for score in (result.all_picks, result.best, result.at_threshold):
        assert (score.precision, score.recall, score.f1, score.threshold) == (0, 0, 0, None)
    assert result.average_precision == 0
    assert result.all_picks.localisation_error is None
    assert len(result.precision) == len(result.recall) == len(result.thresholds) == 0


def test_a_tomogram_without_particles_counts_its_picks_as_wrong():
    full, empty = scene(on_line(1), [1], on_line(1)), scene(on_line(1), [2], [])
    assert evaluate([full, empty], 5).average_precision == 0.5


def test_nothing_to_compare_with():
    with pytest.raises(InputError, match="no reference point"):
        evaluate([scene(on_line(1), [1], [])], 5)
    with pytest.raises(InputError, match="no reference point"):
        evaluate([], 5)
    with pytest.raises(InputError, match=r"1 in the margin"):
        evaluate([scene([], [], on_line(1), shape=(9, 9, 100))], 5, margin=(10, 0, 0))


@pytest.mark.parametrize("radius", [0, -1, np.nan])
def test_an_impossible_radius(radius):
    with pytest.raises(InputError, match="radius"):
        evaluate([scene(on_line(1), [1], on_line(1))], radius)


def test_scenes_check_themselves():
    good = scene(on_line(1, 2), [1, 2], on_line(1))
    with pytest.raises(InputError, match="one score"):
        dataclasses.replace(good, scores=np.array([1.0]))
    with pytest.raises(InputError, match="finite"):
        dataclasses.replace(good, scores=np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="finite"):
        dataclasses.replace(good, truth=on_line(np.inf))
