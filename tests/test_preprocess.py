import errno
import os
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy import ndimage

from cetpick import scratch
from cetpick.config import ModelSettings, ParticleClass
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import rescale
from cetpick.preprocess import (
    centre_and_spread,
    empty_slices,
    merge_slice_pairs,
    padding_mask,
    prepare,
    resampled,
    valid_voxels,
    working_shape,
)
from cetpick.records import Grid, Region, Tomogram, TomogramInfo
from cetpick.voxels import specimen, widened


def resample(volume: np.ndarray, scale: tuple[float, float, float]) -> np.ndarray:
    return np.concatenate([slab for _, slab in resampled(lambda *part: volume[part], volume.shape, scale)])


def tomogram(data: np.ndarray, voxel_size: float = 10.0, **region: Any) -> Tomogram:
    grid = Grid(shape=data.shape, voxel_size=voxel_size)
    info = TomogramInfo(name="t", path=Path("t.mrc"), grid=grid, region=Region(**region))
    return Tomogram(info=info, data=data)


def noise(shape: tuple[int, int, int] = (12, 20, 24)) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)


def test_padding_is_what_is_constant_and_touches_the_border() -> None:
    data = noise()
    data[:, :3, :] = 0  # padding at a face
    data[:, :, -1] = 0  # one voxel thin
    data[5:9, 10:14, 8:12] = 0  # a constant block inside is no padding
    expected = np.zeros(data.shape, bool)
    expected[:, :3, :] = True
    expected[:, :, -1] = True
    np.testing.assert_array_equal(padding_mask(data), expected)


def test_padding_of_another_value_and_none_at_all() -> None:
    data = noise()
    assert not padding_mask(data).any()
    data[:, :, :4] = 97.5
    assert padding_mask(data).sum() == data[:, :, :4].size


def test_few_grey_levels_are_not_padding() -> None:
    data = np.random.default_rng(0).integers(-2, 3, (12, 20, 24)).astype(np.int8)
    assert padding_mask(data).mean() < 0.01


def test_excluded_voxels_are_counted_said_and_zero() -> None:
    data = noise()
    data[0, 0, 0], data[3, 4, 5] = np.nan, np.inf
    data[:, :, :4] = 0
    data[0, 0, 0] = np.nan
    with pytest.warns(CetpickWarning, match=r"t\.mrc: .*2 not finite, 95[0-9] constant padding, 0 in empty"):
        valid, exclusions = valid_voxels(tomogram(data))
    assert valid is not None
    assert not valid[3, 4, 5]
    assert exclusions.not_finite == 2
    settings = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(10, 10, 10))
    with pytest.warns(CetpickWarning, match="left out"):
        prepared = prepare(tomogram(data), settings)
    assert np.isfinite(prepared.volume).all()
    assert (prepared.volume[~valid] == 0).all()
    clean = prepared.volume[valid]
    assert abs(np.median(clean)) < 0.05
    assert 0.9 < clean.std() < 1.1


@pytest.mark.parametrize("contrast", [0, 0.1])
def test_slices_of_next_to_nothing_are_left_out(contrast: float) -> None:
    data = noise((24, 40, 40))
    data[:, :, :4] = 0
    nothing = [0, 1, 22, 23]
    data[nothing, :, 4:] = 100 + contrast * (data[nothing, :, 4:] - 100)
    with pytest.warns(CetpickWarning, match=f"{4 * 40 * 36} in empty slices"):
        valid, exclusions = valid_voxels(tomogram(data))
    assert valid is not None
    assert valid.any(axis=(1, 2)).tolist() == [z not in nothing for z in range(24)]
    assert exclusions.empty == 4 * 40 * 36
    assert exclusions.padding == 24 * 40 * 4
    with pytest.warns(CetpickWarning):
        kept, _ = valid_voxels(tomogram(data, keep=("empty",)))
    assert kept is not None
    assert kept[:, :, 4:].all()


def test_padding_is_kept_on_demand() -> None:
    data = noise()
    data[:, :, :4] = 0
    assert valid_voxels(tomogram(data, keep=("padding",)))[0] is None


