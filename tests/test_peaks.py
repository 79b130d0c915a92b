import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cetpick.peaks import local_maxima, refine, suppress


def test_local_maxima_above_the_floor() -> None:
    heatmap = np.zeros((5, 7, 9), np.float32)
    heatmap[2, 3, 4], heatmap[2, 3, 5], heatmap[0, 0, 0], heatmap[4, 6, 8] = 3, 2, 1, 0.4
    assert local_maxima(heatmap, floor=0.5).tolist() == [[0, 0, 0], [2, 3, 4]]


def test_a_plateau_has_one_maximum() -> None:
    assert local_maxima(np.ones((4, 5, 6), np.float32), floor=0).tolist() == [[0, 0, 0]]
    heatmap = np.zeros((4, 5, 6), np.float32)
    heatmap[2, 2:4, 3:5] = 1
    assert local_maxima(heatmap, floor=0.5).tolist() == [[2, 2, 3]]


def test_refine_finds_the_apex_of_a_parabola() -> None:
    z, y, x = np.mgrid[:7, :8, :9].astype(np.float32)
    heatmap = -((z - 3.2) ** 2) - 2 * (y - 3.9) ** 2 - 0.5 * (x - 4.4) ** 2
    cells = local_maxima(heatmap, floor=-1)
    assert cells.tolist() == [[3, 4, 4]]
    np.testing.assert_allclose(refine(heatmap, cells), [[3.2, 3.9, 4.4]], atol=1e-5)


def test_refine_stays_in_its_cell_and_on_the_border() -> None:
    heatmap = np.zeros((1, 3, 3), np.float32)
    heatmap[0, 0, 1], heatmap[0, 0, 2] = 2.0, 1.9
    refined = refine(heatmap, np.array([[0, 0, 1]]))
    assert refined[0, 0] == 0
    assert refined[0, 1] == 0
    assert 1 < refined[0, 2] <= 1.5


def test_suppress_keeps_the_better_of_two_but_not_the_neighbour_of_a_dropped_one() -> None:
    points = np.array([[0, 0, 0], [4, 0, 0], [8, 0, 0], [50, 0, 0]], float)
    scores = np.array([0.9, 0.8, 0.7, 0.95])
    # the second falls to the first; the third is near the second only, and stays
    assert suppress(points, scores, distance=5).tolist() == [3, 0, 2]
    assert suppress(points, scores, distance=4).tolist() == [3, 0, 1, 2]
    assert suppress(points, scores, distance=0).tolist() == [3, 0, 1, 2]
    assert suppress(np.empty((0, 3)), np.empty(0), distance=5).tolist() == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.5, 6))
def test_suppress_equals_the_plain_loop(seed: int, count: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    points, scores = rng.uniform(0, 10, (count, 3)), rng.integers(0, 5, count).astype(float)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(np.linalg.norm(points[i] - points[j]) >= distance for j in kept):
            kept.append(int(i))
    assert suppress(points, scores, distance=distance).tolist() == kept
