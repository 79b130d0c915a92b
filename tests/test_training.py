"""Training on a tiny set: it learns, repeats itself, and says what is wrong."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit

from cetpick.calibration import Count
from cetpick.checkpoint import load_model, save_model
from cetpick.config import ModelSettings, ParticleClass, TrainSettings
from cetpick.dataset import Example
from cetpick.diagnosis import Outcome
from cetpick.errors import CetpickWarning, InputError, TrainingError
from cetpick.io.coordinates import read_coordinates
from cetpick.io.model import read_settings
from cetpick.io.tomograms import read_tomogram
from cetpick.modes.default import DefaultRecipe
from cetpick.networks.build import build_network
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.pretrained import WEIGHTS, load_pretrained
from cetpick.optimisation import WeightAverage
from cetpick.preprocess import prepare
from cetpick.records import Coordinates, Grid, Region, Tomogram, TomogramInfo
from cetpick.training import (
    DOUBTFUL,
    HEAVIEST,
    MOSTLY,
    Telling,
    _warn_of_hint,
    check_labels,
    doubt,
    model_settings,
    train,
)
from tests.conftest import TinySet

pytestmark = pytest.mark.filterwarnings("ignore:--count-hint")
"""After a few steps scores tell anything."""

CPU = torch.device("cpu")
SMALL = {"steps": 8, "crops": 4, "crop": (6, 32, 32)}


def labelled(tiny: TinySet) -> list[Any]:
    tomogram = read_tomogram(tiny.path("one"))
    return [(tomogram, read_coordinates(tiny.labels, tomograms=[tomogram.info])[0])]


@pytest.mark.filterwarnings("ignore:only 8 labels", "ignore:.* labels were not found again")
@pytest.mark.parametrize("hidden", ["peaks", "leave-out", "nnpu"])
def test_the_same_seed_gives_the_same_network(tiny: TinySet, hidden: Any) -> None:
    settings = TrainSettings(diameter=tiny.diameter, hidden=hidden, count_hint=12, seed=5, **SMALL)
    first, second = (train(labelled(tiny), settings, device=CPU) for _ in range(2))
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert first.settings == second.settings
    assert first.log == second.log
    other = train(labelled(tiny), dataclasses.replace(settings, seed=6), device=CPU)
    assert other.log[-1]["loss"] != first.log[-1]["loss"]


def test_hidden_particles_weigh_little_against_the_labels() -> None:
    for labels, hidden in ((5, 118), (12, 111), (21, 49)):
        assert doubt(labels, hidden) * hidden == pytest.approx(DOUBTFUL * labels)
    assert doubt(200, 10) == doubt(60, 0) == HEAVIEST


def test_labels_tell_the_number_of_particles_where_hardly_any_is_hidden() -> None:
    """What is left are look-alikes: told by them alone, there were as many particles more."""
    rng = np.random.default_rng(0)
    particles, look_alikes = rng.normal(0.0, 0.5, 120), -4 + rng.exponential(0.6, 60)
    logits = np.concatenate([particles, look_alikes, -4.5 + np.abs(rng.normal(0, 0.4, 1500))])
    places = np.arange(len(logits))[:, None] * np.array([10.0, 0, 0])

    def told(labels: int) -> tuple[Telling, float]:
        outcome = Outcome(
            name="t", labels=places[:labels], candidates=places, scores=expit(logits), volume=1e9, radius=4.0
        )
        telling = Telling.of(Count(labels + 1.0, labels + 3.0, labels + 10.0), labels)
        assert len(telling.scores([outcome])) == len(logits) - telling.besides
        seen = telling.fit([outcome])
        assert seen is not None
        return telling, seen.count.expected + telling.besides

    telling, number = told(118)
    assert (telling.besides, telling.count.expected) == (0, 121)
    assert number == pytest.approx(120, abs=6)
    # few labels are known by heart, and tell nothing of the others
    few = Telling.of(Count(20, 30, 50), 10)
    assert (few.besides, few.count.expected) == (10, 20)
    assert Telling.of(Count(30, 30 * (1 + 1 / MOSTLY), 50), 30).besides == 0
    assert Telling.of(Count(8, 8, 12), 8).besides == 8
    # that none is hidden is something else than that nothing is known
    none = Telling.of(Count(8, 8, 12), 8)
    assert 0 < none.count.expected < 1
    assert none.count.high == 4
    assert Telling.of(Count(0, 0, 0), 10) == Telling(Count(0, 0, 0), 10)


def test_nothing_is_left_out_of_a_batch_beyond_what_hidden_particles_fill(tiny: TinySet) -> None:
    settings = TrainSettings(diameter=tiny.diameter, hidden="leave-out", count_hint=12, **(SMALL | {"steps": 20}))
    with pytest.warns(CetpickWarning, match="only 8 labels"):
        log = train(labelled(tiny), settings, device=CPU).log
    left_out = [entry["left_out"] for entry in log]
    assert left_out[:3] == [0, 0, 0]
    # 4 hidden particles of about 100 cells in 12 x 41 x 37 / 4 cells, of a batch of 4 x 6 x 16 x 16
    assert 0 < max(left_out) < 4 * 6 * 16 * 16 * 0.15


# after 60 steps of that loss a label may score low, by the order of its sums: on one thread with bfloat16 two do
@pytest.mark.filterwarnings("ignore:only 8 labels", "ignore:too few candidates", "ignore:. of 8 labels look unlike")
def test_nnpu_is_seldom_clamped(tiny: TinySet) -> None:
    """A clamp that always binds switches the unlabelled voxels off, as in the paper's code."""
    settings = TrainSettings(diameter=tiny.diameter, hidden="nnpu", count_hint=12, **(SMALL | {"steps": 60}))
    log = train(labelled(tiny), settings, device=CPU).log
    clamped = np.mean([entry["clamped"] for entry in log])
    assert clamped <= 0.5


