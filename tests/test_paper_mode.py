"""`paper` mode: network, targets, crops, and a short training run."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cetpick.errors import InputError
from cetpick.modes.paper import (
    UNLABELLED,
    PaperRecipe,
    PaperSettings,
    output_cells,
    paper_radius_sigma,
    paper_target,
)
from cetpick.networks.paper import PaperNetwork

CPU = torch.device("cpu")


# --- network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "parameters"), [(4, 1_908_337), (5, 7_746_417)])
def test_parameter_counts(levels: int, parameters: int) -> None:
    network = PaperNetwork(levels=levels)
    assert sum(p.numel() for p in network.parameters()) == parameters
    late = (network.fusion, network.heatmap, network.project)
    assert sum(p.numel() for module in late for p in module.parameters()) == 14_129


def test_other_depths_are_refused() -> None:
    with pytest.raises(InputError, match="4 or 5"):
        PaperNetwork(levels=3)


def test_initialisation() -> None:
    torch.manual_seed(0)
    network = PaperNetwork()
    for convolution in (network.fusion, network.project):
        assert float(convolution.weight.detach().std()) == pytest.approx(0.001, rel=0.2)
    first_up = network.up[0]
    assert isinstance(first_up, nn.Sequential)
    up = first_up[0]
    assert isinstance(up, nn.ConvTranspose2d)
    assert float(up.weight.detach().std()) == pytest.approx((2 / (4 * (256 + 128))) ** 0.5, rel=0.02)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert sum(bool((b != 0).any()) for b in biases) == 1
    with torch.no_grad():
        p = network(torch.randn(1, 1, 3, 32, 32)).heatmap.sigmoid()
    assert float(p.mean()) == pytest.approx(0.1006, abs=0.01)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("size", "cells"), [((64, 64), (32, 32)), ((66, 70), (33, 35)), ((33, 47), (17, 24))])
def test_output_is_half_the_input_in_x_and_y(levels: int, size: tuple[int, int], cells: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = PaperNetwork(levels=levels, classes=2).eval()
    with torch.no_grad():
        output = network(torch.randn(2, 1, 4, *size))
    assert output.heatmap.shape == (2, 2, 4, *cells)
    assert output.features is not None
    assert output.features.shape == (2, 16, 4, *cells)
    lengths = output.features.norm(dim=1)
    assert float(lengths.max()) == pytest.approx(1)
    assert float(lengths.median()) == pytest.approx(1)


def test_features_and_their_gradient_are_finite_where_all_channels_are_off() -> None:
    network = PaperNetwork().eval()
    with torch.no_grad():
        network.fusion.weight.zero_()
    features = network(torch.randn(1, 1, 3, 32, 32)).features
    assert (features == 0).all()
    features.sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)


@pytest.fixture
def smooth_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Max-pooling passes a gradient to one voxel of a cell only; the mean passes it to all that can be that one."""
    monkeypatch.setattr(functional, "max_pool2d", functional.avg_pool2d)


def receptive_field(network: nn.Module, cell: int, size: int) -> list[list[int]]:
    """Indices of the input slices and rows that the heatmap at row `cell` of the middle slice depends on."""
    x = torch.rand(1, 1, 5, size, 16, dtype=torch.float64, requires_grad=True)
    network(x).heatmap[0, 0, 2, cell, 4].backward()
    assert x.grad is not None
    influence = x.grad[0, 0].abs()
    return [influence.amax(other).nonzero().flatten().tolist() for other in ((1, 2), (0, 2))]


@pytest.mark.usefixtures("smooth_pooling")
@pytest.mark.parametrize(("levels", "narrow", "wide", "size"), [(4, 92, 100, 192), (5, 188, 204, 352)])
def test_receptive_field(levels: int, narrow: int, wide: int, size: int) -> None:
    network = PaperNetwork(levels=levels).double().eval()
    with torch.no_grad():  # positive weights everywhere: no ReLU is off and no influence cancels
        for parameter in network.parameters():
            parameter.abs_()
    middle = size // 4
    widths, reach = set(), 0
    for cell in (middle, middle + 1):  # the first cell of a pooling cell, and one that is not at its rim
        slices, rows = receptive_field(network, cell, size)
        assert slices == [1, 2, 3]
        widths.add(rows[-1] - rows[0] + 1)
        reach = max(reach, 2 * cell - rows[0], rows[-1] - (2 * cell + 1))
    assert widths == {narrow, wide}
    assert reach <= network.halo[1]


def test_a_tile_with_its_halo_equals_the_whole() -> None:
    torch.manual_seed(0)
    network = PaperNetwork()
    network(torch.randn(2, 1, 3, 64, 64))  # statistics to store
    network.eval()
    x = torch.randn(1, 1, 5, 256, 32)
    with torch.no_grad():
        whole = network(x).heatmap
        tile = network(x[:, :, 1:, 64:200]).heatmap  # rows 64 + halo = 120 to 200 - halo = 144 are complete
    assert network.halo == (1, 56, 56)
    torch.testing.assert_close(tile[:, :, 1:, 28:40], whole[:, :, 2:, 60:72], atol=1e-5, rtol=0)


