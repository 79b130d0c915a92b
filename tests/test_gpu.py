"""What only a GPU can show; skipped without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.inference import find_candidates
from cetpick.modes.default import DefaultRecipe
from cetpick.optimisation import optimise
from cetpick.preprocess import prepare
from cetpick.records import Grid, Tomogram, TomogramInfo
from cetpick.training import model_settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DIAMETER = 200.0


def noise_with_spheres() -> tuple[Tomogram, np.ndarray]:
    """A tomogram of 10 A voxels, and the centres x, y, z of the dark spheres in it."""
    rng = np.random.default_rng(0)
    shape = (48, 128, 128)
    data = rng.standard_normal(shape, np.float32)
    axes = (np.arange(14, n - 13, 25) for n in shape)
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    zyx = np.indices(shape)
    for centre in centres:
        data[((zyx - centre[:, None, None, None]) ** 2).sum(axis=0) < 8**2] -= 1.5
    info = TomogramInfo(name="t", path=Path("t.mrc"), grid=Grid(shape=shape, voxel_size=10.0))
    return Tomogram(info=info, data=data), centres[:, ::-1].astype(float)


def recipe(device: str, *, record: bool = True, steps: int = 150, labels: int | None = None) -> DefaultRecipe:
    """Of so many of the spheres as labels; some of the others are in doubt, one is said to be none."""
    tomogram, centres = noise_with_spheres()
    settings = TrainSettings(diameter=DIAMETER, steps=steps, hidden="none" if labels is None else "peaks")
    model = model_settings(settings, [tomogram])
    doubtful, rejected = (centres[:0], centres[:0]) if labels is None else (centres[labels:-1], centres[-1:])
    example = Example(
        tomogram=tomogram, labels=centres[:labels], prepared=prepare(tomogram, model),
        doubtful=doubtful, weights=np.full(len(doubtful), 0.1), rejected=rejected,
    )  # fmt: skip
    return DefaultRecipe(
        [example], settings=settings, model=model, count=len(centres), device=torch.device(device), record=record
    )


def test_a_recorded_training_is_that_of_single_tasks() -> None:
    recorded, plain = recipe("cuda"), recipe("cuda", record=False)
    before = {name: value.clone() for name, value in plain.network.state_dict().items()}
    for name, value in recorded.network.state_dict().items():
        assert torch.equal(value, before[name]), name  # recording has left no trace
    for step in range(3):
        (loss, _), (expected, _) = (of.loss(step) for of in (recorded, plain))
        for network in (recorded.network, plain.network):
            network.zero_grad(set_to_none=True)  # as in training: what is replayed writes where gradients lie
        loss.backward()
        expected.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for (name, a), (_, b) in zip(recorded.network.named_parameters(), plain.network.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0.05, atol=0.02 * float(b.grad.abs().max()), msg=name)
    for name, value in recorded.network.state_dict().items():
        torch.testing.assert_close(value, plain.network.state_dict()[name], rtol=0.02, atol=0.01, msg=name)


def test_gpu_and_cpu_find_the_same() -> None:
    tomogram, centres = noise_with_spheres()
    trained = recipe("cuda")
    network, log = optimise(trained)
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    model = model_settings(trained.settings, [tomogram])
    prepared = prepare(tomogram, model)
    on_gpu = find_candidates(network, prepared, tomogram.info.grid, model)
    on_cpu = find_candidates(network.cpu(), prepared, tomogram.info.grid, model)
    best = [table[table["score"] > 0.1].reset_index(drop=True) for table in (on_gpu, on_cpu)]
    assert len(best[0]) == len(best[1]) >= len(centres) // 2
    for _, pick in best[0].iterrows():
        distance = np.linalg.norm(best[1][["x", "y", "z"]] - pick[["x", "y", "z"]].astype(float), axis=1)
        nearest = int(distance.argmin())
        assert distance[nearest] < 0.1
        assert best[1]["score"][nearest] == pytest.approx(pick["score"], abs=0.03)


def test_the_loss_is_replayed_with_fresh_crops() -> None:
    trained = recipe("cuda")
    losses = {round(trained.loss(step)[0].item(), 6) for step in range(4)}
    assert len(losses) == 4
