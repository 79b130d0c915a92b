"""From the grid of one volume to that of another of the same field: another binning, other axes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Axes, Points, rescale, rescale_centred, turn_angles, turn_axes
from cetpick.io.handler import Item
from cetpick.io.naming import find_tomogram
from cetpick.records import ANGLES, Coordinates, TomogramInfo

SAME_FIELD = 0.02
"""Relative difference of two volumes' sides in angstrom up to which they show the same field."""

Size = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The grid that points go to, at most one of the first three.

    Attributes:
        tomograms: those that the output is for, each found by the name of the source's; empty: not given.
        voxel_size: angstrom.
        binning: voxels of the source a voxel, along each axis; may be below 1.
        axes: how the target was made from the source, before any binning; see geometry.turn_axes.
        shift: added to all points first, voxels of the source along x, y, z.
    """

    tomograms: Sequence[TomogramInfo] = ()
    voxel_size: float | None = None
    binning: float | None = None
    axes: Axes | None = None
    shift: Size = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        given = [bool(self.tomograms), self.voxel_size is not None, self.binning is not None]
        if sum(given) > 1:
            raise InputError("two target grids", cure="give one of --to-tomogram, --to-voxel-size and --bin")
        for name, value in (("--to-voxel-size", self.voxel_size), ("--bin", self.binning)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"unusable {name}", expected="a positive number", found=value)
        if not np.isfinite(self.shift).all():
            raise InputError("unusable --shift", expected="voxels along x, y and z", found=self.shift)

    @property
    def is_source(self) -> bool:
        """Whether points stay on the source's grid."""
        return not self.tomograms and self.voxel_size is None and self.binning is None and self.axes is None


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Points on the target's grid, as they will be written.

    Attributes:
        item: the points.
        size: voxels of the target along x, y, z, None when not known.
        lost: what the move itself could not keep.
    """

    item: Item
    size: Size | None
    lost: list[str]

    def placed(self) -> list[dict[str, Any]]:
        """Where the points lie, a row for each axis: range, volume, distance to its border, how many are outside."""
        points = self.item.points
        name = self.item.info.name if self.item.info else self.item.name or "(not named)"
        if not len(points):
            return []
        rows = []
        for number, axis in enumerate("xyz"):
            values = points[:, number]
            row: dict[str, Any] = {
                "tomogram": name, "axis": axis, "lowest": float(values.min()), "highest": float(values.max()),
                "voxels": None, "to_border": None, "outside": None,
            }  # fmt: skip
            if self.size:
                inside = np.minimum(values + 0.5, self.size[number] - 0.5 - values)
                row |= {
                    "voxels": round(self.size[number]), "to_border": round(float(inside.min()), 4),
                    "outside": int((inside < 0).sum()),
                }  # fmt: skip
            rows.append(row)
        return rows


def regrid(record: Coordinates, info: TomogramInfo | None, target: Target, *, alone: bool) -> Moved:
    """Move the points of a record to the target's grid.

    Args:
        record: the points, on the source's grid.
        info: the source's tomogram, when known.
        target: the grid.
        alone: this record is the only one, so a single target is its.

    Returns:
        The points. Two RELION reconstructions are sampled with a common centre of the first voxel, all other pairs of
        grids are taken to share their outer corner. The tomogram of the result is known when it is the source's, or
        when it was given.

    Raises:
        InputError: a size or voxel size that this needs is not known, or there is no target for this tomogram.

    Warns:
        CetpickWarning: source and target differ in size in angstrom, or points lie outside of the target.
    """
    points, table = record.xyz + np.array(target.shift), record.table
    size: Size | None = info.grid.size if info else None
    voxel_size = info.grid.voxel_size if info else record.voxel_size
    lost = []
    if axes := target.axes:
        points, size = _turned(record, points, size, axes)
        if {*ANGLES} <= set(table.columns):
            if axes == "flipyz":
                table = table.drop(columns=ANGLES)
                lost.append("angles (a mirrored particle has none)")
            else:
                table = table.assign(**dict(zip(ANGLES, turn_angles(table[ANGLES].to_numpy(), axes).T, strict=True)))
    goal = info if target.is_source else _goal(record, target.tomograms, alone=alone)
    old, new = _scale(record, voxel_size, target, goal)
    if old != new:
        relion = axes is None and info is not None and info.relion and goal and goal.relion
        points = (rescale_centred if relion else rescale)(points, from_voxel_size=old, to_voxel_size=new)
        size = size and (size[0] * old / new, size[1] * old / new, size[2] * old / new)
    if goal and goal is not info:
        _warn_of_another_field(record, size, goal)
        _warn_of_a_shift(record, size, info, goal)
    if goal:
        size = goal.grid.size
    moved = table.assign(**dict(zip("xyz", points.T, strict=True)))
    item = Item(table=moved, info=goal, name=record.tomogram, voxel_size=None if voxel_size is None else new)
    result = Moved(item=item, size=size, lost=lost)
    if outside := _outside(points, size):
        warnings.warn(
            f"{record.source}: {outside} of {len(points)} points lie outside of the target volume; they are kept",
            CetpickWarning,
            stacklevel=2,
        )
    return result


def _turned(record: Coordinates, points: Points, size: Size | None, axes: Axes) -> tuple[Points, Size | None]:
    if size is None and axes != "flipyz":
        raise InputError(
            f"--axes {axes} needs the size of the volume that the points lie in",
            file=record.source,
            cure="give that volume (--tomogram)",
        )
    turned = turn_axes(points, axes, size=size or (0, 0, 0))
    return turned, size and (size[0], size[2], size[1])


def _goal(record: Coordinates, tomograms: Sequence[TomogramInfo], *, alone: bool) -> TomogramInfo | None:
    """The target's tomogram for a record, None when none were given."""
    if not tomograms:
        return None
    if alone and len(tomograms) == 1:
        return tomograms[0]
    if found := find_tomogram(record.tomogram or "", tomograms):
        return found
    raise InputError(
        f"no target for the points of tomogram {record.tomogram}",
        file=record.source,
        expected=f"one of that name among {', '.join(info.name for info in tomograms)}",
        cure="name it with --to-tomogram, or convert one tomogram at a time",
    )