def test_of_a_padded_tomogram_the_part_with_data_can_be_named() -> None:
    data = np.zeros((30, 20, 24), np.float32)
    data[9:21] = noise()
    settings = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(10, 10, 10))
    with pytest.raises(InputError, match="more than half of the tomogram holds no data"):
        prepare(tomogram(data), settings)
    with pytest.warns(CetpickWarning, match="60.0% of the voxels are left out"):
        prepared = prepare(tomogram(data, slab=(90, 210)), settings)
    with pytest.warns(CetpickWarning, match="left out"):
        alone = prepare(tomogram(data[8:22], slab=(10, 130)), settings)
    assert prepared.valid is not None
    inside = prepared.valid.any(axis=(1, 2))
    assert np.flatnonzero(inside).tolist() == list(range(9, 21))
    np.testing.assert_allclose(prepared.volume[9:21], alone.volume[1:13], atol=1e-4)
    with (
        pytest.warns(CetpickWarning, match="left out"),
        pytest.raises(InputError, match="more than half of the region within --mask and --slab holds no data"),
    ):
        prepare(tomogram(data, slab=(0, 160)), settings)


@pytest.mark.parametrize("bad", ["half", "constant", "nan"])
def test_useless_volumes_are_refused(bad: str) -> None:
    data = noise()
    if bad == "half":
        data[:7] = np.nan
    else:
        data[:] = np.nan if bad == "nan" else 7
    settings = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(10, 10, 10))
    with pytest.raises(InputError, match=r"t\.mrc"):
        prepare(tomogram(data), settings)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.float16, np.dtype(">f4"), np.dtype(">i2")]
)
def test_every_stored_type_gives_the_same_volume(dtype: np.dtype) -> None:
    data = np.random.default_rng(0).integers(10, 110, (8, 16, 16))
    settings = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(20, 15, 15))
    reference = prepare(tomogram(data.astype(np.float32)), settings).volume
    result = prepare(tomogram(data.astype(dtype)), settings).volume
    assert result.dtype.isnative
    np.testing.assert_allclose(result, reference, atol=1e-5)


FLAT = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(20, 10, 10), background=3.0)


def gradient(shape: tuple[int, int, int], *slopes: float) -> np.ndarray:
    """Grey values that rise by so much along each axis, about 0."""
    axes = (np.linspace(-s / 2, s / 2, n) for n, s in zip(shape, slopes, strict=True))
    return sum(np.ix_(*axes)).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 120, 160), (4, 40, 200)])
@pytest.mark.parametrize("padded", [False, True])
def test_ramps_of_grey_values_are_taken_away_up_to_the_border(shape: tuple[int, int, int], padded: bool) -> None:
    data = noise(shape)
    ramped = data + gradient(shape, 1, -4, 9)
    if padded:
        for volume in (data, ramped):
            volume[:, :, :30] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)  # of the padding
        flat, found, left = (
            prepare(tomogram(volume), settings).volume
            for volume, settings in ((data, FLAT), (ramped, FLAT), (ramped, replace(FLAT, background=None)))
        )
    off, before = found - flat, left - flat
    assert np.abs(before).mean() > 0.3
    assert np.abs(off).mean() < 0.03
    for border in (off[:, :5], off[:, -5:], off[..., 25:30], off[..., -5:]):
        assert abs(border.mean()) < 0.1


def test_a_particle_and_what_surrounds_it_keep_their_contrast() -> None:
    data = noise((64, 192, 192))
    z, y, x = np.ogrid[:64, :192, :192]
    data[(z - 32) ** 2 + (y - 96) ** 2 + (x - 96) ** 2 <= 8**2] -= 10
    flat = prepare(tomogram(data), FLAT).volume
    plain = prepare(tomogram(data), replace(FLAT, background=None)).volume
    particle = np.s_[14:18, 92:100, 92:100]
    assert plain[particle].mean() < -3
    assert flat[particle].mean() == pytest.approx(plain[particle].mean(), rel=0.03)
    assert np.abs(flat - plain).mean() < 0.05


