"""IMOD models: files by IMOD 4.8.2, files for imodmodel, and damaged ones."""

import contextlib
import struct
import time
from dataclasses import replace
from pathlib import Path

import imodmodel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import imod_to_voxel, voxel_to_imod
from cetpick.io.imod import coordinates_to_mod, mod_to_coordinates, read_mod, write_mod
from cetpick.records import Grid, TomogramInfo

DATA = Path(__file__).parent / "data" / "imod"
POINTS = [[22.5, 8.5, 3], [5.5, 2.5, 9], [11.25, 10.75, 6.5]]
SCORES = [0.9, 0.25, 0.5]


def tomogram(*, voxel_size=10.0, origin=(0.0, 0.0, 0.0), size=(30, 20, 12), header=True):
    grid = Grid(shape=size[::-1], voxel_size=voxel_size, origin=origin)
    return TomogramInfo(
        name="volume", path=Path("volume.mrc"), grid=grid, header_voxel_size=voxel_size if header else None
    )


def all_points(model):
    return [contour.points.tolist() for item in model.objects for contour in item.contours]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("scattered", [POINTS]),
        ("scattered_scores", [POINTS]),
        ("scattered_origin", [POINTS]),
        ("no_minx", [POINTS]),
        ("flagged_flip_yz", [[[10.5, 5, 20.5], [30.25, 6.5, 40.75]]]),
        ("imodtrans_Y", [[[22.5, 3, 8.5], [5.5, 9, 2.5], [11.25, 6.5, 10.75]]]),
        ("objects_contours", [[[10, 11, 2], [12, 11, 3]], [[20, 5, 4]], [[7, 8, 9]]]),
    ],
)
def test_reads_what_model2point_prints(name, points):
    assert all_points(read_mod(DATA / f"{name}.mod")) == points


def test_reads_scores_radius_and_the_volume_it_was_made_on():
    model = read_mod(DATA / "scattered_scores.mod")
    np.testing.assert_allclose(model.objects[0].contours[0].scores, SCORES, rtol=1e-6)
    assert model.objects[0].radius == 5
    assert model.size == (30, 20, 12)
    assert model.minx.scale == (10, 10, 10)
    assert read_mod(DATA / "scattered_origin.mod").minx.translation == (-100, 0, 50)
    assert read_mod(DATA / "no_minx.mod").minx is None


def test_writes_the_bytes_that_point2model_writes(tmp_path):
    write_mod(tmp_path / "ours.mod", POINTS, size=(30, 20, 12), voxel_size=10.0, radius=5, scores=SCORES)
    ours = (tmp_path / "ours.mod").read_bytes()
    theirs = (DATA / "scattered_scores.mod").read_bytes()
    assert ours[:8] + ours[136:152] + ours[156:] == theirs[:8] + theirs[136:152] + theirs[156:]
    assert struct.unpack(">I", ours[152:156])[0] == 0b111111 << 10


def test_points_become_voxels_with_object_contour_score_and_radius():
    read = mod_to_coordinates(DATA / "objects_contours.mod", tomogram())
    assert read.xyz.tolist() == [[9.5, 10.5, 2], [11.5, 10.5, 3], [19.5, 4.5, 4], [6.5, 7.5, 9]]
    assert read.table["object"].tolist() == [1, 1, 1, 2]
    assert read.table["contour"].tolist() == [1, 1, 2, 1]
    assert set(read.table["class"]) == {"particle"}
    assert "score" not in read.table
    assert read.radius is None
    scored = mod_to_coordinates(DATA / "scattered_scores.mod", tomogram())
    np.testing.assert_allclose(scored.table["score"], SCORES, rtol=1e-6)
    assert scored.radius == 50
    assert scored.voxel_size == 10


def test_model_of_another_volume_moves_as_in_imod(tmp_path):
    """imodtrans -i: index 10.5 at 10 A is 5.25 at 20 A, and 0.5 where the origin is -100 A."""
    write_mod(tmp_path / "a.mod", [[10.5, 10.5, 10.5]], size=(30, 20, 12), voxel_size=10.0)
    for other, index in ((tomogram(voxel_size=20.0), 5.25), (tomogram(origin=(-100.0,) * 3), 0.5)):
        with pytest.warns(CetpickWarning, match="moved as 3dmod does"):
            read = mod_to_coordinates(tmp_path / "a.mod", other)
        np.testing.assert_allclose(voxel_to_imod(read.xyz), [[index] * 3])


def test_model_without_minx_counts_voxels_of_any_volume():
    read = mod_to_coordinates(DATA / "no_minx.mod", tomogram(voxel_size=3.0, origin=(7.0, 7.0, 7.0)))
    np.testing.assert_array_equal(read.xyz, imod_to_voxel(POINTS))


def test_unknown_header_voxel_size_keeps_indices():
    with pytest.warns(CetpickWarning, match="is unknown"):
        read = mod_to_coordinates(DATA / "scattered_origin.mod", tomogram(voxel_size=5.0, header=False))
    np.testing.assert_array_equal(read.xyz, imod_to_voxel(POINTS))


