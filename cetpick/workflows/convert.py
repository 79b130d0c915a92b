"""`convert`: coordinates of one format in, the same points in another format out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.coordinates import HANDLERS, Handler, pair_labels, read_coordinates, write_coordinates
from cetpick.io.relion import find_tomogram
from cetpick.io.tomograms import open_inputs
from cetpick.io.tomograms_star import read_tomograms_star
from cetpick.records import Coordinates, Grid, RelionTomogram, TomogramInfo
from cetpick.workflows.info import Description, describe_coordinates
from cetpick.workflows.inputs import InputOptions

Item = tuple[TomogramInfo | None, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """What `convert` tells.

    Attributes:
        read: the points read.
        written: number of points by file written.
        format: of these files.
    """

    read: Description
    written: dict[Path, int]
    format: str


def run_convert(
    source: Path,
    output: Path,
    *,
    tomograms: Sequence[Path] = (),
    format: str | None = None,  # noqa: A002
    diameter: float | None = None,
    options: InputOptions | None = None,
    overwrite: bool = False,
) -> ConvertSummary:
    """Convert a coordinate file.

    Args:
        source: a coordinate file of any known format, or a folder of files named like the tomograms.
        output: a file; or a folder (without an ending, or already there), which gets one file for each tomogram.
        tomograms: tomogram files and tomograms.star files; of the latter the tomograms themselves need not be there.
        format: name of the format, or an ending that only one has; by default that of the output's ending.
        diameter: of the particles, angstrom, for formats that hold a radius; by default as the source has it.
        options: how to read the inputs.
        overwrite: replace earlier files.

    Raises:
        InputError: unusable input, or a format that cannot hold it; nothing was written.

    Warns:
        CetpickWarning: what the format cannot hold is lost; and as read_coordinates.
    """
    options = options or InputOptions()
    handler, ending = choose_format(output, format)
    infos = open_grids(tomograms, options)
    records = _read(source, infos, options.binned)
    items: list[Item] = [(find_tomogram(record.tomogram, infos), record.table) for record in records]
    targets: dict[Path, list[Item]] = {output: items}
    if _is_folder(output):
        names = [record.tomogram or source.stem for record in records]
        targets = {output / f"{name}{ending}": [item] for name, item in zip(names, items, strict=True)}
        if len(targets) < len(items):
            raise InputError("two tomograms have the same name", file=source, found=", ".join(sorted(names)))
    elif len(items) > 1 and not handler.holds.several:
        raise InputError(
            f"a file of format {handler.name} holds one tomogram",
            file=output,
            found=f"{len(items)} tomograms in {source}",
            cure=f"name a folder in the place of {output.name} and add --format {ending.removeprefix('.')}",
        )
    present = [path for path in targets if path.exists()]
    if present and not overwrite:
        raise InputError("already exists", file=present[0], cure="name another output, or add --overwrite")
    radius = _radius(records) if diameter is None else diameter / 2
    read = describe_coordinates(source, records)
    for path, held in targets.items():
        write_coordinates(path, held, format=format and handler.name, radius=radius)
    return ConvertSummary(
        read=read,
        written={path: sum(len(table) for _, table in held) for path, held in targets.items()},
        format="star" if format is None and handler.holds.several else handler.name,
    )


def choose_format(output: Path, name: str | None) -> tuple[Handler, str]:
    """The format of the output, and the ending of files in it when the output is a folder.

    Raises:
        InputError: unknown, or not told.
    """
    ending = output.suffix.lower() if name is None else f".{name.lower()}"
    matching = [handler for handler in HANDLERS if handler.name == name] or [
        handler for handler in HANDLERS if ending in handler.suffixes
    ]
    if not matching or (name is not None and len(matching) > 1):
        known = (f"{handler.name} ({' '.join(handler.suffixes) or 'any ending'})" for handler in HANDLERS)
        raise InputError(
            "the format to write is not known",
            file=output,
            expected=", ".join(known),
            found=name or output.suffix or "no ending",
            cure="give the output one of these endings, or add --format NAME",
        )
    handler = matching[0]
    return handler, ending if ending in handler.suffixes else (*handler.suffixes, ".txt")[0]


def open_grids(paths: Sequence[Path], options: InputOptions) -> list[TomogramInfo]:
    """Headers of tomograms, or for files of a tomograms.star that are elsewhere what the star says in their place.

    Raises:
        InputError: an unusable tomogram, or two have one name.

    Warns:
        CetpickWarning: files that a tomograms.star names are not there.
    """
    infos, failures = open_inputs(paths, voxel_size=options.voxel_size, which=options.which, names=options.names)
    stars = [path for path in paths if path.suffix.lower() == ".star" and path.is_file()]
    rows = [row for star in stars for row in read_tomograms_star(star, which=options.which)]
    absent = {file: relion for file, relion in rows if not file.exists()}
    for failure in failures:
        if failure.file not in absent:
            raise failure
    if absent:
        warnings.warn(
            f"{stars[0]}: these files are not there, their sizes are taken from the sizes and the binning in the star: "
            f"{', '.join(map(str, absent))}",
            CetpickWarning,
            stacklevel=2,
        )
    return infos + [_unseen(file, relion, options.voxel_size) for file, relion in absent.items()]


def _unseen(file: Path, relion: RelionTomogram, voxel_size: float | None) -> TomogramInfo:
    x, y, z = (round(side / relion.binning) for side in relion.size)
    grid = Grid(shape=(z, y, x), voxel_size=voxel_size or relion.voxel_size)
    return TomogramInfo(name=relion.name, path=file, grid=grid, relion=relion)


def _read(source: Path, infos: Sequence[TomogramInfo], binned: bool | None) -> list[Coordinates]:
    if not source.is_dir():
        records = read_coordinates(source, tomograms=infos, binned=binned)
    elif infos:
        records = [record for _, record in pair_labels(infos, [source], binned=binned)]
    else:
        raise InputError("a folder of coordinates needs the tomograms", file=source, cure="add --tomogram FILE")
    if not records:
        names = ", ".join(info.name for info in infos)
        raise InputError("holds no points" + (f" in {names}" if names else ""), file=source)
    return records


def _radius(records: Sequence[Coordinates]) -> float | None:
    """The radius that all records have."""
    radii = {record.radius for record in records}
    return radii.pop() if len(radii) == 1 else None


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix
