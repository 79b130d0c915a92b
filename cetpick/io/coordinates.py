"""Coordinate files of every kind: read and checked against the volume, written, paired with tomograms."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.formats import HANDLERS, cannot_hold, handler_for, recognise
from cetpick.io.handler import SAME_PLACE, Handler, Item, ReadOptions
from cetpick.io.naming import find_tomogram, named_after
from cetpick.io.relion import ROUNDING, beyond_edge
from cetpick.io.table import tomogram_names
from cetpick.io.tomograms import ENDINGS
from cetpick.records import Coordinates, TomogramInfo

SHOWN = 5
"""So many tomograms are named in a message."""


def read_coordinates(
    path: str | PathLike[str],
    *,
    tomograms: Sequence[TomogramInfo] = (),
    binned: bool | None = None,
    z: float | None = None,
    voxel_size: float | None = None,
) -> list[Coordinates]:
    """Read a coordinate file of any known format, recognised by its content.

    Args:
        path: the file.
        tomograms: where its points may lie. A file that names no tomogram belongs to the only one, or to the one that
            it is named after.
        binned: whether RELION's rlnCoordinateX/Y/Z are voxels of the reconstruction; see relion.read_particles.
        z: of all points of a two-dimensional file, voxels.
        voxel_size: angstrom, for when no tomogram and not the file tells.

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
    if not handler.holds.tomogram:
        tomograms = _only(path, tomograms)
    records = handler.read(path, tomograms, ReadOptions(binned=binned, z=z, voxel_size=voxel_size))
    return [_checked(record, find_tomogram(record.tomogram, tomograms)) for record in records]


def write_coordinates(
    path: str | PathLike[str],
    items: Sequence[tuple[TomogramInfo | None, pd.DataFrame]],
    *,
    format: str | None = None,  # noqa: A002
    radius: float | None = None,
) -> None:
    """Write points; the file is replaced only when complete.

    Args:
        path: the file.
        items: tomograms, None where not known, and their tables: columns x, y, z in voxels and, if known, class, score,
            rot, tilt and psi.
        format: name of a handler; by default chosen by the ending of `path`, a .star becomes relion5 when all tomograms
            came with a tomograms.star, otherwise relion31.
        radius: of the particles, angstrom.

    Raises:
        InputError: unknown format, or one that cannot hold these points.

    Warns:
        CetpickWarning: what the format cannot hold and is lost.
    """
    path = Path(path)
    held = [Item(info=info, table=table) for info, table in items]
    handler = handler_for(path, format, relion5=all(item.info is not None and item.info.relion for item in held))
    if lost := cannot_hold(handler, held):
        warnings.warn(loss_text(path, handler, lost), CetpickWarning, stacklevel=2)
    write_items(path, handler, held, radius=radius)


def write_items(path: Path, handler: Handler, items: Sequence[Item], *, radius: float | None = None) -> None:
    """Write points in a format; what that cannot hold is left out without a word (see formats.cannot_hold).

    Raises:
        InputError: the format is only read, or holds one tomogram; and as the formats' writers.
    """
    if handler.write is None:
        raise InputError(f"format {handler.name} is only read", file=path, cure="choose another format")
    if len(items) != 1 and not handler.holds.several:
        raise InputError(
            f"{handler.name} holds one tomogram", file=path, found=f"{len(items)} tomograms", cure="write a .star"
        )
    handler.write(path, items, radius)


def loss_text(path: Path, handler: Handler, lost: Iterable[str]) -> str:
    """What is lost by writing a format, as a message."""
    return f"{path}: format {handler.name} cannot hold: {', '.join(lost)}; not written"


def pair_labels(
    tomograms: Sequence[TomogramInfo],
    labels: Sequence[str | PathLike[str]],
    *,
    several: bool = False,
    binned: bool | None = None,
    z: float | None = None,
    option: str | None = None,
    besides: Collection[Path] = (),
) -> list[tuple[TomogramInfo, Coordinates]]:
    """Read label files and tell which tomogram each belongs to; as pair_files.

    Args:
        tomograms: see pair_files, as for the others.
        labels: label files.
        several: a tomogram may have several.
        binned: whether points are in voxels of the tomogram.
        z: slice of points that have none.
        option: that names the tomograms, for messages.
        besides: real paths of tomograms that have labels from elsewhere.

    Raises:
        InputError: as pair_files; or all files, which lie in folders, are empty.

    Warns:
        CetpickWarning: tomograms without labels, by name.
    """
    pairs = pair_files(tomograms, labels, several=several, binned=binned, z=z, option=option)
    # files in folders may be empty, such as EMAN2 makes before anybody has boxed
    named = {Path(path) for path in labels}
    pairs = [(info, record) for info, record in pairs if len(record) or record.source in named]
    if not pairs:
        raise InputError("no file of the folder has labels", file=labels[0], cure="click some, and save")
    has_some = {info.path.resolve() for info, _ in pairs} | {*besides}
    bare = [info.name for info in tomograms if info.path.resolve() not in has_some]
    if bare:
        warnings.warn(f"tomograms without labels: {', '.join(bare)}", CetpickWarning, stacklevel=2)
    return pairs


