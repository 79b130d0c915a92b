"""Tomograms in OME-Zarr and in EMAN2's HDF5, laid out as their writers do; what is planted is found again."""

from __future__ import annotations

import json
import shutil
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.coordinates import named_after, read_coordinates, write_coordinates
from cetpick.io.mrc import write_mrc
from cetpick.io.omezarr import METADATA
from cetpick.io.tomograms import open_inputs, read_info, read_tomogram, tomogram_name
from cetpick.records import Coordinates
from cetpick.workflows.record import RunRecord, prepare_output

VOXELS = np.arange(1, 6 * 8 * 10 + 1).reshape(6, 8, 10)
BYTES = VOXELS.astype(np.uint8)


def scale(*values):
    return [{"type": "scale", "scale": list(values)}]


def metadata(levels, *, unit="angstrom", axes="zyx", **others):
    """The multiscales of NGFF; `levels` is a dictionary of coordinateTransformations."""
    kinds = {"t": "time", "c": "channel"}
    named = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in named:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    datasets = [{"path": path, "coordinateTransformations": moves} for path, moves in levels.items()]
    return {"name": "/", "axes": named, "datasets": datasets, **others}


def write_store(path, arrays, multiscales, *, zarr_format=2, chunks=None, fill_value=0):
    """A group with arrays by name and the metadata of NGFF 0.4 (Zarr v2) or 0.5 (Zarr v3), None for no metadata."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Zarr v3, which has no stable name for float16
        for name, data in arrays.items():
            array = group.create_array(
                name, shape=data.shape, dtype=data.dtype, chunks=chunks or data.shape, fill_value=fill_value
            )
            array[...] = data
    if multiscales is not None and zarr_format == 2:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscales}]
    elif multiscales is not None:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscales]}
    return path


def pyramid(path, *, dtype="float32", zarr_format=2, sizes=(10.0, 20.0, 40.0), **options):
    """A store as the CryoET Data Portal has them: three levels, each half as fine."""
    arrays = {str(n): VOXELS[:: 2**n, :: 2**n, :: 2**n].astype(dtype) for n in range(3)}
    chosen = {key: options.pop(key) for key in ("unit",) if key in options}
    levels = {str(n): scale(size, size, size) for n, size in enumerate(sizes)}
    return write_store(path, arrays, metadata(levels, **chosen), zarr_format=zarr_format, **options)


def one_level(path, data=VOXELS, *, moves=None, zarr_format=2, **fields):
    moves = scale(*[10.0] * data.ndim) if moves is None else moves
    return write_store(path, {"0": data}, metadata({"0": moves}, **fields), zarr_format=zarr_format)


def write_hdf(path, data=BYTES, *, apix=10.0, images=1, **options):
    """A file as EMAN2 makes it: a group an image, attributes named EMAN.<key>."""
    with h5py.File(path, "w") as file:
        group = file.create_group("MDF/images")
        group.attrs["imageid_max"] = np.int32(images - 1)
        for number in range(images):
            image = group.create_group(str(number))
            sizes = {f"n{axis}": np.int32(n) for axis, n in zip("xyz", reversed(data.shape), strict=False)}
            spacing = {f"apix_{axis}": np.float32(apix) for axis in "xyz"}
            stored = {"renderbits": np.int32(8), "rendermin": np.float32(-3), "rendermax": np.float32(4)}
            others = {"ctf": "E1.0 300", **{f"stored_{key}": value for key, value in stored.items()}}
            for key, value in {**sizes, **(spacing if apix else {}), **others}.items():
                image.attrs[f"EMAN.{key}"] = value
            image.create_dataset("image", data=data, **options)
    return path


# --- OME-Zarr


@pytest.mark.usefixtures("in_memory_and_files")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "float16", "float32"])
def test_a_store_is_read_as_the_same_data_in_mrc(tmp_path, dtype, zarr_format):
    store = pyramid(tmp_path / "TS_01.ome.zarr", dtype=dtype, zarr_format=zarr_format, chunks=(2, 3, 4))
    write_mrc(tmp_path / "TS_01.mrc", VOXELS.astype(dtype), voxel_size=10.0)
    tomogram, same = read_tomogram(store), read_tomogram(tmp_path / "TS_01.mrc")
    np.testing.assert_array_equal(tomogram.data, VOXELS.astype(dtype))
    np.testing.assert_array_equal(tomogram.data, same.data)
    assert tomogram.info.grid == same.info.grid
    assert tomogram.info.name == same.info.name == "TS_01"
    assert tomogram.data.dtype == dtype
    assert not tomogram.data.flags.writeable
    header = tomogram.info.header
    assert (header["format"], header["zarr_format"], header["problems"]) == ("OME-Zarr", zarr_format, [])
    assert (header["ngff_version"], header["levels"]) == ({2: "0.4", 3: "0.5"}[zarr_format], ["0", "1", "2"])


def test_nothing_of_the_voxels_is_read_for_the_header(tmp_path):
    store = pyramid(tmp_path / "a.zarr")
    for chunk in (store / "0").rglob("*.*.*"):
        chunk.write_bytes(b"rubbish")
    info = read_info(store)
    assert info.grid.size == (10, 8, 6)
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_tomogram(info)
    assert caught.value.file == store


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_level_is_named_by_its_path(tmp_path, zarr_format):
    store = pyramid(tmp_path / "TS_01.zarr", zarr_format=zarr_format)
    for level, size in enumerate((10.0, 20.0, 40.0)):
        tomogram = read_tomogram(store / str(level))
        step = 2**level
        np.testing.assert_array_equal(tomogram.data, VOXELS[::step, ::step, ::step])
        assert (tomogram.info.name, tomogram.info.grid.voxel_size) == ("TS_01", size)
        assert tomogram.info.header["level"] == str(level)


def test_nested_levels_and_relative_paths(tmp_path, monkeypatch):
    arrays = {"scale0/image": VOXELS, "scale1/image": VOXELS[::2, ::2, ::2]}
    levels = {"scale0/image": scale(10, 10, 10), "scale1/image": scale(20, 20, 20)}
    write_store(tmp_path / "a.zarr", arrays, metadata(levels))
    monkeypatch.chdir(tmp_path)
    assert read_info("a.zarr").grid.shape == VOXELS.shape
    info = read_info("a.zarr/scale1/image")
    assert (info.name, info.grid.size, info.grid.voxel_size) == ("a", (5, 4, 3), 20.0)


@pytest.mark.parametrize(
    ("unit", "size"), [("angstrom", 10.0), ("nanometer", 1.0), ("micrometer", 0.001), ("picometer", 1000.0)]
)
def test_units_become_angstrom(tmp_path, unit, size):
    assert read_info(one_level(tmp_path / "a.zarr", moves=scale(*[size] * 3), unit=unit)).grid.voxel_size == 10.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"unit": "furlong"}, "axes in furlong, not in angstrom"),
        ({"unit": None}, "axes in no unit, not in angstrom"),
        ({"moves": []}, "no scale of level 0"),
        ({"moves": scale(10.0, 10.0)}, "no scale of level 0"),
        ({"moves": [{"type": "identity"}]}, "no scale of level 0"),
        ({"moves": scale(0.0, 0.0, 0.0)}, "0 A"),
        ({"moves": scale(1.0, 1.0, 1.0)}, "1 A, which usually means that nobody set it"),
    ],
)
def test_an_unusable_scale_is_cured_by_the_option(tmp_path, options, match):
    store = one_level(tmp_path / "a.zarr", **options)
    with pytest.raises(InputError, match=rf"voxel size[\s\S]*{match}[\s\S]*--voxel-size"):
        read_info(store)
    assert read_info(store, voxel_size=8.0).grid.voxel_size == 8.0


def test_scales_of_level_and_image_multiply_and_translations_are_left_out(tmp_path):
    moves = [*scale(5.0, 5.0, 5.0), {"type": "translation", "translation": [2.5, 2.5, 2.5]}]
    store = one_level(tmp_path / "a.zarr", moves=moves, coordinateTransformations=scale(2.0, 2.0, 2.0))
    assert read_info(store).grid.voxel_size == 10.0
    assert read_info(store).grid.origin == (0.0, 0.0, 0.0)


def test_a_scale_that_contradicts_the_number_of_voxels_does_not_count(tmp_path):
    store = pyramid(tmp_path / "a.zarr", sizes=(10.0, 10.0, 10.0))
    with pytest.warns(
        CetpickWarning, match=r"level 1 does not fit its size: 10, 10, 10 A along z, y, x, but 20, 20, 20"
    ):
        info = read_info(store / "1")
    assert info.grid.voxel_size == 20.0


def test_levels_of_odd_sizes_keep_their_scale(tmp_path):
    fine, coarse = np.ones((5, 7, 9)), np.ones((2, 3, 4))
    levels = {"0": scale(10, 10, 10), "1": scale(20, 20, 20)}
    store = write_store(tmp_path / "a.zarr", {"0": fine, "1": coarse}, metadata(levels))
    assert read_info(store / "1").grid.voxel_size == 20.0


def test_single_channels_and_times_are_dropped(tmp_path):
    store = one_level(tmp_path / "a.zarr", VOXELS[None, None], axes="tczyx")
    np.testing.assert_array_equal(read_tomogram(store).data, VOXELS)
    with pytest.raises(InputError, match=r"axes c, z, y, x of 2, 6, 8, 10"):
        read_info(one_level(tmp_path / "b.zarr", np.stack([VOXELS, VOXELS]), axes="czyx"))


def test_other_orders_of_the_axes_are_turned_and_said(tmp_path):
    store = one_level(tmp_path / "a.zarr", VOXELS.T, axes="xyz", moves=scale(10.0, 11.0, 12.0))
    with pytest.warns(CetpickWarning) as caught:
        tomogram = read_tomogram(store)
    messages = [str(warning.message) for warning in caught]
    assert any("axes x, y, z in the metadata, transposed" in message for message in messages)
    assert any("10, 11, 12 A" in message for message in messages)
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert tomogram.info.grid.voxel_size == 10.0


def test_a_store_without_metadata_needs_a_voxel_size(tmp_path):
    group = write_store(tmp_path / "a.zarr", {"0": VOXELS, "1": VOXELS[::2]}, None)
    bare = tmp_path / "b.zarr"
    zarr.create_array(bare, data=VOXELS, zarr_format=3)
    for path, shape in ((group, (6, 8, 10)), (group / "1", (3, 8, 10)), (bare, (6, 8, 10))):
        with pytest.raises(InputError, match=r"no scale of level[\s\S]*--voxel-size"):
            read_info(path)
        assert read_tomogram(path, voxel_size=8.0).data.shape == shape


def test_chunks_that_are_not_stored_are_counted_and_filled(tmp_path):
    data = VOXELS.astype(np.float32)
    data[:3] = 7.0
    store = write_store(
        tmp_path / "a.zarr", {"0": data}, metadata({"0": scale(10, 10, 10)}), chunks=(3, 4, 5), fill_value=7
    )
    with pytest.warns(CetpickWarning, match="4 of 8 chunks are not stored, their voxels count as 7"):
        tomogram = read_tomogram(store)
    np.testing.assert_array_equal(tomogram.data, data)
    for chunk in (store / "0").glob("1.*"):
        chunk.unlink()
    (store / "0" / ".DS_Store").write_text("no chunk")
    with pytest.raises(InputError, match=r"hardly any voxels[\s\S]*8 chunks"):
        read_info(store)


def test_shards_count_as_chunks_do(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", shape=(6, 8, 10), chunks=(3, 2, 5), shards=(3, 4, 10), dtype="f4")[...] = VOXELS
    group.attrs["ome"] = {"version": "0.5", "multiscales": [metadata({"0": scale(10, 10, 10)})]}
    np.testing.assert_array_equal(read_tomogram(tmp_path / "a.zarr").data, VOXELS)
    (tmp_path / "a.zarr/0/c/0/0/0").unlink()
    with pytest.warns(CetpickWarning, match="1 of 4 chunks are not stored"):
        read_info(tmp_path / "a.zarr")


def test_sizes_that_no_tomogram_has_are_refused_before_they_take_memory(tmp_path):
    store = one_level(tmp_path / "a.zarr")
    array = store / "0" / ".zarray"
    whole = json.loads(array.read_text())
    for changed, match in (
        ({"shape": [60000, 60000, 60000]}, "hardly any voxels"),
        ({"shape": [60000, 60000, 60000], "chunks": [60000, 60000, 60000]}, "cannot be read|cannot keep working data"),
        ({"shape": [6, 8, 10**9]}, "not a volume"),
        ({"shape": [6, 8, 1]}, "not a volume"),
        ({"shape": [8, 10]}, "cannot be read|not a volume"),
        ({"dtype": "|b1", "fill_value": False}, "voxels of type bool"),
        ({"shape": "large"}, "cannot be read"),
    ):
        array.write_text(json.dumps({**whole, **changed}))
        with pytest.raises(InputError, match=match):
            read_tomogram(store)


@pytest.mark.parametrize(
    "multiscales",
    [
        [], [{}], ["no"], {}, 7, None, [{"datasets": []}], [{"datasets": [{}]}],
        [{"datasets": [{"path": "0"}], "axes": 3}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{}]}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": ["a"]}]}]}],
    ],
)  # fmt: skip
def test_metadata_of_another_form_are_input_errors(tmp_path, multiscales):
    store = one_level(tmp_path / "a.zarr")
    (store / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
    with pytest.raises(InputError, match="OME metadata cannot be used"):
        read_info(store)


def test_what_the_metadata_list_has_to_be_there(tmp_path):
    store = pyramid(tmp_path / "a.zarr")
    shutil.rmtree(store / "1")
    assert read_info(store).grid.voxel_size == 10.0
    with pytest.raises(InputError, match="no such file"):
        read_info(store / "1")
    shutil.rmtree(store / "0")
    with pytest.raises(InputError, match=r"holds no image[\s\S]*an array 0"):
        read_info(store)


def test_folders_that_are_no_image(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "folder").mkdir()
    for path, match in ((tmp_path / "empty.zarr", "cannot be read"), (tmp_path / "folder", "a folder")):
        with pytest.raises(InputError, match=match):
            read_info(path)
    (tmp_path / "file.zarr").write_text("no folder")
    with pytest.raises(InputError, match="not an MRC file"):
        read_info(tmp_path / "file.zarr")


def test_several_images_are_said(tmp_path):
    store = one_level(tmp_path / "a.zarr")
    attributes = json.loads((store / ".zattrs").read_text())
    (store / ".zattrs").write_text(json.dumps({"multiscales": attributes["multiscales"] * 2}))
    with pytest.warns(CetpickWarning, match="1 more images in it are not read"):
        read_info(store)


# --- names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/TS_01.zarr", "TS_01"),
        ("TS_01.ome.zarr", "TS_01"),
        ("TS_01.OME.ZARR/", "TS_01"),
        ("TS_01.zarr/1", "TS_01"),
        ("TS_01.zarr/scale1/image", "TS_01"),
        ("x.zarr/TS_01.mrc", "TS_01"),
        ("ExperimentRuns/TS_01/VoxelSpacing10.000/wbp.zarr", "TS_01"),
        ("ExperimentRuns/TS_01/VoxelSpacing10.000/wbp.zarr/1", "TS_01"),
        ("10000/TS_026/Reconstructions/VoxelSpacing13.480/Tomograms/100/TS_026.zarr", "TS_026"),
        ("VoxelSpacing10.000/TS_01.mrc", "TS_01"),
        ("/VoxelSpacing10.000/wbp.zarr", "wbp"),
        ("tomograms/TS_01__bin4.hdf", "TS_01__bin4"),
        ("TS_01.h5", "TS_01"),
    ],
)
def test_names(path, name):
    assert tomogram_name(path) == name


def copick_project(folder):
    """Two runs as copick lays them out, the file name being that of the reconstruction."""
    return [
        pyramid(folder / f"ExperimentRuns/{run}/VoxelSpacing10.000/wbp.zarr", zarr_format=zarr_format)
        for run, zarr_format in (("TS_01", 2), ("TS_02", 3))
    ]


def test_runs_of_copick_have_names_of_their_own(tmp_path, monkeypatch):
    stores = copick_project(tmp_path)
    infos, failures = open_inputs(stores)
    assert ([info.name for info in infos], failures) == (["TS_01", "TS_02"], [])
    monkeypatch.chdir(stores[1].parent)
    assert read_info("wbp.zarr").name == "TS_02"
    infos, _ = open_inputs([stores[0], stores[0].parent / "wbp.zarr/1"][1:], names="parent")
    assert infos[0].name == "VoxelSpacing10.000_TS_01"
    with pytest.raises(InputError, match="two tomograms are called TS_01"):
        open_inputs([stores[0], stores[0] / "1"])


def test_picks_in_stores_find_their_tomogram_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    infos, _ = open_inputs(path.relative_to(tmp_path) for path in copick_project(tmp_path))
    table = Coordinates.from_points([[1.0, 2.0, 3.0]]).table
    write_coordinates("particles.star", [(info, table) for info in infos], format="relion31")
    again, _ = open_inputs(info.path.absolute() for info in infos)
    records = read_coordinates("particles.star", tomograms=again)
    assert [record.tomogram for record in records] == ["TS_01", "TS_02"]


# --- EMAN2


@pytest.mark.usefixtures("in_memory_and_files")
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 8, 10), "compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_files_of_eman2_are_read_as_the_same_data_in_mrc(tmp_path, dtype, options):
    data = VOXELS.astype(dtype)
    path = write_hdf(tmp_path / "TS_01__bin4.hdf", data, **options)
    write_mrc(tmp_path / "TS_01__bin4.mrc", data, voxel_size=10.0)
    tomogram, same = read_tomogram(path), read_tomogram(tmp_path / "TS_01__bin4.mrc")
    np.testing.assert_array_equal(tomogram.data, data)
    np.testing.assert_array_equal(tomogram.data, same.data)
    assert tomogram.data.dtype == dtype
    assert not tomogram.data.flags.writeable
    assert (tomogram.info.grid, tomogram.info.name) == (same.info.grid, same.info.name)
    header = tomogram.info.header
    assert header["format"] == "EMAN2 HDF5"
    assert (header["renderbits"], header["rendermin"], header["rendermax"]) == (8, -3, 4)


def test_hdf5_is_known_by_content_too(tmp_path):
    assert read_info(write_hdf(tmp_path / "tomogram")).header["format"] == "EMAN2 HDF5"


def test_labels_of_eman2_find_their_tomogram(tmp_path):
    infos, _ = open_inputs([write_hdf(tmp_path / f"{name}__bin4.hdf") for name in ("TS_01", "TS_02")])
    found = named_after(Path("info/TS_02_info.json"), infos)
    assert found is infos[1]


@pytest.mark.parametrize("apix", [None, 0.0, 1.0, float("nan")])
def test_an_unusable_apix_is_cured_by_the_option(tmp_path, apix):
    path = write_hdf(tmp_path / "a.hdf", apix=apix)
    with pytest.raises(InputError, match=r"voxel size[\s\S]*--voxel-size"):
        read_info(path)
    assert read_info(path, voxel_size=8.0).grid.voxel_size == 8.0


def test_an_apix_of_another_kind_is_none(tmp_path):
    path = write_hdf(tmp_path / "a.hdf")
    for value in ("10", np.array([1.0, 2.0])):
        with h5py.File(path, "a") as file:
            file["MDF/images/0"].attrs["EMAN.apix_x"] = value
        with pytest.raises(InputError, match=r"no usable voxel size[\s\S]*0 A"):
            read_info(path)


def test_stacks_and_other_hdf5_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"stack of images[\s\S]*3 images"):
        read_info(write_hdf(tmp_path / "particles.hdf", images=3))
    with pytest.raises(InputError, match=r"not a volume[\s\S]*10 x 8"):
        read_info(write_hdf(tmp_path / "image.hdf", VOXELS[0].astype(np.float32)))
    with pytest.raises(InputError, match="voxels of type complex64"):
        read_info(write_hdf(tmp_path / "complex.hdf", VOXELS.astype(np.complex64)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = VOXELS
    with pytest.raises(InputError, match=r"no tomogram of EMAN2[\s\S]*MDF/images/0/image[\s\S]*volume"):
        read_info(tmp_path / "other.h5")


def test_chunks_that_eman2_did_not_store(tmp_path):
    path = tmp_path / "a.hdf"
    write_hdf(path)
    for written, match in ((4, None), (0, "hardly any voxels")):
        with h5py.File(path, "a") as file:
            image = file["MDF/images/0"]
            del image["image"]
            voxels = image.create_dataset("image", VOXELS.shape, "u1", chunks=(1, 8, 10))
            if written:
                voxels[:written] = VOXELS[:written]
        if match:
            with pytest.raises(InputError, match=match):
                read_info(path)
        else:
            with pytest.warns(CetpickWarning, match="2 of 6 chunks are not stored, their voxels count as 0"):
                tomogram = read_tomogram(path)
            assert not tomogram.data[written:].any()


@pytest.mark.parametrize(
    "content", [b"", b"text" * 20, bytes(3000), b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"no" * 900]
)
def test_garbage_called_hdf_is_an_input_error(tmp_path, content):
    (tmp_path / "a.hdf").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_info(tmp_path / "a.hdf")


def test_missing_hdf_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_info(tmp_path / "a.hdf")
    (tmp_path / "b.hdf").mkdir()
    with pytest.raises(InputError, match="a folder"):
        read_info(tmp_path / "b.hdf")


# --- damage


def read_or_refuse(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)
        try:
            tomogram = read_tomogram(path)
        except InputError:
            return
    assert tomogram.data.shape == tomogram.info.grid.shape


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of each kind with its files, those with metadata several times."""
    found = {}
    for zarr_format in (2, 3):
        store = pyramid(tmp_path_factory.mktemp("store") / "a.zarr", zarr_format=zarr_format, chunks=(3, 4, 5))
        files = sorted(file for file in store.rglob("*") if file.is_file())
        found[zarr_format] = store, [file for file in files if file.name in METADATA] * 3 + files
    return found


