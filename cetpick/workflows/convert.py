"""`convert`: coordinates of one format in, the same points in another format out."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cetpick.config import ParticleClass
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Axes
from cetpick.io.atomic import all_or_none
from cetpick.io.coordinates import loss_text, pair_labels, read_coordinates, write_items
from cetpick.io.formats import HANDLERS, cannot_hold, handler_for, number_classes, recognise
from cetpick.io.handler import Handler, Item
from cetpick.io.naming import find_tomogram
from cetpick.io.tomograms import list_inputs, require_voxel_size, same_voxel_size
from cetpick.records import Coordinates, Grid, TomogramInfo
from cetpick.workflows.info import Description, describe_coordinates
from cetpick.workflows.inputs import InputOptions
from cetpick.workflows.regrid import Moved, Target, regrid


@dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """What `convert` tells.

    Attributes:
        read: the points read.
        placed: where the points written lie in their volume, a row for each tomogram and axis; see Moved.placed.
        lost: what the format cannot hold.
        written: number of points by file written.
        format: of these files.
    """

    read: Description
    placed: list[dict[str, Any]]
    lost: list[str]
    written: dict[Path, int]
    format: str


def run_convert(
    source: Path,
    output: Path,
    *,
    tomograms: Sequence[Path] = (),
    to_tomograms: Sequence[Path] = (),
    to_voxel_size: float | None = None,
    binning: float | None = None,
    axes: Axes | None = None,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    z: float | None = None,
    format: str | None = None,  # noqa: A002
    diameter: float | None = None,
    options: InputOptions | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> ConvertSummary:
    """Convert a coordinate file.

    Args:
        source: a coordinate file of any known format, or a folder of files named like the tomograms.
        output: a file; or a folder (without an ending, or already there), which gets one file for each tomogram.
        tomograms: tomogram files and tomograms.star files; of the latter the tomograms themselves need not be there.
        to_tomograms: those that the output is for, when that are others than `tomograms`; points move to their grid.
        to_voxel_size: of the output's grid, angstrom: in the place of `to_tomograms`, or of their headers'.
        binning: voxels of the source in a voxel of the output's grid, in the place of `to_tomograms`.
        axes: how the output's volume was made from the source's; see geometry.turn_axes.
        shift: added to all points first, voxels of the source along x, y, z.
        z: of all points of a two-dimensional file, voxels.
        format: name of the format, or an ending that only one has; by default that of the output's ending.
        diameter: of the particles, angstrom, for formats that hold a radius; by default as the source has it.
        options: how to read the inputs; its voxel size is that of the source.
        strict: refuse to lose anything.
        overwrite: replace earlier files.

    Raises:
        InputError: unusable input, or a format that cannot hold it; nothing was written.

    Warns:
        CetpickWarning: what the format cannot hold is lost; and as read_coordinates and regrid.
    """
    options = options or InputOptions()
    if to_voxel_size is not None:
        require_voxel_size(to_voxel_size, option="--to-voxel-size")
    if diameter is not None:
        ParticleClass(diameter=diameter)  # checks it
    handler, ending = choose_format(output, format)
    infos = open_grids(tomograms, options)
    goals = open_grids(to_tomograms, replace(options, voxel_size=to_voxel_size))
    target = Target(
        tomograms=goals, voxel_size=None if goals else to_voxel_size, binning=binning, axes=axes, shift=shift
    )
    records = [_sized(record, infos, options.voxel_size) for record in _read(source, infos, options, z)]
    if axes is not None:
        _require_that_volume(records, axes)
    moved = [
        regrid(record, find_tomogram(record.tomogram, infos), target, alone=len(records) == 1) for record in records
    ]
    items = [part.item for part in moved]
    if format is None and ending == ".star":
        handler = handler_for(output, None, relion5=all(item.info is not None and item.info.relion for item in items))
    _warn_of_idle_options(source, handler, z=z, diameter=diameter)
    items = number_classes(handler, items)
    targets: dict[Path, list[Item]] = {output: items}
    if _is_folder(output):
        names = [_file_name(handler.stem(record.tomogram or source.stem) + ending, source) for record in records]
        targets = {output / name: [item] for name, item in zip(names, items, strict=True)}
        if len(targets) < len(items):
            raise InputError(
                "two tomograms have the same name",
                file=source,
                found=", ".join(sorted({name for name in names if names.count(name) > 1})),
                cure="name the tomograms with --tomogram, and --names parent",
            )
    elif len(items) > 1 and not handler.holds.several:
        raise InputError(
            f"a file of format {handler.name} holds one tomogram",
            file=output,
            found=f"{len(items)} tomograms in {source}",
            cure=f"name a folder in the place of {output.name} and add --format {ending.removeprefix('.')}",
        )
    files = [file for path in targets for file in handler.files(path)]
    read = [source, *tomograms, *to_tomograms, *(info.path for info in (*infos, *goals))]
    read += source.iterdir() if source.is_dir() else []
    if spoiled := {file.resolve() for file in files} & {file.resolve() for file in read}:
        raise InputError("an input would be overwritten", file=min(spoiled), cure="name another output")
    present = [file for file in files if file.exists()]
    if present and not overwrite:
        raise InputError("already exists", file=present[0], cure="name another output, or add --overwrite")
    lost = _losses(source, output, handler, records, moved, strict=strict)
    if not any(map(len, items)):
        warnings.warn(f"{source}: holds no points, so that none are written", CetpickWarning, stacklevel=2)
    radius = _radius(records) if diameter is None else diameter / 2
    described = describe_coordinates(source, records)
    with all_or_none(files):
        for path, held in targets.items():
            write_items(path, handler, held, radius=radius)
    return ConvertSummary(
        read=described,
        placed=[row for part in moved for row in part.placed()],
        lost=lost,
        written={path: sum(map(len, held)) for path, held in targets.items()},
        format=handler.name,
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
    matching = [handler for handler in matching if handler.write is not None]
    if name is not None and len(matching) > 1:
        raise InputError(
            f"--format {name} may be several",
            file=output,
            expected=" or ".join(handler.name for handler in matching),
            cure="give one of these",
        )
    if not matching:
        known = (
            f"{handler.name} ({' '.join(handler.suffixes) or 'any ending'})"
            for handler in HANDLERS
            if handler.write is not None
        )
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
    infos, absent = [], dict[Path, Path]()
    for entry in list_inputs(paths, which=options.which, names=options.names):
        relion = entry.relion
        if relion is None or entry.path.exists():
            infos.append(entry.open(voxel_size=options.voxel_size))
            continue
        absent[entry.path] = relion.star
        x, y, z = (round(side / relion.binning) for side in relion.size)
        grid = Grid(shape=(z, y, x), voxel_size=options.voxel_size or relion.voxel_size)
        infos.append(TomogramInfo(name=entry.name, path=entry.path, grid=grid, relion=relion))
    if absent:
        warnings.warn(
            f"{next(iter(absent.values()))}: these files are not there, their sizes are taken from the sizes and the "
            f"binning in the star: {', '.join(map(str, absent))}",
            CetpickWarning,
            stacklevel=2,
        )
    return infos


def _read(source: Path, infos: Sequence[TomogramInfo], options: InputOptions, z: float | None) -> list[Coordinates]:
    if not source.is_dir():
        records = read_coordinates(source, tomograms=infos, binned=options.binned, z=z, voxel_size=options.voxel_size)
    elif infos:
        records = [record for _, record in pair_labels(infos, [source], binned=options.binned, z=z)]
    else:
        raise InputError("a folder of coordinates needs the tomograms", file=source, cure="add --tomogram FILE")
    if not records:
        names = ", ".join(info.name for info in infos)
        cure = f"`{shlex.join(['cetpick', 'info', str(source)])}` tells what it holds"
        raise InputError("holds no points" + (f" in {names}" if names else ""), file=source, cure=cure)
    return records


OTHERWISE = 0.05
"""Share of the points outside of a volume beyond which it is not the one that they were picked in."""


def _require_that_volume(records: Sequence[Coordinates], axes: Axes) -> None:
    """Refuse points whose axes are to be turned, and that the named volume leaves out for it has the new axes.

    Raises:
        InputError: more than OTHERWISE of them.
    """
    for record in records:
        total = len(record) + record.left_out
        if record.left_out > OTHERWISE * total:
            raise InputError(
                f"{record.left_out} of {total} points lie outside of the volume that --tomogram names",
                file=record.source,
                expected=f"the volume that they were picked in, which --axes {axes} turns",
                cure="leave --tomogram out" if axes == "flipyz" else "name that volume with --tomogram",
            )


def _sized(record: Coordinates, infos: Sequence[TomogramInfo], voxel_size: float | None) -> Coordinates:
    """The record with the voxel size that the user gave, when there is no tomogram that has one."""
    if infos or voxel_size is None:
        return record
    require_agreement(
        record.source,
        record.voxel_size,
        voxel_size,
        cure="leave out --voxel-size, which is that of the input's grid; the output's is --to-voxel-size",
    )
    return replace(record, voxel_size=voxel_size)


def require_agreement(file: Path | None, stored: float | None, given: float, *, cure: str) -> None:
    """Refuse a voxel size of the user that is another than the one that a file tells; both in angstrom.

    Raises:
        InputError: it is.
    """
    # IMOD's models of volumes without a voxel size say 1.
    if stored is not None and stored != 1 and not same_voxel_size(given, stored):
        raise InputError(
            "its voxel size is another than that given",
            file=file,
            expected=f"{given:g} A (--voxel-size)",
            found=f"{stored:g} A",
            cure=cure,
        )


def _losses(
    source: Path,
    output: Path,
    handler: Handler,
    records: Sequence[Coordinates],
    moved: Sequence[Moved],
    *,
    strict: bool,
) -> list[str]:
    """What is lost by moving and writing, said before anything is written.

    Raises:
        InputError: `strict`, and something is.
    """
    told_by_file = not source.is_dir() and recognise(source).holds.voxel_size
    alone = told_by_file and all(part.item.info is None for part in moved)
    voxel_size = next((record.voxel_size for record in records), None) if alone else None
    lost = [
        *dict.fromkeys(loss for part in moved for loss in part.lost),
        *cannot_hold(handler, [part.item for part in moved], voxel_size=voxel_size),
    ]
    if lost and strict:
        raise InputError(
            f"format {handler.name} cannot hold: {', '.join(lost)}",
            file=output,
            cure="choose a format that can (docs/coordinates.md lists them), or leave out --strict",
        )
    if strict and (left_out := sum(record.left_out for record in records)):
        problem = f"{left_out} of its points are duplicates or lie outside of the tomogram and would be left out"
        raise InputError(problem, file=source, cure="mend the file, or leave out --strict")
    if lost:
        warnings.warn(loss_text(output, handler, lost), CetpickWarning, stacklevel=3)
    return lost


def _warn_of_idle_options(source: Path, handler: Handler, *, z: float | None, diameter: float | None) -> None:
    """Warn of options that change nothing."""
    if z is not None and not source.is_dir() and recognise(source).holds.depth:
        warnings.warn(f"{source}: its points have z, so that --z changes nothing", CetpickWarning, stacklevel=3)
    if diameter is not None and not handler.holds.radius:
        warnings.warn(
            f"format {handler.name} holds no radius, so that --diameter changes nothing", CetpickWarning, stacklevel=3
        )


def _file_name(name: str, source: Path) -> str:
    """A name that a tomogram has in a file, as that of a file in the output folder.

    Raises:
        InputError: it would lead elsewhere, or is none.
    """
    if "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            "a tomogram's name cannot be that of a file", file=source, found=repr(name[:80]), cure="rename it there"
        )
    return name


LONGEST_NAME = 200
"""Bytes; file systems take 255, and the name of a temporary file is longer."""


def _radius(records: Sequence[Coordinates]) -> float | None:
    """The radius that all records have."""
    radii = {record.radius for record in records}
    return radii.pop() if len(radii) == 1 else None


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix
