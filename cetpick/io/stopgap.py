"""Motive lists of STOPGAP: a STAR file with one block, positions and angles as in TOM's motive lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.errors import InputError
from cetpick.geometry import convert_angles, matlab_to_voxel, voxel_to_matlab
from cetpick.io.handler import Item
from cetpick.io.numbered import Numbered, documented, from_items, to_records, whole_numbers
from cetpick.io.star import read_star, star_numbers, write_star
from cetpick.records import Coordinates, TomogramInfo

BLOCK = "stopgap_motivelist"

_POSITION = ["orig_x", "orig_y", "orig_z"]
_SHIFT = ["x_shift", "y_shift", "z_shift"]
_ANGLES = ["phi", "the", "psi"]


def read_motive_list(path: Path, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Read a motive list; shifts are added to the positions. Tomograms as of numbered.to_records.

    Raises:
        InputError: columns are missing or hold no numbers; and as numbered.to_records.
    """
    blocks = read_star(path)
    if BLOCK not in blocks:
        raise InputError("no motive list of STOPGAP", file=path, expected=f"data_{BLOCK}", found=", ".join(blocks))
    table = blocks[BLOCK]
    columns = [*_POSITION, *_SHIFT, *_ANGLES, "tomo_num", "class", "score"]
    values = star_numbers(table, columns, file=path)
    return to_records(
        path,
        Numbered(
            points=matlab_to_voxel(values[:, :3] + values[:, 3:6]),
            angles=convert_angles(values[:, 6:9], source="tom", target="relion"),
            tomograms=whole_numbers(path, "tomo_num", values[:, 9]),
            classes=whole_numbers(path, "class", values[:, 10]),
            scores=values[:, 11],
        ),
        tomograms,
    )


def write_motive_list(path: Path, items: Sequence[Item]) -> None:
    """Write a motive list, and a .doc beside it that tells which tomogram has which number."""
    rows = from_items(path, items)
    count = len(rows.points)
    number = np.arange(1, count + 1)
    table = pd.DataFrame({"motl_idx": number, "tomo_num": rows.tomograms, "object": 1, "subtomo_num": number})
    table["halfset"] = np.where(number % 2, "A", "B")
    table[_POSITION] = voxel_to_matlab(rows.points)
    table["score"] = rows.scores
    table[_SHIFT] = np.zeros((count, 3))
    table[["phi", "psi", "the"]] = convert_angles(rows.angles, source="relion", target="tom")[:, [0, 2, 1]]
    table["class"] = rows.classes
    with documented(path, items):
        write_star(path, {BLOCK: table})
