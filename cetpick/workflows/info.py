"""`info`: what is in a tomogram, coordinate, tomograms.star or model file, or in a run.json."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.coordinates import read_coordinates
from cetpick.io.formats import HANDLERS, STAR, recognise
from cetpick.io.model import is_model, read_header
from cetpick.io.mrc import reading
from cetpick.io.omezarr import is_store
from cetpick.io.relion import (
    CENTRED,
    COORDINATE,
    IMPORT_FILE,
    OPTIMISATION_SET,
    TOMOGRAM_NAMES,
    particle_table,
)
from cetpick.io.star import read_star
from cetpick.io.tomograms import COMPRESSED_ENDINGS, ENDINGS, read_info
from cetpick.io.tomograms_star import Which, scan_tomograms_star
from cetpick.records import Coordinates, TomogramInfo
from cetpick.workflows.record import read_record

Description = dict[str, Any]
"""What is known of a file, by name; `file` and `kind` come first. Values are plain, so that JSON can hold them."""


def run_info(
    paths: Sequence[Path], *, tomograms: Sequence[TomogramInfo] = (), which: Which = "reconstructed"
) -> tuple[list[Description], list[CetpickError]]:
    """Describe files of any kind.

    Args:
        paths: the files.
        tomograms: of coordinates that cannot be read without.
        which: tomograms of a tomograms.star.

    Returns:
        A description of each usable file, in the order given, and the errors of the others.

    Raises:
        InputError: no file is usable.
    """
    descriptions, failures = [], []
    for path in paths:
        try:
            descriptions.append(describe(path, tomograms=tomograms, which=which))
        except CetpickError as error:
            failures.append(error)
    if not descriptions:
        raise InputError("\n".join(map(str, failures)) or "no file given")
    return descriptions, failures


def describe(path: Path, *, tomograms: Sequence[TomogramInfo] = (), which: Which = "reconstructed") -> Description:
    """Describe a file of any kind, told by its content, or the run that wrote a folder.

    Raises:
        InputError: unreadable, damaged, or of no known kind.
    """
    if is_store(path):
        return describe_tomogram(path)
    record_file = path / "run.json" if path.is_dir() else path
    if (record := read_record(record_file)) is not None:
        return describe_run(record_file, record)
    with reading(path):
        model = is_model(path)
    if model:
        return describe_model(path)
    try:
        handler = recognise(path)
    except InputError as unknown:
        return _describe_volume(path, unknown)
    if handler.description == STAR:
        return _describe_star(path, which)
    # Boxes of images are shown in section 0.
    return describe_coordinates(path, read_coordinates(path, tomograms=tomograms, z=0.0))


def describe_tomogram(path: Path) -> Description:
    """Describe a tomogram: sizes along x, y, z in voxels and angstrom, and what its header holds.

    An unusable voxel size is one of its problems, no error.

    Raises:
        InputError: unreadable, no volume, or truncated.
    """
    problems = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)  # they are the problems that are told
        try:
            info = read_info(path)
            voxel_size: float | None = info.grid.voxel_size
        except InputError as error:
            info = read_info(path, voxel_size=1.0)  # raises too, unless the voxel size alone is wrong
            voxel_size = None
            problems.append(error.problem if error.found is None else f"{error.problem}: {error.found}")
    size = info.grid.size
    return {
        "file": str(path),
        "kind": "tomogram",
        "name": info.name,
        "size": size,
        "voxel_size": voxel_size,
        "size_angstrom": None if voxel_size is None else [n * voxel_size for n in size],
        "origin": info.grid.origin,
        **info.header,
        "problems": [*problems, *info.header["problems"]],
    }


def describe_coordinates(path: Path, records: Sequence[Coordinates]) -> Description:
    """Describe coordinates that were read: x, y, z in voxels, internal convention.

    Args:
        path: the file or folder that they come from.
        records: one for each tomogram.
    """
    tables = [record.table for record in records]
    voxel_sizes = {record.voxel_size for record in records}
    radii = {record.radius for record in records}
    return {
        "file": str(path),
        "kind": "coordinates",
        "format": "folder" if path.is_dir() else recognise(path).description,
        "points": sum(map(len, records)),
        "tomograms": {record.tomogram or "(not named)": len(record) for record in records},
        "unit": "voxels of the tomogram, 0 = centre of the first voxel",
        "voxel_size": voxel_sizes.pop() if len(voxel_sizes) == 1 else None,
        "radius": radii.pop() if len(radii) == 1 else None,
        "ranges": number_ranges(pd.concat(tables)) if tables else {},
    }


def number_ranges(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each column that holds finite numbers only, as numbers or as text."""
    ranges = {}
    for label in table.columns:
        values = pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=np.float64)
        if len(values) and np.isfinite(values).all():
            ranges[str(label)] = (float(values.min()), float(values.max()))
    return ranges


