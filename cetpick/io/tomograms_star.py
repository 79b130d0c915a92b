"""RELION 5 tomograms.star: which tomograms there are, and where."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Literal

import pandas as pd

from cetpick.errors import InputError
from cetpick.io.star import read_star
from cetpick.records import RelionTomogram

Which = Literal["reconstructed", "denoised"]

NAME = "rlnTomoName"
PIXEL_SIZE = "rlnTomoTiltSeriesPixelSize"
BINNING = "rlnTomoTomogramBinning"
SIZE = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
FILES: dict[Which, str] = {"reconstructed": "rlnTomoReconstructedTomogram", "denoised": "rlnTomoDenoisedTomogram"}
HALF = "rlnTomoReconstructedTomogramHalf1"
PIPELINE = "default_pipeline.star"
"""Lies in the folder of each project of RELION."""
EMPTY = {"", "none", "nan", "<na>"}
"""How RELION and pandas write that there is no file, in small letters."""

CURES: dict[Which, str] = {
    "reconstructed": "run RELION's 'Reconstruct tomograms' job and give the tomograms.star that it writes",
    "denoised": "run RELION's 'Denoise tomograms' job and give its tomograms.star, or use --which reconstructed",
}


def read_tomograms_star(
    path: str | PathLike[str], *, which: Which = "reconstructed"
) -> list[tuple[Path, RelionTomogram]]:
    """Read the tomograms that a RELION 5 tomograms.star lists, in its order.

    Args:
        path: the STAR file.
        which: the tomograms as reconstructed, or as denoised.

    Returns:
        File and row of each tomogram. A file is looked for in the folders above the STAR file, because RELION's paths
        start at the project folder, then in the current one; one that is nowhere is returned as the STAR file has it.

    Raises:
        InputError: not a tomograms.star, a column is missing, or a tomogram has no file or an unusable number.
    """
    tomograms = []
    for row in scan_tomograms_star(path, which=which):
        if isinstance(row, InputError):
            raise row
        tomograms.append(row)
    return tomograms


def scan_tomograms_star(
    path: str | PathLike[str], *, which: Which = "reconstructed"
) -> list[tuple[Path, RelionTomogram] | InputError]:
    """Do as read_tomograms_star does, but with the error of a tomogram in its place instead of raising the first."""
    star = Path(path)
    rows: list[tuple[Path, RelionTomogram] | InputError] = []
    for row in _table(star, which).to_dict("records"):
        try:
            rows.append(_read_row({str(label): str(value) for label, value in row.items()}, star, which))
        except InputError as error:
            rows.append(error)
    return rows


def _table(star: Path, which: Which) -> pd.DataFrame:
    blocks = read_star(star)
    if (table := blocks.get("global")) is None or NAME not in table.columns:
        raise InputError(
            "not a tomograms.star",
            file=star,
            expected=f"a block data_global with a column {NAME}",
            found=", ".join(f"data_{name}" for name in blocks),
            cure=CURES[which],
        )
    for column in (FILES[which], PIXEL_SIZE, BINNING, *SIZE):
        if column not in table.columns:
            halves = HALF in table.columns and column == FILES["reconstructed"]
            raise InputError(
                f"column {column} is missing",
                file=star,
                found=f"half tomograms only ({HALF})" if halves else None,
                cure=_cure(which, halves=halves, denoised=FILES["denoised"] in table.columns),
            )
    if table.empty:
        raise InputError("lists no tomogram", file=star)
    return table


def _read_row(row: dict[str, str], star: Path, which: Which) -> tuple[Path, RelionTomogram]:
    name, file = row[NAME], row[FILES[which]]
    if not name or "/" in name:
        raise InputError("a tomogram's name cannot be used", file=star, expected="text without /", found=repr(name))
    if file.lower() in EMPTY:
        halves = which == "reconstructed" and row.get(HALF, "").lower() not in EMPTY
        raise InputError(
            f"tomogram {name} has no {which} file",
            file=star,
            expected=f"a file in column {FILES[which]}",
            found=f"half tomograms only ({row[HALF]})" if halves else repr(file),
            cure=_cure(which, halves=halves, denoised=row.get(FILES["denoised"], "").lower() not in EMPTY),
        )
    pixel_size, binning, x, y, z = (_positive(row, column, star) for column in (PIXEL_SIZE, BINNING, *SIZE))
    project = _project(Path(file), star)
    tomogram = RelionTomogram(
        name=name, pixel_size=pixel_size, binning=binning, size=(x, y, z), star=star, project=project
    )
    return project / file, tomogram


def _cure(which: Which, *, halves: bool, denoised: bool) -> str:
    if halves and denoised:
        return "--which denoised (in a RELION job the parameter `which`): this file names denoised tomograms, too"
    if halves:
        return "reconstruct without splitting into halves, or denoise and use --which denoised"
    return CURES[which]


def _positive(row: dict[str, str], column: str, star: Path) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"{column} of tomogram {row[NAME]} cannot be used",
            file=star,
            expected="a positive number",
            found=repr(row[column]),
            cure=CURES["reconstructed"],
        )
    return value


def _project(file: Path, star: Path) -> Path:
    """The folder that paths in a STAR file start at: one above the STAR file, or the current one.

    Another project's file is meant for that one, whose jobs and tomograms may well have the same names.
    """
    above = star.resolve().parents
    if file.is_absolute():  # is there as seen from any folder
        projects = [folder for folder in above if folder == Path.cwd() or (folder / PIPELINE).exists()]
    else:
        projects = [folder for folder in above if (folder / file).exists()]
    project = next(iter(projects), Path())
    return Path() if project == Path.cwd() else project
