import numpy as np
import pytest
from scipy import ndimage

from cetpick.centring import ENOUGH, PROBABLE, centred

DIAMETER = (8.0, 16.0, 16.0)


def blobs(number: int, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A volume of dark balls, as long as wide in angstrom, and their centres z, y, x."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid([10, 22], *[np.arange(20, 180, 22)] * 2, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = lattice[rng.permutation(len(lattice))[:number]] + rng.uniform(-1, 1, (number, 3)) * [1, 3, 3]
    volume = np.zeros((32, 200, 200), np.float32)
    z, y, x = np.indices(volume.shape)
    for centre in centres:
        volume -= np.exp(-(((z - centre[0]) / 2) ** 2 + ((y - centre[1]) / 4) ** 2 + ((x - centre[2]) / 4) ** 2) / 2)
    volume += ndimage.gaussian_filter(rng.normal(0, noise, volume.shape), (0.5, 1, 1))
    return volume.astype(np.float32), centres


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt((((found - true) * [2, 1, 1]) ** 2).sum(axis=1).mean()))


def test_centres_come_nearer_to_the_truth() -> None:
    volume, true = blobs(60, 0, noise=0.5)
    start = true + np.random.default_rng(1).normal(0, 1, true.shape) * [0.5, 1, 1]
    moved = centred(volume, start, np.ones(60), diameter=DIAMETER)
    assert error(moved, true) < 0.85 * error(start, true)
    assert np.abs(np.median(moved - start, axis=0)).max() < 1e-9


def test_junk_does_not_tell_where_the_network_puts_centres() -> None:
    """A network that was taught another point of the particle keeps to it, whatever improbable candidates do."""
    volume, true = blobs(60, 0, noise=0.5)
    rng = np.random.default_rng(1)
    aside = np.array([0, 1.5, 0])
    start = true + aside + rng.normal(0, 1, true.shape) * [0.2, 0.4, 0.4]
    junk = rng.uniform(2, np.array(volume.shape) - 3, (300, 3))
    weights = np.repeat([0.9, 2 * PROBABLE], [60, 300])
    moved = centred(volume, np.concatenate([start, junk]), weights, diameter=DIAMETER)[:60]
    alone = centred(volume, start, weights[:60], diameter=DIAMETER)
    assert np.abs((moved - alone).mean(axis=0)).max() < 0.1
    assert error(moved, true + aside) < error(start, true + aside)


def test_one_candidate_is_not_enough_to_tell_where_centres_are() -> None:
    """Though no other is more probable than not."""
    for seed in range(4):
        volume, true = blobs(60, seed, noise=0.5)
        start = true + np.random.default_rng(seed).normal(0, 1, true.shape) * [0.5, 1, 1]
        weights = np.full(60, 0.45)
        weights[0] = 0.55
        moved = centred(volume, start, weights, diameter=DIAMETER)
        assert error(moved, true) < 0.7 * error(start, true)


def test_improbable_and_far_ones_stay_and_few_are_left_alone() -> None:
    volume, true = blobs(60, 0, noise=0.5)
    start = true + np.random.default_rng(1).normal(0, 1, true.shape) * [0.5, 1, 1]
    weights = np.ones(60)
    weights[:5] = PROBABLE / 2
    moved = centred(volume, start, weights, diameter=DIAMETER)
    np.testing.assert_array_equal(moved[:5], start[:5])
    assert (moved[5:] != start[5:]).any(axis=1).all()
    few = np.full(60, 0.9 * ENOUGH / 60)
    assert centred(volume, start, few, diameter=DIAMETER) is start


@pytest.mark.parametrize("shape", [(5, 40, 40), (32, 7, 60)])
def test_candidates_on_the_border_of_small_volumes(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    corners = np.array([[0, 0, 0], shape], float) - [[0.5], [0.5]]
    positions = np.concatenate([corners, np.random.default_rng(1).uniform(0, 1, (20, 3)) * (np.array(shape) - 1)])
    moved = centred(volume, positions, np.ones(22), diameter=DIAMETER)
    assert np.isfinite(moved).all()
    assert (np.abs(moved - positions) <= 0.3 * 2 * 5).all()