@pytest.mark.filterwarnings("ignore:only 8 labels")
def test_training_starts_with_the_pretrained_weights_and_moves_them_more_slowly(tiny: TinySet) -> None:
    weights = load_file(WEIGHTS)
    assert WEIGHTS.stat().st_size < 10e6
    tomogram, labels = labelled(tiny)[0]
    recipes = {}
    for start in ("pretrained", "random"):
        settings = TrainSettings(diameter=tiny.diameter, start=start, **SMALL)
        model = model_settings(settings, [tomogram])
        example = Example(tomogram=tomogram, labels=labels.xyz, prepared=prepare(tomogram, model))
        recipes[start] = DefaultRecipe([example], settings=settings, model=model, count=8, device=CPU)
    for start, recipe in recipes.items():
        state = recipe.network.state_dict()
        equal = {name for name, value in state.items() if name in weights and torch.equal(value, weights[name])}
        head = {"heatmap.weight", "heatmap.bias"}
        assert set(state) - set(weights) == head
        assert ("stem.0.weight" in equal) == (start == "pretrained")
        if start == "pretrained":
            assert equal == set(weights)
        rates = [group["initial_lr"] for group in recipe.optimizer()[0].param_groups]
        assert rates == ([1e-3, 2e-3] if start == "pretrained" else [2e-3, 2e-3])
        numbers = [len(group["params"]) for group in recipe.optimizer()[0].param_groups]
        assert numbers[1] == 2
        moved = [p for p in recipe.network.parameters() if p.requires_grad]
        assert sum(numbers) == len(moved)
        still = {name for name, p in recipe.network.named_parameters() if not p.requires_grad}
        early = {name for name, _ in recipe.network.named_parameters() if name.startswith(("stem.", "encoder."))}
        assert still == (early if start == "pretrained" else set())
    with pytest.raises(ValueError, match="another shape"):
        load_pretrained(DefaultNetwork(width=8))
    with pytest.raises(InputError, match="start"):
        TrainSettings(diameter=160, start="half")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*labels")
def test_labels_that_are_left_are_counted(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 1, (24, 48, 48)).astype(np.float32)
    region = Region(slab=(0.0, 100.0))
    info = TomogramInfo(name="t", path=tmp_path / "t.mrc", grid=Grid(shape=data.shape, voxel_size=10), region=region)
    labels = Coordinates.from_points([(10, 10, 5), (30, 30, 15), (10, 30, 18)], source=tmp_path / "t.mod")
    with pytest.raises(InputError, match=r"t\.mod: too few labels\n.*\n  found: 1"):
        train([(Tomogram(info=info, data=data), labels)], TrainSettings(diameter=160), device=CPU)