@settings(max_examples=150, deadline=None)
@given(
    zarr_format=st.sampled_from([2, 3]),
    number=st.integers(0, 999),
    changes=st.dictionaries(st.integers(0, 1999), st.integers(0, 255) | st.sampled_from(b'0129-e",{}[]'), max_size=3),
    length=st.none() | st.integers(0, 1999),
)
def test_damaged_stores_are_read_or_refused(stores, zarr_format, number, changes, length):
    store, files = stores[zarr_format]
    file = files[number % len(files)]
    content = file.read_bytes()
    damaged = bytearray(content)
    for offset, value in changes.items():
        damaged[offset % len(content)] = value
    file.write_bytes(damaged[:length])
    try:
        read_or_refuse(store)
    finally:
        file.write_bytes(content)


@pytest.fixture(scope="module")
def hdf_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hdf")
    return [write_hdf(folder / f"{n}.hdf", **how) for n, how in enumerate(({}, {"compression": "gzip"}))]


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, 1),
    changes=st.dictionaries(st.integers(0, 20000), st.integers(0, 255), max_size=4),
    length=st.none() | st.integers(0, 20000),
)
def test_damaged_hdf_files_are_read_or_refused(hdf_files, number, changes, length):
    content = hdf_files[number].read_bytes()
    damaged = bytearray(content)
    for offset, value in changes.items():
        damaged[offset % len(content)] = value
    path = hdf_files[number].with_name("damaged.hdf")
    path.write_bytes(damaged[:length])
    start = time.monotonic()
    read_or_refuse(path)
    assert time.monotonic() - start < 20  # two processes, on any machine; they compute for at most 0.8 s each


def test_an_hdf_file_that_crashes_hdf5_is_an_input_error(tmp_path):
    path = write_hdf(tmp_path / "a.hdf", chunks=(2, 4, 5))
    content = bytearray(path.read_bytes())
    node = content.index(b"TREE")
    level, child = node + 5, node + 32
    content[level] = 1
    content[child : child + 8] = node.to_bytes(8, "little")  # the node becomes its own child
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read[\s\S]*damaged file in which HDF5 breaks down"):
        read_info(path)


def test_an_hdf_file_in_which_hdf5_loops_is_an_input_error(tmp_path, monkeypatch):
    path = write_hdf(tmp_path / "a.hdf")
    (tmp_path / "looping").mkdir()
    (tmp_path / "looping" / "h5py.py").write_text("while True: pass\n")  # for the process that reads
    monkeypatch.syspath_prepend(tmp_path / "looping")
    start = time.process_time()
    with pytest.raises(InputError, match=r"a\.hdf: cannot be read[\s\S]*damaged file in which HDF5 finds no end"):
        read_info(path)
    assert time.process_time() - start < 1  # what reads waits, and does not compute


# --- without the packages, and from the command line


@pytest.mark.parametrize(("package", "extra"), [("zarr", "zarr"), ("h5py", "hdf")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch, package, extra):
    path = pyramid(tmp_path / "a.zarr") if package == "zarr" else write_hdf(tmp_path / "a.hdf")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"not installed: {package}[\s\S]*pip install 'cetpick\[{extra}\]'") as caught:
        read_info(path)
    assert caught.value.file == path


