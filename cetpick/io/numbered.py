"""Formats of the MATLAB world (Dynamo, TOM, av3, STOPGAP): tomograms and classes are numbers in them.

A text file with the ending .doc beside them tells which tomogram has which number, a line each: ``7 path/TS_07.mrc``
(Dynamo's convention; cetpick writes and reads it for the others too).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points
from cetpick.io.atomic import replacing
from cetpick.io.handler import Item, known_scores
from cetpick.io.naming import find_tomograms, plain_name, warn_of_others
from cetpick.io.star import read_text
from cetpick.records import DEFAULT_CLASS, Coordinates, TomogramInfo

Integers = NDArray[np.int64]

DOC = ".doc"
LARGEST_NUMBER = 1 << 24
"""Of a tomogram or class: float32 holds no larger whole number exactly, and none is meant."""


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Particles of any number of tomograms, row by row.

    Attributes:
        points: (n, 3) in voxels, internal convention.
        tomograms: (n,) number of the tomogram.
        classes: (n,) number of the class.
        scores: (n,), all 0: not known.
        angles: (n, 3) rot, tilt, psi in degrees, all 0: not known.
    """

    points: Points
    tomograms: Integers
    classes: Integers
    scores: NDArray[np.float64]
    angles: Points


def to_records(path: Path, rows: Numbered, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Split particles by tomogram, and find out which these are.

    Args:
        path: where they come from; the .doc file of the same name is read, if there is one.
        rows: the particles.
        tomograms: those of interest; particles of others are left out. None given: all are kept, named by the .doc file
            or by their number.

    Raises:
        InputError: it cannot be told which number is which tomogram.

    Warns:
        CetpickWarning: left out were particles of others, or numbers were taken from the names of the tomograms.
    """
    numbers = list(dict.fromkeys(rows.tomograms.tolist()))
    doc = path.with_suffix(DOC)
    listed = _read_doc(doc) if doc.is_file() else {}
    infos: dict[int, TomogramInfo] = {} if listed else _by_number(path, numbers, tomograms)
    known = [number for number in numbers if number in listed]
    told = zip(known, find_tomograms([listed[n] for n in known], tomograms, file=doc), strict=True)
    infos |= {number: info for number, info in told if info}
    names = np.array(class_names(map(str, rows.classes.tolist())), dtype=object)
    records, others = [], []
    for number in numbers:
        info = infos.get(number)
        if tomograms and info is None:
            others.append(f"{number} ({listed[number]})" if number in listed else str(number))
            continue
        chosen = rows.tomograms == number
        records.append(
            Coordinates.from_points(
                rows.points[chosen],
                class_=names[chosen],
                score=rows.scores[chosen] if rows.scores.any() else None,
                angles=rows.angles[chosen] if rows.angles.any() else None,
                tomogram=info.name if info else plain_name(listed.get(number, str(number))),
                voxel_size=info.grid.voxel_size if info else None,
                source=path,
            )
        )
    warn_of_others(path, others)
    return records


@contextmanager
def documented(path: Path, items: Sequence[Item]) -> Iterator[None]:
    """Write the .doc file beside `path` when the body, which writes that, has succeeded.

    Raises:
        InputError: `path` is that file, or a tomogram's name breaks its line.
    """
    doc = path.with_suffix(DOC)
    if doc == path:
        raise InputError(f"{DOC} is the ending of the list of tomograms beside it", file=path, cure="name it otherwise")
    with replacing(doc) as temporary:
        numbers = tomogram_numbers(items)
        names = [item.tomogram or path.stem for item in items]
        if bad := next((name for name in names if not name.isprintable()), None):
            raise InputError("cannot be written for a tomogram of this name", file=path, found=repr(bad))
        lines = (f"{number} {name}\n" for number, name in zip(numbers, names, strict=True))
        temporary.write_text("".join(lines), encoding="utf-8")
        yield


def from_items(path: Path, items: Sequence[Item]) -> Numbered:
    """Particles of all items, with tomograms and classes numbered."""
    numbers = tomogram_numbers(items)
    lengths = [len(item) for item in items]
    scores = known_scores(path, items) or [np.zeros(n) for n in lengths]
    angles = [np.zeros((n, 3)) if item.angles is None else item.angles for n, item in zip(lengths, items, strict=True)]
    coded = class_numbers(name for item in items for name in item.classes)
    return Numbered(
        points=np.concatenate([np.empty((0, 3)), *(item.points for item in items)]),
        tomograms=np.repeat(np.array(numbers, dtype=np.int64), lengths),
        classes=np.array([coded[name] for item in items for name in item.classes], dtype=np.int64),
        scores=np.concatenate([np.empty(0), *scores]),
        angles=np.concatenate([np.empty((0, 3)), *angles]),
    )


def class_names(numbers: Iterable[str]) -> list[str]:
    """Classes by their number; a file in which all have 0, or all have 1, has no classes."""
    names = list(numbers)
    return [DEFAULT_CLASS] * len(names) if {*names} in ({"0"}, {"1"}) else names


def class_numbers(names: Iterable[str]) -> dict[str, int]:
    """A number for each class: its own when all classes are such numbers, otherwise 1, 2, ... by appearance."""
    distinct = list(dict.fromkeys(names))
    if all(is_class_number(name) for name in distinct):
        return {name: int(name) for name in distinct}
    return {name: number for number, name in enumerate(distinct, start=1)}


def is_class_number(name: str) -> bool:
    """Whether a class is a whole number as files of numbers give it back."""
    return re.fullmatch(r"0|-?[1-9]\d{0,6}", name, flags=re.ASCII) is not None


def tomogram_numbers(items: Sequence[Item]) -> list[int]:
    """A number for each tomogram: that at the end of its name when these are distinct, otherwise 1, 2, ..."""
    ends = [_number_of(item.info.name if item.info else item.name or "") for item in items]
    numbers = [number for number in ends if number is not None]
    return numbers if len(set(numbers)) == len(items) else list(range(1, len(items) + 1))


def whole_numbers(path: Path, name: str, values: NDArray[np.float64]) -> Integers:
    """Numbers (n,) of tomograms or classes (which av3 lets be negative) as such.

    Raises:
        InputError: not whole, or larger than any that is meant.
    """
    bad = (values != np.round(values)) | (np.abs(values) > LARGEST_NUMBER)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"particle {row + 1}: {name} is not a whole number", file=path, found=f"{values[row]:g}")
    return values.astype(np.int64)


def _read_doc(path: Path) -> dict[int, str]:
    listed: dict[int, str] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        number, _, name = text.strip().replace("\t", " ").partition(" ")
        if not text.strip():
            continue
        if not (number.isascii() and number.isdecimal() and len(number) < 9 and name.strip()):
            raise InputError(
                f"line {line} does not fit",
                file=path,
                expected="a number and a tomogram",
                found=text[:80],
                cure="mend it, as in `7 path/TS_07.mrc`, or rename the file when it is no list of tomograms",
            )
        if int(number) in listed:
            raise InputError(f"line {line}: a second tomogram {number}", file=path)
        listed[int(number)] = name.strip()
    return listed


def _by_number(path: Path, numbers: Sequence[int], tomograms: Sequence[TomogramInfo]) -> dict[int, TomogramInfo]:
    """Tomograms by their number when no file tells."""
    if not tomograms or not numbers:
        return {}
    ends = [_number_of(info.name) for info in tomograms]
    if len(numbers) == len(tomograms) == 1:
        if ends[0] not in (None, numbers[0]):
            told = f"its particles are of tomogram {numbers[0]}, taken as {tomograms[0].name}, the only one given"
            warnings.warn(f"{path}: {told}", CetpickWarning, stacklevel=2)
        return {numbers[0]: tomograms[0]}
    matched = {
        end: info
        for end, info in zip(ends, tomograms, strict=True)
        if end is not None and end in numbers and ends.count(end) == 1
    }
    if not matched:
        raise InputError(
            "numbers its tomograms, and it is not clear which is which",
            file=path,
            found=f"numbers {', '.join(map(str, numbers[:20]))}; {', '.join(info.name for info in tomograms)}",
            cure=f"put a file {path.with_suffix(DOC).name} beside it, with lines such as: {numbers[0]} "
            f"{tomograms[0].path.name}",
        )
    told = ", ".join(f"{number} = {info.name}" for number, info in matched.items() if info)
    warnings.warn(
        f"{path}: tomograms are taken by the number at the end of their names: {told}", CetpickWarning, stacklevel=2
    )
    return matched


def _number_of(name: str) -> int | None:
    """The number at the end of a name."""
    found = re.search(r"\d+$", name, flags=re.ASCII)
    number = int(found[0]) if found and len(found[0]) < 9 else 0
    return number if 0 < number < LARGEST_NUMBER else None
