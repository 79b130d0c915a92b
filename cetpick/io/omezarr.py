"""OME-Zarr tomograms, as copick and the CryoET Data Portal keep them: NGFF 0.4 on Zarr v2, NGFF 0.5 on Zarr v3.

A store is a folder: a group whose metadata list the arrays of an image, each coarser than the one before. Source: the
OME-NGFF specification, versions 0.4 and 0.5 (Moore et al. 2023, Histochem. Cell Biol. 160, 223).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cetpick import scratch
from cetpick.errors import InputError
from cetpick.io.chunked import check_volume, decoding, missing_chunks
from cetpick.io.mrc import VolumeHeader

if TYPE_CHECKING:
    import zarr

EXTRA = "zarr"
METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""Files that make a folder a Zarr store."""
ANGSTROM = {"angstrom": 1.0, "picometer": 0.01, "nanometer": 10.0, "micrometer": 10000.0}
"""Angstrom in the units that are read."""
SPACE = ("z", "y", "x")
AXES = ("t", "c", *SPACE)
"""Of arrays whose metadata name none; those of fewer dimensions have the last of them."""

_CHUNK = re.compile(r"(c[./])?\d+([./]\d+)*")


@dataclass(frozen=True, kw_only=True)
class _Image:
    """The metadata of an image.

    Attributes:
        scales: for the path of each level, finest first: size of a voxel along each axis; empty when not told.
        axes: names of the axes in the order of the array's dimensions; empty when not told.
        units: of the axes, "no unit" where not told.
        version: of NGFF.
        others: how many more images the group lists.
    """

    scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    version: str | None = None
    others: int = 0


@dataclass(frozen=True, kw_only=True)
class _Level:
    """An array of an image, not yet read.

    Attributes:
        array: the array.
        folder: where it is.
        name: its path in the group.
        image: the metadata.
        finest: voxels of the image's finest level along each axis.
    """

    array: zarr.Array[Any]
    folder: Path
    name: str
    image: _Image
    finest: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the array's dimensions."""
        return self.image.axes or AXES[-self.array.ndim :]


def is_store(path: Path) -> bool:
    """Whether a path is a folder that is called .zarr, or holds the metadata of a Zarr group or array."""
    try:
        return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in METADATA))
    except OSError:
        return False