def test_info_of_both(cetpick, tmp_path):
    store, file = pyramid(tmp_path / "TS_01.zarr"), write_hdf(tmp_path / "TS_02__bin4.hdf")
    code, out, err = cetpick("info", store, store / "1", file, "--json")
    assert (code, err) == (0, "")
    first, second, third = json.loads(out)
    assert [item["name"] for item in (first, second, third)] == ["TS_01", "TS_01", "TS_02__bin4"]
    assert [item["voxel_size"] for item in (first, second, third)] == [10.0, 20.0, 10.0]
    assert [item["size"] for item in (first, second, third)] == [[10, 8, 6], [5, 4, 3], [10, 8, 6]]
    assert [item["kind"] for item in (first, second, third)] == ["tomogram"] * 3
    code, out, _ = cetpick("info", store)
    assert code == 0
    assert "OME-Zarr" in out


def test_info_of_damaged_ones_is_an_error_without_traceback(cetpick, tmp_path):
    store, file = pyramid(tmp_path / "a.zarr"), write_hdf(tmp_path / "b.hdf")
    (store / ".zattrs").write_text('{"multiscales": ')
    file.write_bytes(file.read_bytes()[:900])
    for path in (store, file):
        code, out, err = cetpick("info", path)
        assert (code, out) == (2, "")
        assert f"{path}: cannot be read" in err
        assert "Traceback" not in err


