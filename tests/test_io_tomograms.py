"""Tomograms in: files made here byte by byte, by mrcfile and emfile, and by IMOD and RELION 5 (tests/data)."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import os
import re
import struct
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import emfile
import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.atomic import replacing
from cetpick.io.mrc import write_mrc
from cetpick.io.tomograms import list_inputs, open_inputs, read_info, read_tomogram, tomogram_name
from cetpick.io.tomograms_star import read_tomograms_star
from cetpick.records import Region, RelionTomogram

DATA = Path(__file__).parent / "data"
VOLUMES = DATA / "imod_volumes"

SHAPE = (4, 5, 6)
VOXELS = np.arange(120, dtype=np.float32).reshape(SHAPE)


def mrc_bytes(data=VOXELS, *, mode=2, voxel_size=10.0, order="<", **fields):
    """An MRC file by the MRC2014 table: fields are written at the offsets of their names below, after all others."""
    offsets = {
        "nx": (0, "i"), "ny": (4, "i"), "nz": (8, "i"), "mode": (12, "i"), "sampling": (28, "3i"), "cell": (40, "3f"),
        "mapcrs": (64, "3i"), "dmin": (76, "f"), "dmax": (80, "f"), "ispg": (88, "i"), "nsymbt": (92, "i"),
        "exttyp": (104, "4s"), "imod": (152, "2i"), "origin": (196, "3f"), "map": (208, "4s"), "stamp": (212, "4s"),
        "rms": (216, "f"), "nlabl": (220, "i"), "label": (224, "80s"),
    }  # fmt: skip
    nz, ny, nx = data.shape
    stamp = {"<": b"DD\0\0", ">": b"\x11\x11\0\0"}[order]
    values = {
        "nx": nx, "ny": ny, "nz": nz, "mode": mode, "sampling": (nx, ny, nz), "mapcrs": (1, 2, 3), "ispg": 1,
        "cell": (nx * voxel_size, ny * voxel_size, nz * voxel_size), "map": b"MAP ", "stamp": stamp, **fields,
    }  # fmt: skip
    header = bytearray(1024)
    for name, value in values.items():
        offset, code = offsets[name]
        struct.pack_into(order + code, header, offset, *(value if isinstance(value, tuple) else (value,)))
    extended = b"\x07" * values.get("nsymbt", 0)
    return bytes(header) + extended + data.astype(data.dtype.newbyteorder(order)).tobytes()


@pytest.fixture
def write(tmp_path):
    def write(content, name="TS_01.mrc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def read_warned(path, match, **keywords):
    """Read a tomogram; one of the warnings must match, and each names the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tomogram = read_tomogram(path, **keywords)
    assert all(warning.category is CetpickWarning for warning in caught)
    messages = [str(warning.message) for warning in caught]
    assert all(message.startswith(f"{path}: ") for message in messages)
    assert any(re.search(match, message) for message in messages), messages
    return tomogram


# --- names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/TS_01.mrc", "TS_01"),
        ("rec_TS_01.mrc", "TS_01"),
        ("TS_01.rec", "TS_01"),
        ("TS_01.map.gz", "TS_01"),
        ("TS_01.MRC.bz2", "TS_01"),
        ("TS_01.preali", "TS_01"),
        ("TS_01.mrcs", "TS_01"),
        ("TS_01.ccp4", "TS_01"),
        ("TS_01.em", "TS_01"),
        ("TS_01.v2.mrc", "TS_01.v2"),
        ("TS_01_rec.mrc", "TS_01_rec"),
        ("TS_01", "TS_01"),
        ("rec_.mrc", "rec_"),
        (".mrc", ".mrc"),
    ],
)
def test_name_is_the_file_name_without_endings_and_rec(path, name):
    assert tomogram_name(path) == name
    assert tomogram_name(Path(path)) == name


# --- voxels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "dtype"), [(0, "int8"), (1, "int16"), (2, "float32"), (6, "uint16"), (12, "float16")])
def test_every_mode_in_both_byte_orders(write, mode, dtype, order):
    voxels = (VOXELS - (60 if mode != 6 else 0)).astype(dtype)
    path = write(mrc_bytes(voxels, mode=mode, order=order, dmin=-60.0, dmax=59.0))
    tomogram = read_tomogram(path)
    np.testing.assert_array_equal(tomogram.data, voxels)
    assert tomogram.data.dtype.newbyteorder("=") == dtype
    assert isinstance(tomogram.data, np.memmap)
    assert not tomogram.data.flags.writeable
    assert tomogram.info.name == "TS_01"
    assert tomogram.info.grid.shape == SHAPE
    assert tomogram.info.grid.voxel_size == 10.0
    assert tomogram.info.header_voxel_size == 10.0
    header = tomogram.info.header
    assert (header["mode"], header["dtype"], header["problems"]) == (mode, dtype, [])
    assert header["byte_order"] == {"<": "little-endian", ">": "big-endian"}[order]


def test_files_of_mrcfile_are_read_as_mrcfile_reads_them(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(VOXELS)
        file.voxel_size = 13.48
    tomogram = read_tomogram(path)
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert tomogram.info.grid.voxel_size == pytest.approx(13.48, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "signed"),
    [
        ({"imod": (1146047817, 1)}, True),
        ({"imod": (1146047817, 0), "dmin": -5.0}, False),
        ({"dmin": -100.0, "dmax": 100.0}, True),
        ({"dmin": 0.0, "dmax": 200.0}, False),
        ({"dmin": -100.0, "dmax": 200.0}, True),  # -low > high - 128
        ({"dmin": -10.0, "dmax": 200.0}, False),
        ({"dmin": 0.0, "dmax": 100.0}, False),
        ({"dmin": 0.0, "dmax": -1.0}, True),  # not known
    ],
)
def test_bytes_are_signed_by_the_rule_of_imod(write, fields, signed):
    raw = np.full((2, 2, 2), 200, np.uint8)
    tomogram = read_tomogram(write(mrc_bytes(raw, mode=0, **fields)))
    assert tomogram.data.dtype == ("int8" if signed else "uint8")
    assert tomogram.data[0, 0, 0] == (-56 if signed else 200)
    assert tomogram.info.header["bytes_signed"] is signed


def test_bytes_of_imod_hold_the_same_grey_values():
    signed, unsigned = (read_tomogram(VOLUMES / f"mode0_{kind}.mrc").data for kind in ("signed", "unsigned"))
    np.testing.assert_array_equal(unsigned.ravel(), np.arange(0, 240, 30))
    np.testing.assert_array_equal(signed.astype(int) + 128, unsigned)


def test_volumes_of_imod_have_their_bright_voxels_where_clip_put_them():
    volume = read_tomogram(VOLUMES / "volume.mrc")
    rotated, flipped = (
        read_warned(VOLUMES / f"volume_{name}.mrc", "looks un-rotated").data for name in ("rotx", "flipyz")
    )
    assert volume.info.grid.size == (30, 20, 12)
    assert volume.info.grid.voxel_size == 10.0
    for (x, y, z), value in (((22, 8, 3), 50), ((5, 2, 9), 40)):
        assert volume.data[z, y, x] == value
        assert rotated[19 - y, z, x] == value
        assert flipped[y, z, x] == value
    assert read_info(VOLUMES / "volume_origin.mrc").grid.origin == (-100.0, 0.0, 50.0)


@pytest.mark.parametrize(
    ("mode", "kind"), [(3, "complex"), (4, "complex"), (101, "4-bit"), (16, "RGB"), (5, "unknown")]
)
def test_modes_without_real_numbers_are_refused(write, mode, kind):
    with pytest.raises(InputError, match=rf"mode {mode} \({kind}"):
        read_info(write(mrc_bytes(mode=mode)))


@pytest.mark.usefixtures("in_memory_and_files")
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("name", ["TS_01.mrc.gz", "TS_01.mrc.bz2", "TS_01.mrc"])
def test_compressed_files_are_known_by_their_content(write, compress, name):
    tomogram = read_tomogram(write(compress(mrc_bytes(nsymbt=32)), name))
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert not tomogram.data.flags.writeable
    assert tomogram.info.name == "TS_01"


@pytest.mark.usefixtures("in_memory_and_files")
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_truncated_compressed_files(write, compress):
    with pytest.raises(InputError, match=r"truncated[\s\S]*480 bytes of voxels[\s\S]*380 bytes"):
        read_tomogram(write(compress(mrc_bytes()[:-100])))
    with pytest.raises(InputError, match="cannot be read"):
        read_tomogram(write(compress(mrc_bytes())[:-30]))
    read_warned(write(compress(mrc_bytes() + b"1")), "bytes after the voxels")


