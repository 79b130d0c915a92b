import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cetpick.augment import Pose, looks, vary_grey
from cetpick.dataset import (
    FAR,
    KERNEL_CUT,
    CropSampler,
    Example,
    TrainingVolume,
    gaussian_targets,
    kernel_cells,
    to_cells,
    zone_weights,
)
from cetpick.preprocess import Exclusions, Prepared
from cetpick.records import Grid, Tomogram, TomogramInfo

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", range(16))
def test_points_follow_the_voxels_through_every_symmetry(number: int) -> None:
    z, y, x, transposed = (bool(number & bit) for bit in (1, 2, 4, 8))
    pose = Pose((2, 1, 3), (4, 6, 6), flips=(z, y, x), transposed=transposed)
    points = torch.tensor([[4, 3, 5], [8, 1, 2], [7, 5, 3]])
    volume = torch.zeros(7, 9, 12)
    for i, (x, y, z) in enumerate(points.tolist()):
        volume[z, y, x] = i + 1
    turned = pose.cut(volume, looks([pose], [volume])[0])
    expected = volume[pose.window].flip([axis for axis in range(3) if pose.flips[axis]])
    torch.testing.assert_close(turned, expected.transpose(1, 2) if transposed else expected, atol=1e-5, rtol=0)
    moved = pose.place(points.float().numpy()).round().astype(int)
    assert [round(turned[z, y, x].item()) for x, y, z in moved.tolist()] == [1, 2, 3]


def test_grey_values_vary_within_their_bounds() -> None:
    crops = torch.ones(200, 1, 2, 4, 4)
    plain = vary_grey(crops, torch.Generator().manual_seed(0), contrast=0.2, shift=0.0, noise=0.0)
    assert plain.min() >= 0.8
    assert plain.max() <= 1.2
    assert plain.flatten(1).std(dim=1).max() < 1e-6
    noisy = vary_grey(crops, torch.Generator().manual_seed(0), contrast=0.0, shift=0.0, noise=0.5)
    spread = noisy.flatten(1).std(dim=1)
    assert 0.35 < (spread > 1e-6).float().mean() < 0.65
    assert spread.max() < 0.9


def test_cells_hold_their_voxels() -> None:
    centres = torch.tensor([[0.0, 0.0, 0.0], [0.5, 2.5, 3.0]])
    assert to_cells(centres, (1, 2, 2)).tolist() == [[-0.25, -0.25, 0.0], [0.0, 1.0, 3.0]]


def test_targets_equal_the_plain_loop() -> None:
    rng = np.random.default_rng(0)
    shape, sigma = (6, 8, 9), (0.8, 1.1, 1.3)
    centres = torch.tensor(rng.uniform(-2, 10, (2, 4, 3)), dtype=torch.float32)
    centres[1, 2:] = FAR
    heatmap = gaussian_targets(centres, shape, sigma)
    expected = np.zeros((2, *shape))
    for b in range(2):
        for x, y, z in centres[b].double().tolist():
            for k, j, i in np.ndindex(shape):
                value = np.exp(-(((i - x) / sigma[2]) ** 2 + ((j - y) / sigma[1]) ** 2 + ((k - z) / sigma[0]) ** 2) / 2)
                if value >= KERNEL_CUT:
                    expected[b, k, j, i] = max(expected[b, k, j, i], value)
        for x, y, z in centres[b].double().tolist():
            i, j, k = round(x), round(y), round(z)
            if 0 <= i < shape[2] and 0 <= j < shape[1] and 0 <= k < shape[0]:
                expected[b, k, j, i] = 1
    np.testing.assert_allclose(heatmap[:, 0].numpy(), expected, atol=2e-5)


def test_zones_weigh_what_the_least_of_their_places_does() -> None:
    shape, sigma = (9, 9, 15), (1.0, 1.0, 1.0)
    places = torch.tensor([[[4.0, 4, 4], [6, 4, 4], [FAR] * 3], [[12, 4, 4], [FAR] * 3, [FAR] * 3]])
    weights = zone_weights(places, torch.tensor([[0.5, 0.1, 1], [0.0, 1, 1]]), shape, sigma)
    assert weights.shape == (2, 1, *shape)
    assert weights[0, 0, 4, 4, [0, 2, 3, 4, 8, 14]].tolist() == pytest.approx([1, 0.5, 0.5, 0.1, 0.1, 1])
    assert weights[1].unique().tolist() == [0, 1]
    assert int((weights[1] == 0).sum()) == kernel_cells(sigma)
    assert (zone_weights(torch.zeros(2, 0, 3), torch.zeros(2, 0), shape, sigma) == 1).all()


