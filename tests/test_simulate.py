import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from cetpick.baselines import difference_of_gaussians
from cetpick.errors import InputError
from cetpick.geometry import rescale
from cetpick.metrics import Scene, evaluate
from cetpick.simulate import (
    SHAPES,
    Simulation,
    SimulationSettings,
    contrast_transfer,
    demo_settings,
    density,
    preset,
    simulate,
)

EMPTY = SimulationSettings(size=(960.0, 800.0, 640.0), voxel_size=10.0, counts={}, vesicles=0)
SMALL = dataclasses.replace(EMPTY, counts={"target": 4, "decoy": 3, "sphere": 5, "small": 20, "gold": 2}, dose=300.0)


def points_of(species: str) -> np.ndarray:
    return density(SHAPES[species], list(SHAPES).index(species))


def centres(simulation: Simulation, species: str) -> np.ndarray:
    return simulation.truth.query("species == @species")[["x", "y", "z"]].to_numpy()


@pytest.fixture(scope="module")
def small() -> Simulation:
    return simulate(SMALL)


def test_same_settings_same_tomogram(small):
    again, other = simulate(SMALL), simulate(dataclasses.replace(SMALL, seed=1))
    np.testing.assert_array_equal(small.data, again.data)
    assert small.truth.equals(again.truth)
    assert not np.array_equal(small.data, other.data)
    assert not small.truth.equals(other.truth)


def test_shape_counts_and_truth(small):
    assert small.data.shape == SMALL.shape == (64, 80, 96)
    assert small.data.dtype == np.float32
    assert np.isfinite(small.data).all()
    assert small.truth["species"].value_counts().to_dict() == dict(SMALL.counts)
    assert list(small.truth) == ["x", "y", "z", "species"]
    assert small.truth["species"].iloc[0] == "target"
    xyz = (small.truth[["x", "y", "z"]].to_numpy() + 0.5) * 10
    assert (xyz > 0).all()
    assert (xyz < SMALL.size).all()
    bottom, top = SMALL.ice_faces
    assert xyz[:, 2].min() > bottom
    assert xyz[:, 2].max() < top


def test_particles_do_not_overlap():
    truth = simulate(dataclasses.replace(SMALL, counts={"sphere": 60}, tilts=(0.0,))).truth
    # a ball of radius 0.3 diameters may lose at most a point and its jitter to another
    assert pdist(truth[["x", "y", "z"]].to_numpy() * 10).min() > 0.5 * SMALL.diameter


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("voxel_size", [5.0, 13.48])
def test_a_gold_bead_comes_back_where_it_is(seed, voxel_size):
    settings = dataclasses.replace(EMPTY, counts={"gold": 1}, voxel_size=voxel_size, seed=seed, misalignment=0.0)
    bead = simulate(settings)
    blurred = ndimage.gaussian_filter(bead.data, 25 / voxel_size)
    found = np.unravel_index(blurred.argmin(), blurred.shape)[::-1]
    assert np.abs(found - centres(bead, "gold")[0]).max() <= 0.5 + 0.1


def test_the_same_scene_at_every_voxel_size():
    coarse, middle, fine = (simulate(dataclasses.replace(SMALL, voxel_size=size)) for size in (13.48, 10.0, 5.0))
    for other in (coarse, middle):
        moved = rescale(fine.truth[["x", "y", "z"]], from_voxel_size=5.0, to_voxel_size=other.voxel_size)
        np.testing.assert_allclose(other.truth[["x", "y", "z"]], moved, atol=1e-9)
        # read the fine volume, low-passed to 40 angstrom, at the voxels of the other, low-passed likewise
        places = np.indices(other.data.shape).reshape(3, -1)
        there = rescale(places.T, from_voxel_size=other.voxel_size, to_voxel_size=5.0).T
        expected = ndimage.map_coordinates(ndimage.gaussian_filter(fine.data, 15 / 5), there, order=1, mode="nearest")
        found = ndimage.gaussian_filter(other.data, 15 / other.voxel_size).ravel()
        assert np.corrcoef(expected, found)[0, 1] > 0.98


def test_protein_and_gold_are_dark(small):
    smooth = ndimage.gaussian_filter(small.data, 3)
    z, y, x = np.round(centres(small, "decoy")).astype(int).T[::-1]
    assert (smooth[z, y, x] < smooth.mean() - 2 * smooth.std()).all()
    z, y, x = np.round(centres(small, "gold")).astype(int).T[::-1]
    assert (smooth[z, y, x] < smooth.mean() - 5 * smooth.std()).all()


def test_the_missing_wedge_is_empty(small):
    power = np.abs(np.fft.fftn(small.data)) ** 2
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in power.shape), indexing="ij")
    band = (np.hypot(kx, kz) > 0.1) & (np.hypot(kx, kz) < 0.3)
    angle = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
    assert power[band & (angle > 65)].mean() < 0.05 * power[band & (angle < 55)].mean()


def test_noise_is_that_of_the_dose():
    # without a specimen all variance is shot noise, which falls as 1 / dose
    low, high = (simulate(dataclasses.replace(EMPTY, dose=dose)).data.var() for dose in (50.0, 100.0))
    assert low / high == pytest.approx(2, rel=0.02)


