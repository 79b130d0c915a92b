"""Boxes of EMAN1 (.box), two-dimensional: x, y of a box's corner, its width and height; only read."""

from __future__ import annotations

from pathlib import Path

from cetpick.errors import InputError
from cetpick.geometry import boxes_to_voxel
from cetpick.io.handler import whole_lines
from cetpick.io.plain import finite_numbers
from cetpick.io.star import read_text
from cetpick.records import Coordinates, TomogramInfo

SUFFIX = ".box"
COLUMNS = 4


def is_boxes(path: Path, head: bytes) -> bool:
    """Whether a file with this ending begins with a row of numbers."""
    first = next((line for line in whole_lines(head) if line.strip()), "").split()
    return path.suffix.lower() == SUFFIX and len(first) >= COLUMNS and first[0].lstrip("-")[:1].isdecimal()


def read_boxes(path: Path, info: TomogramInfo | None, *, z: float | None) -> Coordinates:
    """Read boxes; a fifth column, which EMAN1 writes too, is left out.

    Args:
        path: the file.
        info: the tomogram.
        z: of all centres, in voxels, because the file has none.

    Raises:
        InputError: no `z`, or a line that does not fit.
    """
    if z is None:
        raise InputError(
            "its boxes have no z, they were clicked in an image",
            file=path,
            cure="say in which section: cetpick convert --z SECTION (0 = the first)",
        )
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if words := line.split():
            if not COLUMNS <= len(words) <= COLUMNS + 1:
                raise InputError(f"line {number} does not fit", file=path, expected="x y width height", found=line[:80])
            rows.append([words[0], words[1], z, words[2], words[3]])
    values = finite_numbers(path, rows, width=5)
    # The centre of a box is at half its side, rounded down, as in all of EMAN.
    points = boxes_to_voxel(values[:, :3], width=2 * (values[:, 3] // 2), height=2 * (values[:, 4] // 2))
    return Coordinates.from_points(points, voxel_size=info.grid.voxel_size if info else None, source=path)