def test_a_compressed_file_that_claims_terabytes_takes_no_memory(write):
    path = write(gzip.compress(mrc_bytes(nx=65535, ny=65535, nz=600)))
    tracemalloc.start()
    with pytest.raises(InputError, match="truncated"):
        read_tomogram(path, voxel_size=10.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


# --- headers


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"map": b"\0\0\0\0"}, r"has b'\\x00\\x00\\x00\\x00' where 'MAP ' should be"),
        ({"stamp": b"\x44\x20\x20\x20"}, "machine stamp 0x44 0x20 0x20 0x20 means nothing; read as little-endian"),
        ({"stamp": b"\0\0\0\0"}, "machine stamp 0x00 0x00 0x00 0x00 means nothing; read as little-endian"),
        ({"stamp": b"\x11\x11\0\0"}, "machine stamp 0x11 0x11 0x00 0x00 means big-endian; read as little-endian"),
        ({"mapcrs": (0, 0, 0)}, "axis order 0 0 0 in the header, which means nothing; read as 1 2 3"),
        ({"origin": (np.nan, 0.0, 0.0)}, "origin nan 0 0 in the header, taken as 0 0 0"),
    ],
)
def test_broken_headers_are_read_and_the_warning_says_what_was_wrong(write, fields, match):
    tomogram = read_warned(write(mrc_bytes(**fields)), match)
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert tomogram.info.grid.voxel_size == 10.0
    assert tomogram.info.grid.origin == pytest.approx((0.0, 0.0, 0.0))
    assert len(tomogram.info.header["problems"]) == 1


def test_big_endian_voxels_with_a_little_endian_stamp(write):
    tomogram = read_warned(write(mrc_bytes(order=">", stamp=b"DD\0\0")), "means little-endian; read as big-endian")
    np.testing.assert_array_equal(tomogram.data, VOXELS)


def test_extended_headers_are_skipped_and_shown(write):
    label = b"made by hand".ljust(80)
    tomogram = read_tomogram(write(mrc_bytes(nsymbt=160, exttyp=b"FEI1", nlabl=1, label=label, dmin=1.0, dmax=2.0)))
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    header = tomogram.info.header
    assert (header["extended_header_type"], header["extended_header_bytes"]) == ("FEI1", 160)
    assert (header["header_text"], header["minimum"], header["maximum"]) == (["made by hand"], 1.0, 2.0)
    json.dumps(header)


@pytest.mark.parametrize(
    ("mapcrs", "axes"), [((1, 3, 2), "sections y, rows z"), ((3, 2, 1), "columns z"), ((2, 3, 1), "cyclic")]
)
def test_axis_orders_are_transposed_to_xyz(write, mapcrs, axes):
    # Columns, rows and sections of the file run along the axes (1 = x) that mapcrs names; (z, y, x) is array axis
    # 3 - axis. The cell and the sampling are those of x, y, z (MRC2014).
    stored = VOXELS.transpose([3 - axis for axis in reversed(mapcrs)])
    nz, ny, nx = SHAPE
    path = write(
        mrc_bytes(
            stored, mapcrs=mapcrs, sampling=(nx, ny, nz), cell=(nx * 10.0, ny * 10.0, nz * 10.0), origin=(1.0, 2.0, 3.0)
        )
    )
    tomogram = read_warned(path, "axis order {} {} {} in the header, transposed".format(*mapcrs))
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert tomogram.info.grid.shape == SHAPE
    assert tomogram.info.grid.voxel_size == 10.0
    assert tomogram.info.grid.origin == (1.0, 2.0, 3.0)


def test_space_group_and_mz_do_not_change_the_shape(write):
    for fields in (
        {"ispg": 0},
        {"ispg": 401, "sampling": (6, 5, 2), "cell": (60.0, 50.0, 20.0)},
        {"ispg": 1, "sampling": (6, 5, 1), "cell": (60.0, 50.0, 10.0)},
    ):
        assert read_info(write(mrc_bytes(**fields))).grid.shape == SHAPE


def test_origin_has_the_sign_of_imod(write):
    stamp = 1146047817
    for imod, origin in (((stamp, 4), (-1, 2, -3)), ((stamp, 1), (1, -2, 3)), ((7, 4), (1, -2, 3))):
        info = read_info(write(mrc_bytes(origin=(1.0, -2.0, 3.0), imod=imod)))
        assert info.grid.origin == origin


def test_origin_of_headers_before_the_map_string_is_stored_as_z_x_y(write):
    content = bytearray(mrc_bytes())
    content[208:220] = struct.pack("<3f", 3.0, 1.0, 2.0)
    assert read_warned(write(bytes(content)), "MAP").info.grid.origin == (1.0, 2.0, 3.0)


def test_bytes_after_the_voxels_are_said(write):
    tomogram = read_warned(write(mrc_bytes() + b"\0" * 50), "50 bytes after the voxels, ignored")
    np.testing.assert_array_equal(tomogram.data, VOXELS)


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (4, 5, 1)])
def test_images_are_no_tomograms(write, shape):
    with pytest.raises(InputError, match="not a volume"):
        read_info(write(mrc_bytes(np.zeros(shape, np.float32))))


