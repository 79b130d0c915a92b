"""Motive lists of TOM, av3 and novaSTA: an EM volume of float32, 20 numbers a particle.

MATLAB counts from 1, so the centre of the first voxel is (1, 1, 1). Rows, from 1: 1 score, 4 particle, 5 tomogram,
6 object, 8-10 x, y, z, 11-13 shifts in voxels, 17 phi, 18 psi, 19 theta, 20 class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import emfile
import numpy as np

from cetpick.errors import InputError
from cetpick.geometry import convert_angles, matlab_to_voxel, voxel_to_matlab
from cetpick.io.atomic import replacing
from cetpick.io.em import HEADER_BYTES
from cetpick.io.handler import Item
from cetpick.io.mrc import reading
from cetpick.io.numbered import Numbered, documented, from_items, to_records, whole_numbers
from cetpick.io.plain import finite_numbers
from cetpick.records import Coordinates, TomogramInfo

WIDTH = 20
FLOAT32 = 5

_SCORE, _PARTICLE, _TOMOGRAM = 0, 3, 4
_POSITION, _SHIFT, _ANGLES, _CLASS = slice(7, 10), slice(10, 13), [16, 18, 17], 19


def is_motive_list(_: Path, head: bytes) -> bool:
    """Whether the header is that of an EM volume of 20 x N x 1 float32 of a little-endian machine."""
    sizes = np.frombuffer(head[4:16].ljust(12, b"\0"), dtype="<i4")
    return head[3:4] == bytes([FLOAT32]) and sizes[0] == WIDTH and sizes[1] >= 0 and sizes[2] == 1


def read_motive_list(path: Path, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Read a motive list; shifts are added to the positions. Tomograms as of numbered.to_records.

    Raises:
        InputError: damaged; and as numbered.to_records.
    """
    with reading(path):
        size = path.stat().st_size
        header, _ = emfile.read(path, header_only=True) if size >= HEADER_BYTES else ({"ydim": 0}, None)
        wanted = HEADER_BYTES + 4 * WIDTH * int(header["ydim"])
        if size != wanted:
            raise InputError(
                "the file is cut off or damaged",
                file=path,
                expected=f"{wanted} bytes for {header['ydim']} particles",
                found=f"{size} bytes",
            )
        data = emfile.read(path)[1] if header["ydim"] else np.empty(0)
    values = finite_numbers(path, data.reshape(-1, WIDTH), width=WIDTH)
    return to_records(
        path,
        Numbered(
            points=matlab_to_voxel(values[:, _POSITION] + values[:, _SHIFT]),
            tomograms=whole_numbers(path, "row 5 (tomogram)", values[:, _TOMOGRAM]),
            classes=whole_numbers(path, "row 20 (class)", values[:, _CLASS]),
            scores=values[:, _SCORE],
            angles=convert_angles(values[:, _ANGLES], source="tom", target="relion"),
        ),
        tomograms,
    )


def write_motive_list(path: Path, items: Sequence[Item]) -> None:
    """Write a motive list, and a .doc beside it that tells which tomogram has which number."""
    rows = from_items(path, items)
    values = np.zeros((1, len(rows.points), WIDTH), dtype=np.float32)
    values[..., _SCORE], values[..., _PARTICLE] = rows.scores, np.arange(1, len(rows.points) + 1)
    values[..., _TOMOGRAM], values[..., _CLASS] = rows.tomograms, rows.classes
    values[..., _POSITION] = voxel_to_matlab(rows.points)
    values[..., _ANGLES] = convert_angles(rows.angles, source="relion", target="tom")
    with documented(path, items), replacing(path) as temporary:
        emfile.write(temporary, values)