def tells_tomogram(path: Path, tomograms: Sequence[TomogramInfo]) -> bool:
    """Whether a file itself tells which of these tomograms its points are in; a table of a single other one does not.

    Raises:
        InputError: it cannot be read.
    """
    handler = recognise(path)
    if handler.name != "tables":
        return handler.holds.tomogram
    names = tomogram_names(path)
    return len(names) > 1 or any(find_tomogram(name, tomograms) for name in names)


def pair_files(
    tomograms: Sequence[TomogramInfo],
    paths: Sequence[str | PathLike[str]],
    *,
    others: Sequence[TomogramInfo] = (),
    what: str = "labels",
    several: bool = False,
    needed: bool = True,
    binned: bool | None = None,
    z: float | None = None,
    option: str | None = None,
) -> list[tuple[TomogramInfo, Coordinates]]:
    """Read coordinate files and tell which tomogram each belongs to.

    As many files that name no tomogram as there are tomograms make pairs in the order given, unless all are named after
    a tomogram of their own. Everything else is paired by name: that in a STAR file, or that of the file without its
    endings (such as ``_labels.csv``).

    Args:
        tomograms: those that files may be given for in order.
        paths: files, or folders of files with the endings of known formats.
        others: tomograms that points may belong to by name alone.
        what: the points are, for messages.
        several: a tomogram may have points in more than one of `paths`, and is then in as many pairs.
        needed: it is an error when nothing pairs, or a file that was named, not found in a folder.
        binned: whether RELION's rlnCoordinateX/Y/Z are voxels of the reconstruction; see relion.read_particles.
        z: of all points of two-dimensional files, voxels.
        option: that names the tomograms of the files, for messages; None for arguments.

    Returns:
        Pairs, in the order of `tomograms` and `others`, those of one tomogram in the order of `paths`.

    Raises:
        InputError: nothing pairs, a named file has no tomogram, or two files hold points of the same tomogram; and as
            read_coordinates.

    Warns:
        CetpickWarning: files in folders without a tomogram, by name.
    """
    known = [*tomograms, *others]
    files = [(number, file) for number, path in enumerate(paths) for file in coordinate_files(Path(path))]
    naming = {file: tells_tomogram(file, known) for _, file in files}
    nameless = [file for _, file in files if not naming[file]]
    meant = {file: named_after(file, known) for file in nameless}
    apart = len({info.name for info in meant.values() if info}) == len(nameless)
    in_order = len(nameless) == len(tomograms) and not apart and not any(Path(path).is_dir() for path in paths)
    order = iter(tomograms)
    found: dict[str, list[tuple[int, Coordinates]]] = {}
    strays: list[tuple[int, Path]] = []
    for number, file in files:
        if naming[file]:
            candidates = known
        elif in_order:
            candidates = [next(order)]
            _warn_if_swapped(file, meant[file], candidates[0], what)
        elif named := meant[file]:
            candidates = [named]
        else:
            strays.append((number, file))
            continue
        records = read_coordinates(file, tomograms=candidates, binned=binned, z=z)
        if not records:
            strays.append((number, file))
        for record in records:
            earlier = found.setdefault(str(record.tomogram), [])
            if earlier and (not several or earlier[-1][0] == number):
                raise InputError(
                    f"a second file with {what} of tomogram {record.tomogram}",
                    file=file,
                    found=f"the first is {earlier[-1][1].source}",
                    cure="give one of them",
                )
            earlier.append((number, record))
    named_strays = [file for number, file in strays if not Path(paths[number]).is_dir()]
    told = ", ".join(str(file) for _, file in strays)
    if needed and (named_strays or not found):
        stray = (named_strays or [file for _, file in strays])[0]
        kind = "a file with particles" if naming[stray] else "a file named after one"
        names = [info.name for info in known[:SHOWN]] + (["..."] if len(known) > SHOWN else [])
        raise InputError(
            f"these {what} belong to none of the tomograms" if found else f"no {what} belong to any of the tomograms",
            file=stray if found else None,
            expected=f"{kind} of {', '.join(names)}",
            found=told,
            cure=_leave_out(option) if naming[stray] else _rename(stray, known, len(named_strays), len(files), option),
        )
    if strays:
        warnings.warn(f"{what} without tomogram, left out: {told}", CetpickWarning, stacklevel=3)
    return [(info, record) for info in known for _, record in found.get(info.name, [])]