def test_tilt_series_are_warned_of(write):
    for name in ("a.st", "a.mrcs", "a.preali", "a.ali", "a.st.gz"):
        content = gzip.compress(mrc_bytes()) if name.endswith("gz") else mrc_bytes()
        read_warned(write(content, name), "looks like a tilt series")
    read_warned(write(mrc_bytes(ispg=0, sampling=(6, 5, 1), cell=(60.0, 50.0, 10.0))), "looks like a tilt series")
    read_info(write(mrc_bytes(np.zeros((100, 40, 40), np.float32)), "long.ali"))


def test_unrotated_tomograms_are_warned_of(write):
    read_warned(write(mrc_bytes(np.zeros((6, 3, 6), np.float32))), "looks un-rotated")
    read_info(write(mrc_bytes(np.zeros((6, 4, 6), np.float32))))
    read_info(write(mrc_bytes(np.zeros((3, 3, 6), np.float32))))


# --- voxel size


def relion(pixel_size=2.0, binning=5.0, size=(30.0, 25.0, 20.0)):
    return RelionTomogram(name="TS_01", pixel_size=pixel_size, binning=binning, size=size, star=Path("tomograms.star"))


@pytest.mark.parametrize("found", [0.0, np.nan, np.inf, -5.0, 0.09, 101.0])
def test_unusable_voxel_sizes_are_errors_unless_overridden(write, found):
    path = write(mrc_bytes(voxel_size=found))
    with pytest.raises(InputError, match=r"no usable voxel size[\s\S]*--voxel-size"):
        read_info(path)
    assert read_info(path, voxel_size=7.5).grid.voxel_size == 7.5
    info = read_info(path, relion=relion())
    assert info.grid.voxel_size == 10.0
    assert info.header_voxel_size is None


def test_a_sampling_of_zero_is_no_voxel_size(write):
    with pytest.raises(InputError, match="no usable voxel size"):
        read_info(write(mrc_bytes(sampling=(0, 0, 0))))


def test_one_angstrom_usually_means_unset(write):
    path = write(mrc_bytes(voxel_size=1.0))
    with pytest.raises(InputError, match=r"--voxel-size 1\.0"):
        read_info(path)
    assert read_info(path, voxel_size=1.0).grid.voxel_size == 1.0


@pytest.mark.parametrize("said", [0.0, -1.0, np.nan, 1000.0])
def test_an_unusable_voxel_size_option_is_an_error(write, said):
    with pytest.raises(InputError, match="unusable --voxel-size"):
        read_info(write(mrc_bytes()), voxel_size=said)


def test_the_option_counts_before_the_star_and_the_star_before_the_header(write):
    path = write(mrc_bytes(voxel_size=10.0))
    assert read_info(path, voxel_size=3.0, relion=relion()).grid.voxel_size == 3.0
    assert read_info(path, relion=relion(pixel_size=2.009)).grid.voxel_size == 10.045
    tomogram = read_warned(path, "voxel size 10 A in the header, but 10.1 A", relion=relion(pixel_size=2.02))
    assert tomogram.info.grid.voxel_size == 10.1
    assert tomogram.info.header_voxel_size == 10.0
    with pytest.raises(InputError, match=r"0\.01 A \(pixel size 2 A x binning 0\.005\)"):
        read_info(path, relion=relion(binning=0.005, size=(0.03, 0.025, 0.02)))


def test_anisotropic_voxels_are_named(write):
    path = write(mrc_bytes(cell=(60.0, 50.0, 41.0)))
    assert read_warned(path, "10, 10, 10.25 A").info.grid.voxel_size == 10.0
    read_info(write(mrc_bytes(cell=(60.0, 50.0, 40.1))))


def test_a_volume_of_another_size_than_relion_says(write):
    path = write(mrc_bytes())
    read_warned(path, "6 x 5 x 4 voxels, but 8 x 5 x 4", relion=relion(size=(40.0, 25.0, 20.0)))