@pytest.mark.parametrize(("drawn", "shown"), [(1.0, 10.0), (10.0, 1.0)])
def test_a_header_without_a_voxel_size_is_no_scale(tmp_path, drawn, shown):
    """A denoised copy, say, whose header has 1 A."""
    write_mod(tmp_path / "a.mod", POINTS, size=(30, 20, 12), voxel_size=drawn)
    with pytest.warns(CetpickWarning, match="is unknown"):
        read = mod_to_coordinates(tmp_path / "a.mod", tomogram(voxel_size=shown))
    np.testing.assert_allclose(read.xyz, imod_to_voxel(POINTS))
    # a volume of other sides was binned
    write_mod(tmp_path / "b.mod", POINTS, size=(60, 40, 24), voxel_size=drawn)
    with pytest.warns(CetpickWarning, match="moved as 3dmod does"):
        mod_to_coordinates(tmp_path / "b.mod", tomogram(voxel_size=shown))


def test_a_header_of_1_gives_way_to_what_the_user_says(tmp_path):
    """Drawn at 10 A; the volume is binned by 2, and its header was not set."""
    write_mod(tmp_path / "a.mod", [[10.5, 10.5, 10.5]], size=(60, 40, 24), voxel_size=10.0)
    binned = tomogram(voxel_size=1.0)
    told = replace(binned, grid=replace(binned.grid, voxel_size=20.0))
    with pytest.warns(CetpickWarning, match="moved as 3dmod does"):
        read = mod_to_coordinates(tmp_path / "a.mod", told)
    np.testing.assert_allclose(voxel_to_imod(read.xyz), [[5.25] * 3])
    # of one size they are the same voxels, whatever anybody says
    write_mod(tmp_path / "b.mod", POINTS, size=(30, 20, 12), voxel_size=10.0)
    with pytest.warns(CetpickWarning, match="is unknown"):
        read = mod_to_coordinates(tmp_path / "b.mod", told)
    np.testing.assert_allclose(read.xyz, imod_to_voxel(POINTS))


def test_minx_is_what_the_header_says_not_what_the_user_says(tmp_path):
    grid = Grid(shape=(12, 20, 30), voxel_size=10.0, origin=(1.0, 2.0, 3.0))
    info = TomogramInfo(name="t", path=Path("t.mrc"), grid=grid, header_voxel_size=1.0)
    coordinates_to_mod(tmp_path / "a.mod", info, pd.DataFrame([[1.0, 2.0, 3.0]], columns=["x", "y", "z"]), radius=70)
    model = read_mod(tmp_path / "a.mod")
    assert model.minx.scale == (1, 1, 1)
    assert model.minx.translation == (1, 2, 3)
    assert model.objects[0].radius == 7
    assert mod_to_coordinates(tmp_path / "a.mod", info).xyz.tolist() == [[1, 2, 3]]


def test_one_object_a_class(tmp_path):
    table = pd.DataFrame({"x": [1.0, 2, 3], "y": 1.0, "z": 1.0, "class": ["ribosome", "proteasome", "ribosome"]})
    coordinates_to_mod(tmp_path / "a.mod", tomogram(), table.assign(score=[0.3, 0.2, 0.1]))
    model = read_mod(tmp_path / "a.mod")
    assert [item.name for item in model.objects] == ["ribosome", "proteasome"]
    assert all_points(model) == [[[1.5, 1.5, 1], [3.5, 1.5, 1]], [[2.5, 1.5, 1]]]
    np.testing.assert_allclose(model.objects[0].contours[0].scores, [0.3, 0.1], rtol=1e-6)


@pytest.mark.parametrize(("names", "classes"), [("aab", ["a", "a", "b"]), (["a", "", "b"], ["particle"] * 3)])
def test_objects_of_one_name_are_one_class(tmp_path, names, classes):
    write_mod(tmp_path / "a.mod", POINTS, size=(30, 20, 12), voxel_size=10.0, classes="xyz")
    data = (tmp_path / "a.mod").read_bytes()
    for old, new in zip("xyz", names, strict=True):
        data = data.replace(b"OBJT" + old.encode(), b"OBJT" + new.encode().ljust(1, b"\0"))
    (tmp_path / "a.mod").write_bytes(data)
    assert mod_to_coordinates(tmp_path / "a.mod", tomogram()).table["class"].tolist() == classes


def test_no_points_at_all(tmp_path):
    write_mod(tmp_path / "a.mod", np.empty((0, 3)), size=(30, 20, 12), voxel_size=10.0, scores=[])
    assert all_points(read_mod(tmp_path / "a.mod")) == [[]]
    assert len(mod_to_coordinates(tmp_path / "a.mod", tomogram())) == 0


def insert(data, before, chunk):
    at = data.index(before)
    return data[:at] + chunk + data[at:]


