"""MRC volumes: a header layer that knows what is seen in the field, voxels by memory map, a writer.

mrcfile reads what follows MRC2014. Here are the rest: unsigned bytes, axis orders, IMOD's origin, and messages that say
exactly what a broken header has. Sources: the MRC2014 definition (Cheng et al. 2015, J. Struct. Biol. 192, 146) and
IMOD's own rules where the two differ.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from bz2 import BZ2File
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from gzip import GzipFile
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import ArrayLike, NDArray

from cetpick import scratch
from cetpick.errors import CetpickWarning, InputError
from cetpick.io.atomic import replacing

HEADER_BYTES = 1024
LARGEST_SIDE = 65535
"""No tomogram has more voxels along an axis; a size read in the wrong byte order always has."""
NO_TOMOGRAM = "give the reconstructed tomogram; coordinates go to --labels"
"""What to do about a file that is none."""

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
REFUSED_MODES = {3: "complex int16", 4: "complex float32", 16: "RGB", 101: "4-bit"}
BYTE_ORDERS = {"<": "little-endian", ">": "big-endian"}

IMOD_STAMP = 1146047817
IMOD_SIGNED_BYTES = 1
IMOD_INVERTED_ORIGIN = 4
IMOD_STAMP_OFFSET = 152

_CHUNK = 1 << 24

Decompressor = type[GzipFile] | type[BZ2File]


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """What the header of a volume file says.

    Attributes:
        shape: voxels along (z, y, x).
        dtype: of the stored numbers, with their byte order.
        offset: bytes before the voxels, in files that hold them in one piece.
        axes: which axis of the array as stored is z, y and x.
        voxel_sizes: x, y, z in angstrom as stored; 0 where the header has none, and possibly nonsense.
        no_voxel_size: why it has none, where there is more to say.
        origin: x, y, z image origin in angstrom with the sign that IMOD shows.
        details: what `info` shows.
        problems: what is wrong or unusual in the header, one sentence each.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    axes: tuple[int, int, int] = (0, 1, 2)
    voxel_sizes: tuple[float, float, float] = (0.0, 0.0, 0.0)
    no_voxel_size: str | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    details: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Voxels along (section, row, column) of the file."""
        sections, rows, columns = (self.shape[self.axes.index(axis)] for axis in range(3))
        return sections, rows, columns

    @property
    def data_bytes(self) -> int:
        """Bytes that the voxels take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> VolumeHeader:
    """Read the header of an MRC file, plain or compressed by gzip or bzip2 (known by content, not by name).

    Raises:
        InputError: no such file, not an MRC volume, a mode that holds no real numbers, or shorter than it says.
    """
    with reading(path):
        decompress = compression(path)
        with (decompress or open)(path, "rb") as stream:
            raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(
            "not an MRC file, it ends within the header",
            file=path,
            expected=f"at least {HEADER_BYTES} bytes",
            found=f"{len(raw)} bytes",
            cure=NO_TOMOGRAM,
        )
    header = _parse(path, raw)
    if decompress is not None:
        # Its length shows only when it is unpacked; see read_voxels.
        return header
    return check_length(path, header)


def read_voxels(path: Path, header: VolumeHeader) -> NDArray[Any]:
    """The (z, y, x) voxels of the file that `header` was read from, read-only, of the dtype and byte order as stored.

    A plain file is memory-mapped, a compressed one is unpacked, into a file if it is large (scratch.py).

    Raises:
        InputError: the file cannot be read, or is shorter than its header says.
    """
    with reading(path):
        decompress = compression(path)
        if decompress is None:
            stored: NDArray[Any] = np.memmap(path, header.dtype, "r", header.offset, header.stored_shape)
        else:
            stored = _unpack(path, header, decompress)
    return stored.transpose(header.axes)