# --- bad files


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"at least 1024 bytes[\s\S]*0 bytes"),
        (b"x y z\n" * 10, r"at least 1024 bytes[\s\S]*60 bytes"),
        (b"x y z\n" * 1000, "not an MRC file"),
        (np.random.default_rng(1).bytes(5000), "not an MRC file"),
        (bytes(5000), "not an MRC file"),
        (mrc_bytes()[:-1], r"truncated[\s\S]*1504 bytes[\s\S]*1503 bytes"),
        (mrc_bytes()[:1024], r"truncated[\s\S]*1504 bytes[\s\S]*1024 bytes"),
        (mrc_bytes(nsymbt=8)[:-8], r"truncated[\s\S]*1512 bytes[\s\S]*1504 bytes"),
        (mrc_bytes().replace(struct.pack("<i", 1) + bytes(4), struct.pack("<2i", 1, -1), 1), "extended header"),
        (b"\x1f\x8b\x08" + b"rubbish" * 99, "cannot be read"),
        (b"BZh" + b"rubbish" * 99, "cannot be read"),
        (gzip.compress(b"", mtime=0), "at least 1024 bytes"),
    ],
)
def test_bad_files_are_input_errors(write, content, match):
    path = write(content)
    with pytest.raises(InputError, match=match) as caught:
        read_tomogram(path)
    assert caught.value.file == path


def test_missing_files_folders_and_pipes(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_info(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="a folder"):
        read_info(tmp_path)
    os.mkfifo(tmp_path / "pipe.mrc")
    with pytest.raises(InputError, match="pipe"):
        read_info(tmp_path / "pipe.mrc")


def test_a_file_that_changed_after_its_header_was_read(write):
    info = read_info(write(mrc_bytes()))
    write(mrc_bytes(VOXELS[:2]))
    with pytest.raises(InputError, match=r"changed[\s\S]*6 x 5 x 4 voxels[\s\S]*6 x 5 x 2 voxels"):
        read_tomogram(info)


def read_or_refuse(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)
        try:
            tomogram = read_tomogram(path)
        except InputError:
            return
    assert tomogram.data.shape == tomogram.info.grid.shape
    np.asarray(tomogram.data).sum(dtype=np.float32)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 1503), compress=st.sampled_from([bytes, gzip.compress, bz2.compress]))
def test_truncation_anywhere_is_an_input_error(tmp_path_factory, length, compress):
    path = tmp_path_factory.mktemp("cut") / "a.mrc"
    path.write_bytes(compress(mrc_bytes()[:length]))
    with pytest.raises(InputError):
        read_tomogram(path)


@settings(max_examples=300, deadline=None)
@given(
    flips=st.dictionaries(st.integers(0, 223), st.integers(0, 255), min_size=1, max_size=6),
    compress=st.sampled_from([bytes, gzip.compress]),
)
def test_damaged_mrc_headers_are_read_or_refused(tmp_path_factory, flips, compress):
    content = bytearray(mrc_bytes())
    for offset, value in flips.items():
        content[offset] = value
    path = tmp_path_factory.mktemp("flip") / "a.mrc"
    path.write_bytes(compress(bytes(content)))
    tracemalloc.start()
    with np.errstate(all="ignore"):
        read_or_refuse(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


@settings(max_examples=100, deadline=None)
@given(flips=st.dictionaries(st.integers(0, 15), st.integers(0, 255), max_size=4), length=st.integers(0, 1472))
def test_damaged_em_files_are_read_or_refused(tmp_path_factory, flips, length):
    path = tmp_path_factory.mktemp("em") / "a.em"
    emfile.write(path, np.zeros(SHAPE), overwrite=True)
    content = bytearray(path.read_bytes()[:length])
    for offset, value in flips.items():
        content[offset : offset + 1] = bytes([value])
    path.write_bytes(bytes(content))
    read_or_refuse(path)


# --- EM


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32", "float64"])
def test_em_files_need_a_voxel_size(tmp_path, dtype):
    path = tmp_path / "rec_TS_01.em"
    emfile.write(path, VOXELS.astype(dtype))
    with pytest.raises(InputError, match=r"no usable voxel size[\s\S]*--voxel-size"):
        read_info(path)
    tomogram = read_tomogram(path, voxel_size=8.0)
    np.testing.assert_array_equal(tomogram.data, VOXELS)
    assert tomogram.data.dtype == dtype
    assert isinstance(tomogram.data, np.memmap)
    assert (tomogram.info.name, tomogram.info.grid.voxel_size) == ("TS_01", 8.0)
    assert tomogram.info.header["format"] == "EM"


@pytest.mark.parametrize("content", [b"", b"text" * 20, bytes(600), np.random.default_rng(2).bytes(3000)])
def test_garbage_called_em_is_an_input_error(write, content):
    with pytest.raises(InputError, match="not an EM"):
        read_info(write(content, "a.em"), voxel_size=8.0)


@pytest.mark.parametrize("name", ["t.em.gz", "t.hdf.bz2"])
def test_formats_that_are_not_read_compressed_are_said(write, name):
    with pytest.raises(InputError, match="unpack it"):
        read_info(write(gzip.compress(b"\0" * 600), name), voxel_size=10.0)


def test_missing_and_truncated_em_files(tmp_path):
    path = tmp_path / "a.em"
    with pytest.raises(InputError, match="no such file"):
        read_info(path, voxel_size=8.0)
    emfile.write(path, VOXELS)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"truncated[\s\S]*992 bytes[\s\S]*988 bytes"):
        read_info(path, voxel_size=8.0)


def test_big_endian_em_files_are_refused_by_name_of_their_machine(write):
    content = struct.pack(">bbbb3i", 5, 0, 0, 5, 6, 5, 4).ljust(512, b"\0") + VOXELS.astype(">f4").tobytes()
    with pytest.raises(InputError, match="machine code 5"):
        read_info(write(content, "a.em"), voxel_size=8.0)


# --- tomograms.star

COLUMNS = (
    "rlnTomoName",
    "rlnTomoTiltSeriesPixelSize",
    "rlnTomoTomogramBinning",
    "rlnTomoSizeX",
    "rlnTomoSizeY",
    "rlnTomoSizeZ",
    "rlnTomoReconstructedTomogram",
)


def star_bytes(*rows, columns=COLUMNS):
    lines = ["# version 50001", "", "data_global", "", "loop_", *(f"_{name} #{n}" for n, name in enumerate(columns, 1))]
    return "\n".join([*lines, *(" ".join(row) for row in rows), ""]).encode()


def row(name="TS_01", file=None):
    return (name, "2.0", "5.0", "30", "25", "20", file or f"Tomograms/job007/rec_{name}.mrc")


def test_tomograms_star_of_relion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((path, tomogram),) = read_tomograms_star(DATA / "relion5/tomograms.star")
    assert path == Path("rec/tomograms/rec_TS_01.mrc")
    assert (tomogram.name, tomogram.pixel_size, tomogram.binning, tomogram.size) == ("TS_01", 2.0, 2.5, (300, 300, 200))
    assert tomogram.voxel_size == 5.0
    assert tomogram.star == DATA / "relion5/tomograms.star"
    ((_, typical),) = read_tomograms_star(DATA / "relion5/tomograms_typical.star")
    assert typical.voxel_size == pytest.approx(10.0, rel=1e-6)


def test_names_stay_text(write):
    names = ["007", "nan", "TS_01.mrc", "1e3", "None"]
    star = write(star_bytes(*map(row, names)), "tomograms.star")
    assert [tomogram.name for _, tomogram in read_tomograms_star(star)] == names


def test_the_list_form_of_the_block(write):
    pairs = "\n".join(f"_{column} {value}" for column, value in zip(COLUMNS, row("007"), strict=True))
    ((path, tomogram),) = read_tomograms_star(write(f"data_global\n\n{pairs}\n".encode(), "tomograms.star"))
    assert (tomogram.name, path.name) == ("007", "rec_007.mrc")


def test_files_are_those_of_the_project_of_the_star_not_of_the_current_one(write, tmp_path, monkeypatch):
    star = write(star_bytes(row()), "project/Tomograms/job007/tomograms.star")
    in_project = write(mrc_bytes(), "project/Tomograms/job007/rec_TS_01.mrc")
    monkeypatch.chdir(tmp_path)
    ((path, _),) = read_tomograms_star(star)
    assert path.resolve() == in_project.resolve()
    here = write(mrc_bytes(), "Tomograms/job007/rec_TS_01.mrc")
    ((path, _),) = read_tomograms_star(star)
    assert path.resolve() == in_project.resolve()
    in_project.unlink()
    ((path, _),) = read_tomograms_star(star)
    assert path.resolve() == here.resolve()
    ((path, _),) = read_tomograms_star(write(star_bytes(row(file=str(here))), "elsewhere/tomograms.star"))
    assert path == here


def test_absolute_paths_tell_no_project(write, tmp_path, monkeypatch):
    """They are there as seen from every folder; optimisation_set.star names tomograms.star from the project's."""
    volume = write(mrc_bytes(), "archive/rec_TS_01.mrc")
    star = write(star_bytes(row(file=str(volume))), "project/Tomograms/job007/tomograms.star")
    monkeypatch.chdir(tmp_path / "project")
    ((_, tomogram),) = read_tomograms_star(star)
    assert tomogram.project == Path()
    write(b"", "project/default_pipeline.star")
    monkeypatch.chdir(tmp_path / "archive")
    ((_, tomogram),) = read_tomograms_star(star)
    assert tomogram.project == tmp_path / "project"


