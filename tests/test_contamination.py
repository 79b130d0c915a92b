"""Gold and carbon are found where they are, and nothing else is taken for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cetpick.config import ModelSettings, ParticleClass
from cetpick.contamination import (
    LEAST,
    LEAST_CARBON,
    VOXEL,
    coarse,
    darkness,
    find,
    least_of_carbon,
    least_of_gold,
    smoothed,
    strength,
)
from cetpick.geometry import Points
from cetpick.preprocess import prepare, without_contamination
from cetpick.records import Grid, Region, Tomogram, TomogramInfo
from cetpick.simulate import Simulation, SimulationSettings, simulate

SCENE = SimulationSettings(
    size=(1500.0, 1300.0, 500.0),
    voxel_size=10.0,
    counts={"target": 14, "decoy": 10, "gold": 4},
    vesicles=1,
    seed=3,
)


@pytest.fixture(scope="module", params=[10.0, 20.0], ids="{:g} A".format)
def scene(request: pytest.FixtureRequest) -> Simulation:
    return simulate(dataclasses.replace(SCENE, voxel_size=request.param))


def places(scene: Simulation, species: str) -> Points:
    """Centres in angstrom from the corner."""
    rows = scene.truth[scene.truth["species"] == species]
    return (rows[["x", "y", "z"]].to_numpy() + 0.5) * scene.voxel_size


def tomogram(scene: Simulation, data: np.ndarray | None = None, **region: object) -> Tomogram:
    data = scene.data if data is None else data
    grid = Grid(shape=data.shape, voxel_size=scene.voxel_size)
    info = TomogramInfo(name="t", path=Path("t.mrc"), grid=grid, region=Region(**region))
    return Tomogram(info=info, data=data)


def settings(gold: float | None = None, carbon: float | None = None) -> ModelSettings:
    classes = (ParticleClass(diameter=SCENE.diameter),)
    return ModelSettings(classes=classes, voxel_size=(26, 13, 13), gold=gold, carbon=carbon)


def inside(mask: np.ndarray, angstrom: Points, voxel: tuple[float, float, float]) -> np.ndarray:
    cells = np.clip((angstrom[:, ::-1] / voxel).astype(int), 0, np.array(mask.shape) - 1)
    return mask[tuple(cells.T)]


def level(scene: Simulation, labels: Points) -> float:
    size = scene.voxel_size
    return least_of_gold([darkness(coarse(scene.data, None, size), labels / size - 0.5, size)])


def test_all_gold_is_left_out_and_no_particle(scene: Simulation) -> None:
    targets, gold = places(scene, "target"), places(scene, "gold")
    prepared = prepare(tomogram(scene), settings(level(scene, targets[:5])))
    assert prepared.contaminated is not None
    assert prepared.valid is not None
    assert prepared.exclusions.gold_places == len(gold) == 4
    assert inside(prepared.contaminated, gold, prepared.voxel_size).all()
    assert not inside(prepared.valid, gold, prepared.voxel_size).any()
    assert inside(prepared.valid, targets, prepared.voxel_size).all()
    assert 0 < prepared.exclusions.gold < 0.05 * prepared.exclusions.total


def test_what_is_left_out_lies_around_the_gold() -> None:
    """On a working grid whose voxels are larger than those that gold is found on."""
    diameter = 600.0
    noise = np.random.default_rng(0).normal(0, 1, (80, 100, 100)).astype(np.float32)
    z, y, x = np.ogrid[:80, :100, :100]
    size = (diameter / 8, diameter / 16, diameter / 16)
    settings = ModelSettings(classes=(ParticleClass(diameter=diameter),), voxel_size=size, gold=5.0)
    off = []
    for cz, cy, cx in ((34, 42, 45), (41, 47, 52), (38, 55, 41), (43, 51, 49)):
        data = noise - 60 * ((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 25)
        info = TomogramInfo(name="t", path=Path("t.mrc"), grid=Grid(shape=data.shape, voxel_size=10.0))
        prepared = prepare(Tomogram(info=info, data=data.astype(np.float32)), settings)
        assert prepared.contaminated is not None
        found = np.argwhere(prepared.contaminated).mean(axis=0)
        off.append((found + 0.5) * prepared.voxel_size - (np.array([cz, cy, cx]) + 0.5) * 10)
    assert (np.abs(np.mean(off, axis=0)) < 0.3 * np.array(size)).all()


@pytest.mark.parametrize("axis", ["x", "z"])
def test_gold_is_found_across_ramps(scene: Simulation, axis: str) -> None:
    """Such as thicker ice on one side: of a standard deviation of the voxels, it is several of a coarse grid's."""
    z, _, x = np.meshgrid(*(np.linspace(-2, 2, n, dtype=np.float32) for n in scene.data.shape), indexing="ij")
    data = (scene.data / scene.data.std() + {"x": x, "z": z}[axis]).astype(np.float32)
    volume = coarse(data, None, scene.voxel_size)
    targets, gold = places(scene, "target"), places(scene, "gold")
    least = least_of_gold([darkness(volume, targets[:5] / scene.voxel_size - 0.5, scene.voxel_size)])
    found = find(volume, gold=least, carbon=None, diameter=SCENE.diameter).gold
    assert found is not None
    assert inside(found, gold, (VOXEL,) * 3).all()
    assert not inside(found, targets, (VOXEL,) * 3).any()
    assert found.mean() < 0.05