def write_mrc(
    path: str | os.PathLike[str],
    data: ArrayLike,
    *,
    voxel_size: float,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    mode: int | None = None,
) -> None:
    """Write a volume that RELION and every version of IMOD read alike; the file appears whole or not at all.

    Args:
        path: the file.
        data: (z, y, x) array.
        voxel_size: angstrom.
        origin: x, y, z image origin in angstrom with the sign that IMOD shows.
        mode: 0 (int8), 2 (float32) or 12 (float16); by default that of an int8 or float16 array, else 2.

    Raises:
        ValueError: `data` is no volume, `mode` is another one, or 0 for data that are not int8.
    """
    volume = np.asarray(data)
    if mode is None:
        mode = {"int8": 0, "float16": 12}.get(volume.dtype.name, 2)
    if volume.ndim != 3:
        raise ValueError(f"a volume has three axes, not {volume.ndim}")
    if mode not in (0, 2, 12) or (mode == 0 and volume.dtype != np.int8):
        raise ValueError(f"{volume.dtype} cannot be written as MRC mode {mode}")
    # IMOD inverts the origin of MRC2014 files since it knows of them, and before that of files with this flag: with
    # both, all versions agree.
    flags = IMOD_INVERTED_ORIGIN | (IMOD_SIGNED_BYTES if mode == 0 else 0)
    with replacing(path) as temporary, mrcfile.new(temporary) as file:
        file.set_data(volume.astype(DTYPES[mode], copy=False))
        file.voxel_size = voxel_size
        file.header.origin = tuple(0.0 - value for value in origin)
        imod = bytearray(file.header.extra2.item())
        struct.pack_into("=2i", imod, IMOD_STAMP_OFFSET - HEADER_DTYPE.fields["extra2"][1], IMOD_STAMP, flags)
        file.header.extra2 = np.void(bytes(imod))
        file.header.label[0] = "Written by cetpick"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system and the decompressors raise on reading `path` into InputError."""
    try:
        if not path.exists():
            pattern = "no file matches this pattern" if any(sign in str(path) for sign in "*?[") else None
            raise InputError("no such file", file=path, found=pattern)
        if not path.is_file():
            found, cure = ("a folder", "name the files in it") if path.is_dir() else ("a device or pipe", None)
            raise InputError("not a file", file=path, found=found, cure=cure)
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError("cannot be read", file=path, found=error, cure="check the permissions and the copy") from error


def compression(path: Path) -> Decompressor | None:
    """What unpacks a file that gzip or bzip2 made, None for others; by the first bytes."""
    with path.open("rb") as stream:
        magic = stream.read(3)
    if magic == b"\x1f\x8b\x08":
        return GzipFile
    if magic == b"BZh":
        return BZ2File
    return None


def check_length(path: Path, header: VolumeHeader) -> VolumeHeader:
    """Return `header`, with a problem added where the (plain) file is longer than it says.

    Raises:
        InputError: the file is shorter.
    """
    found, expected = path.stat().st_size, header.offset + header.data_bytes
    if found < expected:
        z, y, x = header.stored_shape
        raise InputError(
            "truncated: the file is shorter than its header says",
            file=path,
            expected=f"{expected} bytes ({x} x {y} x {z} voxels of {header.dtype.name} after {header.offset} bytes)",
            found=f"{found} bytes",
            cure="copy or reconstruct it again",
        )
    if found == expected:
        return header
    return replace(header, problems=(*header.problems, f"{found - expected} bytes after the voxels, ignored"))


def _unpack(path: Path, header: VolumeHeader, decompress: Decompressor) -> NDArray[Any]:
    """The voxels as stored; memory grows with what is really there, not with what the header claims."""
    if header.data_bytes < scratch.LARGE:
        unpacked = b"".join(_chunks(path, header, decompress))
        return np.frombuffer(unpacked, header.dtype).reshape(header.stored_shape)
    with scratch.open_file() as file:
        file.writelines(_chunks(path, header, decompress))
        return np.memmap(file, header.dtype, "r", shape=header.stored_shape)


def _chunks(path: Path, header: VolumeHeader, decompress: Decompressor) -> Iterator[bytes]:
    """The bytes of the voxels, piece by piece, so that no more is held than is really there."""
    length = 0
    with reading(path), decompress(path, "rb") as stream:
        stream.seek(header.offset)
        while missing := header.data_bytes - length:
            chunk = stream.read(min(missing, _CHUNK))
            if not chunk:
                raise InputError(
                    "truncated: unpacked, the file is shorter than its header says",
                    file=path,
                    expected=f"{header.data_bytes} bytes of voxels",
                    found=f"{length} bytes",
                    cure="copy or reconstruct it again",
                )
            length += len(chunk)
            yield chunk
        if stream.read(1):
            warnings.warn(f"{path}: bytes after the voxels, ignored", CetpickWarning, stacklevel=4)


def _parse(path: Path, raw: bytes) -> VolumeHeader:
    order = _byte_order(raw)
    if order is None:
        raise InputError(
            "not an MRC file",
            file=path,
            expected=f"a volume of 1 to {LARGEST_SIDE} voxels along each axis",
            found="{} x {} x {} voxels".format(*struct.unpack("<3i", raw[:12])),
            cure=NO_TOMOGRAM,
        )
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    mode, extended = int(header["mode"]), int(header["nsymbt"])
    signed = mode == 0 and _bytes_are_signed(raw, order)
    dtype = _dtype(path, mode, order, signed=signed)
    stored_shape = int(header["nz"]), int(header["ny"]), int(header["nx"])
    if min(stored_shape) < 2:
        raise InputError(
            "not a volume",
            file=path,
            expected="at least 2 voxels along each axis",
            found="{2} x {1} x {0}".format(*stored_shape),
        )
    if extended < 0:
        raise InputError(
            "broken MRC header", file=path, expected="an extended header of 0 or more bytes", found=f"{extended} bytes"
        )
    axis_order = tuple(int(header[key]) for key in ("mapc", "mapr", "maps"))
    axes, axis_problem = _axes(axis_order)
    sampling = tuple(int(header[key]) for key in ("mx", "my", "mz"))
    cell = tuple(float(value) for value in header["cella"].item())
    voxel_x, voxel_y, voxel_z = (length / n if n else 0.0 for length, n in zip(cell, sampling, strict=True))
    origin, origin_problem = _origin(raw, order)
    details = {
        "format": "MRC",
        "mode": mode,
        "dtype": dtype.name,
        "byte_order": BYTE_ORDERS[order],
        "bytes_signed": signed if mode == 0 else None,
        "minimum": float(header["dmin"]),
        "maximum": float(header["dmax"]),
        "mean": float(header["dmean"]),
        "rms": float(header["rms"]),
        "header_text": _labels(header),
        "extended_header_type": _text(header["exttyp"]),
        "extended_header_bytes": extended,
        "axis_order": list(axis_order),
        "sampling": list(sampling),
        "voxel_sizes": [voxel_x, voxel_y, voxel_z],
        "space_group": int(header["ispg"]),
        "stack": int(header["ispg"]) == 0 and sampling[2] == 1,
        "mrc_version": int(header["nversion"]),
    }
    z, y, x = (stored_shape[axis] for axis in axes)
    return VolumeHeader(
        shape=(z, y, x),
        dtype=dtype,
        offset=HEADER_BYTES + extended,
        axes=axes,
        voxel_sizes=(voxel_x, voxel_y, voxel_z),
        origin=origin,
        details=details,
        problems=tuple(p for p in (*_identity_problems(raw, order), axis_problem, origin_problem) if p),
    )


def _byte_order(raw: bytes) -> str | None:
    """The byte order in which the sizes are those of a volume: never both, and more to be trusted than the stamp."""
    for order in BYTE_ORDERS:
        if all(1 <= side <= LARGEST_SIDE for side in struct.unpack(f"{order}3i", raw[:12])):
            return order
    return None


def _dtype(path: Path, mode: int, order: str, *, signed: bool) -> np.dtype[Any]:
    if mode not in DTYPES:
        kind = REFUSED_MODES.get(mode, "unknown")
        raise InputError(
            f"voxels of MRC mode {mode} ({kind}) cannot be used",
            file=path,
            expected="mode 0, 1, 2, 6 or 12",
            cure="convert it, for instance by IMOD's `newstack -mode 2`",
        )
    return np.dtype("u1" if mode == 0 and not signed else order + DTYPES[mode])


def _bytes_are_signed(raw: bytes, order: str) -> bool:
    """IMOD's rule for mode 0 (readBytesSigned): its stamp, else what the minimum and maximum in the header allow.

    A maximum below the minimum stands for neither being known (MRC2014), and then bytes are signed, as that has them.
    """
    stamp, flags = struct.unpack_from(f"{order}2i", raw, IMOD_STAMP_OFFSET)
    if stamp == IMOD_STAMP:
        return bool(flags & IMOD_SIGNED_BYTES)
    low, high = struct.unpack_from(f"{order}2f", raw, HEADER_DTYPE.fields["dmin"][1])
    return bool(high < low or (low < 0 and (high < 128 or -low > high - 128)))


def _origin(raw: bytes, order: str) -> tuple[tuple[float, float, float], str | None]:
    """The image origin x, y, z as IMOD reads it (mrc_head_read), and what is wrong with it."""
    if _has_map_string(raw):
        x, y, z = struct.unpack_from(f"{order}3f", raw, HEADER_DTYPE.fields["origin"][1])
    else:
        z, x, y = struct.unpack_from(f"{order}3f", raw, HEADER_DTYPE.fields["map"][1])
    if not all(map(math.isfinite, (x, y, z))):
        return (0.0, 0.0, 0.0), f"origin {x:g} {y:g} {z:g} in the header, taken as 0 0 0"
    stamp, flags = struct.unpack_from(f"{order}2i", raw, IMOD_STAMP_OFFSET)
    if stamp == IMOD_STAMP and flags & IMOD_INVERTED_ORIGIN:
        x, y, z = 0.0 - x, 0.0 - y, 0.0 - z
    return (x, y, z), None


def _axes(axis_order: tuple[int, ...]) -> tuple[tuple[int, int, int], str | None]:
    """Which stored axis (section, row, column) is z, y, x by mapc, mapr, maps; and what is unusual about them."""
    said = "axis order {} {} {} in the header".format(*axis_order)
    if sorted(axis_order) != [1, 2, 3]:
        return (0, 1, 2), f"{said}, which means nothing; read as 1 2 3"
    stored = axis_order[::-1]
    axes = stored.index(3), stored.index(2), stored.index(1)
    return axes, None if axes == (0, 1, 2) else f"{said}, transposed to x, y, z"


def _identity_problems(raw: bytes, order: str) -> Iterator[str]:
    if not _has_map_string(raw):
        yield f"the header has {raw[208:212]!r} where 'MAP ' should be"
    stamp = raw[212:216]
    stamped = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}.get(stamp[:2])
    if stamped != order:
        written = " ".join(f"0x{byte:02x}" for byte in stamp)
        meaning = f"means {BYTE_ORDERS[stamped]}" if stamped else "means nothing"
        yield f"the machine stamp {written} {meaning}; read as {BYTE_ORDERS[order]}, which the sizes fit"


def _has_map_string(raw: bytes) -> bool:
    return raw[208:211] == b"MAP"


def _labels(header: Any) -> list[str]:
    count = min(max(int(header["nlabl"]), 0), len(header["label"]))
    return [_text(label) for label in header["label"][:count]]


def _text(field_: bytes) -> str:
    return field_.split(b"\0")[0].decode("ascii", "replace").strip()
