"""Boxes in EMAN2's ``info/<name>_info.json``."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.errors import InputError
from cetpick.geometry import as_points, eman_to_voxel, voxel_to_eman
from cetpick.io.atomic import replacing
from cetpick.io.plain import finite_numbers, load_json
from cetpick.records import DEFAULT_CLASS, Coordinates, TomogramInfo

BOX_PER_DIAMETER = 1.5
"""Side of the box that is written, in diameters."""
DEFAULT_BOX = 32
"""EMAN2's own, for when no diameter is known."""
PROJECT = "project.json"
"""Settings of e2projectmanager, which lie in the same folder."""
EMAN2_KEYS = {"apix_unbin", "tlt_file", "tlt_params", "ali_loss", "class_list"}
"""An info file has some of these also when nobody has boxed in its tomogram yet."""
KEYS = {"boxes_3d", *EMAN2_KEYS}


def read_info_json(path: str | PathLike[str], info: TomogramInfo | None) -> Coordinates:
    """Read the 3D boxes of an info file.

    Args:
        path: the file.
        info: its tomogram. Needed when the file has ``apix_unbin``, because its boxes then count from the centre of the
            tomogram in unbinned pixels; EMAN2 takes the voxel size from the tomogram's header.

    Returns:
        Points with their class name, and `score` where any box has one that is not zero. None are there when
        nobody has boxed yet.

    Raises:
        InputError: no such file, no info file, or the tomogram is needed.
    """
    content = _load(path)
    boxes = content.get("boxes_3d", [] if EMAN2_KEYS & content.keys() else None)
    if not isinstance(boxes, list) or not all(isinstance(box, list) and len(box) >= 3 for box in boxes):
        raise InputError("has no usable boxes_3d", file=path, expected="a list of [x, y, z, method, score, class]")
    # Old files have shorter boxes: method, score and class are missing from the end.
    rows = [[*box, *["manual", 0.0, 0][max(0, len(box) - 3) :]][:6] for box in boxes]
    names = _class_names(path, content)
    values = finite_numbers(path, [[*row[:3], row[4]] for row in rows], width=4)
    table = pd.DataFrame(_to_voxels(path, values[:, :3], content, info), columns=["x", "y", "z"])
    table["class"] = [names.get(str(row[5]), str(row[5])) for row in rows] if names else DEFAULT_CLASS
    if values[:, 3].any():
        table["score"] = values[:, 3]
    return Coordinates(table=table, voxel_size=info.grid.voxel_size if info else None, source=Path(path))


def write_info_json(
    path: str | PathLike[str], info: TomogramInfo, table: pd.DataFrame, *, radius: float | None = None
) -> None:
    """Put picks into an info file, in place of the boxes that it has; all its other keys stay as they are.

    Args:
        path: the file, old or new. Boxes are voxels of the tomogram unless the file there has ``apix_unbin``.
        info: the tomogram.
        table: columns x, y, z in voxels and, if known, class and score.
        radius: of the particles, angstrom, for the side of the box.

    Raises:
        InputError: the file there is none of EMAN2's.
    """
    content = _load(path) if Path(path).exists() else {}
    if content and not KEYS & content.keys():
        raise InputError(
            "is none of EMAN2's info files, so no boxes are put into it",
            file=path,
            expected=f"one of {', '.join(sorted(KEYS))}",
            found=", ".join(list(content)[:5]),
            cure="name another output; for picks of copick add --format copick",
        )
    apix_unbin = _apix_unbin(path, content)
    voxel_size = _voxel_size(info)
    points = voxel_to_eman(
        table[["x", "y", "z"]].to_numpy(), size=info.grid.size, voxel_size=voxel_size, apix_unbin=apix_unbin
    )
    pixel_size = voxel_size if apix_unbin is None else apix_unbin
    box = DEFAULT_BOX if radius is None else round(2 * radius * BOX_PER_DIAMETER / pixel_size)
    classes = table["class"].astype(str) if "class" in table else pd.Series(DEFAULT_CLASS, index=table.index)
    scores = table["score"].astype(float) if "score" in table else pd.Series(0.0, index=table.index)
    numbers = {name: int(key) for key, name in _class_names(path, content).items() if key.isdecimal()}
    listed = dict(content.get("class_list", {}))
    for name in classes.unique():
        if name not in numbers:
            numbers[name] = max(numbers.values(), default=-1) + 1
            listed[str(numbers[name])] = {"name": name, "boxsize": box}
    boxes = [
        [*xyz, "cetpick", score, numbers[name]]
        for xyz, score, name in zip(points.tolist(), scores, classes, strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**content, "boxes_3d": boxes, "class_list": listed}), encoding="utf-8")


def info_name(tomogram: str) -> str:
    """Name of the info file of a tomogram, without its ending; EMAN2 cuts the tomogram's at the first ``__``."""
    return f"{tomogram.split('__')[0]}_info"


def _load(path: str | PathLike[str]) -> dict[str, Any]:
    content = load_json(path)
    if not isinstance(content, dict):
        raise InputError("is none of EMAN2's info files", file=path, expected="a JSON object with boxes_3d")
    return content


def _class_names(path: str | PathLike[str], content: dict[str, Any]) -> dict[str, str]:
    """Names by number, from {"0": {"name": "ribosome", ...}} or, as EMAN2 once wrote it, {"0": "ribosome"}."""
    listed = content.get("class_list", {})
    if not isinstance(listed, dict):
        raise InputError("class_list cannot be used", file=path, expected='{"0": {"name": ..., "boxsize": ...}, ...}')
    return {key: str(value.get("name", key) if isinstance(value, dict) else value) for key, value in listed.items()}


def _apix_unbin(path: str | PathLike[str], content: dict[str, Any]) -> float | None:
    if (stored := content.get("apix_unbin")) is None:
        return None
    value = float(finite_numbers(path, [[stored]], width=1)[0, 0])
    if value <= 0:
        raise InputError("apix_unbin cannot be used", file=path, expected="a positive number", found=value)
    return value


def _to_voxels(
    path: str | PathLike[str],
    boxes: NDArray[np.float64],
    content: dict[str, Any],
    info: TomogramInfo | None,
) -> NDArray[np.float64]:
    apix_unbin = _apix_unbin(path, content)
    if apix_unbin is None:
        return as_points(boxes)
    if info is None:
        raise InputError(
            "its boxes count from the centre of the tomogram, whose size is not known",
            file=path,
            cure="give the tomogram (--tomogram)",
        )
    return eman_to_voxel(boxes, size=info.grid.size, voxel_size=_voxel_size(info), apix_unbin=apix_unbin)


def _voxel_size(info: TomogramInfo) -> float:
    """EMAN2 knows no other voxel size than that in the header, right or wrong."""
    return info.header_voxel_size or info.grid.voxel_size