def test_dense_foil_is_left_out_though_it_is_wider_than_what_is_taken_for_a_ramp() -> None:
    data = np.random.default_rng(0).normal(size=(24, 120, 480)).astype(np.float32)
    data[:, :, 360:] -= 8
    found = find(coarse(data, None, 20.0), gold=LEAST, carbon=None, diameter=200.0).gold
    assert found is not None
    assert found[:, :, 182:].mean() > 0.95
    assert found[:, :, :178].mean() < 0.05


def test_training_and_picking_leave_out_the_same(scene: Simulation) -> None:
    least = level(scene, places(scene, "target")[:5])
    picking = prepare(tomogram(scene), settings(least))
    training = without_contamination(prepare(tomogram(scene), settings()), settings(least), Region())
    for name in ("volume", "valid", "contaminated"):
        np.testing.assert_array_equal(getattr(picking, name), getattr(training, name))
    assert picking.exclusions == training.exclusions


def test_it_is_kept_on_demand_and_where_the_model_does_not_know_it(scene: Simulation) -> None:
    kept = prepare(tomogram(scene, keep=("gold",)), settings(12.0))
    unknown = prepare(tomogram(scene), settings())
    for prepared in (kept, unknown):
        assert prepared.valid is prepared.contaminated is None
        assert prepared.exclusions.gold == 0
    assert prepare(tomogram(scene, keep=("gold", "carbon")), settings(12.0, 4.0)).coarse is None


def test_a_particle_as_dense_as_gold_is_none(scene: Simulation) -> None:
    volume = coarse(scene.data, None, scene.voxel_size)
    least = level(scene, places(scene, "gold"))
    assert least > 2 * LEAST
    assert find(volume, gold=least, carbon=None, diameter=SCENE.diameter).gold is None


def test_padding_is_not_gold(scene: Simulation) -> None:
    """Zeros about data of another level are darker than any gold."""
    data = 1000 + 10 * (scene.data - scene.data.mean()) / scene.data.std()
    data = np.pad(data, [(0, 0), (0, 8), (0, 0)])
    least = level(scene, places(scene, "target"))
    with pytest.warns(match="left out"):
        padded = prepare(tomogram(scene, data.astype(np.float32)), settings(least))
    assert padded.exclusions.gold_places == 4
    assert padded.exclusions.gold == pytest.approx(prepare(tomogram(scene), settings(least)).exclusions.gold, rel=0.1)


