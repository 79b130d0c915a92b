"""Dynamo tables (.tbl): blank-separated numbers, 20 to 42 columns, of which those below count.

Positions are taken as they are: dynamo2m, copick, ArtiaX and cryoCAT shift them by nothing either, though MATLAB counts
from 1. Columns by Dynamo's documentation: 1 tag, 2 aligned, 3 averaged, 4-6 shifts in voxels, 7-9 tdrot, tilt, narot,
10 cross-correlation, 13 type of the missing wedge, 20 tomogram, 22 class, 24-26 x, y, z.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cetpick.errors import InputError
from cetpick.geometry import convert_angles
from cetpick.io.atomic import replacing
from cetpick.io.handler import Item, whole_lines
from cetpick.io.numbered import Numbered, documented, from_items, to_records, whole_numbers
from cetpick.io.plain import finite_numbers
from cetpick.io.star import read_text
from cetpick.records import Coordinates, TomogramInfo

FEWEST, MOST = 26, 42
"""Columns of a table with positions."""
LONGEST = 80
"""Characters of a number, real and imaginary part."""

_SHIFT, _ANGLES, _SCORE = slice(3, 6), slice(6, 9), 9
_TOMOGRAM, _CLASS, _POSITION = 19, 21, slice(23, 26)
_IMAGINARY = re.compile(r"(?<=[\d.])[+-][\d.eE+-]+i$")
"""Dynamo writes complex numbers whose imaginary parts are rounding."""


def is_table(_: Path, head: bytes) -> bool:
    """Whether a text begins with a row of Dynamo's width."""
    first = next((line for line in whole_lines(head) if line.strip()), "").split()
    return _is_row(first)


def read_table(path: Path, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Read a .tbl, with its .doc if there is one of that name; shifts are added to the positions.

    Raises:
        InputError: a line that does not fit; and as numbered.to_records.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if words := line.split():
            if not _is_row(words):
                expected = f"{FEWEST} to {MOST} numbers"
                raise InputError(f"line {number} does not fit", file=path, expected=expected, found=line[:80])
            rows.append([_IMAGINARY.sub("", word) for word in words[:FEWEST]])
    values = finite_numbers(path, rows, width=FEWEST)
    return to_records(
        path,
        Numbered(
            points=values[:, _POSITION] + values[:, _SHIFT],
            tomograms=whole_numbers(path, "column 20 (tomogram)", values[:, _TOMOGRAM]),
            classes=whole_numbers(path, "column 22 (class)", values[:, _CLASS]),
            scores=values[:, _SCORE],
            angles=convert_angles(values[:, _ANGLES], source="dynamo", target="relion"),
        ),
        tomograms,
    )


def write_table(path: Path, items: Sequence[Item]) -> None:
    """Write a .tbl of 35 columns, and the .doc beside it that tells which tomogram has which number."""
    rows = from_items(path, items)
    values = np.zeros((len(rows.points), 35))
    values[:, 0] = np.arange(1, len(values) + 1)
    values[:, 1] = values[:, 12] = 1
    values[:, _ANGLES] = convert_angles(rows.angles, source="relion", target="dynamo")
    values[:, _SCORE], values[:, _TOMOGRAM], values[:, _CLASS] = rows.scores, rows.tomograms, rows.classes
    values[:, _POSITION] = rows.points
    with documented(path, items), replacing(path) as temporary:
        np.savetxt(temporary, values, fmt="%.9g")


def _is_row(words: Sequence[str]) -> bool:
    return FEWEST <= len(words) <= MOST and all(map(_is_number, words))


def _is_number(word: str) -> bool:
    if len(word) > LONGEST:
        return False
    try:
        float(_IMAGINARY.sub("", word))
    except ValueError:
        return False
    return True
