"""EM volumes (TOM toolbox, PyTom, Dynamo): the header; voxels are read as those of MRC files are."""

from __future__ import annotations

from pathlib import Path

import emfile
import numpy as np

from cetpick.errors import InputError
from cetpick.io.mrc import LARGEST_SIDE, VolumeHeader, check_length, reading

HEADER_BYTES = 512
DTYPES = {1: "<i1", 2: "<i2", 4: "<i4", 5: "<f4", 9: "<f8"}


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a little-endian EM file (what every PC writes). It holds no dependable voxel size or origin.

    Raises:
        InputError: no such file, not an EM volume of real numbers, or shorter than it says.
    """
    with reading(path):
        size = path.stat().st_size
        if size < HEADER_BYTES:
            raise InputError(
                "not an EM file, it ends within the header",
                file=path,
                expected=f"at least {HEADER_BYTES} bytes",
                found=f"{size} bytes",
            )
        header, _ = emfile.read(path, header_only=True)
    x, y, z = (int(header[key]) for key in ("xdim", "ydim", "zdim"))
    if header["dtype"] not in DTYPES or not all(2 <= side <= LARGEST_SIDE for side in (x, y, z)):
        raise InputError(
            "not an EM volume",
            file=path,
            expected=f"data type {', '.join(map(str, DTYPES))} and 2 to {LARGEST_SIDE} voxels along each axis",
            found=f"data type {header['dtype']}, {x} x {y} x {z} voxels, machine code {header['machine']}",
            cure="unpack or convert it; files of big-endian machines (codes 3 and 5) are not read",
        )
    dtype = np.dtype(DTYPES[header["dtype"]])
    details = {"format": "EM", "dtype": dtype.name, "byte_order": "little-endian", "machine": int(header["machine"])}
    return check_length(path, VolumeHeader(shape=(z, y, x), dtype=dtype, offset=HEADER_BYTES, details=details))