def test_the_grid_is_the_same_for_all_voxel_sizes(scene: Simulation) -> None:
    volume = coarse(scene.data, None, scene.voxel_size)
    assert volume.shape == tuple(round(n * scene.voxel_size / VOXEL) for n in scene.data.shape)
    assert np.median(volume) == pytest.approx(0, abs=0.05)  # that of where there is specimen is 0


FILM = dataclasses.replace(
    SCENE,
    size=(2400.0, 2400.0, 800.0),
    voxel_size=20.0,
    diameter=180.0,
    counts={"target": 30, "decoy": 30, "gold": 3},
    carbon=150.0,
    seed=1,
)


@pytest.mark.parametrize("scene", [10.0], indirect=True)
@pytest.mark.parametrize("axis", [0, 2])
def test_particles_in_a_tomogram_that_is_vacuum_for_the_most_part_are_no_gold(scene: Simulation, axis: int) -> None:
    least = least_of_gold([darkness(coarse(scene.data, None, 10.0), places(scene, "target") / 10 - 0.5, 10.0)])
    shape = list(scene.data.shape)
    shape[axis] *= 2
    vacuum = np.random.default_rng(0).normal(0, 0.1 * scene.data.std(), shape).astype(np.float32)
    data = np.concatenate([scene.data, vacuum], axis=axis)
    found = find(coarse(data, None, 10.0), gold=least, carbon=LEAST_CARBON, diameter=SCENE.diameter)
    assert found.gold is not None
    taken = [found.gold[tuple((np.array(place[::-1]) / VOXEL).astype(int))] for place in places(scene, "target")]
    assert not any(taken)
    beads = [found.gold[tuple((np.array(place[::-1]) / VOXEL).astype(int))] for place in places(scene, "gold")]
    assert all(beads)
    assert found.carbon is None


@pytest.fixture(scope="module")
def film() -> Simulation:
    return simulate(FILM)


def least_carbon(scene: Simulation) -> float:
    smooth = smoothed(coarse(scene.data, None, scene.voxel_size))
    return least_of_carbon([strength(smooth, places(scene, "target")[:8] / scene.voxel_size - 0.5, scene.voxel_size)])


def test_the_edge_of_carbon_is_left_out_as_one_piece(film: Simulation) -> None:
    least = least_carbon(film)
    volume = coarse(film.data, None, film.voxel_size)
    found = find(volume, gold=None, carbon=least, diameter=SCENE.diameter).carbon  # as `settings` has it
    assert found is not None
    assert 0.02 < found.mean() < 0.35
    # it runs across the box, from face to face
    _, y, x = np.nonzero(found)
    assert max(np.ptp(y) + 1 - found.shape[1], np.ptp(x) + 1 - found.shape[2]) >= -1
    prepared = prepare(tomogram(film), settings(carbon=least))
    assert prepared.valid is not None
    assert prepared.exclusions.carbon == pytest.approx(found.mean() * film.data.size, rel=0.05)
    assert prepared.exclusions.gold == 0
    kept = prepare(tomogram(film, keep=("carbon",)), settings(carbon=least))
    assert kept.exclusions.carbon == 0


def test_without_a_film_nothing_is_carbon() -> None:
    """Neither particles nor gold, nor a membrane that is longer than the box."""
    bare = dataclasses.replace(FILM, carbon=0.0, vesicles=3)
    for scene in (simulate(bare), simulate(dataclasses.replace(bare, seed=5))):
        volume = coarse(scene.data, None, scene.voxel_size)
        assert find(volume, gold=None, carbon=LEAST_CARBON, diameter=bare.diameter).carbon is None


def test_a_particle_as_strong_as_carbon_is_none(film: Simulation) -> None:
    smooth = smoothed(coarse(film.data, None, film.voxel_size))
    at = np.stack(np.nonzero(np.abs(smooth) > LEAST_CARBON), axis=1)[:, ::-1]
    labels = (at + 0.5) * 120 / film.voxel_size - 0.5
    least = least_of_carbon([strength(smooth, labels, film.voxel_size)])
    assert (
        find(coarse(film.data, None, film.voxel_size), gold=None, carbon=least, diameter=FILM.diameter).carbon is None
    )
