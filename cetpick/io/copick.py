"""Picks of copick: one JSON file for the picks of one object in one run (tomogram), in angstrom."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import angles_to_matrices, angstrom_to_voxel, matrices_to_angles, voxel_to_angstrom
from cetpick.io.atomic import replacing
from cetpick.io.handler import Item, known_scores, text_head
from cetpick.io.naming import find_tomogram, warn_of_others
from cetpick.io.plain import finite_numbers, load_json
from cetpick.records import DEFAULT_CLASS, Coordinates, TomogramInfo

MARK = '"pickable_object_name"'
NOT_SCORED = 1.0
"""What copick stores for points without a score."""


def is_picks(_: Path, head: bytes) -> bool:
    """Whether a JSON object names a pickable object."""
    text = (text_head(head) or "").lstrip()
    return text.startswith("{") and MARK in text


def read_picks(path: Path, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Read the picks of one object.

    Args:
        path: the file.
        tomograms: where they may lie, found by the name of the run; a single one is taken whatever its name. Its voxel
            size counts; without a tomogram that of the file.

    Returns:
        One record, none when its run is not among the tomograms. The object's name is the class; there is a score when
        one differs from 1 (what copick stores by itself), and there are angles unless all are those of the reference or
        are not to be trusted.

    Raises:
        InputError: not as copick writes it, or the voxel size is not known.

    Warns:
        CetpickWarning: the run has another name than the only tomogram; left out are translations or other runs.
    """
    content = load_json(path)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError("holds no picks of copick", file=path, expected="a JSON object with a list of points")
    if content.get("unit", "angstrom") != "angstrom":
        raise InputError("is in a unit that is not known", file=path, expected="angstrom", found=content["unit"])
    run = str(content.get("run_name") or path.stem)
    info = _tomogram_of(path, run, tomograms)
    if tomograms and info is None:
        warn_of_others(path, [run])
        return []
    voxel_size = info.grid.voxel_size if info else _voxel_spacing(path, content)
    locations = [point.get("location") for point in points]
    angstrom = finite_numbers(path, map(xyz_of, locations), width=3)
    scores = finite_numbers(path, [[point.get("score", NOT_SCORED)] for point in points], width=1)[:, 0]
    return [
        Coordinates.from_points(
            angstrom_to_voxel(angstrom, voxel_size=voxel_size),
            class_=[str(content.get("pickable_object_name") or DEFAULT_CLASS)] * len(points),
            score=scores if (scores != NOT_SCORED).any() else None,
            angles=_angles(path, content, points),
            tomogram=info.name if info else run,
            voxel_size=voxel_size,
            source=path,
        )
    ]


def write_picks(path: Path, item: Item) -> None:
    """Write the picks of one object, as user `cetpick`; points of several classes become one of no class.

    Raises:
        InputError: the voxel size is not known.
    """
    voxel_size = item.angstrom
    if voxel_size is None:
        raise InputError(
            "copick counts in angstrom, and the voxel size is not known",
            file=path,
            cure="give the tomogram (--tomogram), or --voxel-size",
        )
    matrices = np.tile(np.eye(4), (len(item), 1, 1))
    if item.angles is not None:
        matrices[:, :3, :3] = angles_to_matrices(item.angles)
    scores = known_scores(path, [item])
    classes = {*item.classes}
    content = {
        "pickable_object_name": classes.pop() if len(classes) == 1 else DEFAULT_CLASS,
        "user_id": "cetpick",
        "session_id": "0",
        "run_name": item.info.name if item.info else item.name or path.stem,
        "voxel_spacing": voxel_size,
        "unit": "angstrom",
        "points": [
            {
                "location": dict(zip("xyz", xyz, strict=True)),
                "transformation_": matrix,
                "instance_id": 0,
                "score": score,
            }
            for xyz, matrix, score in zip(
                voxel_to_angstrom(item.points, voxel_size=voxel_size).tolist(),
                matrices.tolist(),
                scores[0].tolist() if scores else [NOT_SCORED] * len(item),
                strict=True,
            )
        ],
        "trust_orientation": item.angles is not None,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def xyz_of(location: Any) -> list[Any]:
    """The numbers of {"x": ..., "y": ..., "z": ...}; None where one is missing."""
    return [location.get(axis) for axis in "xyz"] if isinstance(location, dict) else [None] * 3


def _tomogram_of(path: Path, run: str, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    if (found := find_tomogram(run, tomograms)) or len(tomograms) != 1:
        return found
    warnings.warn(
        f"{path}: its run {run} is taken as tomogram {tomograms[0].name}, the only one given",
        CetpickWarning,
        stacklevel=2,
    )
    return tomograms[0]


def _voxel_spacing(path: Path, content: dict[str, Any]) -> float:
    stored = content.get("voxel_spacing")
    if stored is None:
        cure = "give the tomogram (--tomogram)"
        raise InputError("is in angstrom, and its voxel_spacing is missing", file=path, cure=cure)
    value = float(finite_numbers(path, [[stored]], width=1)[0, 0])
    if value <= 0:
        raise InputError("voxel_spacing cannot be used", file=path, expected="a positive number", found=value)
    return value


def _angles(path: Path, content: dict[str, Any], points: Sequence[dict[str, Any]]) -> Any:
    """Angles (n, 3), None when no point has any."""
    stored = [point.get("transformation_", None) for point in points]
    if not points or not content.get("trust_orientation", True) or all(matrix is None for matrix in stored):
        return None
    rows = [_flat(np.eye(4).tolist() if matrix is None else matrix) for matrix in stored]
    matrices = finite_numbers(path, rows, width=16).reshape(-1, 4, 4)
    if np.abs(matrices[:, :3, 3]).max(initial=0) > 0:
        warnings.warn(f"{path}: translations in transformation_ are left out", CetpickWarning, stacklevel=2)
    if (matrices[:, :3, :3] == np.eye(3)).all():
        return None
    try:
        return matrices_to_angles(matrices[:, :3, :3])
    except ValueError as error:
        raise InputError("transformation_ cannot be used", file=path, found=str(error)) from None


def _flat(matrix: Any) -> list[Any]:
    """Rows of four numbers as one row of sixteen; anything else as something that is no number."""
    fits = isinstance(matrix, list) and [isinstance(row, list) and len(row) for row in matrix] == [4] * 4
    return [value for row in matrix for value in row] if fits else [None] * 16
