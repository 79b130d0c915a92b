import numpy as np
import pytest

from cetpick.diagnosis import Outcome, require_learned, warn_of_unlike
from cetpick.errors import CetpickWarning, TrainingError

GRID = np.stack(np.meshgrid(*[np.arange(10.0, 100, 20)] * 3), axis=-1).reshape(-1, 3)
"""125 places, 20 voxels apart."""


def outcome(scores, labels=GRID[:10]):
    return Outcome(name="t1", labels=labels, candidates=GRID, scores=scores, volume=100.0**3, radius=8.0)


def good():
    scores = np.linspace(0.2, 0.01, len(GRID))
    scores[:20] = 0.9
    return scores


def test_a_good_training_is_not_spoken_of():
    require_learned([outcome(good()), outcome(good())])
    warn_of_unlike([outcome(good()), outcome(good())], 0.5)


@pytest.mark.parametrize("scores", [np.full(125, 0.01), np.full(125, 0.7), np.linspace(0, 0.04, 125)])
def test_scores_that_tell_nothing_apart(scores):
    with pytest.raises(TrainingError, match=r"tells nothing apart[\s\S]*125 candidates[\s\S]*cetpick check"):
        require_learned([outcome(scores)])


def test_no_candidates_at_all():
    empty = Outcome(name="t1", labels=GRID, candidates=GRID[:0], scores=np.empty(0), volume=1e6, radius=8.0)
    with pytest.raises(TrainingError, match="tells nothing apart"):
        require_learned([empty])


def test_everything_is_a_particle():
    # 125 spheres of radius 10 fill .52 of the volume
    scores = np.linspace(0.8, 0.9, len(GRID))
    full = Outcome(name="t1", labels=GRID[:5], candidates=GRID, scores=scores, volume=1e6, radius=10.0)
    with pytest.raises(TrainingError, match=r"everything in t1 is a particle[\s\S]*52%"):
        require_learned([full])


def test_labels_unlike_the_others_are_named():
    scores = good()
    scores[[3, 7, 8]] = 0.3, 0.1, 0.2
    np.testing.assert_array_equal(GRID[[7, 8, 3]], [[30, 10, 50], [30, 10, 70], [10, 10, 70]])
    listed = r"most unlike: t1 at 30, 10, 50; t1 at 30, 10, 70; t1 at 10, 10, 70\."
    with pytest.warns(CetpickWarning, match=rf"3 of 10 labels look unlike the others .* {listed}"):
        warn_of_unlike([outcome(scores)], 0.5)
    scores[[7, 8]] = 0.9  # one of ten is a matter of course
    warn_of_unlike([outcome(scores)], 0.5)
