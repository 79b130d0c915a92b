"""Coordinates as plain text: CSV and TSV, .coords, .xyz and .txt, and what IMOD's model2point writes.

How a file without a header is read:

==========================================  ===========================================================================
layout                                      reading
==========================================  ===========================================================================
model2point's fixed columns, any ending     [[object] contour] x y z [value], IMOD's convention (x + 0.5, y + 0.5, z)
three columns                               x y z in voxels, 0 = centre of the first voxel
four columns in .csv, .tsv, .coords         x y z score, in voxels as above
anything else                               refused: a fourth column may be a score, or the first one a contour
==========================================  ===========================================================================

A header names the columns (x, y and z among them, in any order) and settles it: voxels, 0 = centre of the first voxel.
So do the headers of napari, axis-0 to axis-2 for z, y, x, and of copick, run_name and transform_00, whose x, y, z are
angstrom. A column such as tomogram tells of which one each row is.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points, as_points, imod_to_voxel, voxel_to_imod
from cetpick.io.atomic import replacing
from cetpick.io.naming import find_tomograms, named_after, plain_name, warn_of_others
from cetpick.io.star import read_text
from cetpick.records import ANGLES, DEFAULT_CLASS, Coordinates, TomogramInfo

AXES = ["x", "y", "z"]
NAPARI = {"axis-0": "z", "axis-1": "y", "axis-2": "x"}
TOMOGRAM_COLUMNS = ("tomogram", "tomo_name", "run_name", "rlntomoname", "rlnmicrographname")
"""Columns that tell which tomogram a row belongs to."""
SCORED_ENDINGS = (".csv", ".tsv", ".coords")
"""Without a header, a fourth column is a score in files with these endings."""

# Formats of IMOD's model2point: object and contour i6, then 3f12.2 (and g16.6 for a value), or 3i7 without -float.
_FLOAT_LAYOUT = re.compile(r"(?P<numbers>(?:[ \d]{5}\d){0,2})(?:[ \d-]{9}\.\d\d){3}(?P<value>[ \d.eE+-]{16})?")
_INTEGER_LAYOUT = re.compile(r"(?P<numbers>(?:[ \d]{5}\d){0,2})(?:[ \d-]{6}\d){3}(?P<value>)")


def looks_like_table(head: str) -> bool:
    """Whether the first lines of a text have columns x, y, z or at least three columns of numbers."""
    lines, header = _content(head)
    if not lines:
        return header is not None
    first = _split(lines[0][1], _delimiter(lines[0][1]))
    return _is_header(first) or (len(first) >= 3 and all(map(_is_number, first)))


def names_tomograms(head: str) -> bool:
    """Whether the header of a table has a column that tells of which tomogram each row is."""
    lines, header = _content(head)
    names = _column_names(_split(lines[0][1], _delimiter(lines[0][1]))) if lines else []
    if {*AXES} <= {*names}:
        lines, header = lines[1:], names
    return bool(lines) and not {*TOMOGRAM_COLUMNS}.isdisjoint(header or ())


def tomogram_names(path: Path) -> list[str]:
    """Those that a table names, in order of appearance."""
    table, _ = _read(path)
    column = next((name for name in TOMOGRAM_COLUMNS if name in table), None)
    return [] if column is None else table[column].unique().tolist()


def read_tables(
    path: str | PathLike[str], tomograms: Sequence[TomogramInfo], *, voxel_size: float | None = None
) -> list[Coordinates]:
    """Read a table that names its tomograms, by the rules at the top of this module.

    Args:
        path: the file.
        tomograms: those of interest; rows of others are left out. None given: all are read. A file that names a single
            one, which is not among them, is taken for the only one, or the one that it is named after.
        voxel_size: angstrom, without a tomogram.

    Returns:
        A record for each tomogram with rows, in order of appearance.

    Raises:
        InputError: as read_table.

    Warns:
        CetpickWarning: rows of other tomograms are left out; all rows are of one that is called otherwise.
    """
    path = Path(path)
    table, in_angstrom = _read(path)
    column = next((name for name in TOMOGRAM_COLUMNS if name in table), None)
    if column is None:  # model2point's columns under a header that tells of others
        only = tomograms[0] if len(tomograms) == 1 else None
        return [_record(path, table, only, voxel_size, in_angstrom=in_angstrom)]
    names = table[column].unique().tolist()
    infos = find_tomograms(names, tomograms, file=path)
    if len(names) == 1 and infos == [None] and tomograms:
        infos = [tomograms[0] if len(tomograms) == 1 else named_after(path, tomograms)]
        if infos[0]:
            warnings.warn(
                f"{path}: says that its points are of {names[0]}; they are taken for those of {infos[0].name}",
                CetpickWarning,
                stacklevel=2,
            )
    found = [(name, info) for name, info in zip(names, infos, strict=True) if info or not tomograms]
    warn_of_others(path, [name for name in names if name not in dict(found)])
    return [
        replace(
            _record(path, table[table[column] == name], info, voxel_size, in_angstrom=in_angstrom),
            tomogram=info.name if info else plain_name(name),
        )
        for name, info in found
    ]


def read_table(
    path: str | PathLike[str], info: TomogramInfo | None = None, *, voxel_size: float | None = None
) -> Coordinates:
    """Read a table, all rows as of one tomogram, by the rules at the top of this module.

    Args:
        path: the file. Columns are separated by commas, tabs, semicolons or blanks; lines that begin with # are
            comments, but one that names x, y and z is a header.
        info: the tomogram, for its voxel size.
        voxel_size: angstrom, without a tomogram.

    Returns:
        Points with their `class` and `score`, and further columns, if the file has them.

    Raises:
        InputError: not a table, a row that does not fit (with its line number), or columns that cannot be told.
    """
    table, in_angstrom = _read(Path(path))
    return _record(Path(path), table, info, voxel_size, in_angstrom=in_angstrom)


def _read(path: Path) -> tuple[pd.DataFrame, bool]:
    """The table of a file, and whether its x, y, z are angstrom."""
    lines, header = _content(read_text(path))
    if lines and (match := _model2point_match([line for _, line in lines])):
        return _model2point_table(path, lines, match), False
    delimiter = _delimiter(lines[0][1] if lines else "")
    rows = [(number, _split(line, delimiter)) for number, line in lines]
    if rows and _is_header(rows[0][1]):
        header = _column_names(rows.pop(0)[1])
    names = header or _guessed_names(path, len(rows[0][1]) if rows else 0)
    if "axis-3" in names:
        raise InputError(
            "is of a napari layer of four dimensions",
            file=path,
            expected="axis-0, axis-1, axis-2 for z, y, x",
            found=", ".join(names),
            cure="save a points layer of one tomogram, or name the columns x, y and z in the first line",
        )
    if len(set(names)) != len(names):
        raise InputError("two columns of its header have the same name", file=path, found=", ".join(names))
    for number, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"line {number} does not fit", file=path, expected=f"{len(names)} values", found=f"{len(row)} values"
            )
    in_angstrom = {"run_name", "transform_00"} <= {*names}
    # so that a table which is written of it is not taken for angstrom again
    names = ["tomogram" if in_angstrom and name == "run_name" else name for name in names]
    columns = {name: [row[index] for _, row in rows] for index, name in enumerate(names)}
    numbers = [number for number, _ in rows]
    table = pd.DataFrame({name: _numbers(path, numbers, name, columns.pop(name)) for name in AXES})
    table["class"] = pd.Series(columns.pop("class", [DEFAULT_CLASS] * len(table)), dtype=object)
    if "score" in columns:
        table["score"] = _numbers(path, numbers, "score", columns.pop("score"))
    if {*ANGLES} <= columns.keys():
        table[ANGLES] = np.column_stack([_numbers(path, numbers, name, columns.pop(name)) for name in ANGLES])
    for name, values in columns.items():
        numeric = name not in TOMOGRAM_COLUMNS and all(map(_is_number, values))
        table[name] = np.array(values, dtype=float) if numeric else pd.Series(values, dtype=object)
    return table, in_angstrom


def _record(
    path: Path, table: pd.DataFrame, info: TomogramInfo | None, voxel_size: float | None, *, in_angstrom: bool
) -> Coordinates:
    voxel_size = info.grid.voxel_size if info else voxel_size
    if in_angstrom:
        table = _from_angstrom(path, table, voxel_size)
    return Coordinates(table=table.reset_index(drop=True), voxel_size=voxel_size, source=path)


def write_table(path: str | PathLike[str], table: pd.DataFrame) -> None:
    """Write a table with a header and all its columns, x, y, z, score, class first, numbers in full precision.

    Args:
        path: the file; columns are separated by tabs when it ends in .tsv, otherwise by commas.
        table: columns x, y, z in voxels and others.
    """
    first = [name for name in (*AXES, "score", "class") if name in table]
    ordered = table[[*first, *(name for name in table.columns if name not in first)]]
    with replacing(path) as temporary:
        ordered.to_csv(temporary, index=False, sep="\t" if Path(path).suffix.lower() == ".tsv" else ",")


def write_coords(path: str | PathLike[str], table: pd.DataFrame) -> None:
    """Write x y z in voxels, six decimals, without a header."""
    with replacing(path) as temporary:
        np.savetxt(temporary, as_points(table[AXES]), fmt="%.6f")


def write_model2point(path: str | PathLike[str], table: pd.DataFrame) -> None:
    """Write what model2point -float (-values 1 when there are scores) would of the same points: two decimals."""
    points = voxel_to_imod(table[AXES].to_numpy())
    values = table[["score"]].to_numpy(dtype=np.float64) if "score" in table else np.empty((len(points), 0))
    with replacing(path) as temporary:
        np.savetxt(temporary, np.hstack([points, values]), fmt="%12.2f" * 3 + "%16.6g" * values.shape[1], delimiter="")


def _content(text: str) -> tuple[list[tuple[int, str]], list[str] | None]:
    """Number and text of the lines that hold data, and the header, if a comment has one."""
    header = None
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            words = _split(line.lstrip("# \t"), _delimiter(line))
            header = _column_names(words) if not lines and _is_header(words) else header
        elif line.strip():
            lines.append((number, line))
    return lines, header


def _delimiter(line: str) -> str | None:
    return next((mark for mark in (",", "\t", ";") if mark in line.strip()), None)


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    try:
        # a tab at an end stands beside an empty value
        line = line.strip(" \r\n") if delimiter == "\t" else line.strip()
        values = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:  # a value longer than any that is meant
        return []
    return [value.strip() for value in values]


def _is_header(words: Sequence[str]) -> bool:
    return {*AXES} <= {*_column_names(words)}


def _column_names(words: Sequence[str]) -> list[str]:
    return [NAPARI.get(word.lower(), word.lower()) for word in words]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # which Python allows among digits


def _guessed_names(path: Path, count: int) -> list[str]:
    if count == 3:
        if path.suffix.lower() == ".txt":
            warnings.warn(
                f"{path}: read as x y z in voxels with 0 = centre of the first voxel; if these are IMOD coordinates, "
                "give the .mod, or the output of model2point -float as it is",
                CetpickWarning,
                stacklevel=2,
            )
        return AXES
    if count == 4 and path.suffix.lower() in SCORED_ENDINGS:
        return [*AXES, "score"]
    raise InputError(
        f"the meaning of its {count} columns cannot be told",
        file=path,
        expected="three columns x y z, or a header",
        cure="put a first line that names the columns, such as: x y z score",
    )


def _numbers(path: Path, lines: list[int], name: str, words: list[str]) -> NDArray[np.float64]:
    values = np.array([float(word) if _is_number(word) else np.nan for word in words], dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"line {lines[row]}: {name} is not a number",
            file=path,
            found=repr(words[row]),
            cure="fill it in, or take out the line" + ("" if name in AXES else f", or the column {name}"),
        )
    return values


def _from_angstrom(path: Path, table: pd.DataFrame, voxel_size: float | None) -> pd.DataFrame:
    if voxel_size is None:
        raise InputError(
            "its coordinates are angstrom, and the voxel size is not known",
            file=path,
            expected="a tomogram to take it from",
            found="columns run_name and transform_00, as copick writes them",
            cure="name the tomogram, or give --voxel-size",
        )
    return table.assign(**{axis: table[axis] / voxel_size for axis in AXES})


def _model2point_match(lines: list[str]) -> re.Match[str] | None:
    """The first line, if all lines have one of model2point's layouts and the same width."""
    for layout in (_FLOAT_LAYOUT, _INTEGER_LAYOUT):
        matches = [layout.fullmatch(line) for line in lines if len(line) == len(lines[0])]
        if len(matches) == len(lines) and all(matches):
            return matches[0]
    return None


def _model2point_table(path: Path, lines: list[tuple[int, str]], match: re.Match[str]) -> pd.DataFrame:
    numbered = ["object", "contour"][2 - len(match["numbers"]) // 6 :]
    width = 12 if match.re is _FLOAT_LAYOUT else 7
    stops = np.cumsum([0, *[6] * len(numbered), *[width] * 3, *([16] if match["value"] else [])])
    names = [*numbered, *AXES, *(["score"] if match["value"] else [])]
    numbers = [number for number, _ in lines]
    columns = {
        name: _numbers(path, numbers, name, [line[start:stop].strip() for _, line in lines])
        for name, start, stop in zip(names, stops[:-1].tolist(), stops[1:].tolist(), strict=True)
    }
    points: Points = imod_to_voxel(np.column_stack([columns.pop(name) for name in AXES]))
    whole = "" if match.re is _FLOAT_LAYOUT else "; they are rounded to whole voxels (use -float)"
    warnings.warn(
        f"{path}: read as model2point's output, IMOD coordinates (0.5, 0.5, 0 = centre of the first voxel){whole}",
        CetpickWarning,
        stacklevel=2,
    )
    return pd.DataFrame(points, columns=AXES).assign(**{"class": DEFAULT_CLASS}, **columns)
