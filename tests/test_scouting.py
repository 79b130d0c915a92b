from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from cetpick import scouting
from cetpick.calibration import Count, within
from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.errors import CetpickWarning
from cetpick.geometry import Points
from cetpick.io.tomograms import read_tomogram
from cetpick.preprocess import prepare
from cetpick.records import Coordinates
from cetpick.scouting import FINEST, USUAL, Scouting, best_ranked, recentre, scout
from cetpick.training import model_settings, train
from tests.conftest import TinySet


@pytest.mark.parametrize("labels", [[5], [1, 1, 1, 1, 1], [3, 0, 4], [12, 8]])
def test_each_scout_gets_half_of_all_labels(labels: list[int]) -> None:
    halves = scouting._halves([np.ones(n, bool) for n in labels], seed=3)
    assert [len(h) for h in halves] == labels
    first = sum(int((h == 0).sum()) for h in halves)
    assert first - (sum(labels) - first) in (0, 1)
    chosen = scouting._halves([np.arange(n + 2) >= 2 for n in labels], seed=3)
    assert all((h[:2] == scouting.BOTH).all() for h in chosen)
    assert [h[2:].tolist() for h in chosen] == [h.tolist() for h in halves]


def test_doubtful_places_are_the_best_ranked_of_all_tomograms() -> None:
    points = [np.arange(9.0).reshape(3, 3), 100 + np.arange(6.0).reshape(2, 3)]
    found = Scouting(
        count=Count(8, 9, 10),
        unlabelled=points,
        ranks=[np.array([5.0, 1, np.inf]), np.array([2.0, 9])],
        labels=[np.zeros((4, 3))] * 2,
        stray=[np.zeros(4, bool)] * 2,
        scatter=0.0,
    )
    two = found.doubtful(2)
    assert [p.tolist() for p in two] == [[points[0][1].tolist()], [points[1][0].tolist()]]
    assert [len(p) for p in found.doubtful(0)] == [0, 0]
    # what only one scout found is never spared
    assert [len(p) for p in found.doubtful(1000)] == [2, 2]
    assert [place.tolist() for _, place in best_ranked(points, found.ranks, 3)] == [[2, 0], [1]]


def examples(tiny: TinySet, labels: np.ndarray) -> tuple[TrainSettings, object, list[Example]]:
    settings = TrainSettings(diameter=tiny.diameter, steps=100, crops=4, crop=(6, 32, 32))
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