# --- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bbox", "radius", "sigma"),
    [(12, 1, 0.5), (16, 2, 0.833), (20, 2, 0.833), (24, 3, 1.167), (32, 4, 1.5), (36, 4, 1.5), (48, 6, 2.167)],
)
def test_radius_and_sigma_table(bbox: int, radius: int, sigma: float) -> None:
    assert paper_radius_sigma(bbox) == (radius, pytest.approx(sigma, abs=5e-4))


def test_target_is_a_gaussian_on_a_cube() -> None:
    target = paper_target((9, 9, 9), np.array([[4, 4, 4]]), radius=2, sigma=5 / 6)
    assert target.dtype == np.float32
    assert target[4, 4, 4] == 1
    assert int(((target > UNLABELLED) & (target < 1)).sum()) == 124
    assert target[4, 4, 5] == pytest.approx(np.exp(-1 / (2 * 25 / 36)))
    assert target[2, 6, 2] == pytest.approx(np.exp(-12 / (2 * 25 / 36)))
    assert target[4, 4, 7] == UNLABELLED


def test_overlapping_kernels_take_the_larger_value_and_borders_cut_them() -> None:
    target = paper_target((1, 1, 8), np.array([[0, 0, 0], [0, 0, 3]]), radius=2, sigma=1.0)
    e = np.exp(-np.array([1, 4]) / 2)
    np.testing.assert_allclose(target[0, 0], [1, e[0], e[0], 1, e[0], e[1], -1, -1], rtol=1e-6)


def test_output_cells_of_points() -> None:
    points = np.array([[0, 1, 2], [3, 4, 5.4], [7.4, 7.6, 5.6], [-0.5, 19.4, -0.5]])
    cells = output_cells(points, (8, 10, 10), (1, 2, 2))
    assert cells.tolist() == [[2, 0, 0], [5, 2, 1], [6, 4, 3], [0, 9, 0]]
    # The centre of a cell, as inference maps it back, lies in that cell.
    index = np.arange(10)
    back = np.column_stack([2 * (index + 0.5) - 0.5, 2 * (index + 0.5) - 0.5, np.zeros(10)])
    assert output_cells(back, (8, 10, 10), (1, 2, 2))[:, 1].tolist() == index.tolist()


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"prior": 0.0},
        {"prior": 1.0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"contrastive_weight": -0.1},
        {"unlabelled": "ignored"},
        {"anchors": 0},
        {"steps": 0},
        {"learning_rate": float("inf")},
        {"decay_every": 0},
        {"crop": (5, 63, 64)},
        {"crop": (2, 64, 64)},
        {"crop": (5, 64, 8)},
        {"levels": 3},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"setting {name} "):
        PaperSettings(**wrong)  # type: ignore[arg-type]


