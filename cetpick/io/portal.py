"""Points of the CryoET Data Portal (.ndjson): a JSON object a line, in voxels of the annotated tomogram.

``type`` is point, orientedPoint (with ``xyz_rotation_matrix``, which turns the reference into the particle) or
instancePoint (with ``instance_id``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.errors import InputError
from cetpick.geometry import Points, angles_to_matrices, matrices_to_angles
from cetpick.io.atomic import replacing
from cetpick.io.copick import xyz_of
from cetpick.io.handler import Item, text_head
from cetpick.io.plain import finite_numbers, parse_json
from cetpick.io.star import read_text
from cetpick.records import Coordinates, TomogramInfo

MATRICES = ("xyz_rotation_matrix", "rotation_matrix")
INSTANCE = "instance_id"


def is_points(_: Path, head: bytes) -> bool:
    """Whether the first line is a JSON object with a location."""
    first = next((line for line in (text_head(head) or "").splitlines() if line.strip()), "").strip()
    return first.startswith("{") and '"location"' in first and '"points"' not in first


def read_points(path: Path, info: TomogramInfo | None) -> Coordinates:
    """Read the points of a file.

    Returns:
        Points, with angles when all are oriented, and with a column `instance_id` when all have one.

    Raises:
        InputError: a line is no point, or some points are oriented and others not.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    points = []
    for number, line in lines:
        point = parse_json(line, path, line=number)
        if not isinstance(point, dict) or not isinstance(point.get("location"), dict):
            raise InputError(f"line {number} is no point", file=path, expected='{"type": ..., "location": {...}}')
        points.append(point)
    record = Coordinates.from_points(
        finite_numbers(path, [xyz_of(point["location"]) for point in points], width=3),
        angles=_angles(path, points),
        voxel_size=info.grid.voxel_size if info else None,
        source=path,
    )
    if points and all(INSTANCE in point for point in points):
        record.table[INSTANCE] = finite_numbers(path, [[point[INSTANCE]] for point in points], width=1)[:, 0]
    return record


def write_points(path: Path, item: Item) -> None:
    """Write points: oriented ones when there are angles, with their instance when there is one."""
    matrices = None if item.angles is None else angles_to_matrices(item.angles).tolist()
    instances = item.table[INSTANCE].tolist() if INSTANCE in item.table else None
    kind = "orientedPoint" if matrices is not None else "instancePoint" if instances is not None else "point"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row, xyz in enumerate(item.points.tolist()):
            point: dict[str, Any] = {"type": kind, "location": dict(zip("xyz", xyz, strict=True))}
            if matrices is not None:
                point[MATRICES[0]] = matrices[row]
            if instances is not None:
                point[INSTANCE] = int(instances[row])
            stream.write(json.dumps(point) + "\n")


def _angles(path: Path, points: Sequence[dict[str, Any]]) -> Points | None:
    matrices = [next((point[key] for key in MATRICES if key in point), None) for point in points]
    oriented = [matrix for matrix in matrices if matrix is not None]
    if not oriented:
        return None
    if len(oriented) < len(points):
        found = f"{len(oriented)} of {len(points)} are"
        raise InputError("some points are oriented and others not", file=path, found=found, cure="split the file")
    try:
        flat = [np.asarray(matrix, dtype=np.float64).reshape(9).tolist() for matrix in oriented]
        return matrices_to_angles(finite_numbers(path, flat, width=9))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("a rotation matrix cannot be used", file=path, found=str(error)) from None
