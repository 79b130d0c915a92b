"""What a coordinate format is to the rest of cetpick: what it can hold, how it is recognised, read and written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points, as_points
from cetpick.records import ANGLES, DEFAULT_CLASS, Coordinates, TomogramInfo

HEAD_BYTES = 1 << 16
"""What a handler is shown of a file to recognise it."""
SAME_PLACE = 1e-3
"""Voxels: points that are the same on a grid of this spacing are duplicates."""

Classes = Literal["none", "one", "numbers", "names"]
"""Which classes a format holds: none, one name a file, a number for each point, a name for each point."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a format can hold besides points.

    Attributes:
        score: a number for each point.
        classes: which classes.
        class_bytes: the longest name of a class in UTF-8; what is longer is cut. None: any.
        angles: the orientation of each point.
        several: more than one tomogram.
        tomogram: the name (or number) of the tomogram, so that a file need not be named after it.
        voxel_size: the voxel size.
        radius: that of the particles, or the width of a box around them.
        depth: z of each point.
        columns: names of further columns; None: any.
        precision: largest error of a coordinate after writing and reading, voxels.
    """

    score: bool = False
    classes: Classes = "none"
    class_bytes: int | None = None
    angles: bool = False
    several: bool = False
    tomogram: bool = False
    voxel_size: bool = False
    radius: bool = False
    depth: bool = True
    columns: tuple[str, ...] | None = ()
    precision: float = SAME_PLACE


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the user says of a file that the file does not say.

    Attributes:
        binned: whether RELION's rlnCoordinateX/Y/Z are voxels of the reconstruction; see relion.read_particles.
        z: of all points of a two-dimensional file, voxels.
        voxel_size: angstrom, for when no tomogram and not the file tells.
    """

    binned: bool | None = None
    z: float | None = None
    voxel_size: float | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """Points of one tomogram, to be written.

    Attributes:
        table: columns x, y, z in voxels and, if known, class, score, rot, tilt, psi.
        info: the tomogram, None when not at hand.
        name: of the tomogram, for when it is not at hand either.
        voxel_size: angstrom, for when the tomogram is not at hand.
    """

    table: pd.DataFrame
    info: TomogramInfo | None = None
    name: str | None = None
    voxel_size: float | None = None

    @property
    def points(self) -> Points:
        """Points (n, 3), in voxels."""
        return as_points(self.table[["x", "y", "z"]].to_numpy())

    @property
    def classes(self) -> list[str]:
        """A class for each point."""
        return [str(name) for name in self.table["class"]] if "class" in self.table else [DEFAULT_CLASS] * len(self)

    @property
    def angles(self) -> Points | None:
        """Orientations (n, 3), RELION's convention, None when not all are known."""
        if not {*ANGLES} <= set(self.table.columns):
            return None
        angles = as_points(self.table[ANGLES].apply(pd.to_numeric, errors="coerce"))
        return angles if np.isfinite(angles).all() else None

    @property
    def tomogram(self) -> str | None:
        """How files name the tomogram: its path, else its name."""
        return str(self.info.path) if self.info else self.name

    @property
    def angstrom(self) -> float | None:
        """The voxel size, when known."""
        return self.info.grid.voxel_size if self.info else self.voxel_size

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A coordinate format.

    Attributes:
        name: as the user gives it.
        description: as messages list it.
        suffixes: endings of files that are written in this format, small letters.
        holds: what it can hold.
        recognises: whether a file is of this format, from its path and first bytes.
        read: path, tomograms (at most one unless files name theirs), what the user says, to records.
        write: path, points, particle radius in angstrom (None: not known). None: the format is only read.
        beside: ending of a second file that is written beside each.
        stem: from the name of a tomogram to that of its file, without the ending, in a folder of such files.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    holds: Capabilities
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, Sequence[TomogramInfo], ReadOptions], list[Coordinates]]
    write: Callable[[Path, Sequence[Item], float | None], None] | None
    beside: str | None = None
    stem: Callable[[str], str] = str

    def files(self, path: Path) -> list[Path]:
        """The files that writing `path` makes."""
        return [path] if self.beside is None else [path, path.with_suffix(self.beside)]


def known_scores(path: Path, items: Iterable[Item]) -> list[NDArray[np.float64]] | None:
    """Scores (n,) for each item, None when there are none.

    Warns:
        CetpickWarning: some points have a score and others none; then none counts.
    """
    items = list(items)
    tables = [item.table for item in items]
    if not any("score" in table for table in tables):
        return None
    scores = [
        table["score"].to_numpy(dtype=np.float64) if "score" in table else np.full(len(table), np.nan)
        for table in tables
    ]
    if not all(np.isfinite(values).all() for values in scores):
        warnings.warn(f"{path}: some particles have no score, so none is written", CetpickWarning, stacklevel=2)
        return None
    return scores


def needed_info(path: Path, item: Item) -> TomogramInfo:
    """The tomogram of an item, for a format that cannot do without.

    Raises:
        InputError: it is not known.
    """
    if item.info is None:
        raise InputError(
            "this format needs the tomogram, for its file, size and voxel size",
            file=path,
            cure="give the tomogram (--tomogram), or when points move to another grid that one (--to-tomogram)",
        )
    return item.info


def text_head(head: bytes) -> str | None:
    """The first bytes as text, None if they are none; the last character may be cut."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if "\0" in text else text


def whole_lines(head: bytes) -> list[str]:
    """The first lines of a text that are not cut, empty when it is no text."""
    lines = (text_head(head) or "").splitlines()
    return lines if len(head) < HEAD_BYTES else lines[:-1]