def _scale(
    record: Coordinates, voxel_size: float | None, target: Target, goal: TomogramInfo | None
) -> tuple[float, float]:
    """Voxel sizes before and after; in voxels of the source when its voxel size is not known and not needed."""
    if target.binning is not None:
        return voxel_size or 1.0, (voxel_size or 1.0) * target.binning
    wanted = target.voxel_size or (goal.grid.voxel_size if goal else None)
    if wanted is None:
        return voxel_size or 1.0, voxel_size or 1.0
    if voxel_size is None:
        raise InputError(
            "the voxel size of the grid that its points lie on is not known",
            file=record.source,
            cure="give its tomogram (--tomogram), or --voxel-size",
        )
    return voxel_size, wanted


def _warn_of_another_field(record: Coordinates, size: Size | None, goal: TomogramInfo) -> None:
    """Warn when the source, in voxels of the target, is not as large as the target; whole voxels may be cut off."""
    if size is None:
        return
    expected, found = np.array(size), np.array(goal.grid.size)
    if (np.abs(expected - found) > np.maximum(1.5, SAME_FIELD * found)).any():
        warnings.warn(
            f"{record.source}: the source would be {' x '.join(f'{n:.0f}' for n in expected)} voxels on the grid of "
            f"{goal.path}, which has {' x '.join(map(str, goal.grid.size))}: do both show the same field?",
            CetpickWarning,
            stacklevel=3,
        )


def _warn_of_a_shift(record: Coordinates, size: Size | None, info: TomogramInfo | None, goal: TomogramInfo) -> None:
    """Warn when the target seems to be trimmed from the source: fewer voxels, and an origin some whole ones away."""
    if size is None or info is None:
        return
    shift = (np.array(info.grid.origin) - np.array(goal.grid.origin)) / goal.grid.voxel_size
    whole = np.abs(shift - np.rint(shift)).max() < 0.01 and np.abs(shift).max() > 0.5
    if whole and np.abs(np.array(size) - np.array(goal.grid.size)).max() >= 1:
        shown = ", ".join(f"{n:.0f}" for n in shift)
        warnings.warn(
            f"{record.source}: {goal.path} has another size, and by its header begins at voxel {shown} of the source: "
            "points are not shifted by that, as origins in headers are often wrong; look at them on it, or convert by "
            "way of a .mod, which IMOD and cetpick shift by it",
            CetpickWarning,
            stacklevel=3,
        )


def _outside(points: Points, size: Size | None) -> int:
    if size is None:
        return 0
    return int(((points < -0.5) | (points > np.array(size) - 0.5)).any(axis=1).sum())