@pytest.mark.filterwarnings("ignore:only .* labels")
def test_paper_mode_says_what_it_has_no_place_for(tiny: TinySet) -> None:
    ((tomogram, labels),) = labelled(tiny)
    tomogram = dataclasses.replace(tomogram, info=dataclasses.replace(tomogram.info, region=Region(slab=(0.0, 230.0))))
    settings = TrainSettings(diameter=tiny.diameter, mode="paper", steps=1, count_hint=12)
    with pytest.warns(CetpickWarning) as said:
        train([(tomogram, labels)], settings, device=CPU)
    told = " ".join(str(warning.message) for warning in said)
    assert "learns from the whole tomogram" in told
    assert "--count-hint changes nothing" in told


def test_labels_are_checked_before_training(tmp_path: Path) -> None:
    info = TomogramInfo(name="t", path=tmp_path / "t.mrc", grid=Grid(shape=(24, 96, 96), voxel_size=10))
    two = Coordinates.from_points([(5, 5, 5), (50, 50, 10)], source=tmp_path / "t.mod")
    with pytest.raises(InputError, match=r"t\.mod: too few labels\n.*\n  found: 2"):
        check_labels([(info, two)], 160)
    three = Coordinates.from_points(np.eye(3) * 10)
    with pytest.warns(CetpickWarning, match="only 3 labels"):
        check_labels([(info, three)], 160)
    with pytest.warns(CetpickWarning), pytest.raises(InputError, match="a diameter below 240 angstrom"):
        check_labels([(info, three)], 300)


def test_a_loss_that_is_no_number_ends_the_training(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: DefaultRecipe, step: int) -> Any:
        return self.network.heatmap.weight.sum() * float("nan"), {}

    monkeypatch.setattr(DefaultRecipe, "loss", broken)
    settings = TrainSettings(diameter=tiny.diameter, count_hint=12, **SMALL)
    with pytest.warns(CetpickWarning), pytest.raises(TrainingError, match=r"became nan, .* in step 1 of scout 1"):
        train(labelled(tiny), settings, device=CPU)


def test_average_follows_weights_and_statistics() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.5)
    with torch.no_grad():
        network.weight.fill_(3)
        network.num_batches_tracked.fill_(7)
    average.update()
    average.update()
    averaged = average.network()
    # 1 -> (1 + 9 * 3) / 10 = 2.8, then decay 2 / 11: 2.8 * 2 / 11 + 3 * 9 / 11
    assert averaged.weight.item() == pytest.approx(2.8 * 2 / 11 + 3 * 9 / 11)
    assert averaged.num_batches_tracked.item() == 7
    assert not averaged.training


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_a_model_file_rebuilds_its_network(tmp_path: Path, mode: Any) -> None:
    settings = ModelSettings(
        mode=mode,
        classes=(ParticleClass(name="ribosome", diameter=250),),
        voxel_size=(30, 15, 15),
        threshold=0.31,
        count=123.5,
        count_limits=(100.0, 150.5),
        sensitivity=((100.0, 99.0), (123.5, 120.0), (150.5, 140.0)),
        calibration=((-5.0, -4.0), (1.0, 2.5)),
        gold=12.5,
        provenance={"labels": 12},
    )
    network = build_network(settings).eval()
    path = tmp_path / "m.safetensors"
    save_model(path, network, settings)
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # colleagues can read it
    loaded, found = load_model(path, CPU)
    assert found == settings == read_settings(path)
    crop = torch.randn(1, 1, 5, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(crop).heatmap, loaded(crop).heatmap)


def test_bad_model_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    settings = ModelSettings(classes=(ParticleClass(diameter=250),), voxel_size=(30, 15, 15))
    save_model(good, build_network(settings), settings)
    content = good.read_bytes()
    path = tmp_path / "bad.safetensors"
    rng = np.random.default_rng(0)
    wrong = {
        "empty": b"",
        "text": b"hello",
        "truncated": content[: len(content) // 2],
        "random": rng.bytes(5000),
        "huge header": b"\xff" * 8 + content[8:],
        "later version": content.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9'),
        "other width": content.replace(b'\\"width\\": 16', b'\\"width\\": 24'),
        "bad diameter": content.replace(b'\\"diameter\\": 250', b'\\"diameter\\": -50'),
        "voxels of nothing": content.replace(b'\\"voxel_size\\": [30, 15, 15]', b'\\"voxel_size\\": [ 0, 15, 15]'),
        "voxels of text": content.replace(b'\\"voxel_size\\": [30, 15, 15]', b'\\"voxel_size\\": \\"sizes???\\"'),
        "high threshold": content.replace(b'\\"threshold\\": 0.5', b'\\"threshold\\": 5.0'),
        "negative width": content.replace(b'\\"width\\": 16', b'\\"width\\": -1'),
        "unknown setting": content.replace(b'\\"width\\"', b'\\"witdh\\"'),
    }
    for what, data in wrong.items():
        assert data != content, what
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"bad\.safetensors"):
            load_model(path, CPU)
    network = build_network(settings)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    save_model(path, network, settings)
    with pytest.raises(InputError, match="weights are not numbers"):
        load_model(path, CPU)
    with pytest.raises(InputError, match="no such model file"):
        load_model(tmp_path / "missing.safetensors", CPU)


