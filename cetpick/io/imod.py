"""IMOD model files (.mod), from IMOD's binary file format specification (binspec.html).

The library for these files, imodmodel, loops forever on truncated ones and drops scores, so both ways are written here.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points, as_points, imod_to_other_volume, imod_to_voxel, voxel_to_imod
from cetpick.io.atomic import replacing
from cetpick.io.star import read_bytes
from cetpick.records import DEFAULT_CLASS, Coordinates, TomogramInfo

Floats = NDArray[np.float64]

MAGIC = b"IMODV1.2"
NAME_BYTES = 63
"""Of an object, in UTF-8."""
_HEADER = struct.Struct(">128s4iI4i6f5if2i3f")
_OBJECT = struct.Struct(">64s16IiI2i3fi8B2i")
_CONTOUR = struct.Struct(">iIii")
_MESH = struct.Struct(">iiIhh")
_MINX = struct.Struct(">18f")
_STORE = np.dtype([("type", ">i2"), ("flags", ">u2"), ("index", ">i4"), ("value", ">i4")])

# Model flags: z starts at -0.5; not yet written by 3dmod; several clip planes; materials are bytes.
_NEW_MODEL = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13
# MINX holds image origins; its tilt angles are right.
_HAS_MINX = 1 << 14 | 1 << 15
_FLIPPED_YZ = 1 << 16
_SCATTERED_OPEN = 1 << 9 | 1 << 3
_WILD_CONTOUR = 1 << 4

# General storage: type of a value and of an object's range of values; bits 2-3 of the flags are the type of the value,
# bit 5 takes it back, bits 4 and 6 say that the index is none, or that of a surface.
_VALUE, _VALUE_RANGE = 10, 11
_FLOAT_VALUE, _RANGE_FLAGS = 1 << 2, 1 << 4 | 1 << 2 | 1
_VALUE_TYPE, _NO_POINT = 3 << 2, 1 << 4 | 1 << 5 | 1 << 6

# Red, green, blue of successive objects, as 3dmod gives them.
_COLOURS = ((0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 0, 0), (0, 0, 1))
# Ambient, diffuse, specular, shininess; fill colour and quality; unused; black and white level of values.
_MATERIAL = bytes([102, 255, 127, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0])


@dataclass(frozen=True, kw_only=True)
class ImodContour:
    """Points of a contour.

    Attributes:
        points: (n, 3) x, y, z as model2point prints them.
        sizes: (n,) radius of each point in voxels, NaN where it has none of its own.
        scores: (n,) general value of each point, NaN where there is none.
    """

    points: Points
    sizes: Floats
    scores: Floats


@dataclass(frozen=True, kw_only=True)
class ImodObject:
    """An object: its name, default sphere radius in voxels (0 = none) and contours."""

    name: str
    radius: int
    contours: tuple[ImodContour, ...]


@dataclass(frozen=True, kw_only=True)
class Minx:
    """Pixel size (scale) and image origin (translation), x, y, z in angstrom, of the volume last shown with a model."""

    scale: tuple[float, float, float]
    translation: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImodModel:
    """A model file.

    Attributes:
        objects: with their contours.
        size: voxels along x, y, z of the volume it was made on, zeros when not stored.
        pixel_size: of the header, in `units`; 3dmod fills it, most other programs leave 1.
        units: 0 pixels, otherwise the power of ten of the metre (-9 nm, -10 angstrom).
        minx: the volume it was last shown on, when stored.
    """

    objects: tuple[ImodObject, ...]
    size: tuple[int, int, int]
    pixel_size: float
    units: int
    minx: Minx | None


def read_mod(path: str | PathLike[str]) -> ImodModel:
    """Read a model file.

    Args:
        path: the file.

    Returns:
        The model, with points as model2point prints them: the Y/Z flip of a model drawn on a flipped volume is undone.

    Raises:
        InputError: no model, cut off, or with counts that the file cannot hold.
    """
    data = read_bytes(path)
    try:
        return _ModelReader(data).read()
    except _FormatError as error:
        raise InputError(
            str(error), file=path, expected="an IMOD model (IMODV1.2 ... IEOF)", cure="save it again with 3dmod"
        ) from None


def write_mod(
    path: str | PathLike[str],
    xyz: ArrayLike,
    *,
    size: tuple[int, int, int],
    voxel_size: float | None,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    radius: float = 0.0,
    scores: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    name: str = "cetpick",
) -> None:
    """Write scattered points as point2model -scat -sphere -values -image does; replaces `path` only when complete.

    Args:
        path: the file.
        xyz: (n, 3) IMOD model coordinates.
        size: voxels along x, y, z of the volume.
        voxel_size: angstrom as the volume's header has it. None: no MINX is written, then 3dmod takes the points as
            indices of whatever volume it loads.
        origin: x, y, z image origin in the volume's header, angstrom.
        radius: of the spheres, in voxels; IMOD stores whole voxels.
        scores: (n,) a value for each point.
        classes: (n,) one object is written for each class, in order of appearance; None: one object without a name.
        name: of the model.
    """
    points = as_points(xyz)
    values = np.full(len(points), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    labels = np.array([""] * len(points) if classes is None else list(classes), dtype=object)
    members = {label: labels == label for label in dict.fromkeys(labels)} or {"": np.zeros(0, dtype=bool)}
    flags = _NEW_MODEL | (_HAS_MINX if voxel_size is not None else 0)
    # After the flags: drawn, model mode, black and white level, offset, scale, current object, contour, point,
    # resolution, threshold, pixel size, units, checksum, rotation.
    header = _HEADER.pack(
        _text(name, 128), *size, len(members), flags, 1, 2, 0, 255, 0, 0, 0, 1, 1, 1, 0, 0, -1, 3, 128, 1, 0, 0, 0, 0, 0
    )
    chunks = [MAGIC, header]
    for number, (label, mask) in enumerate(members.items()):
        chunks.append(_object_bytes(label, _COLOURS[number % len(_COLOURS)], radius, points[mask], values[mask]))
    if voxel_size is not None:
        chunks.append(_chunk(b"MINX", _MINX.pack(1, 1, 1, *origin, 0, 0, 0, *[voxel_size] * 3, *origin, 0, 0, 0)))
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(b"".join([*chunks, b"IEOF"]))


def mod_to_coordinates(path: str | PathLike[str], info: TomogramInfo | None) -> Coordinates:
    """Read a model file as particle centres in a tomogram.

    Args:
        path: the file.
        info: the tomogram. A model that was last shown on a volume of another pixel size or origin is moved to this
            one as 3dmod does. None: points stay indices of the volume that the model was made on.

    Returns:
        Points with columns `object` and `contour` (from 1), and `score` where all points have one. Classes are the
        names of the objects when all that hold points have one. The radius is that of the objects when
        they agree.

    Raises:
        InputError: as of read_mod.
    """
    model = read_mod(path)
    contours = [
        (number, index, contour)
        for number, item in enumerate(model.objects, start=1)
        for index, contour in enumerate(item.contours, start=1)
    ]
    points = np.concatenate([np.empty((0, 3)), *(contour.points for *_, contour in contours)])
    scores = np.concatenate([np.empty(0), *(contour.scores for *_, contour in contours)])
    lengths = [len(contour.points) for *_, contour in contours]
    table = pd.DataFrame(imod_to_voxel(_on_volume(path, points, model, info)), columns=["x", "y", "z"])
    names = {number: model.objects[number - 1].name for number, _, contour in contours if len(contour.points)}
    classes = [names.get(number, "") if all(names.values()) else DEFAULT_CLASS for number, *_ in contours]
    table["class"] = pd.Series(np.repeat(np.array(classes, dtype=object), lengths), dtype=object)
    if len(scores) and np.isfinite(scores).all():
        table["score"] = scores
    table["object"] = np.repeat([number for number, *_ in contours], lengths).astype(np.int64)
    table["contour"] = np.repeat([index for _, index, _ in contours], lengths).astype(np.int64)
    voxel_size = info.grid.voxel_size if info else model.minx.scale[0] if model.minx else None
    return Coordinates(table=table, voxel_size=voxel_size, radius=_radius(model, voxel_size), source=Path(path))


def coordinates_to_mod(
    path: str | PathLike[str], info: TomogramInfo, table: pd.DataFrame, *, radius: float | None = None
) -> None:
    """Write particle centres in a tomogram as a model file.

    Args:
        path: the file.
        info: the tomogram; MINX gets what its header says, because that is what IMOD will compare with.
        table: columns x, y, z in voxels, class, and score if known.
        radius: of the spheres, angstrom.
    """
    classes = table["class"].astype(str) if "class" in table else None
    write_mod(
        path,
        voxel_to_imod(table[["x", "y", "z"]].to_numpy()),
        size=info.grid.size,
        voxel_size=info.header_voxel_size,
        origin=info.grid.origin,
        radius=0.0 if radius is None else radius / info.grid.voxel_size,
        scores=table.get("score"),
        classes=None if classes is None or (classes == DEFAULT_CLASS).all() else list(classes),
    )


class _FormatError(Exception):
    """What is wrong with the bytes of a model."""


@dataclass
class _OpenContour:
    points: Points
    sizes: Floats
    scores: Floats


@dataclass
class _OpenObject:
    name: str
    radius: int
    declared: int
    contours: list[_OpenContour] = field(default_factory=list)
    contour_scores: dict[int, float] = field(default_factory=dict)


class _ModelReader:
    """Walks through the chunks of a model; never asks for more bytes than there are."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.objects: list[_OpenObject] = []
        self.minx: Minx | None = None

    def read(self) -> ImodModel:
        if (magic := self.take(len(MAGIC), "the file's header")) != MAGIC:
            raise _FormatError("not an IMOD model" if magic[:4] != MAGIC[:4] else f"model version {magic[4:]!r}")
        _, *size, declared, flags = (header := _HEADER.unpack(self.take(_HEADER.size, "the model's header")))[:6]
        while (chunk := self.take(4, "the end mark IEOF")) != b"IEOF":
            self.read_chunk(chunk)
        if len(self.objects) != declared:
            raise _FormatError(f"the header names {declared} objects, the file holds {len(self.objects)}")
        axes = [0, 2, 1] if flags & _FLIPPED_YZ else [0, 1, 2]
        return ImodModel(
            objects=tuple(_closed(item, axes) for item in self.objects),
            size=(size[0], size[1], size[2]),
            pixel_size=header[21],
            units=header[22],
            minx=self.minx,
        )

    def take(self, count: int, what: str) -> bytes:
        if not 0 <= count <= len(self.data) - self.position:
            left = len(self.data) - self.position
            raise _FormatError(f"the file is cut off or damaged: {count} bytes wanted for {what}, {left} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def read_chunk(self, chunk: bytes) -> None:
        match chunk:
            case b"OBJT":
                name, *numbers = _OBJECT.unpack(self.take(_OBJECT.size, "an object"))
                self.objects.append(_OpenObject(name=_name(name), declared=numbers[16], radius=numbers[23]))
            case b"CONT":
                self.read_contour()
            case b"MESH":
                vertices, indices, *_ = _MESH.unpack(self.take(_MESH.size, "a mesh"))
                self.take(12 * vertices, "the vertices of a mesh")
                self.take(4 * indices, "the indices of a mesh")
            case _:
                (size,) = struct.unpack(">i", self.take(4, "the size of a chunk"))
                self.read_sized(chunk, self.take(size, f"chunk {chunk!r}"))

    def read_contour(self) -> None:
        count, *_ = _CONTOUR.unpack(self.take(_CONTOUR.size, "a contour"))
        points = _floats(self.take(12 * count, f"a contour of {count} points")).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise _FormatError("a point is not a finite number")
        unknown = np.full(count, np.nan)
        self.last_object().contours.append(_OpenContour(points=points, sizes=unknown, scores=unknown.copy()))

    def read_sized(self, chunk: bytes, body: bytes) -> None:
        match chunk:
            case b"SIZE":
                contour = self.last_contour()
                if len(body) != 4 * len(contour.points):
                    raise _FormatError(f"{len(body) // 4} sizes for {len(contour.points)} points")
                sizes = _floats(body)
                contour.sizes = np.where(sizes >= 0, sizes, np.nan)
            case b"COST":
                contour = self.last_contour()
                for index, value in _stored_values(body):
                    if 0 <= index < len(contour.scores):
                        contour.scores[index] = value
            case b"OBST":
                self.last_object().contour_scores.update(_stored_values(body))
            case b"MINX":
                if len(body) < _MINX.size:
                    raise _FormatError("chunk MINX is too short")
                numbers = _MINX.unpack(body[: _MINX.size])
                self.minx = Minx(scale=numbers[9:12], translation=numbers[12:15])

    def last_object(self) -> _OpenObject:
        if not self.objects:
            raise _FormatError("a contour stands before the first object")
        return self.objects[-1]

    def last_contour(self) -> _OpenContour:
        if not self.last_object().contours:
            raise _FormatError("properties of a contour stand before the first contour")
        return self.objects[-1].contours[-1]


def _closed(item: _OpenObject, axes: list[int]) -> ImodObject:
    if len(item.contours) != item.declared:
        raise _FormatError(f"an object names {item.declared} contours, the file holds {len(item.contours)}")
    contours = [
        ImodContour(
            points=contour.points[:, axes],
            sizes=contour.sizes,
            scores=np.where(np.isnan(contour.scores), item.contour_scores.get(index, np.nan), contour.scores),
        )
        for index, contour in enumerate(item.contours)
    ]
    return ImodObject(name=item.name, radius=item.radius, contours=tuple(contours))


def _stored_values(body: bytes) -> list[tuple[int, float]]:
    """Index and value of the general values in a storage chunk; values of single bytes or shorts are not written."""
    if len(body) % _STORE.itemsize:
        raise _FormatError("general storage is not a whole number of items")
    items = np.frombuffer(body, dtype=_STORE)
    items = items[(items["type"] == _VALUE) & (items["flags"] & _NO_POINT == 0)]
    values = np.where(items["flags"] & _VALUE_TYPE == _FLOAT_VALUE, _floats(items["value"].tobytes()), items["value"])
    return list(zip(items["index"].tolist(), values.tolist(), strict=True))


def _floats(body: bytes) -> Floats:
    with np.errstate(invalid="ignore"):  # signalling NaN in damaged files
        return np.frombuffer(body, dtype=">f4").astype(np.float64)


def _name(field: bytes) -> str:
    """Text up to the first zero byte; what follows is often garbage."""
    return field.split(b"\0", 1)[0].decode("utf-8", errors="replace")


def _text(name: str, length: int) -> bytes:
    return name.encode("utf-8")[: length - 1]


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack(">i", len(body)) + body


def _object_bytes(name: str, colour: tuple[int, int, int], radius: float, points: Points, scores: Floats) -> bytes:
    text = _text(name, NAME_BYTES + 1)
    # After the colour: sphere radius, symbol (none), its size, line widths, four style bytes, no meshes and surfaces.
    head = (text, *[0] * 16, 1, _SCATTERED_OPEN, 0, 1, *colour, round(radius), 1, 3, 1, 1, 0, 0, 0, 0, 0, 0)
    chunks = [b"OBJT", _OBJECT.pack(*head), b"CONT", _CONTOUR.pack(len(points), _WILD_CONTOUR, 0, 0)]
    chunks.append(points.astype(">f4").tobytes())
    known = np.flatnonzero(np.isfinite(scores))
    if len(known):
        items = np.zeros(len(known), dtype=_STORE)
        items["type"], items["flags"], items["index"] = _VALUE, _FLOAT_VALUE, known
        items["value"] = scores[known].astype(">f4").view(">i4")
        chunks.append(_chunk(b"COST", items.tobytes()))
    chunks.append(_chunk(b"IMAT", _MATERIAL))
    if len(known):
        limits = (float(scores[known].min()), float(scores[known].max()))
        chunks.append(_chunk(b"OBST", struct.pack(">hHff", _VALUE_RANGE, _RANGE_FLAGS, *limits)))
    return b"".join(chunks)


def _one(voxel_size: float | None) -> bool:
    """Whether a voxel size is 1 A, in the precision of headers."""
    return voxel_size is not None and math.isclose(voxel_size, 1.0, rel_tol=1e-6)


def _on_volume(path: str | PathLike[str], points: Points, model: ImodModel, info: TomogramInfo | None) -> Points:
    """Move points from the volume that a model was last shown on to a tomogram; both are IMOD model coordinates."""
    minx = model.minx
    if minx is None or info is None:
        return points
    header = info.header_voxel_size
    usable = header is not None and np.isfinite(minx.scale + minx.translation).all() and min(minx.scale) > 0
    # a header without a voxel size often says 1: between two volumes of one size that is no scale
    unset = _one(header) != _one(minx.scale[0]) and model.size in (info.grid.size, (0, 0, 0))
    if not usable or unset:
        warnings.warn(
            f"{path}: the pixel size of the volume it was drawn on, or that in the header of {info.path}, is unknown: "
            "its points are taken as voxels of this tomogram",
            CetpickWarning,
            stacklevel=2,
        )
        return points
    if _one(header) and not _one(minx.scale[0]):  # nobody set it: what the user, or tomograms.star, says counts
        header = info.grid.voxel_size
    # MINX holds float32, so the header is rounded the same way: on its own volume a model does not move at all.
    voxel_size, *origin = np.array([header, *info.grid.origin], dtype=np.float32).tolist()
    moved = imod_to_other_volume(
        points, scale=minx.scale, translation=minx.translation, voxel_size=voxel_size, origin=origin
    )
    if len(points) and (shift := np.abs(moved - points).max()) > 0.01:
        warnings.warn(
            f"{path}: it was drawn on a volume of {minx.scale[0]:g} A a voxel with origin {minx.translation}, while "
            f"{info.path} has {voxel_size:g} A and origin {tuple(origin)}: points were moved as 3dmod does, "
            f"by up to {shift:.2f} voxels",
            CetpickWarning,
            stacklevel=2,
        )
    return moved


def _radius(model: ImodModel, voxel_size: float | None) -> float | None:
    """Sphere radius in angstrom, of the volume the model was drawn on, when the objects with points agree on one."""
    radii = {item.radius for item in model.objects if any(len(contour.points) for contour in item.contours)}
    if len(radii) != 1 or min(radii) <= 0:
        return None
    scale = model.minx.scale[0] if model.minx else voxel_size
    return None if scale is None else radii.pop() * scale