def test_statistics_are_robust_and_fall_back_for_few_levels() -> None:
    data = noise((20, 30, 40))
    data[0, :10, :10] = 1e6
    median, spread = centre_and_spread(data)
    assert median == pytest.approx(100, abs=0.3)
    assert spread == pytest.approx(5, rel=0.03)
    binary = np.zeros((4, 4, 4), np.float32)
    binary[0] = 1
    assert centre_and_spread(binary)[1] == pytest.approx(np.sqrt(0.25 * 0.75))


@pytest.mark.parametrize("scale", [0.5, 0.64, 1.0, 1.7])
def test_resampling_maps_centres_as_geometry_says(scale: float) -> None:
    z, y, x = np.mgrid[:24, :30, :36].astype(np.float32)
    centre = np.array([17.3, 14.6, 11.2])
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * 4**2)).astype(np.float32)
    small = resample(blob, (scale, scale, scale))
    assert small.shape == working_shape(blob.shape, (scale, scale, scale))
    grid = np.stack(np.mgrid[tuple(slice(n) for n in small.shape)][::-1], axis=-1)
    found = (grid * small[..., None]).sum(axis=(0, 1, 2)) / small.sum()
    expected = rescale(centre, from_voxel_size=10, to_voxel_size=10 / scale)[0]
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_resampling_keeps_a_constant_and_averages_noise() -> None:
    flat = np.full((10, 11, 12), 3, np.float32)
    np.testing.assert_allclose(resample(flat, (0.5, 0.37, 1.3)), 3, rtol=1e-6)
    assert resample(noise((20, 40, 40)) - 100, (0.5, 0.5, 0.5)).std() < 5 / 2


def test_slice_pairs_merge_by_maximum_and_drop_an_odd_slice() -> None:
    volume = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 2, 2), np.float32)
    assert merge_slice_pairs(volume)[:, 0, 0].tolist() == [1, 3]


def test_clean_data_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert valid_voxels(tomogram(noise()))[0] is None


@pytest.mark.parametrize("mode", ["default", "paper"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)], ids=["as stored", "transposed"])
def test_slabs_in_files_equal_the_whole_in_memory(
    mode: Literal["default", "paper"], order: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise((23, 31, 37))
    data[:, :, :5] = data[:, 28:] = 0
    data[4, 5, 6:9] = np.nan
    data = data.transpose(order)
    settings = ModelSettings(mode=mode, classes=(ParticleClass(diameter=160),), voxel_size=(21, 13, 13))
    results = []
    for small in (False, True):
        if small:
            monkeypatch.setattr(scratch, "SLAB", 1)
            monkeypatch.setattr(scratch, "LARGE", 1)
        with pytest.warns(CetpickWarning, match="3 not finite, "):
            results.append(prepare(tomogram(data), settings))
    whole, cut = results
    assert isinstance(cut.volume, np.memmap)
    assert isinstance(cut.valid, np.memmap)
    assert cut.exclusions == whole.exclusions
    np.testing.assert_array_equal(cut.valid, whole.valid)
    np.testing.assert_allclose(cut.volume, whole.volume, atol=1e-6)
    assert cut.skewness == pytest.approx(whole.skewness, rel=1e-6)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="cannot keep working data"):
        scratch.zeros((scratch.LARGE,), np.uint8)
    assert scratch.zeros((9,), np.uint8).sum() == 0


def test_files_go_where_they_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_in() -> str:
        with scratch.open_file() as file:
            return str(Path(f"/proc/self/fd/{file.fileno()}").readlink().parent)

    monkeypatch.delenv(scratch.VARIABLE, raising=False)
    (tmp_path / "own").mkdir()
    with scratch.using(tmp_path / "not" / "there yet"):
        assert made_in() == str(tmp_path)
    with scratch.using(tmp_path):
        assert made_in() == str(tmp_path)
        monkeypatch.setenv(scratch.VARIABLE, str(tmp_path / "own"))
        assert made_in() == str(tmp_path / "own")
        monkeypatch.setenv(scratch.VARIABLE, str(tmp_path / "none"))
        with pytest.raises(InputError, match=r"none: cannot keep working data[\s\S]*No such file"):
            made_in()
    assert [path.name for path in tmp_path.rglob("*")] == ["own"]


def test_a_region_counts_for_statistics_and_places_but_not_for_grey_values() -> None:
    data = noise((20, 40, 48))
    data[:, :, 34:] *= 3  # what the mask leaves out, but for a diameter around it, is unlike the rest
    mask = np.zeros((10, 20, 24), np.int8)  # binned by 2
    mask[:, :, :12] = 1
    where = Region(mask=Path("m.mrc"), slab=(50.0, 150.0))
    limited = tomogram(data)
    limited = replace(limited, info=replace(limited.info, region=where), mask=mask)
    settings = ModelSettings(classes=(ParticleClass(diameter=80),), voxel_size=(10, 10, 10), clip=1000.0)
    prepared = prepare(limited, settings)
    expected = np.zeros(data.shape, bool)
    expected[5:15, :, :24] = True
    np.testing.assert_array_equal(prepared.valid, expected)
    lost = prepared.exclusions.off_slab, prepared.exclusions.masked
    assert lost == (10 * 40 * 48, 10 * 40 * 24)  # what lies outside of both counts once
    assert sum(lost) == (~expected).sum()
    assert prepared.volume[expected].std() == pytest.approx(1, abs=0.05)
    assert prepared.volume[:, :, 34:].mean() > 20
    nothing = replace(limited, info=replace(limited.info, region=replace(where, slab=(500.0, 600.0))))
    with pytest.raises(InputError, match=r"0 to 200 angstrom\n.*none within mask .*m\.mrc and slab 500 to 600 ang"):
        prepare(nothing, settings)