def test_denoised_tomograms(write):
    columns = (*COLUMNS, "rlnTomoDenoisedTomogram")
    star = write(star_bytes((*row(), "denoised.mrc"), columns=columns), "tomograms.star")
    ((path, _),) = read_tomograms_star(star, which="denoised")
    assert path == Path("denoised.mrc")
    star = write(star_bytes(row()), "tomograms.star")
    with pytest.raises(InputError, match=r"rlnTomoDenoisedTomogram is missing[\s\S]*--which reconstructed"):
        read_tomograms_star(star, which="denoised")


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_a_missing_column_is_named_with_the_job_to_run(write, column):
    kept = [n for n, name in enumerate(COLUMNS) if name != column]
    star = write(star_bytes([row()[n] for n in kept], columns=[COLUMNS[n] for n in kept]), "tomograms.star")
    with pytest.raises(InputError, match=rf"{column} is missing[\s\S]*Reconstruct tomograms"):
        read_tomograms_star(star)


@pytest.mark.parametrize("content", [b"", b"no star", b"data_particles\n\nloop_\n_rlnTomoName\nTS_01\n", mrc_bytes()])
def test_other_files_called_tomograms_star(write, content):
    with pytest.raises(InputError):
        read_tomograms_star(write(content, "tomograms.star"))


def test_half_tomograms_are_told_apart(write):
    half = (*COLUMNS[:-1], "rlnTomoReconstructedTomogramHalf1")
    with pytest.raises(InputError, match=r"half tomograms only[\s\S]*--which denoised"):
        read_tomograms_star(write(star_bytes(row(), columns=half), "tomograms.star"))
    both = (*COLUMNS, "rlnTomoReconstructedTomogramHalf1")
    star = write(star_bytes((*row(file="None"), "half1.mrc"), columns=both), "tomograms.star")
    with pytest.raises(InputError, match=r"TS_01 has no reconstructed file[\s\S]*half tomograms only \(half1.mrc\)"):
        read_tomograms_star(star)
    denoised = (*half, "rlnTomoDenoisedTomogram")
    with pytest.raises(InputError, match=r"cure: --which denoised[\s\S]*names denoised tomograms"):
        read_tomograms_star(write(star_bytes((*row(), "d.mrc"), columns=denoised), "tomograms.star"))


@pytest.mark.parametrize("empty", ["None", '""', "nan", "<NA>"])
def test_a_tomogram_without_reconstruction_is_named(write, empty):
    star = write(star_bytes(row("TS_01"), row("TS_02", empty)), "tomograms.star")
    with pytest.raises(InputError, match="TS_02 has no reconstructed file"):
        read_tomograms_star(star)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many"])
def test_an_unusable_number_is_named(write, value):
    bad = list(row())
    bad[2] = value
    with pytest.raises(InputError, match="rlnTomoTomogramBinning of tomogram TS_01"):
        read_tomograms_star(write(star_bytes(bad), "tomograms.star"))


@pytest.mark.parametrize("name", ["../TS_01", '""'])
def test_names_that_could_leave_the_output_folder_are_refused(write, name):
    with pytest.raises(InputError, match="name cannot be used"):
        read_tomograms_star(write(star_bytes(row(name, "a.mrc")), "tomograms.star"))


# --- several inputs


def test_inputs_come_in_order_and_failures_stop_nothing(write, tmp_path):
    first = write(mrc_bytes(), "b.mrc")
    write(mrc_bytes(), "Tomograms/job007/rec_TS_01.mrc")
    star = write(star_bytes(row("TS_01"), row("TS_02"), row("TS_03", "None")), "tomograms.star")
    empty = write(b"", "empty.rec")
    last = write(mrc_bytes(), "a.rec")
    other_star = write(b"data_particles\n", "particles.star")
    infos, failures = open_inputs([first, star, empty, other_star, last])
    assert [info.name for info in infos] == ["b", "TS_01", "a"]
    assert infos[1].relion is not None
    assert infos[1].grid.voxel_size == 10.0
    assert {type(failure) for failure in failures} == {InputError}
    assert [failure.file for failure in failures] == [
        Path("Tomograms/job007/rec_TS_02.mrc"),
        star,
        empty,
        other_star,
    ]
    assert "RELION project folder" in str(failures[0])


def test_rows_that_cannot_be_used_keep_their_places(write):
    """By which shards share tomograms."""
    star = write(star_bytes(row("TS_01"), row("TS_02", "None"), row("TS_03")), "tomograms.star")
    assert [entry.error is None for entry in list_inputs([star])] == [True, False, True]


def test_options_reach_every_input(write):
    write(mrc_bytes(), "denoised.mrc")
    columns = (*COLUMNS, "rlnTomoDenoisedTomogram")
    star = write(star_bytes((*row(), "denoised.mrc"), columns=columns), "tomograms.star")
    (info,), failures = open_inputs([str(star)], voxel_size=4.0, which="denoised")
    assert (info.path.name, info.grid.voxel_size, failures) == ("denoised.mrc", 4.0, [])