# --- recipe --------------------------------------------------------------------------------------------------------


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy (8, 96, 97) volume with 12 bright balls of diameter 12 and their centres (x, y, z)."""
    rng = np.random.default_rng(seed)
    centres = np.array([[x, y, z] for z, x0 in ((2, 14), (5, 26)) for y in (20, 70) for x in (x0, x0 + 30, x0 + 58)])
    z, y, x = np.mgrid[:8, :96, :97]
    volume = rng.normal(size=z.shape)
    for cx, cy, cz in centres:
        volume += 2 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + 4 * (z - cz) ** 2) / (2 * 3.0**2))
    return ((volume - volume.mean()) / volume.std()).astype(np.float32), centres.astype(float)


def recipe(seed: int = 0, n_labels: int = 6, volumes: int = 1, **settings: object) -> PaperRecipe:
    scenes = [scene(i) for i in range(volumes)]
    return PaperRecipe(
        [volume for volume, _ in scenes],
        [centres[:n_labels] for _, centres in scenes],
        diameter=12.0,
        settings=PaperSettings(**{"crop": (5, 32, 32), "anchors": 128, **settings}),  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(seed),
        device=CPU,
    )


def train(trained: PaperRecipe) -> list[dict[str, float]]:
    optimizer, schedule = trained.optimizer()
    logs = []
    for step in range(trained.steps):
        loss, log = trained.loss(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        logs.append(log)
    return logs


def test_thirty_steps_lower_the_loss_at_labelled_centres_and_repeat_exactly() -> None:
    first = recipe(steps=30)
    global_state = torch.random.get_rng_state()
    logs = train(first)
    assert train(recipe(steps=8)) == logs[:8]
    assert torch.equal(torch.random.get_rng_state(), global_state)  # all randomness comes from the generator
    assert train(recipe(seed=1, steps=1)) != logs[:1]

    positive = [log["positive"] for log in logs]
    assert np.mean(positive[-5:]) < 0.5 * np.mean(positive[:3])
    for log in logs:
        assert log["heatmap"] == pytest.approx(log["positive"] + max(0.0, log["negative"]))
        assert log["clamped"] == (log["negative"] < 0)
        contrastive = log["supervised"] + 0.5 * log["unsupervised"]
        assert log["loss"] == pytest.approx(log["heatmap"] + 0.1 * contrastive + 0.1 * log["consistency"], rel=1e-4)
        assert np.isfinite(list(log.values())).all()

    volume, centres = scene()
    with torch.no_grad():
        p = first.network(torch.from_numpy(volume)[None, None, :, :, :96]).heatmap[0, 0].sigmoid()
    z, y, x = output_cells(centres, (8, 48, 48), (1, 2, 2)).T
    assert p[z, y, x].mean() > 2 * p.mean()


def test_the_first_crop_holds_a_label_and_the_second_does_half_the_time() -> None:
    one_label = recipe(n_labels=1, crop=(3, 10, 10))
    drawn = [one_label.draw() for _ in range(200)]
    assert {batch.volume.shape for batch in drawn} == {(2, 1, 3, 10, 10)}
    assert {batch.target.shape for batch in drawn} == {(2, 1, 3, 5, 5)}
    with_label = np.array([[bool((crop == 1).any()) for crop in batch.target] for batch in drawn])
    assert with_label[:, 0].all()
    assert 0.4 < with_label[:, 1].mean() < 0.65


def test_crops_cover_the_jitter_and_match_their_target() -> None:
    volume = np.zeros((9, 64, 64), dtype=np.float32)
    centre = np.array([[30.0, 41.0, 4.0]])
    volume[4, 41, 30] = 1
    seen = PaperRecipe(
        [volume],
        [centre],
        diameter=12,
        settings=PaperSettings(crop=(5, 16, 16)),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
    )
    offsets = []
    for _ in range(200):
        batch = seen.draw()
        z, y, x = (int(i) for i in (batch.target[0, 0] == 1).nonzero()[0])
        assert batch.volume[0, 0, z, 2 * y + 1, 2 * x] == 1
        offsets.append((z - 2, y - 4, x - 4))
    assert [sorted({o[axis] for o in offsets}) for axis in range(3)] == [
        [-1, 0, 1],
        [-2, -1, 0, 1, 2],
        [-2, -1, 0, 1, 2],
    ]


def test_labels_at_borders_and_volumes_smaller_than_a_crop_keep_their_labels() -> None:
    corners = np.array([[0.0, 0, 0], [40, 32, 2], [40.4, -0.5, 2.4]])
    small = PaperRecipe(
        [np.ones((3, 33, 41), dtype=np.float32)],
        [corners],
        diameter=16,
        settings=PaperSettings(),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
    )
    batch = small.draw()
    assert batch.volume.shape == (2, 1, 5, 64, 64)
    assert batch.volume.sum() == 2 * 3 * 33 * 41
    assert ((batch.target == 1).sum(dim=(1, 2, 3, 4)) == 3).all()


def test_both_volumes_are_drawn_from_and_a_volume_may_have_no_label() -> None:
    volumes = [np.full((5, 64, 64), value, dtype=np.float32) for value in range(3)]
    centres = [np.array([[30.0, 30, 2]]), np.empty((0, 3)), np.array([[30.0, 30, 2]])]
    several = PaperRecipe(
        volumes,
        centres,
        diameter=16,
        settings=PaperSettings(),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
    )
    assert {float(several.draw().volume[0].mean()) for _ in range(20)} == {0.0, 2.0}


def test_no_label_at_all_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no label"):
        recipe(n_labels=0)


def test_all_anchors_and_the_deeper_network_run() -> None:
    deep = recipe(anchors=None, levels=5, steps=1, crop=(3, 32, 32))
    (log,) = train(deep)
    assert np.isfinite(list(log.values())).all()


def test_unlabelled_voxels_as_negatives_cost_more_than_with_the_risk_of_the_paper() -> None:
    paper, negative = recipe(), recipe(unlabelled="negative", contrastive_weight=0.0, consistency_weight=0.0)
    _, told = paper.loss(0)
    loss, log = negative.loss(0)
    assert log["clamped"] == 0
    assert loss.item() == pytest.approx(log["heatmap"])  # nothing else has a weight
    # the same crops and network: all unlabelled voxels are charged, over the number of centres
    assert log["heatmap"] > 10 * told["heatmap"]
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in negative.network.parameters() if p.grad is not None)


def test_schedule_divides_by_ten_at_200_and_400() -> None:
    optimizer, schedule = recipe(steps=600).optimizer()
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stepping the schedule without an optimizer step
        for _ in range(600):
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step()
    assert [rates.count(rate) for rate in dict.fromkeys(rates)] == [200, 200, 200]
    assert rates[::200] == pytest.approx([1e-3, 1e-4, 1e-5])
