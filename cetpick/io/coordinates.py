"""Coordinate files of every kind: which handler a file needs, points checked against the volume, files and tomograms
paired.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.errors import CetpickWarning, InputError
from cetpick.io import eman2, imod, relion, table
from cetpick.io.tomograms import tomogram_name
from cetpick.records import Coordinates, TomogramInfo

Items = Sequence[tuple[TomogramInfo | None, pd.DataFrame]]

HEAD_BYTES = 1 << 16
"""What a handler is shown of a file to recognise it."""
SAME_PLACE = 1e-3
"""Voxels: points that are the same on a grid of this spacing are duplicates."""
NAME_ENDINGS = ("_labels", "_picks", "_info", "_particles", "_coords", "_pick")
"""What label files carry after the name of their tomogram."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a format can hold besides points.

    Attributes:
        score: a number for each point.
        classes: the class of each point.
        several: more than one tomogram.
        voxel_size: the voxel size.
        precision: largest error of a coordinate after writing and reading, voxels.
    """

    score: bool
    classes: bool
    several: bool
    voxel_size: bool
    precision: float = SAME_PLACE


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A coordinate format.

    Attributes:
        name: as the user gives it.
        description: as messages list it.
        suffixes: endings of files that are written in this format, small letters.
        holds: what it can hold.
        recognises: whether a file is of this format, from its path and first bytes.
        read: path, tomograms (at most one unless it holds several), `binned` (see relion.read_particles) to records.
        write: path, tomograms with their tables, particle radius in angstrom (None: not known).
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    holds: Capabilities
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, Sequence[TomogramInfo], bool | None], list[Coordinates]]
    write: Callable[[Path, Items, float | None], None]


def read_coordinates(
    path: str | PathLike[str], *, tomograms: Sequence[TomogramInfo] = (), binned: bool | None = None
) -> list[Coordinates]:
    """Read a coordinate file of any known format, recognised by its content.

    Args:
        path: the file.
        tomograms: where its points may lie. A file that names no tomogram belongs to the only one, or to the one that
            it is named after.
        binned: whether RELION's rlnCoordinateX/Y/Z are voxels of the reconstruction; see relion.read_particles.

    Returns:
        One record for each tomogram, its points inside the volume (if that is known) and without duplicates. Records
        carry the name of their tomogram, where it is known; a STAR file gives none for tomograms it has no points of.

    Raises:
        InputError: no known format, a damaged file, no point inside the volume, or it is not clear in which volume.

    Warns:
        CetpickWarning: duplicates and points outside were left out, and how many; and as the formats' readers.
    """
    path = Path(path)
    handler = recognise(path)
    if not handler.holds.several:
        tomograms = _only(path, tomograms)
    records = handler.read(path, tomograms, binned)
    return [_checked(record, relion.find_tomogram(record.tomogram, tomograms)) for record in records]


def write_coordinates(
    path: str | PathLike[str],
    items: Items,
    *,
    format: str | None = None,  # noqa: A002
    radius: float | None = None,
) -> None:
    """Write points; the file is replaced only when complete.

    Args:
        path: the file.
        items: tomograms, None where not known, and their tables: columns x, y, z in voxels and, if known, class and
            score.
        format: name of a handler; by default chosen by the ending of `path`, a .star becomes relion5 when all tomograms
            came with a tomograms.star, otherwise relion31.
        radius: of the particles, angstrom.

    Raises:
        InputError: unknown format, or one that cannot hold these points.

    Warns:
        CetpickWarning: the format holds no scores or classes, and so they are lost.
    """
    path = Path(path)
    handler = _handler_for(path, items, format)
    if len(items) != 1 and not handler.holds.several:
        raise InputError(
            f"{handler.name} holds one tomogram", file=path, found=f"{len(items)} tomograms", cure="write a .star"
        )
    lost = [
        *(["scores"] if not handler.holds.score and any("score" in points for _, points in items) else []),
        *(["classes"] if not handler.holds.classes and _class_count(items) > 1 else []),
    ]
    if lost:
        warnings.warn(
            f"{path}: {handler.name} holds no {' and no '.join(lost)}, they are not written",
            CetpickWarning,
            stacklevel=2,
        )
    handler.write(path, items, radius)


def pair_labels(
    tomograms: Sequence[TomogramInfo], labels: Sequence[str | PathLike[str]], *, binned: bool | None = None
) -> list[tuple[TomogramInfo, Coordinates]]:
    """Read label files and tell which tomogram each belongs to.

    As many files that name no tomogram as there are tomograms make pairs in the order given. Everything else is paired
    by name: that in a STAR file, or that of the label file without its endings (such as ``_labels.csv``).

    Args:
        tomograms: the labelled tomograms.
        labels: files, or folders of files with the endings of known formats.
        binned: whether RELION's rlnCoordinateX/Y/Z are voxels of the reconstruction; see relion.read_particles.

    Returns:
        Pairs, in the order of `tomograms`.

    Raises:
        InputError: nothing pairs, or two files hold labels of the same tomogram; and as read_coordinates.

    Warns:
        CetpickWarning: tomograms without labels and labels without a tomogram, by name.
    """
    files = [file for label in labels for file in _label_files(Path(label))]
    several = [recognise(file).holds.several for file in files]
    in_order = len(files) == len(tomograms) and not any(several) and not any(Path(label).is_dir() for label in labels)
    found: dict[str, Coordinates] = {}
    strays = []
    for number, file in enumerate(files):
        named = named_after(file, tomograms)
        if several[number]:
            candidates = tomograms
        elif in_order:
            candidates = [tomograms[number]]
            _warn_if_swapped(file, named, tomograms[number])
        elif named:
            candidates = [named]
        else:
            strays.append(str(file))
            continue
        records = read_coordinates(file, tomograms=candidates, binned=binned)
        if not records:
            strays.append(str(file))
        for record in records:
            name = str(record.tomogram)
            if name in found:
                raise InputError(
                    f"a second file with labels of tomogram {name}",
                    file=file,
                    found=f"the first is {found[name].source}",
                    cure="give one of them",
                )
            found[name] = record
    bare = [info.name for info in tomograms if info.name not in found]
    if not found:
        raise InputError(
            "no labels belong to any of the tomograms",
            expected=f"label files named after {', '.join(bare)}",
            found=", ".join(strays),
            cure="rename them, or give as many label files as tomograms, in the same order",
        )
    for problem, names in (("labels without tomogram", strays), ("tomograms without labels", bare)):
        if names:
            warnings.warn(f"{problem}, left out: {', '.join(names)}", CetpickWarning, stacklevel=2)
    return [(info, found[info.name]) for info in tomograms if info.name in found]


def recognise(path: str | PathLike[str]) -> Handler:
    """Return the handler that knows a file by its content.

    Raises:
        InputError: unreadable, empty, or of no known format.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from None
    if handler := next((handler for handler in HANDLERS if handler.recognises(path, head)), None):
        return handler
    volume = head[208:211] == b"MAP"
    raise InputError(
        "is no coordinate file that cetpick knows" if head else "the file is empty",
        file=path,
        expected=", ".join(dict.fromkeys(handler.description for handler in HANDLERS)),
        found="an MRC volume" if volume else f"it begins with {head[:16]!r}",
        cure="are tomogram and labels the right way round?" if volume else None,
    )