def test_sizes_unknown_chunks_meshes_and_garbage_after_the_name(tmp_path):
    data = (DATA / "scattered.mod").read_bytes()
    data = insert(data, b"IMAT", b"SIZE" + struct.pack(">i3f", 12, 2.5, -1, 4))
    data = insert(data, b"IMAT", b"LABL" + struct.pack(">i", 5) + b"IEOFx")
    data = insert(data, b"MINX", b"MESH" + struct.pack(">iiIhh", 1, 2, 0, 0, 0) + bytes(12 + 8))
    data = data[:244] + b"bead\0\xff\xfe" + data[251:]
    (tmp_path / "a.mod").write_bytes(data)
    model = read_mod(tmp_path / "a.mod")
    assert model.objects[0].name == "bead"
    np.testing.assert_array_equal(model.objects[0].contours[0].sizes, [2.5, np.nan, 4])
    assert all_points(model) == [POINTS]


def test_scores_as_integers_taken_back_and_of_whole_contours(tmp_path):
    """Findbeads3d stores one value a contour, in the object's chunk; bit 5 of the flags takes a value back."""
    items = struct.pack(">hHii hHif", 10, 0, 0, 7, 10, 4 | 1 << 5, 1, 3.0)
    data = insert((DATA / "scattered.mod").read_bytes(), b"IMAT", b"COST" + struct.pack(">i", len(items)) + items)
    contour = struct.pack(">hHif hHif", 10, 4, 0, 0.5, 10, 4 | 1 << 6, 0, 9.0)
    data = insert(data, b"MINX", b"OBST" + struct.pack(">i", len(contour)) + contour)
    (tmp_path / "a.mod").write_bytes(data)
    assert read_mod(tmp_path / "a.mod").objects[0].contours[0].scores.tolist() == [7, 0.5, 0.5]


def test_imodmodel_reads_our_points(tmp_path):
    write_mod(tmp_path / "a.mod", POINTS, size=(30, 20, 12), voxel_size=13.48, origin=(1.0, 2.0, 3.0), scores=SCORES)
    np.testing.assert_allclose(imodmodel.read(tmp_path / "a.mod")[["x", "y", "z"]].to_numpy(), POINTS, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")
def test_we_read_the_points_of_imodmodel(tmp_path):
    imodmodel.write(pd.DataFrame(POINTS, columns=["x", "y", "z"]), tmp_path / "a.mod")
    assert all_points(read_mod(tmp_path / "a.mod")) == [POINTS]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(*[st.integers(1, 8192)] * 3),
    voxel_size=st.floats(0.1, 100),
    origin=st.tuples(*[st.floats(-1e5, 1e5)] * 3),
    where=st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), min_size=1, max_size=5),
)
@example(size=(1, 1, 1), voxel_size=0.9999999999999998, origin=(0.0, 0.0, 0.0), where=[(0.0, 0.0, 0.0)])
def test_write_read(tmp_path, size, voxel_size, origin, where):
    info = tomogram(voxel_size=voxel_size, origin=origin, size=size)
    points = np.array(where) * size - 0.5
    coordinates_to_mod(tmp_path / "a.mod", info, pd.DataFrame(points, columns=["x", "y", "z"]))
    np.testing.assert_allclose(mod_to_coordinates(tmp_path / "a.mod", info).xyz, points, atol=1e-3, rtol=0)


def read_quickly(path):
    """Read, and accept nothing but a model or an InputError, at once."""
    start = time.perf_counter()
    with contextlib.suppress(InputError):
        read_mod(path)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", ["scattered_scores", "objects_contours"])
def test_truncation_is_an_error(tmp_path, name):
    data = (DATA / f"{name}.mod").read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        (tmp_path / "a.mod").write_bytes(data[:length])
        with pytest.raises(InputError):
            read_mod(tmp_path / "a.mod")


@pytest.mark.parametrize("at", [148, 372, 424, 480])
@pytest.mark.parametrize("count", [-1, -(2**31), 2**31 - 1, 2**27])
def test_impossible_counts_are_errors(tmp_path, at, count):
    """Objects, contours of the object, points of the contour, bytes of the scores."""
    data = bytearray((DATA / "scattered_scores.mod").read_bytes())
    struct.pack_into(">i", data, at, count)
    (tmp_path / "a.mod").write_bytes(data)
    with pytest.raises(InputError):
        read_mod(tmp_path / "a.mod")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.integers(0, 8 * 648 - 1), min_size=1, max_size=8))
def test_flipped_bits(tmp_path, flips):
    data = bytearray((DATA / "scattered_scores.mod").read_bytes())
    for flip in flips:
        data[flip // 8] ^= 1 << flip % 8
    (tmp_path / "a.mod").write_bytes(data)
    read_quickly(tmp_path / "a.mod")


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"IMODV1.2", b"IMODV1.2" + bytes(232)]))
def test_random_bytes(tmp_path, data, start):
    (tmp_path / "a.mod").write_bytes(start + data)
    read_quickly(tmp_path / "a.mod")


def test_not_a_model_and_no_file(tmp_path):
    (tmp_path / "a.mod").write_bytes(b"IMODV9.9" + bytes(300))
    with pytest.raises(InputError, match="version"):
        read_mod(tmp_path / "a.mod")
    with pytest.raises(InputError, match="cannot be read"):
        read_mod(tmp_path / "none.mod")