def test_settings_check_themselves() -> None:
    for wrong in ({"diameter": 0.25}, {"diameter": float("nan")}, {"diameter": 250, "seed": -1}):
        with pytest.raises(InputError, match="unusable setting"):
            TrainSettings(**wrong)
    for bad in ({"count_hint": 0}, {"steps": 0}, {"mode": "papre"}, {"hidden": "maybe"}):
        with pytest.raises(InputError, match="unusable setting"):
            TrainSettings(diameter=250, **bad)


def test_a_model_of_several_voxel_sizes_is_at_home_between_them(tiny: TinySet) -> None:
    tomogram = labelled(tiny)[0][0]
    grid = tomogram.info.grid
    coarse = dataclasses.replace(
        tomogram,
        info=dataclasses.replace(tomogram.info, grid=dataclasses.replace(grid, voxel_size=2 * grid.voxel_size)),
    )
    settings = TrainSettings(diameter=tiny.diameter, **SMALL)
    assert model_settings(settings, [tomogram]).stored_voxel_size == grid.voxel_size
    both = [model_settings(settings, of).stored_voxel_size for of in ([tomogram, coarse], [coarse, tomogram])]
    assert both == pytest.approx([math.sqrt(2) * grid.voxel_size] * 2)


@pytest.mark.filterwarnings("error")
def test_a_hint_that_the_scores_contradict_is_said() -> None:
    for hint in (None, 90.0, 120.0, 160.0):
        _warn_of_hint(hint, Count(90.0, 120.0, 160.0))
    for hint in (40.0, 360.0):
        with pytest.warns(CetpickWarning, match=rf"--count-hint {hint:g}, but 120 \(90 to 160\) particles"):
            _warn_of_hint(hint, Count(90.0, 120.0, 160.0))


@pytest.mark.filterwarnings("ignore:only 8 labels")
def test_a_count_without_room_is_refused(tiny: TinySet) -> None:
    with pytest.raises(InputError, match=r"more particles expected than have room[\s\S]*at most 83,"):
        train(labelled(tiny), TrainSettings(diameter=tiny.diameter, count_hint=500, **SMALL), device=CPU)


@pytest.mark.filterwarnings("ignore:.* labels were not found again", "ignore:labels lie beside")
def test_tomograms_of_opposite_contrast_are_said(tiny: TinySet) -> None:
    ((tomogram, labels),) = labelled(tiny)
    bright = dataclasses.replace(tomogram, data=-np.asarray(tomogram.data))
    settings = TrainSettings(diameter=tiny.diameter, **(SMALL | {"steps": 1}))
    with pytest.warns(CetpickWarning, match=r"protein seems dark in .* and bright in .*invert the contrast of one"):
        train([(tomogram, labels), (bright, labels)], settings, device=CPU)


@pytest.mark.filterwarnings("ignore:.* labels were not found again", "ignore:labels lie beside", "ignore:only 8 labels")
@pytest.mark.filterwarnings("ignore:.* labels look unlike")
def test_scores_that_are_not_calibrated_are_said(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cetpick.training.fit", lambda *_: None)  # as when there are too few candidates
    monkeypatch.setattr("cetpick.training.require_learned", lambda _: None)
    settings = TrainSettings(diameter=tiny.diameter, **(SMALL | {"steps": 30, "crops": 2}))
    with pytest.warns(CetpickWarning, match="too few candidates in the training tomograms to calibrate scores on"):
        trained = train(labelled(tiny), settings, device=CPU)
    assert not trained.settings.calibration