def test_contrast_transfer_by_hand():
    assert contrast_transfer(np.array([0.0]), 40000.0) == pytest.approx(0.08)
    # at 1 / 50 angstrom: pi 0.0197 / 2500 (40000 - 2.7e7 0.0197^2 / 5000) = 0.990178 radian
    assert contrast_transfer(np.array([1 / 2500]), 40000.0) == pytest.approx(np.sin(0.990178 + np.arcsin(0.08)))
    # with little amplitude contrast the first zero lies near k^2 = 1 / (lambda defocus)
    k2 = np.linspace(0, 1 / 500, 2000)
    zero = k2[np.argmax(contrast_transfer(k2, 40000.0) < 0)]
    assert zero == pytest.approx((1 - np.arcsin(0.08) / np.pi) / (0.0197 * 40000), rel=0.01)


def test_protein_has_one_density():
    shell = 4 / 3 * np.pi * (0.3**3 - 0.19**3)
    ellipsoid = 4 / 3 * np.pi * 0.19 * 0.16 * 0.14
    assert len(points_of("sphere")) == pytest.approx(shell * 20**3, rel=0.03)
    assert len(points_of("small")) == pytest.approx(ellipsoid * 20**3, rel=0.03)


def test_the_decoy_has_mass_and_size_of_the_target_but_not_its_shape():
    target, decoy = points_of("target"), points_of("decoy")
    assert len(decoy) == pytest.approx(len(target), rel=0.03)
    extent = [np.ptp(model, axis=0).max() for model in (target, decoy)]
    assert extent[1] == pytest.approx(extent[0], rel=0.15)
    # principal moments: the target is long along one axis, the decoy flat
    moments = [np.sort(np.linalg.eigvalsh(np.cov(model.T))) for model in (target, decoy)]
    assert np.abs(moments[0] / moments[1] - 1).max() > 0.2


def test_the_target_is_asymmetric():
    # every axis that a symmetry could have is a principal axis; no half turn or mirror keeps the density
    model = points_of("target")
    model = model @ np.linalg.eigh(np.cov(model.T))[1]
    bins = [np.linspace(-0.7, 0.7, 15)] * 3
    here = ndimage.gaussian_filter(np.histogramdd(model, bins)[0], 0.7)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert np.corrcoef(here.ravel(), np.flip(here, axes).ravel())[0, 1] < 0.95


def test_presets_grow_with_the_volume():
    one, two = (preset("normal", seed=0, shape=(64, 192, n)) for n in (192, 384))
    assert one.counts == demo_settings(0).counts
    assert one.counts["target"] == 80
    # rounded to whole particles in each
    assert all(abs(2 * count - two.counts[species]) <= 1 for species, count in one.counts.items())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"dose": float("nan")}, "dose"),
        ({"diameter": -1.0}, "diameter"),
        ({"size": (100.0, 100.0, 4.0)}, "size"),
        ({"ice": 1.1}, "ice"),
        ({"pixel_size": 11.0}, "pixel_size"),
        ({"tilts": ()}, "tilts"),
        ({"tilts": (0.0, 90.0)}, "tilts"),
        ({"counts": {"unicorn": 1}}, "counts"),
        ({"counts": {"target": -1}}, "counts"),
    ],
)
def test_impossible_settings(change, name):
    with pytest.raises(InputError, match=f"{name} is out of range"):
        dataclasses.replace(EMPTY, **change)


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_settings_of_a_preset_are_checked_before_they_are_computed_with(wrong):
    with pytest.raises(InputError, match="unusable --voxel-size"):
        preset("easy", seed=0, voxel_size=wrong)
    with pytest.raises(InputError, match="unusable setting diameter"):
        preset("easy", seed=0, diameter=wrong)


def test_particles_too_small_for_the_memory():
    with pytest.raises(InputError, match=r"(?s)diameter is out of range.*at least 35 A in a box of this size"):
        preset("easy", seed=0, diameter=30)


def test_too_many_particles():
    with pytest.raises(InputError, match="does not fit"):
        simulate(dataclasses.replace(EMPTY, size=(300.0, 300.0, 300.0), counts={"target": 20}))


def test_difference_of_gaussians_finds_planted_balls():
    truth = np.array([[12.0, 20.0, 14.0], [40.3, 20.0, 14.0], [25.0, 44.6, 16.0]])
    z, y, x = np.indices((32, 64, 64))
    distance = np.min([np.sqrt((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) for px, py, pz in truth], axis=0)
    volume = np.random.default_rng(0).normal(0, 0.5, distance.shape).astype(np.float32)
    volume[distance < 6] -= 1
    for picked, dark in ((volume, True), (-volume, False)):
        xyz, scores = difference_of_gaussians(picked, diameter=12.0, dark=dark)
        result = evaluate([Scene(name="balls", picks=xyz, scores=scores, truth=truth)], 1.0)
        assert result.best.f1 == 1
        assert (np.diff(scores) <= 0).all()
        assert scores[3] < 0.5 * scores[2]


def test_difference_of_gaussians_of_nothing():
    xyz, scores = difference_of_gaussians(np.zeros((8, 8, 8), np.float32), diameter=4.0)
    assert xyz.shape == (0, 3)
    assert scores.shape == (0,)
    with pytest.raises(InputError, match="diameter"):
        difference_of_gaussians(np.zeros((8, 8, 8), np.float32), diameter=0.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blobs_are_not_enough_for_the_demo(seed):
    settings = demo_settings(seed)
    demo = simulate(settings)
    diameter = settings.diameter / settings.voxel_size
    xyz, scores = difference_of_gaussians(demo.data, diameter=diameter)
    result = evaluate([Scene(name="demo", picks=xyz, scores=scores, truth=centres(demo, "target"))], diameter / 2)
    assert result.best.f1 <= 0.75
    # what fails is telling species apart: nearly every target is among the blobs
    assert result.all_picks.recall > 0.9