def named_after(path: Path, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    """Return the tomogram that a label file is named after, such as TS_01 for TS_01.mod or rec_TS_01.mrc_labels.csv."""
    stem = path.stem
    for name in (stem, next((stem.removesuffix(ending) for ending in NAME_ENDINGS if stem.endswith(ending)), stem)):
        if info := relion.find_tomogram(name, tomograms):
            return info
        # EMAN2 cuts the name of a tomogram at the first double underscore.
        if cut := [info for info in tomograms if info.name.split("__")[0] == tomogram_name(name)]:
            return cut[0] if len(cut) == 1 else None
    return None


def _only(path: Path, tomograms: Sequence[TomogramInfo]) -> Sequence[TomogramInfo]:
    """The tomogram that a file belongs to which names none, as a sequence of one, or empty when none were given."""
    if len(tomograms) <= 1:
        return tomograms
    if info := named_after(path, tomograms):
        return [info]
    raise InputError(
        "names no tomogram, and it is not clear to which it belongs",
        file=path,
        expected=f"a file named after one of {', '.join(info.name for info in tomograms)}",
    )


def _checked(record: Coordinates, info: TomogramInfo | None) -> Coordinates:
    """The record without duplicates and without points outside of the tomogram, both said."""
    points = record.xyz
    with np.errstate(over="ignore"):
        _, first = np.unique(np.round(points / SAME_PLACE), axis=0, return_index=True)
    kept = np.zeros(len(points), dtype=bool)
    kept[first] = True
    if not kept.all():
        _warn(record, f"{(~kept).sum()} of {len(kept)} points are duplicates, left out")
    if info is None:
        return replace(record, table=record.table[kept].reset_index(drop=True))
    beyond = relion.beyond_edge(points, info)
    inside = beyond <= relion.ROUNDING
    if len(points) and not inside.any():
        raise InputError(
            f"all of its {len(points)} points lie outside of tomogram {info.name}",
            file=record.source,
            expected=f"x, y, z from -0.5 to {tuple(n - 0.5 for n in info.grid.size)}",
            found=f"x, y, z from {_point_text(points.min(axis=0))} to {_point_text(points.max(axis=0))}",
            cure="do voxel size, binning and axis order of the labels fit this tomogram?",
        )
    if not inside.all():
        worst = _point_text(points[np.argmax(beyond)])
        outside = f"{(~inside).sum()} of {len(inside)} points lie outside of tomogram {info.name}"
        _warn(record, f"{outside} of {info.grid.size} voxels, the farthest at {worst}; left out")
    # The upper edge is no part of the volume.
    upper = np.nextafter(np.array(info.grid.size) - 0.5, 0)
    checked = record.table.assign(**dict(zip("xyz", np.clip(points, -0.5, upper).T, strict=True)))
    return replace(record, table=checked[kept & inside].reset_index(drop=True), tomogram=info.name)


def _warn(record: Coordinates, message: str) -> None:
    warnings.warn(f"{record.source}: {message}", CetpickWarning, stacklevel=2)


def _warn_if_swapped(file: Path, named: TomogramInfo | None, used: TomogramInfo) -> None:
    if named and named != used:
        warnings.warn(
            f"{file}: taken as labels of tomogram {used.name}, by the order given, though it is named after "
            f"{named.name}",
            CetpickWarning,
            stacklevel=2,
        )


def _point_text(point: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in point) + ")"


def _label_files(path: Path) -> list[Path]:
    """The file itself, or the coordinate files in a folder; others with such an ending are named."""
    if not path.is_dir():
        return [path]
    suffixes = {suffix for handler in HANDLERS for suffix in handler.suffixes}
    files = []
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != "."):
        try:
            recognise(file)
        except InputError as error:
            warnings.warn(f"{file}: left out, {error.problem}", CetpickWarning, stacklevel=2)
        else:
            files.append(file)
    if not files:
        raise InputError("the folder holds no label files", file=path, expected=f"*{', *'.join(sorted(suffixes))}")
    return files