def test_equal_names_are_an_error_that_the_parents_names_cure(write):
    paths = [write(mrc_bytes(), "one/tomo.mrc"), write(mrc_bytes(), "two/rec_tomo.rec")]
    with pytest.raises(InputError, match=r"called tomo[\s\S]*one/tomo\.mrc and [\s\S]*two/rec_tomo\.rec[\s\S]*parent"):
        open_inputs(paths)
    infos, _ = open_inputs(paths, names="parent")
    assert [info.name for info in infos] == ["one_tomo", "two_tomo"]
    with pytest.raises(InputError, match="name it once"):
        open_inputs([paths[0], paths[0]], names="parent")


# --- writing


@pytest.mark.parametrize(("dtype", "mode"), [("float32", 2), ("float64", 2), ("int8", 0), ("float16", 12)])
def test_what_is_written_is_read_back(tmp_path, dtype, mode):
    path = tmp_path / "new" / "out.mrc"
    voxels = (VOXELS - 60).astype(dtype)
    write_mrc(path, voxels, voxel_size=13.48, origin=(-100.0, 0.0, 50.0))
    tomogram = read_tomogram(path)
    np.testing.assert_array_equal(tomogram.data, voxels)
    assert tomogram.info.header["mode"] == mode
    assert tomogram.info.grid.origin == (-100.0, 0.0, 50.0)
    assert tomogram.info.grid.voxel_size == pytest.approx(13.48, rel=1e-6)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, voxels)
        assert file.is_volume()
        assert (file.header.mz, file.header.ispg) == (4, 1)
        assert (file.header.dmin, file.header.dmax, file.header.dmean) == (-60, 59, -0.5)
    if dtype != "float16":  # where the validator itself overflows
        assert mrcfile.validate(path)


def test_headers_written_hold_the_stamp_of_imod(tmp_path):
    write_mrc(tmp_path / "a.mrc", VOXELS.astype(np.int8), voxel_size=10.0)
    stamp, flags = struct.unpack_from("<2i", (tmp_path / "a.mrc").read_bytes(), 152)
    assert (stamp, flags & 1) == (1146047817, 1)


def test_the_mode_can_be_chosen_where_it_holds_the_numbers(tmp_path):
    write_mrc(tmp_path / "a.mrc", VOXELS, voxel_size=10.0, mode=12)
    assert read_tomogram(tmp_path / "a.mrc").data.dtype == np.float16
    for data, mode in ((VOXELS, 0), (VOXELS, 1), (VOXELS[0], 2)):
        with pytest.raises(ValueError, match=r"mode|axes"):
            write_mrc(tmp_path / "b.mrc", data, voxel_size=10.0, mode=mode)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


def test_equal_volumes_give_equal_files(tmp_path):
    for name in "ab":
        write_mrc(tmp_path / name, VOXELS, voxel_size=10.0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def fail_halfway(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_replacing_keeps_the_ending_and_the_old_file_until_success(tmp_path):
    path = tmp_path / "new" / "a.csv.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".csv.gz")
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(RuntimeError):
        fail_halfway(path)
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_read_only_file_system_is_said_by_the_name_of_the_file(tmp_path, monkeypatch):
    """Which refuses to remove even a file that is not there."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(CetpickError, match=r"a\.csv.*cannot be written"), replacing(tmp_path / "a.csv"):
        refused()


def test_replacing_gives_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder is where"), replacing(tmp_path):
        pass
    with pytest.raises(InputError, match="its folder cannot be made"), replacing(tmp_path / "file" / "a.csv"):
        pass
    with (
        pytest.raises(CetpickError, match=rf"(?s)cannot be written.*cure: make sure that {tmp_path} has space"),
        replacing(tmp_path / "a.csv"),
    ):
        raise OSError(28, "No space left on device")


def test_a_tomogram_is_no_mask(write):
    grey = np.random.default_rng(0).normal(100, 5, (6, 20, 20)).astype(np.float32)
    tomogram = write(mrc_bytes(grey), "t.mrc")
    for values in (grey, grey - 100):
        info = replace(read_info(tomogram), region=Region(mask=write(mrc_bytes(values), "m.mrc")))
        with pytest.raises(InputError, match="holds grey values, and is no mask"):
            read_tomogram(info)
    soft = np.clip((grey - 100) / 5, 0, 1)
    assert read_tomogram(replace(info, region=Region(mask=write(mrc_bytes(soft), "m.mrc")))).mask is not None