def test_coordinates_convert_with_a_store_as_their_tomogram(cetpick, tmp_path):
    store = pyramid(tmp_path / "TS_01.zarr")
    (tmp_path / "TS_01.csv").write_text("x,y,z\n1,2,3\n")
    code, _, err = cetpick("convert", tmp_path / "TS_01.csv", tmp_path / "TS_01.mod", "--tomogram", store, "-d", 40)
    assert (code, err) == (0, "")
    (record,) = read_coordinates(tmp_path / "TS_01.mod", tomograms=[read_info(store)])
    np.testing.assert_allclose(record.xyz, [[1, 2, 3]], atol=1e-3)


def test_the_run_record_holds_size_and_hash_of_a_store(tmp_path):
    store = pyramid(tmp_path / "a.zarr")

    def entry():
        record = RunRecord("pick", {})
        record.add_inputs([store])
        return record.values["inputs"][str(store)]

    first = entry()
    files = [file for file in store.rglob("*") if file.is_file()]
    assert first["bytes"] == sum(file.stat().st_size for file in files)
    assert first == entry()
    hashes = {first["sha256"]}
    for file in (store / ".zattrs", store / "0" / "0.0.0"):
        content = file.read_bytes()
        file.write_bytes(content.replace(content[-9:-8], b"#"))
        hashes.add(entry()["sha256"])
    (store / "0" / "0.0.0").rename(store / "0" / "0.0.1")
    hashes.add(entry()["sha256"])
    assert len(hashes) == 4


def test_no_output_goes_into_a_store(tmp_path):
    store = pyramid(tmp_path / "a.zarr")
    for folder in (store, store / "picks"):
        with pytest.raises(InputError, match=r"a\.zarr: [\s\S]*Zarr store"):
            prepare_output(folder, ["run.json"], overwrite=True)