def test_zones_are_where_a_gaussian_reaches_the_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    shape, sigma = (6, 8, 9), (0.7, 1.3, 2.2)
    places = torch.rand((2, 20, 3), generator=generator) * 14 - 3
    weights = torch.rand((2, 20), generator=generator)
    found = zone_weights(places, weights, shape, sigma)
    cells = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1)
    offsets = (cells - places.flip(-1)[:, :, None, None, None]) / torch.tensor(sigma)
    zones = torch.exp(-offsets.square().sum(-1) / 2) >= KERNEL_CUT
    expected = torch.where(zones, weights[..., None, None, None], 1.0).amin(1, keepdim=True)
    assert 0 < int((found < 1).sum()) < found.numel()
    assert torch.equal(found, expected)


def test_kernel_cells_are_those_a_lone_target_fills() -> None:
    sigma = (0.8, 1.0, 1.25)
    lone = gaussian_targets(torch.tensor([[[10.0, 10.0, 10.0]]]), (21, 21, 21), sigma)
    assert kernel_cells(sigma) == int((lone > 0).sum())


def example(shape: tuple[int, int, int], centres: list[tuple[float, float, float]], **more: object) -> Example:
    """A tomogram already on its working grid; each voxel holds its own index, each centre lies on a voxel."""
    index = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    grid = Grid(shape=shape, voxel_size=10.0)
    prepared = Prepared(
        volume=index,
        valid=None,
        voxel_size=(10.0, 10.0, 10.0),
        exclusions=Exclusions(not_finite=0, padding=0, total=index.size),
    )
    tomogram = Tomogram(info=TomogramInfo(name="t", path=Path("t.mrc"), grid=grid), data=index)
    return Example(tomogram=tomogram, prepared=prepared, labels=np.array(centres, float).reshape(-1, 3), **more)


def volume(shape: tuple[int, int, int], centres: list[tuple[float, float, float]], **more: object) -> TrainingVolume:
    return TrainingVolume.place(example(shape, centres, **more), crop=(4, 8, 8), device=CPU)


def test_labels_move_to_an_anisotropic_working_grid() -> None:
    coarse = dataclasses.replace(example((4, 4, 4), []).prepared, voxel_size=(40.0, 20.0, 20.0))
    moved = dataclasses.replace(example((4, 4, 4), []), prepared=coarse).on_working_grid(np.array([[0.5, 2.5, 1.5]]))
    np.testing.assert_allclose(moved, [[0, 1, 0]])


def test_doubtful_places_follow_the_voxels_as_labels_do() -> None:
    source = volume(
        (12, 24, 40),
        [(10, 20, 5)],
        doubtful=np.array([[11.0, 20, 5], [0, 0, 0]]),
        weights=np.array([0.2, 0.5]),
        stray=np.array([[9.0, 20, 5]]),
    )
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=1.0, reach=(2, 3, 3), generator=torch.Generator().manual_seed(0)
    )
    batch = sampler.draw(40)
    seen = 0
    places = ((5, 20, 11), (0, 0, 0), (5, 20, 9))
    expected = {float(source.voxels[place]): weight for place, weight in zip(places, [0.2, 0.5, 0.0], strict=True)}
    for crop, points, weights in zip(batch.crops[:, 0], batch.doubtful, batch.weights, strict=True):
        inside = ((points >= 0) & (points < torch.tensor([8, 8, 4]))).all(dim=1)
        for (x, y, z), weight in zip(points[inside].round().long().tolist(), weights[inside].tolist(), strict=True):
            assert weight == pytest.approx(expected[round(float(crop[z, y, x]))])
            seen += 1
    assert seen > 60


def test_crops_show_the_voxels_at_their_centres() -> None:
    centres = [(10, 20, 5), (30, 3, 11), (0, 0, 0)]
    source = volume((12, 24, 40), centres)
    values = {float(source.voxels[z, y, x]) for x, y, z in centres}
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=0.5, reach=(2, 3, 3), generator=torch.Generator().manual_seed(0)
    )
    batch = sampler.draw(200)
    assert batch.crops.shape == batch.valid.shape == (200, 1, 4, 8, 8)
    seen = 0
    for crop, points in zip(batch.crops[:, 0], batch.centres, strict=True):
        inside = ((points >= 0) & (points < torch.tensor([8, 8, 4]))).all(dim=1)
        for x, y, z in points[inside].round().long().tolist():
            assert round(float(crop[z, y, x])) in values
            seen += 1
    assert seen > 80  # every second crop holds at least its own label