def balls(shape: tuple[int, int, int], radius: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Dark balls on noise, and a mask of half their radius, in the grid of (z, y, x)."""
    rng, grid = np.random.default_rng(seed), np.indices(shape)
    data, mask = rng.normal(0, 0.5, shape).astype(np.float32), np.zeros(shape, np.int8)
    for centre in rng.uniform(0, 1, (12, 3)) * shape:
        distance = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(axis=0))
        data -= 2 * (distance < radius)
        mask |= (distance < radius / 2).astype(np.int8)
    return data, mask


def test_a_tight_mask_leaves_grey_levels_as_they_are() -> None:
    """Of the particles alone, these would be what is typical, and protein would seem bright."""
    data, mask = balls((32, 80, 80), radius=6)
    settings = ModelSettings(classes=(ParticleClass(diameter=120),), voxel_size=(10, 10, 10))
    whole = prepare(tomogram(data), settings)
    limited = tomogram(data)
    limited = replace(limited, info=replace(limited.info, region=Region(mask=Path("m.mrc"))), mask=mask)
    tight = prepare(limited, settings)
    assert whole.judged is None
    assert tight.valid is not None
    np.testing.assert_array_equal(tight.valid, mask > 0)
    inside = whole.volume[tight.valid]
    assert np.abs(tight.volume[tight.valid] - inside).max() < 0.15 * np.abs(inside).max()
    assert whole.skewness < -0.3
    assert tight.skewness < -0.3


def test_gold_is_no_part_of_what_is_typical() -> None:
    data, mask = balls((48, 96, 96), radius=6)
    data[20:26, 40:46, 40:46] = -600
    limited = tomogram(data)
    limited = replace(limited, info=replace(limited.info, region=Region(mask=Path("m.mrc"))), mask=mask)
    settings = ModelSettings(classes=(ParticleClass(diameter=120),), voxel_size=(10, 10, 10), gold=100.0)
    for one in (tomogram(data), limited):
        prepared = prepare(one, settings)
        assert prepared.exclusions.gold_places == 1
        assert prepared.judged is not None
        assert not prepared.judged[22, 42, 42]


@pytest.mark.parametrize("empty", [0, 30, 90])
def test_vacuum_does_not_count_for_grey_levels(empty: int) -> None:
    """Quiet slices above and below a specimen, most of the tomogram with 90 of them on both sides."""
    data, _ = balls((32, 60, 60), radius=6)
    quiet = np.random.default_rng(1).normal(0, 0.05, (empty, 60, 60)).astype(np.float32)
    settings = ModelSettings(classes=(ParticleClass(diameter=120),), voxel_size=(20, 10, 10))
    keep = Region(keep=("empty",))
    alone, among = tomogram(data), tomogram(np.concatenate([quiet, data, quiet]))
    expected, found = (prepare(replace(one, info=replace(one.info, region=keep)), settings) for one in (alone, among))
    middle = found.volume[empty // 2 : empty // 2 + 16]
    assert middle.std() == pytest.approx(expected.volume.std(), rel=0.1)
    assert np.corrcoef(middle.ravel(), expected.volume.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("where", [[*range(4)], [0, 1, 30, 31], [15, 16, 17, 18]])
def test_a_few_slices_that_vary_more_are_not_taken_for_the_specimen(where: list[int]) -> None:
    """As ice on the surface, or a film, makes them: all others would be vacuum."""
    data, _ = balls((32, 60, 60), radius=6)
    data[where] += ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 30, (32, 60, 60)), 2)[where]
    assert specimen(data, None) is None
    slab = np.zeros((48, 60, 60), bool)  # of a tomogram, in which the rest does not count
    slab[8:40] = True
    assert specimen(np.pad(data, ((8, 8), (0, 0), (0, 0))), slab) is slab
    settings = ModelSettings(classes=(ParticleClass(diameter=120),), voxel_size=(20, 10, 10))
    others = np.setdiff1d(np.arange(16), [z // 2 for z in where])
    assert 0.8 < prepare(tomogram(data), settings).volume[others].std() < 2


def test_no_mask_of_all_voxels_is_copied_to_look_for_empty_slices() -> None:
    data, padding = noise((64, 256, 256)), np.zeros((64, 256, 256), bool)
    tracemalloc.start()
    try:
        assert not empty_slices(data, padding).any()
        assert tracemalloc.get_traced_memory()[1] < padding.nbytes / 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("shape", "reach"), [((20, 30, 40), (3.0, 6.0, 9.5)), ((7, 7, 7), (40.0, 1.0, 2.0))])
def test_a_widened_mask_holds_all_that_is_near(shape: tuple[int, int, int], reach: tuple[float, float, float]) -> None:
    mask, within = np.zeros(shape, bool), np.ones(shape, bool)
    mask[3, 4, 5] = mask[6, 6, 6] = True
    within[2] = False
    wide = widened(mask, reach, within)
    assert not wide[2].any()
    where = np.indices(shape)
    near, far = np.zeros(shape, bool), np.ones(shape, bool)
    for place in np.argwhere(mask):
        off = np.abs(where - place[:, None, None, None])
        length = np.array(reach)[:, None, None, None]
        near |= (off <= length).all(axis=0)
        far &= (off > 1.5 * length + 4).any(axis=0)
    assert wide[near & within].all()
    assert not wide[far].any()


def test_the_mask_of_a_membrane_is_not_lost_on_a_coarser_grid() -> None:
    data = noise((40, 40, 48))
    settings = ModelSettings(classes=(ParticleClass(diameter=160),), voxel_size=(26, 13, 13))
    for z in range(10, 20):
        mask = np.zeros(data.shape, np.int8)
        mask[z, 10:30] = 1
        thin = tomogram(data)
        thin = replace(thin, info=replace(thin.info, region=Region(mask=Path("m.mrc"))), mask=mask)
        valid = prepare(thin, settings).valid
        assert valid is not None
        assert valid.any(axis=0).mean() == pytest.approx(0.5, abs=0.1)
    mask[:] = 0
    mask[20, 20, 20] = 1
    with pytest.raises(
        InputError, match=r"nothing of the tomogram is left to look at[\s\S]*as thick as a working voxel"
    ):
        prepare(replace(thin, mask=mask), settings)