def read_header(path: Path) -> VolumeHeader:
    """Read the metadata of an image, for its finest level, or of the level that `path` names: ``tomogram.zarr/1``.

    The voxel size is the scale of the level. Where that contradicts its number of voxels by more than one voxel, the
    finest level's scale and the numbers of voxels count, and a problem says so. Translations are not used: programs
    disagree whether a coarser level is half a voxel off.

    Raises:
        InputError: zarr is not installed, no such image or level, damaged metadata, no volume, or hardly any chunks.
    """
    with decoding(path, EXTRA):
        level = _open(path)
        array, order = level.array, _order(path, level)
        shape = check_volume(path, [array.shape[axis] for axis in order], array.dtype)
        grid = array.shards or array.chunks
        total = math.prod(-(-side // step) for side, step in zip(array.shape, grid, strict=True))
        gaps = missing_chunks(path, _stored_chunks(level.folder), total, float(array.fill_value or 0))
        unusable = _no_scale(level)
        (z, y, x), doubt = ([0.0] * 3, None) if unusable else _voxel_sizes(level, order)
    others = f"{level.image.others} more images in it are not read" if level.image.others else None
    said = f"axes {', '.join(level.axes)} in the metadata, transposed to z, y, x"
    turned = None if order == tuple(sorted(order)) else said
    details = {
        "format": "OME-Zarr",
        "zarr_format": array.metadata.zarr_format,
        "ngff_version": level.image.version,
        "level": level.name,
        "levels": list(level.image.scales),
        "dtype": array.dtype.name,
        "chunk_size": [grid[axis] for axis in reversed(order)],
        "voxel_sizes": [x, y, z],
    }
    return VolumeHeader(
        shape=shape,
        dtype=array.dtype,
        offset=0,
        voxel_sizes=(x, y, z),
        no_voxel_size=unusable,
        details=details,
        problems=tuple(problem for problem in (turned, doubt, gaps, others) if problem),
    )


def read_voxels(path: Path, header: VolumeHeader) -> NDArray[Any]:
    """The (z, y, x) voxels of the level that `header` was read from, read-only; a large one in a file (scratch.py).

    Chunks that are not stored are filled, as Zarr has it.

    Raises:
        InputError: as read_header, or a chunk is damaged.
    """
    with decoding(path, EXTRA):
        level = _open(path)
        order, stored = _order(path, level), scratch.zeros(level.array.shape, level.array.dtype)
        # whole chunks at a time, as each is unpacked as a whole
        deepest = max(range(stored.ndim), key=lambda axis: stored.shape[axis])
        chunk = level.array.chunks[deepest]
        step = max(1, scratch.SLAB * stored.shape[deepest] // stored.size // chunk) * chunk
        for start in range(0, stored.shape[deepest], step):
            part = (*[slice(None)] * deepest, slice(start, start + step))
            stored[part] = level.array[part]
    single = [axis for axis in range(stored.ndim) if axis not in order]
    voxels = stored.transpose(*order, *single).reshape(header.shape)
    voxels.flags.writeable = False
    return voxels


def _open(path: Path) -> _Level:
    import zarr

    for folder in (path, *itertools.takewhile(is_store, path.absolute().parents)):
        image = _image(path, zarr.open(folder, mode="r").attrs.asdict())
        first = next(iter(image.scales), "")
        name = first if folder == path else path.absolute().relative_to(folder).as_posix()
        if name in image.scales:
            array, finest = _array(path, folder / name), _array(path, folder / first)
            return _Level(array=array, folder=folder / name, name=name, image=image, finest=finest.shape)
    folder = path if isinstance(zarr.open(path, mode="r"), zarr.Array) else path / "0"
    array = _array(path, folder)
    return _Level(array=array, folder=folder, name=folder.name, image=_Image(), finest=array.shape)


def _array(path: Path, folder: Path) -> zarr.Array[Any]:
    """The array in a folder of the store `path`.

    Raises:
        InputError: none is there.
    """
    import zarr

    node = zarr.open(folder, mode="r") if is_store(folder) else None
    if not isinstance(node, zarr.Array):
        raise InputError(
            "holds no image",
            file=path,
            expected=f"an array {folder.name} in it",
            cure="name the group whose metadata list multiscales, or one level of it",
        )
    return node


def _image(path: Path, attributes: Mapping[str, Any]) -> _Image:
    """The image that the attributes of a group or array describe, without levels if they describe none."""
    try:
        ome = attributes.get("ome", attributes)
        if "multiscales" not in ome:
            return _Image()
        first, *others = ome["multiscales"]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in first.get("axes", ())]
        shared = first.get("coordinateTransformations", ())
        scales = {
            str(level["path"]): _product([*level.get("coordinateTransformations", ()), *shared])
            for level in first["datasets"]
        }
        if not scales:
            raise ValueError("no datasets")
        return _Image(
            scales=scales,
            axes=tuple(str(axis["name"]) for axis in axes),
            units=tuple(str(axis.get("unit", "no unit")) for axis in axes),
            version=ome.get("version", first.get("version")),
            others=len(others),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "its OME metadata cannot be used",
            file=path,
            expected="multiscales with axes, and datasets with a path and a scale",
            found=f"{type(error).__name__}: {error}",
        ) from None


def _product(transformations: list[Mapping[str, Any]]) -> tuple[float, ...]:
    """What the scales among transformations make together, empty where there is none."""
    scales = [[float(value) for value in item["scale"]] for item in transformations if item["type"] == "scale"]
    return tuple(math.prod(values) for values in zip(*scales, strict=True))


def _order(path: Path, level: _Level) -> tuple[int, ...]:
    """Which dimensions of the array are z, y and x.

    Raises:
        InputError: they are not all there, or others are longer than one.
    """
    axes, shape = level.axes, level.array.shape
    long = [name for name, side in zip(axes, shape, strict=False) if name not in SPACE and side != 1]
    if len(axes) != len(shape) or sorted(name for name in axes if name in SPACE) != sorted(SPACE) or long:
        raise InputError(
            "not a volume",
            file=path,
            expected="axes z, y, x, and others of length 1",
            found=f"axes {', '.join(axes)} of {', '.join(map(str, shape))}",
        )
    return tuple(axes.index(name) for name in SPACE)


def _no_scale(level: _Level) -> str | None:
    """Why the metadata tell no voxel size in angstrom."""
    image = level.image
    if len(image.scales.get(level.name, ())) != level.array.ndim:
        return f"no scale of level {level.name} in the metadata"
    units = {unit for name, unit in zip(image.axes, image.units, strict=True) if name in SPACE}
    if not units or not units <= set(ANGSTROM):
        return f"axes in {', '.join(sorted(units)) or 'no unit'}, not in {', '.join(ANGSTROM)}"
    return None


def _voxel_sizes(level: _Level, order: tuple[int, ...]) -> tuple[list[float], str | None]:
    """Angstrom a voxel along z, y and x, and what is wrong with the scale where it does not count."""
    image, first, axes = level.image, next(iter(level.image.scales)), list(order)
    factors = np.array([ANGSTROM[image.units[axis]] for axis in order])
    own = np.array(image.scales[level.name])[axes] * factors
    if level.name == first or not image.scales[first]:
        return own.tolist(), None
    shape = np.array(level.array.shape)[axes]
    whole = np.array(image.scales[first])[axes] * factors * np.array(level.finest)[axes]
    if (np.abs(own * shape - whole) <= own).all():
        return own.tolist(), None
    by_shape = whole / shape
    return by_shape.tolist(), (
        f"the scale of level {level.name} does not fit its size: {_listed(own)} A along z, y, x, but "
        f"{_listed(by_shape)} A by the size of level {first}, which counts"
    )


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _stored_chunks(folder: Path) -> int:
    """How many files hold chunks (or shards) of the array in a folder; never counts what the metadata claim."""
    return sum(
        _CHUNK.fullmatch(file.relative_to(folder).as_posix()) is not None
        for file in folder.rglob("*")
        if file.is_file()
    )
