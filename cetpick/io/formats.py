"""The table of coordinate formats, and which of them a file is of."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import pandas as pd

from cetpick.errors import InputError
from cetpick.io import copick, cryolo, dynamo, eman1, eman2, imod, motl, portal, pytom, relion, stopgap, table
from cetpick.io.handler import HEAD_BYTES, Capabilities, Handler, Item, needed_info, text_head
from cetpick.io.numbered import DOC, class_numbers, is_class_number
from cetpick.records import ANGLES, DEFAULT_CLASS, Coordinates, TomogramInfo

STAR = "STAR of RELION or Warp"
"""How the handlers of relion.py describe themselves."""
TABLE = "table of x, y, z (.csv, .tsv, .coords, .xyz, .txt)"
"""How those of tables do."""
GROUPS = ("object", "contour")
"""Columns of what points belong to in IMOD; one value says nothing."""


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
    if not head:
        raise InputError("the file is empty", file=path, cure="was the program that wrote it interrupted?")
    if head[208:211] == b"MAP":
        found, cure = "an MRC volume", "are tomogram and labels the right way round?"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found, cure = "text in UTF-16, as PowerShell's > writes it", "iconv -f UTF-16 -t UTF-8 makes it UTF-8"
    else:
        found = f"it begins with {head[:16]!r}"
        cure = "a table has three columns of numbers, or columns that are named x, y and z"
    raise InputError(
        "is no coordinate file that cetpick knows",
        file=path,
        expected=", ".join(dict.fromkeys(handler.description for handler in HANDLERS)),
        found=found,
        cure=cure,
    )


def handler_for(path: Path, name: str | None, *, relion5: bool) -> Handler:
    """The format to write, by its name or by the ending of `path`; a .star is RELION 5's when that is possible.

    Raises:
        InputError: there is none of that name or ending, or it is only read.
    """
    if name is None and path.suffix.lower() == ".star":
        name = "relion5" if relion5 else "relion31"
    for handler in HANDLERS:
        if handler.name == name if name is not None else path.suffix.lower() in handler.suffixes:
            if handler.write is None:
                raise InputError(f"format {handler.name} is only read", file=path, cure="choose another format")
            return handler
    raise InputError(
        "unknown coordinate format" if name is None else f"unknown coordinate format {name}",
        file=path,
        expected=", ".join(
            f"{handler.name} ({' '.join(handler.suffixes)})" for handler in HANDLERS if handler.write is not None
        ),
    )


def cannot_hold(handler: Handler, items: Sequence[Item], *, voxel_size: float | None = None) -> list[str]:
    """What of these points a format cannot hold, in words.

    Args:
        handler: the format.
        items: the points.
        voxel_size: angstrom, when the file that they come from is all that tells it.
    """
    holds = handler.holds
    columns = dict.fromkeys(column for item in items for column in item.table.columns)
    classes = list(dict.fromkeys(name for item in items for name in item.classes))
    lost = []
    lost += _lost_numbers("score", [_count(item, ["score"]) for item in items], items, held=holds.score)
    lost += _lost_classes(handler, classes)
    lost += _lost_numbers("angles", [_count(item, ANGLES) for item in items], items, held=holds.angles)
    if voxel_size is not None and not holds.voxel_size:
        lost.append(f"voxel size ({voxel_size:g} A)")
    if holds.columns is not None:
        known = {"x", "y", "z", "class", "score", *holds.columns, *(ANGLES if {*ANGLES} <= columns.keys() else ())}
        known |= {*table.TOMOGRAM_COLUMNS} if holds.tomogram else set()
        others = [column for column in columns if column not in known and not _says_nothing(column, items, holds)]
        if others:
            lost.append(f"column{'s' if len(others) > 1 else ''} {', '.join(others)}")
    return lost


def number_classes(handler: Handler, items: Sequence[Item]) -> list[Item]:
    """Items whose classes are numbers where the format holds no names, so that these are the same in several files."""
    classes = [name for item in items for name in item.classes]
    if handler.holds.classes != "numbers" or {*classes} <= {DEFAULT_CLASS}:
        return list(items)
    coded = class_numbers(classes)
    return [
        replace(item, table=item.table.assign(**{"class": [str(coded[name]) for name in item.classes]}))
        for item in items
    ]


def _count(item: Item, columns: list[str]) -> int:
    """How many points have numbers in all of these columns."""
    if not {*columns} <= set(item.table.columns):
        return 0
    return int(item.table[columns].apply(pd.to_numeric, errors="coerce").notna().all(axis=1).sum())


def _lost_numbers(what: str, counts: list[int], items: Sequence[Item], *, held: bool) -> list[str]:
    """What every point has, or none: numbers that only some have cannot be held."""
    points = sum(map(len, items))
    if not any(counts) or (held and sum(counts) == points):
        return []
    return [f"{what} ({sum(counts)} of {points} points have {'one' if what == 'score' else 'them'})" if held else what]


def _lost_classes(handler: Handler, classes: list[str]) -> list[str]:
    named = [name for name in classes if name != DEFAULT_CLASS]
    count = f"class ({len(classes)} classes)"
    match handler.holds.classes:
        case "none" if named:
            return [count if len(classes) > 1 else f"class ({named[0]})"]
        case "one" if len(classes) > 1:
            return [count]
        case "names" if any(len(name.encode()) > (handler.holds.class_bytes or math.inf) for name in classes):
            return [f"the ends of names of classes (more than {handler.holds.class_bytes} bytes)"]
        case "numbers" if named and not all(map(is_class_number, classes)):
            coded = ", ".join(f"{name} = {number}" for name, number in class_numbers(classes).items())
            return [f"names of classes ({coded})"]
    return []


def _says_nothing(column: str, items: Iterable[Item], holds: Capabilities) -> bool:
    """Whether a column tells groups of points, but no others than the classes that the format holds."""
    if column not in GROUPS:
        return False
    grouped = [item for item in items if column in item.table]
    if len({value for item in grouped for value in item.table[column]}) < 2:
        return True
    pairs = [{*zip(item.table[column], item.classes, strict=True)} for item in grouped]
    alike = all(len(both) == len({a for a, _ in both}) == len({b for _, b in both}) for both in pairs)
    return alike and holds.classes in ("numbers", "names")


def _first(tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    return tomograms[0] if tomograms else None


def _star_of(head: bytes) -> str | None:
    """Whose STAR file it is: a block of STOPGAP or crYOLO, otherwise an empty text; None when it is no STAR file."""
    lines = [line.strip() for line in (text_head(head) or "").splitlines()]
    if not next((line for line in lines if line and not line.startswith("#")), "").startswith("data_"):
        return None
    return next((block for block in (stopgap.BLOCK, cryolo.BLOCK) if f"data_{block}" in lines), "")


def _is_info_json(path: Path, head: bytes) -> bool:
    text = (text_head(head) or "").lstrip()
    others = copick.is_picks(path, head) or portal.is_points(path, head)
    known = path.name.endswith("_info.json") or any(f'"{key}"' in text for key in eman2.KEYS)
    return not others and path.name != eman2.PROJECT and text.startswith("{") and known


def _is_table(_: Path, head: bytes) -> bool:
    text = text_head(head)
    # The last line may be cut.
    return text is not None and table.looks_like_table(text if len(head) < HEAD_BYTES else text.rpartition("\n")[0])


def _is_table_of_tomograms(path: Path, head: bytes) -> bool:
    return _is_table(path, head) and table.names_tomograms(text_head(head) or "")


def _relion(flavour: relion.Flavour) -> Handler:
    return Handler(
        name=flavour,
        description=STAR,
        suffixes=(".star",),
        holds=Capabilities(score=True, classes="numbers", angles=True, several=True, tomogram=True),
        recognises=lambda _, head: _star_of(head) == "",
        read=lambda path, tomograms, options: relion.read_particles(
            path, tomograms, binned=options.binned, voxel_size=options.voxel_size
        ),
        write=lambda path, items, _: relion.write_items(path, flavour, items),
    )


def _numbered(
    name: str,
    description: str,
    suffix: str,
    recognises: Callable[[Path, bytes], bool],
    read: Callable[[Path, Sequence[TomogramInfo]], list[Coordinates]],
    write: Callable[[Path, Sequence[Item]], None],
) -> Handler:
    return Handler(
        name=name,
        description=description,
        suffixes=(suffix,),
        holds=Capabilities(score=True, classes="numbers", angles=True, several=True, tomogram=True),
        recognises=recognises,
        read=lambda path, tomograms, _: read(path, tomograms),
        write=lambda path, items, _: write(path, items),
        beside=DOC,
    )


def _text(
    name: str, suffixes: tuple[str, ...], write: Callable[[Path, pd.DataFrame], None], holds: Capabilities
) -> Handler:
    return Handler(
        name=name,
        description=TABLE,
        suffixes=suffixes,
        holds=holds,
        recognises=_is_table,
        read=lambda path, tomograms, options: [
            table.read_table(path, _first(tomograms), voxel_size=options.voxel_size)
        ],
        write=lambda path, items, _: write(path, items[0].table),
    )


HANDLERS: tuple[Handler, ...] = (
    Handler(
        name="imod",
        description="IMOD model (.mod)",
        suffixes=(".mod",),
        holds=Capabilities(score=True, classes="names", class_bytes=imod.NAME_BYTES, voxel_size=True, radius=True),
        recognises=lambda _, head: head.startswith(b"IMOD"),
        read=lambda path, tomograms, _: [imod.mod_to_coordinates(path, _first(tomograms))],
        write=lambda path, items, radius: imod.coordinates_to_mod(
            path, needed_info(path, items[0]), items[0].table, radius=radius
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
        holds=Capabilities(score=True, classes="names", radius=True),
        recognises=_is_info_json,
        read=lambda path, tomograms, _: [eman2.read_info_json(path, _first(tomograms))],
        write=lambda path, items, radius: eman2.write_info_json(
            path, needed_info(path, items[0]), items[0].table, radius=radius
        ),
        stem=eman2.info_name,
    ),
    Handler(
        name="copick",
        description="picks of copick (.json)",
        suffixes=(".json",),
        holds=Capabilities(score=True, classes="one", angles=True, tomogram=True, voxel_size=True),
        recognises=copick.is_picks,
        read=lambda path, tomograms, _: copick.read_picks(path, tomograms),
        write=lambda path, items, _: copick.write_picks(path, items[0]),
    ),
    Handler(
        name="portal",
        description="points of the CryoET Data Portal (.ndjson)",
        suffixes=(".ndjson",),
        holds=Capabilities(angles=True, columns=(portal.INSTANCE,)),
        recognises=portal.is_points,
        read=lambda path, tomograms, _: [portal.read_points(path, _first(tomograms))],
        write=lambda path, items, _: portal.write_points(path, items[0]),
    ),
    _numbered("dynamo", "table of Dynamo (.tbl)", ".tbl", dynamo.is_table, dynamo.read_table, dynamo.write_table),
    _numbered(
        "motl", "motive list of TOM, av3 or novaSTA (.em)", ".em", motl.is_motive_list,
        motl.read_motive_list, motl.write_motive_list,
    ),
    _numbered(
        "stopgap", "motive list of STOPGAP (.star)", ".star", lambda _, head: _star_of(head) == stopgap.BLOCK,
        stopgap.read_motive_list, stopgap.write_motive_list,
    ),
    Handler(
        name="pytom",
        description="particle list of PyTom (.xml)",
        suffixes=(".xml",),
        holds=Capabilities(score=True, classes="names", angles=True, several=True, tomogram=True),
        recognises=pytom.is_particle_list,
        read=lambda path, tomograms, _: pytom.read_particle_list(path, tomograms),
        write=lambda path, items, _: pytom.write_particle_list(path, items),
    ),
    Handler(
        name="cbox",
        description="boxes of crYOLO (.cbox)",
        suffixes=(".cbox",),
        holds=Capabilities(score=True, radius=True),
        recognises=lambda _, head: _star_of(head) == cryolo.BLOCK,
        read=lambda path, tomograms, _: [cryolo.read_cbox(path, _first(tomograms))],
        write=lambda path, items, radius: cryolo.write_cbox(path, items[0], radius),
    ),
    Handler(
        name="eman1",
        description="boxes of EMAN1 (.box)",
        suffixes=(eman1.SUFFIX,),
        holds=Capabilities(depth=False, precision=0.5),
        recognises=eman1.is_boxes,
        read=lambda path, tomograms, options: [eman1.read_boxes(path, _first(tomograms), z=options.z)],
        write=None,
    ),
    Handler(
        name="tables",
        description=TABLE,
        suffixes=(),
        holds=Capabilities(score=True, classes="names", angles=True, columns=None, several=True, tomogram=True),
        recognises=_is_table_of_tomograms,
        read=lambda path, tomograms, options: table.read_tables(path, tomograms, voxel_size=options.voxel_size),
        write=None,
    ),
    _text("table", (".csv", ".tsv"), table.write_table,
          Capabilities(score=True, classes="names", angles=True, columns=None)),
    _text("coords", (".coords", ".xyz", ".txt"), table.write_coords, Capabilities()),
    _text("model2point", (), table.write_model2point, Capabilities(score=True, precision=0.01)),
)  # fmt: skip
"""All formats, in the order in which they are asked whether they know a file; the first one owns an ending."""
