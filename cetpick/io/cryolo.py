"""Boxes of crYOLO (.cbox): a STAR file; x and y are those of a box's corner, z that of its centre."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cetpick.errors import InputError
from cetpick.geometry import boxes_to_voxel, voxel_to_boxes
from cetpick.io.handler import Item, known_scores
from cetpick.io.star import read_star, star_numbers, write_star
from cetpick.records import Coordinates, TomogramInfo

BLOCK = "cryolo"
DEFAULT_BOX = 32.0
"""Voxels, for when no diameter is known."""
UNKNOWN = "<NA>"
"""As crYOLO writes it; read is nan too."""


def read_cbox(path: Path, info: TomogramInfo | None) -> Coordinates:
    """Read boxes; their confidence is the score, where all have one.

    Raises:
        InputError: no boxes, no z, or something else where numbers belong.
    """
    blocks = read_star(path)
    if BLOCK not in blocks:
        raise InputError("holds no boxes of crYOLO", file=path, expected=f"data_{BLOCK}", found=", ".join(blocks))
    boxes = blocks[BLOCK]
    if "CoordinateZ" in boxes and _unknown(boxes["CoordinateZ"]):
        raise InputError("its boxes have no z", file=path, cure="picks of a tomogram are needed, not of a micrograph")
    labels = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height"]
    values = star_numbers(boxes, labels, file=path)
    scored = "Confidence" in boxes and not _unknown(boxes["Confidence"])
    return Coordinates.from_points(
        boxes_to_voxel(values[:, :3], width=values[:, 3], height=values[:, 4]),
        score=star_numbers(boxes, ["Confidence"], file=path)[:, 0] if scored else None,
        voxel_size=info.grid.voxel_size if info else None,
        source=path,
    )


def write_cbox(path: Path, item: Item, radius: float | None) -> None:
    """Write boxes as wide as the particle (`radius` in angstrom), or of 32 voxels when its size is not known.

    Raises:
        InputError: its size is known, the voxel size is not.
    """
    if radius is not None and item.angstrom is None:
        raise InputError(
            "the width of its boxes counts voxels, and the voxel size is not known",
            file=path,
            cure="give the tomogram (--tomogram), or --voxel-size, or leave out --diameter for boxes of 32 voxels",
        )
    side = DEFAULT_BOX if radius is None or item.angstrom is None else float(round(2 * radius / item.angstrom))
    table = pd.DataFrame(voxel_to_boxes(item.points, side=side), columns=[f"Coordinate{axis}" for axis in "XYZ"])
    for label in ("Width", "Height", "Depth", "EstWidth", "EstHeight"):
        table[label] = side
    scores = known_scores(path, [item])
    table["Confidence"] = UNKNOWN if scores is None else scores[0]
    table["NumBoxes"] = UNKNOWN
    table["Angle"] = UNKNOWN
    write_star(path, {"global": {"cbox_format_version": "1.0"}, BLOCK: table})


def _unknown(values: pd.Series) -> bool:
    return bool(values.isin([UNKNOWN, "nan"]).any())