def describe_model(path: Path) -> Description:
    """Describe a model file; lengths in angstrom, the working voxel size along x, y, z.

    Raises:
        InputError: as of read_header.
    """
    version, settings = read_header(path)
    return {
        "file": str(path),
        "kind": "model",
        "format_version": version,
        "mode": settings.mode,
        "diameter": {item.name: item.diameter for item in settings.classes},
        "working_voxel_size": settings.voxel_size[::-1],
        "threshold": settings.threshold,
        "count": settings.count,
        "count_limits": settings.count_limits,
        "separation": settings.separation,
        "trained_voxel_size": settings.stored_voxel_size,
        "provenance": dict(settings.provenance),
    }


def describe_run(path: Path, record: dict[str, Any]) -> Description:
    """Describe the run.json of a cetpick command."""
    picked = record.get("tomograms")
    notes = picked if isinstance(picked, dict) else {}
    told = {name: note["picks"] for name, note in notes.items() if isinstance(note, dict) and "picks" in note}
    seconds = record.get("seconds")
    return {
        "file": str(path),
        "kind": "record of a run",
        "command": shlex.join(["cetpick", *map(str, record.get("arguments", [record["command"]]))]),
        "cetpick": record["cetpick"],
        "started": record["started"],
        "seconds": seconds.get("total") if isinstance(seconds, dict) else None,
        "device": record.get("device"),
        "inputs": list(record.get("inputs", {})),
        "outputs": record.get("outputs", []),
        **({"picks": told} if told else {}),
        "warnings": record.get("warnings", []),
        "failures": record.get("failures", []),
    }


def describe_tomograms_star(path: Path, which: Which) -> Description:
    """Describe a RELION 5 tomograms.star: sizes in voxels of the reconstructions along x, y, z, lengths in angstrom.

    Raises:
        InputError: not a tomograms.star, or no tomogram in it is usable.
    """
    rows = scan_tomograms_star(path, which=which)
    tomograms = [row for row in rows if not isinstance(row, InputError)]
    failures = [row for row in rows if isinstance(row, InputError)]
    if not tomograms:
        raise failures[0]
    return {
        "file": str(path),
        "kind": "tomograms.star",
        "which": which,
        "tomograms": [
            {
                "name": relion.name,
                "size": [round(side / relion.binning) for side in relion.size],
                "voxel_size": relion.voxel_size,
                "pixel_size": relion.pixel_size,
                "binning": relion.binning,
                "exists": file.exists(),
                "file": str(file),
            }
            for file, relion in tomograms
        ],
        "problems": [failure.problem for failure in failures],
    }


def _describe_star(path: Path, which: Which) -> Description:
    blocks = read_star(path)
    for table in blocks.values():
        if OPTIMISATION_SET["particles"] in table and len(table):
            row = table.iloc[0]
            named = {kind: str(row[label]) for kind, label in OPTIMISATION_SET.items() if label in table}
            return {"file": str(path), "kind": "optimisation set", **named}
        if IMPORT_FILE in table and len(table):
            return {"file": str(path), "kind": "import list", "files": [str(file) for file in table[IMPORT_FILE]]}
        if {CENTRED[0], COORDINATE[0]} & set(table.columns):
            return _describe_particles(path, particle_table(path, blocks))
    return describe_tomograms_star(path, which)


def _describe_particles(path: Path, particles: pd.DataFrame) -> Description:
    """Particles as the file holds them: to put them into voxels would need their tomograms."""
    names = next((label for label in TOMOGRAM_NAMES if label in particles), None)
    return {
        "file": str(path),
        "kind": "coordinates",
        "format": STAR,
        "points": len(particles),
        "tomograms": {} if names is None else particles[names].value_counts(sort=False).to_dict(),
        "unit": "as in the file",
        "ranges": number_ranges(particles),
    }


def _describe_volume(path: Path, unknown: InputError) -> Description:
    """Describe what is no coordinate file, for the reason of `unknown`."""
    name = path.name.lower()
    for ending in COMPRESSED_ENDINGS:
        name = name.removesuffix(ending)
    try:
        return describe_tomogram(path)
    except InputError:
        if name.endswith(ENDINGS):
            raise
    raise InputError(
        "is no file that cetpick knows",
        file=path,
        expected=", ".join(
            dict.fromkeys(
                [
                    "tomogram (MRC, EM, EMAN2 HDF5, OME-Zarr)",
                    *(item.description for item in HANDLERS),
                    "model (.safetensors)",
                ]
            )
        ),
        found=unknown.found if path.stat().st_size else "an empty file",
        cure=unknown.cure,
    ) from None