def _class_count(items: Items) -> int:
    return len({name for _, points in items if "class" in points for name in points["class"]})


def _handler_for(path: Path, items: Items, name: str | None) -> Handler:
    if name is None and path.suffix.lower() == ".star":
        name = "relion5" if all(info is not None and info.relion for info, _ in items) else "relion31"
    for handler in HANDLERS:
        if handler.name == name if name is not None else path.suffix.lower() in handler.suffixes:
            return handler
    raise InputError(
        "unknown coordinate format" if name is None else f"unknown coordinate format {name}",
        file=path,
        expected=", ".join(f"{handler.name} ({' '.join(handler.suffixes)})" for handler in HANDLERS),
    )


def _needed(path: Path, info: TomogramInfo | None) -> TomogramInfo:
    if info is None:
        raise InputError(
            "this format needs size and voxel size of the tomogram", file=path, cure="give the tomogram (--tomogram)"
        )
    return info


def _text_head(head: bytes) -> str | None:
    """The first bytes as text, None if they are none; the last character may be cut."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if "\0" in text else text


def _is_star(_: Path, head: bytes) -> bool:
    lines = (line.strip() for line in (_text_head(head) or "").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "").startswith("data_")


def _is_json_object(_: Path, head: bytes) -> bool:
    return (_text_head(head) or "").lstrip().startswith("{")


def _is_table(_: Path, head: bytes) -> bool:
    text = _text_head(head)
    # The last line may be cut.
    return text is not None and table.looks_like_table(text if len(head) < HEAD_BYTES else text.rpartition("\n")[0])


def _first(tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    return tomograms[0] if tomograms else None


def _relion(flavour: relion.Flavour) -> Handler:
    return Handler(
        name=flavour,
        description="STAR of RELION or Warp",
        suffixes=(".star",),
        holds=Capabilities(score=True, classes=False, several=True, voxel_size=False),
        recognises=_is_star,
        read=lambda path, tomograms, binned: relion.read_particles(path, tomograms, binned=binned),
        write=lambda path, items, _: relion.write_particles(
            path, flavour, [(_needed(path, info), points) for info, points in items]
        ),
    )


def _text(
    name: str, suffixes: tuple[str, ...], write: Callable[[Path, pd.DataFrame], None], holds: Capabilities
) -> Handler:
    return Handler(
        name=name,
        description="table of x, y, z (.csv, .tsv, .coords, .xyz, .txt)",
        suffixes=suffixes,
        holds=holds,
        recognises=_is_table,
        read=lambda path, tomograms, _: [table.read_table(path, _first(tomograms))],
        write=lambda path, items, _: write(path, items[0][1]),
    )


HANDLERS: tuple[Handler, ...] = (
    Handler(
        name="imod",
        description="IMOD model (.mod)",
        suffixes=(".mod",),
        holds=Capabilities(score=True, classes=True, several=False, voxel_size=True),
        recognises=lambda _, head: head.startswith(b"IMOD"),
        read=lambda path, tomograms, _: [imod.mod_to_coordinates(path, _first(tomograms))],
        write=lambda path, items, radius: imod.coordinates_to_mod(
            path, _needed(path, items[0][0]), items[0][1], radius=radius
        ),
    ),
    _relion("relion5"),
    _relion("relion4"),
    _relion("relion31"),
    _relion("warp"),
    Handler(
        name="eman2",
        description="EMAN2 info (.json)",
        suffixes=(".json",),
        holds=Capabilities(score=True, classes=True, several=False, voxel_size=False),
        recognises=_is_json_object,
        read=lambda path, tomograms, _: [eman2.read_info_json(path, _first(tomograms))],
        write=lambda path, items, radius: eman2.write_info_json(
            path, _needed(path, items[0][0]), items[0][1], radius=radius
        ),
    ),
    _text(
        "table",
        (".csv", ".tsv"),
        table.write_table,
        Capabilities(score=True, classes=True, several=False, voxel_size=False),
    ),
    _text(
        "coords",
        (".coords", ".xyz", ".txt"),
        table.write_coords,
        Capabilities(score=False, classes=False, several=False, voxel_size=False),
    ),
    _text(
        "model2point",
        (),
        table.write_model2point,
        Capabilities(score=True, classes=False, several=False, voxel_size=False, precision=0.01),
    ),
)
"""All formats, in the order in which they are asked whether they know a file."""