def test_labels_that_rank_far_behind_where_nothing_is_seen_are_stray_and_count_for_nothing(
    tiny: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine labels among the first fifty candidates, and three that are not found."""
    truth = tiny.truth["one"][:10]
    beside = truth[0] + np.array([0.9 * tiny.diameter / 10, 0, 0])
    labels = np.vstack([truth, beside, background(tiny)])
    others = np.random.default_rng(0).uniform((0, 0, 200), (20, 20, 220), (300, 3))
    found = np.insert(others, np.arange(9) * 5, truth[:9], axis=0)
    monkeypatch.setattr(scouting, "optimise", lambda *_, **__: (None, []))
    monkeypatch.setattr(scouting, "candidates", lambda *_: (found, np.linspace(0.9, 0.1, len(found))))
    counted, estimate = [], scouting.estimate_count
    monkeypatch.setattr(scouting, "estimate_count", lambda ranks, *a: counted.append(len(ranks)) or estimate(ranks, *a))
    settings, model, [example] = examples(tiny, labels)
    result = scout(settings, model, [example], torch.device("cpu"))
    # one is on density, one has a neighbour that was found
    assert result.stray[0].tolist() == [False] * 11 + [True]
    assert counted == [11]
    # nor is a label that was found by looking at picks
    chosen = np.arange(12) == 11
    assert not scout(settings, model, [replace(example, chosen=chosen)], torch.device("cpu")).stray[0].any()
    # in a tomogram of its own nothing can be compared with it
    alone = [replace(example, labels=labels[:11]), replace(example, labels=labels[11:])]
    assert [of.any() for of in scout(settings, model, alone, torch.device("cpu")).stray] == [False, False]


def background(tiny: TinySet) -> np.ndarray:
    """A place (1, 3) more than a diameter from every particle."""
    depth, height, width = tiny.shape
    places = np.random.default_rng(0).uniform((0, 0, 4), (width - 1, height - 1, depth - 5), (1000, 3))
    return places[~within(places, tiny.truth["one"], tiny.diameter / 10)][:1]


def test_density_is_seen_at_particles_alone(tiny: TinySet) -> None:
    _, _, [example] = examples(tiny, np.vstack([tiny.truth["one"], background(tiny)]))
    number = len(example.labels) - 1
    assert scouting._blank(example, tiny.diameter).tolist() == [False] * number + [True]
    bright = replace(example.tomogram, data=-example.tomogram.data)
    assert scouting._blank(replace(example, tomogram=bright), tiny.diameter).tolist() == [False] * number + [True]
    # where most are on nothing, it tells nothing
    nowhere = np.repeat(background(tiny), number + 1, axis=0)
    with_one = np.vstack([nowhere, tiny.truth["one"][:1]])
    assert not scouting._blank(replace(example, labels=with_one), tiny.diameter).any()
    assert scouting._blank(replace(example, labels=nowhere[:0]), tiny.diameter).tolist() == []


def test_scouts_tell_a_label_that_is_none(tiny: TinySet) -> None:
    """Few steps do not always tell."""
    labels = np.vstack([tiny.truth["one"][:9], background(tiny)])
    settings, model, given = examples(tiny, labels)
    found = [scout(replace(settings, seed=seed), model, given, torch.device("cpu")).stray[0] for seed in (1, 2, 3)]
    assert not np.any([stray[:9] for stray in found])
    assert np.sum([stray[9] for stray in found]) >= 2


def test_labels_that_no_scout_finds_again_are_said(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scouting, "candidates", lambda *_: (np.array([[1.0, 1, 1]]), np.array([0.5])))
    _, model, example = examples(tiny, tiny.truth["one"][:6])
    with pytest.warns(CetpickWarning, match="6 of 6 labels were not found again"):
        found = scout(
            TrainSettings(diameter=160, steps=1, crops=1, crop=(6, 32, 32)), model, example, torch.device("cpu")
        )
    assert found.count == (6, 6, 6)


def test_labels_found_in_picks_are_shown_to_both_scouts_and_rank_nothing(
    tiny: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six fair labels that rank high, and six chosen ones that rank last."""
    truth = tiny.truth["one"][:12]
    settings, model, [example] = examples(tiny, truth)
    shown, counted = [], []
    monkeypatch.setattr(scouting, "DefaultRecipe", lambda known, **_: shown.append(known[0].labels))
    monkeypatch.setattr(scouting, "optimise", lambda *_, **__: (None, []))
    estimate = scouting.estimate_count
    monkeypatch.setattr(
        scouting, "estimate_count", lambda ranks, *a, **k: counted.append(ranks) or estimate(ranks, *a, **k)
    )
    others = np.random.default_rng(0).uniform((0, 0, 200), (20, 20, 220), (300, 3))
    found = np.vstack([truth[:6], others, truth[6:]])
    monkeypatch.setattr(scouting, "candidates", lambda *_: (found, np.linspace(0.9, 0.1, len(found))))
    for chosen in (np.arange(12) >= 6, None):
        result = scout(settings, model, [replace(example, chosen=chosen)], torch.device("cpu"))
        # whatever they count for, labels are no hidden particles
        assert not within(result.unlabelled[0], truth, 1).any()
        assert result.count.low >= 12
    assert [len(labels) for labels in shown] == [9, 9, 6, 6]
    assert all((labels[-6:] == truth[6:]).all() for labels in shown[:2])
    assert len(counted[0]) == 6
    assert max(counted[0]) <= 3
    assert len(counted[1]) == 12
    assert max(counted[1]) > 300


@pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")
@pytest.mark.parametrize("labels", [(3, 0), (0, 3), (1, 2)])
def test_three_labels_however_they_lie_in_two_tomograms(tiny: TinySet, labels: tuple[int, int]) -> None:
    settings = TrainSettings(diameter=tiny.diameter, steps=2, crops=2, crop=(6, 32, 32))
    labelled = [
        (read_tomogram(tiny.path(name)), Coordinates.from_points(tiny.truth[name][:number]))
        for name, number in zip(("one", "two"), labels, strict=True)
    ]
    trained = train(labelled, settings, device=torch.device("cpu"))
    assert trained.recipe["count"]["expected"] >= 3
    assert trained.recipe["cut_short"] is False
    assert 0 < trained.settings.threshold < 1


@pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")
def test_when_all_particles_are_labelled_nothing_is_left_out(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates that are the labels alone, and none at all."""
    truth = tiny.truth["one"]
    settings, model, example = examples(tiny, truth)
    for found in (truth, truth[:0]):
        monkeypatch.setattr(scouting, "candidates", lambda *_, found=found: (found, np.full(len(found), 0.9)))
        monkeypatch.setattr(scouting, "optimise", lambda *_, **__: (None, []))
        result = scout(settings, model, example, torch.device("cpu"))
        assert result.count.low >= len(truth)
        assert [len(p) for p in result.doubtful(result.count.expected - len(truth))] == [0]


def test_scores_mend_a_count_where_they_leave_a_gap() -> None:
    rng = np.random.default_rng(0)
    background = -5 + np.abs(rng.normal(0, 0.3, 2000))
    gap = expit(np.concatenate([rng.normal(-1.5, 0.8, 120), background, -5 - rng.exponential(0.2, 2000)]))
    slope = expit(-5 + rng.exponential(0.9, 3000))
    unlucky = Count(25, 50, 100)  # labels that rank higher than most
    assert scouting._with_scores(unlucky, [gap, gap]).expected == pytest.approx(120, rel=0.1)
    assert 35 < scouting._with_scores(unlucky, [slope, slope]).expected < 75
    assert scouting._with_scores(unlucky, [gap, gap[:5]]) == unlucky
    assert scouting._with_scores(Count(0, 0, 0), [gap, gap]) == (0, 0, 0)


def test_a_label_far_beside_its_particle_is_seen_there(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose neighbour, a diameter away, scores higher."""
    diameter = tiny.diameter / 10
    truth = np.array([[10.0, 20, 10], [10 + 1.05 * diameter, 20, 10]])
    monkeypatch.setattr(scouting, "candidates", lambda *_: (truth, np.array([0.5, 0.9])))
    _, model, [example] = examples(tiny, tiny.truth["one"][:3])
    label = truth[:1] + np.array([[0.4 * diameter, 0, 0]])
    look = scouting._look(None, model, replace(example, labels=np.empty((0, 3))), label)
    assert look.centres.tolist() == truth[:1].tolist()


def test_labels_beside_the_centres_are_moved() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 200, (40, 3))
    seen = true + rng.normal(0, 0.8, (40, 3))  # in two tomograms, one of coarser voxels
    careless = true + rng.normal(0, 2.5, (40, 3))
    diameters = [25.0, 12.5]

    def error(labels: Sequence[Points]) -> float:
        return float(np.sqrt(((np.concatenate([labels[0], labels[1] * 2]) - true) ** 2).sum(axis=1).mean()))

    halves = [[points[:30], points[30:] / 2] for points in (careless, seen, true)]
    with pytest.warns(CetpickWarning, match=r"typically by 1\d% of the diameter; 40 of them were moved"):
        moved, scatter = recentre(halves[0], halves[1], diameters)
    assert 0.1 < scatter < 0.2
    assert error(moved) < 0.6 * error(halves[0])
    # of a smaller particle such a scatter may well be the scouts' own
    small, scatter = recentre(halves[0], halves[1], diameters, usual=FINEST / 80)
    assert scatter < FINEST / 80
    assert error(small) == error(halves[0])
    exact, scatter = recentre(halves[2], halves[1], diameters)
    assert scatter < USUAL
    assert error(exact) == 0


def test_labels_that_were_not_found_or_are_few_stay() -> None:
    labels = np.zeros((9, 3))
    seen = np.tile([5.0, 0, 0], (9, 1))
    seen[-1] = np.nan
    with pytest.warns(CetpickWarning, match="8 of them were moved"):
        (moved,), _ = recentre([labels], [seen], [25.0])
    assert (moved[:8, 0] > 3).all()
    assert (moved[8] == 0).all()
    (few,), scatter = recentre([labels[1:]], [seen[1:]], [25.0])
    assert scatter == 0
    assert (few == 0).all()