def test_turned_crops_show_the_voxels_at_their_centres() -> None:
    """Grey values that rise evenly along each axis are interpolated exactly."""
    centres = [(10, 20, 5), (30, 12, 7)]
    source = volume((12, 32, 40), centres, doubtful=np.array([[12.0, 19, 5]]), weights=np.ones(1))
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=1, turned=1, reach=(2, 3, 3), generator=torch.Generator().manual_seed(0)
    )
    batch = sampler.draw(100)
    known = [float(source.voxels[z, y, x]) for x, y, z in [*centres, (12, 19, 5)]]
    seen, between = dict.fromkeys(known, 0), 0
    for crop, *places in zip(batch.crops[:, 0], batch.centres, batch.doubtful, strict=True):
        points = torch.cat(places).double()
        for point in points[((points >= 0) & (points <= torch.tensor([7, 7, 3]))).all(dim=1)]:
            between += bool((point[:2] - point[:2].round()).abs().max() > 0.1)
            value = map_coordinates(crop.double().numpy(), point.flip(0)[:, None].numpy(), order=1)[0]
            nearest = min(known, key=lambda k: abs(k - value))
            assert value == pytest.approx(nearest, abs=0.02)
            seen[nearest] += 1
    assert min(seen.values()) > 10
    assert between > 50


def test_crops_around_labels_in_corners_show_them() -> None:
    """Such a crop cannot lie around its label, and would turn away from it."""
    source = volume((12, 32, 40), [(0, 0, 0), (39, 31, 11)])
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=1, turned=1, reach=(1, 1, 1), generator=torch.Generator().manual_seed(0)
    )
    batch = sampler.draw(100)
    assert ((batch.centres > -0.51) & (batch.centres < torch.tensor([7.51, 7.51, 3.51]))).all(dim=2).any(dim=1).all()


def test_what_a_turned_crop_shows_beyond_the_volume_is_invalid() -> None:
    source = volume((4, 8, 8), [])
    source.voxels.fill_(5)
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=0, turned=1, reach=(1, 1, 1), generator=torch.Generator().manual_seed(0)
    )
    batch = sampler.draw(30)
    assert set(batch.valid.unique().tolist()) == {0, 1}
    assert batch.valid.mean() < 0.97
    assert batch.crops[batch.valid == 1].min() > 1
    assert batch.crops[batch.valid == 0].max() < 4


def test_uniform_crops_reach_every_corner() -> None:
    source = volume((6, 12, 12), [])
    sampler = CropSampler(
        [source], crop=(4, 8, 8), labelled=0.0, reach=(2, 3, 3), generator=torch.Generator().manual_seed(0)
    )
    seen = torch.cat([sampler.draw(100).crops.flatten() for _ in range(5)]).round().unique()
    assert len(seen) == 6 * 12 * 12


def test_crops_without_data_teach_nothing_and_are_drawn_again() -> None:
    source = volume((4, 80, 80), [])
    valid = torch.zeros_like(source.valid)
    valid[:, :16, :16] = 1
    limited = dataclasses.replace(source, valid=valid, present=valid.numpy() > 0)
    sampler = CropSampler(
        [limited], crop=(4, 8, 8), labelled=0.5, reach=(1, 1, 1), generator=torch.Generator().manual_seed(0)
    )
    assert (sampler.draw(40).valid.amax(dim=(1, 2, 3, 4)) > 0).float().mean() > 0.6  # 0.05 if drawn once


def test_a_volume_smaller_than_the_crop_is_padded_and_said_invalid() -> None:
    source = volume((2, 8, 6), [(1, 1, 1)])
    assert source.voxels.shape == (4, 8, 8)
    assert int(source.valid.sum()) == 2 * 8 * 6


def test_the_same_seed_draws_the_same_crops() -> None:
    source = volume((12, 24, 40), [(10, 20, 5)])
    draws = [
        CropSampler(
            [source], crop=(4, 8, 8), labelled=0.5, reach=(2, 3, 3), generator=torch.Generator().manual_seed(3)
        ).draw(8)
        for _ in range(2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