def _leave_out(option: str | None) -> str:
    """What to do with a file that names tomograms, none of which are known."""
    return (
        f"name its tomograms, too{f' ({option})' if option else ''}, or leave it out; where these are the same under "
        "another name, give the tomograms.star that calls them so, or links of these names"
    )


def _rename(stray: Path, known: Sequence[TomogramInfo], strays: int, files: int, option: str | None) -> str:
    """What to do with a file named after none of the `known` tomograms, one of so many that were named, and in all."""
    meant = _alike(stray, known)
    named = stray.with_name(f"{meant.name if meant else 'TOMOGRAM'}{stray.suffix}")
    rename = f"rename it after its tomogram (`{shlex.join(['cp', str(stray), str(named)])}`)"
    if strays > 1:
        return f"{rename}, or give as many files as tomograms, in the same order"
    if strays == files == 1:
        words = [*([option] if option else []), str(meant.path) if meant else "TOMOGRAM"]
        return f"name its tomogram alone: `{shlex.join(words)}`; or {rename}"
    return rename


def _alike(file: Path, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    """The only tomogram that shares the most numbers with the name of a file, such as TS_041 for clicks_041.mod."""
    numbers = set(re.findall(r"\d+", file.stem))
    shared = [len(numbers & set(re.findall(r"\d+", info.name))) for info in tomograms]
    most = max(shared, default=0)
    return tomograms[shared.index(most)] if most and shared.count(most) == 1 else None


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
        cure="rename it after its tomogram, or name that tomogram alone",
    )


def _checked(record: Coordinates, info: TomogramInfo | None) -> Coordinates:
    """The record without duplicates and without points outside of the tomogram, both said."""
    points = record.xyz
    with np.errstate(over="ignore"):
        places = np.round(points / SAME_PLACE)
    if "class" in record.table:  # a particle of another kind is none
        places = np.column_stack([places, pd.factorize(record.table["class"])[0]])
    # of duplicates the best one is kept
    scores = record.table["score"].to_numpy() if "score" in record.table else np.zeros(len(points))
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(places[order], axis=0, return_index=True)
    kept = np.zeros(len(points), dtype=bool)
    kept[order[first]] = True
    if not kept.all():
        _warn(record, f"{(~kept).sum()} of {len(kept)} points are duplicates, left out")
    if info is None:
        return replace(record, table=record.table[kept].reset_index(drop=True), left_out=int((~kept).sum()))
    beyond = beyond_edge(points, info)
    inside = beyond <= ROUNDING
    if len(points) and not inside.any():
        raise InputError(
            f"all of its {len(points)} points lie outside of tomogram {info.name}",
            file=record.source,
            expected=f"x, y, z from -0.5 to {tuple(n - 0.5 for n in info.grid.size)}",
            found=f"x, y, z from {_point_text(points.min(axis=0))} to {_point_text(points.max(axis=0))}",
            cure="do voxel size, binning and axis order fit this tomogram? Of labels `cetpick check` tells it",
        )
    if not inside.all():
        worst = _point_text(points[np.argmax(beyond)])
        outside = f"{(~inside).sum()} of {len(inside)} points lie outside of tomogram {info.name}"
        _warn(record, f"{outside} of {info.grid.size} voxels, the farthest at {worst}; left out")
    # The upper edge is no part of the volume.
    upper = np.nextafter(np.array(info.grid.size) - 0.5, 0)
    checked = record.table.assign(**dict(zip("xyz", np.clip(points, -0.5, upper).T, strict=True)))
    kept &= inside
    table = checked[kept].reset_index(drop=True)
    return replace(record, table=table, tomogram=info.name, left_out=int((~kept).sum()))


def _warn(record: Coordinates, message: str) -> None:
    warnings.warn(f"{record.source}: {message}", CetpickWarning, stacklevel=2)


def _warn_if_swapped(file: Path, named: TomogramInfo | None, used: TomogramInfo, what: str) -> None:
    if named and named != used:
        warnings.warn(
            f"{file}: taken as {what} of tomogram {used.name}, by the order given, though it is named after "
            f"{named.name}",
            CetpickWarning,
            stacklevel=2,
        )


def _point_text(point: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in point) + ")"


def coordinate_files(path: Path) -> list[Path]:
    """The file itself, or the coordinate files in a folder.

    Raises:
        InputError: there is none in it.

    Warns:
        CetpickWarning: others with such an ending are left out.
    """
    if not path.is_dir():
        return [path]
    suffixes = {suffix for handler in HANDLERS for suffix in handler.suffixes}
    files = []
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != "."):
        try:
            recognise(file)
        except InputError as error:
            if file.suffix.lower() not in ENDINGS:  # those are tomograms
                warnings.warn(f"{file}: left out, {error.problem}", CetpickWarning, stacklevel=2)
        else:
            files.append(file)
    if not files:
        raise InputError("the folder holds no coordinate files", file=path, expected=f"*{', *'.join(sorted(suffixes))}")
    return files
