import numpy as np
import pytest
import torch

from cetpick import scouting
from cetpick.calibration import Count
from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.errors import CetpickWarning
from cetpick.io.tomograms import read_tomogram
from cetpick.preprocess import prepare
from cetpick.scouting import Scouting, scout
from cetpick.training import model_settings
from tests.conftest import TinySet


@pytest.mark.parametrize("labels", [[5], [1, 1, 1, 1, 1], [3, 0, 4], [12, 8]])
def test_each_scout_gets_half_of_all_labels(labels: list[int]) -> None:
    halves = scouting._halves(labels, seed=3)
    assert [len(h) for h in halves] == labels
    first = sum(int((h == 0).sum()) for h in halves)
    assert first - (sum(labels) - first) in (0, 1)


def test_doubtful_places_are_the_best_ranked_of_all_tomograms() -> None:
    points = [np.arange(9.0).reshape(3, 3), 100 + np.arange(6.0).reshape(2, 3)]
    found = Scouting(count=Count(8, 9, 10), unlabelled=points, ranks=[np.array([5.0, 1, np.inf]), np.array([2.0, 9])])
    two = found.doubtful(2)
    assert [p.tolist() for p in two] == [[points[0][1].tolist()], [points[1][0].tolist()]]
    assert [len(p) for p in found.doubtful(0)] == [0, 0]
    # what only one scout found is never spared
    assert [len(p) for p in found.doubtful(1000)] == [2, 2]


def examples(tiny: TinySet, labels: np.ndarray) -> tuple[TrainSettings, object, list[Example]]:
    settings = TrainSettings(diameter=tiny.diameter, steps=60, crops=4, crop=(6, 32, 32))
    tomogram = read_tomogram(tiny.path("one"))
    model = model_settings(settings, [tomogram])
    return settings, model, [Example(tomogram=tomogram, prepared=prepare(tomogram, model), labels=labels)]


def test_scouts_find_hidden_particles_and_count_them(tiny: TinySet) -> None:
    truth = tiny.truth["one"]
    found = scout(*examples(tiny, truth[:6]), torch.device("cpu"))
    assert 0.7 * len(truth) <= found.count.expected <= 1.5 * len(truth)
    hidden = truth[6:]
    best = found.unlabelled[0][np.argsort(found.ranks[0])][: len(hidden)]
    distance = np.linalg.norm(hidden[:, None] - best[None], axis=2).min(axis=1)
    assert (distance < 5).mean() >= 0.7


def test_labels_that_no_scout_finds_again_are_said(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scouting, "candidates", lambda *_: (np.array([[1.0, 1, 1]]), np.array([0.5])))
    _, model, example = examples(tiny, tiny.truth["one"][:6])
    with pytest.warns(CetpickWarning, match="6 of 6 labels were not found again"):
        found = scout(
            TrainSettings(diameter=160, steps=1, crops=1, crop=(6, 32, 32)), model, example, torch.device("cpu")
        )
    assert found.count == (6, 6, 6)
