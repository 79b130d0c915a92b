"""What a GPU is told to do, where there is none; see pretend.py.

What only a GPU can show is in test_gpu.py, and there alone that recording leaves no trace in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from cetpick.config import TrainSettings
from cetpick.modes import default
from cetpick.networks.fold import folded
from cetpick.optimisation import optimise
from cetpick.preprocess import prepare
from cetpick.records import Coordinates
from cetpick.tiling import heatmap
from cetpick.training import model_settings, train
from tests.pretend import DEVICE, PretendedGPU, pretended_gpu
from tests.test_gpu import DIAMETER, noise_with_spheres, recipe

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU: test_gpu.py")
STEPS = 2


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
    """One that records what it is asked to, and does each task all the same."""
    with pretended_gpu(monkeypatch) as device:

        def recorded(scored: default._Scored, sample: tuple[Tensor, ...]) -> default._Scored:
            with device.records():
                scored(*sample).backward()
            scored.zero_grad()
            return scored

        monkeypatch.setattr("cetpick.modes.default._recorded", recorded)
        yield device


def test_a_step_waits_for_the_gpu_once(gpu: PretendedGPU) -> None:
    waits = [0]
    trained = recipe("cuda:0", steps=STEPS, labels=8)
    assert gpu.recorded > 100
    gpu.waits = 0
    optimise(trained, lambda *_: waits.append(gpu.waits))
    assert np.diff(waits).tolist() == [1] * STEPS


def test_the_next_batch_is_drawn_while_the_gpu_works(gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, drawn = recipe("cuda:0", record=False, steps=STEPS, labels=8), []
    monkeypatch.setattr(gpu, "tells", lambda _: drawn.append(trained._next is not None))
    optimise(trained)
    assert drawn == [True] * (STEPS - 1) + [False]


def test_gpu_and_cpu_learn_and_find_the_same(gpu: PretendedGPU) -> None:
    on_gpu, on_cpu = (recipe(name, steps=STEPS, labels=8) for name in ("cuda:0", "cpu"))
    (_, log), (learned, expected) = optimise(on_gpu), optimise(on_cpu)
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in expected], rel=1e-4)
    tomogram, _ = noise_with_spheres()
    model = model_settings(on_cpu.settings, [tomogram])
    prepared = prepare(tomogram, model)
    theirs, ours = (
        heatmap(folded(learned.to(name)), prepared.volume, device=torch.device(name), both_ways=True)
        for name in ("cpu", "cuda:0")
    )
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_whole_training_keeps_to_the_gpu(gpu: PretendedGPU) -> None:
    tomogram, centres = noise_with_spheres()
    settings = TrainSettings(diameter=DIAMETER, steps=STEPS)
    trained = train([(tomogram, Coordinates.from_points(centres[:12]))], settings, device=DEVICE)
    assert {of.device for of in trained.network.state_dict().values()} == {DEVICE}
    assert [len(scout.log) for scout in trained.scouts] == [1, 1]
    assert len({entry["loss"] for entry in trained.log}) == STEPS


@pytest.mark.parametrize(
    "task",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: x + torch.tensor([1.0, 2.0], device=DEVICE),
        lambda x: x.cpu(),
    ],
)
def test_what_cannot_be_recorded_is_found(gpu: PretendedGPU, task: Callable[[Tensor], object]) -> None:
    x = torch.ones(2, device=DEVICE)
    with pytest.raises(AssertionError, match="while a GPU records"), gpu.records():
        task(x)


def test_tensors_here_and_there_do_not_meet(gpu: PretendedGPU) -> None:
    with pytest.raises(AssertionError, match="here and there"):
        torch.ones(2, device=DEVICE) + torch.ones(2)
