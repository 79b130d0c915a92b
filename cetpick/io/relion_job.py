"""What RELION's pipeline expects of an External job, and where its other jobs look for coordinates.

From RELION's source (pipeline_jobs.cpp, pipeliner.cpp, preprocessing.cpp), the same in 3.1, 4 and 5 but for the node
labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cetpick.errors import CetpickError, InputError
from cetpick.interrupts import held_signals
from cetpick.io.star import read_star, star_numbers, write_star
from cetpick.io.tomograms_star import BINNING, FILES, HALF, NAME, PIXEL_SIZE
from cetpick.records import TomogramInfo

Version = Literal["3.1", "4", "5"]
Kind = Literal["particles", "optimisation set", "coordinates"]

SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{end}" for end in ("SUCCESS", "FAILURE", "ABORTED"))
ABORT_NOW = "RELION_JOB_ABORT_NOW"
OUTPUT_NODES = "RELION_OUTPUT_NODES.star"
SUFFIX = "_pick.star"
SUFFIX_FILE = f"coords_suffix{SUFFIX}"
"""How a job of RELION 3.1 tells the next one what its coordinate files end with: by the name of this file."""

_LABELS: dict[str, dict[Kind, str]] = {
    "4": {
        "particles": "ParticlesData.star.relion",
        "optimisation set": "ProcessData.star.relion.tomo.optimisation_set",
        "coordinates": "MicrographsCoords.star.relion",
    },
    "5": {
        "particles": "ParticleGroupMetadata.star.relion",
        "optimisation set": "TomoOptimisationSet.star.relion.tomo",
        "coordinates": "MicrographCoordsGroup.star.relion",
    },
}
_NUMBERS: dict[Kind, int] = {"coordinates": 2, "particles": 3, "optimisation set": 3}
"""What RELION 3.1 has in the place of labels; it knows no optimisation sets, and is given none."""
_MICROGRAPH, _COORDINATE_FILE = "rlnMicrographName", "rlnMicrographCoordinates"
_JOB_FOLDER = re.compile(r"^.+?/job\d{3}[^/]*/(?=.)")


class AbortError(CetpickError):
    """The user aborted the job in RELION's window."""


@contextmanager
def exit_marker(folder: Path) -> Iterator[None]:
    """Leave, last of all, the marker that tells RELION truly how the job ended, and no other.

    An AbortError from the body leaves that of an aborted job and takes back the request to abort; anything else that
    is raised leaves that of a failed one.
    """
    _leave(folder, None)
    try:
        yield
    except AbortError:
        (folder / ABORT_NOW).unlink(missing_ok=True)
        _leave(folder, ABORTED)
        raise
    except BaseException:
        _leave(folder, FAILURE)
        raise
    _leave(folder, SUCCESS)


def _leave(folder: Path, chosen: str | None) -> None:
    """Leave this marker only, whatever signal comes meanwhile."""
    with held_signals():
        for marker in (SUCCESS, FAILURE, ABORTED):
            if marker != chosen:
                (folder / marker).unlink(missing_ok=True)
        if chosen is not None:
            (folder / chosen).touch()


def abort_wanted(folder: Path) -> bool:
    """Whether the user asked RELION to abort the job."""
    return (folder / ABORT_NOW).exists()


def version_of(folder: Path) -> Version | None:
    """The RELION that runs the job in this folder, by the job.star it has put there; None when there is none."""
    job = folder / "job.star"
    if not job.is_file():
        return None
    text = job.read_text(encoding="utf-8", errors="replace")
    if "_rlnJobTypeLabel" not in text:
        return "3.1"
    return "4" if re.search(r"^# version 3\d{4}", text, re.MULTILINE) else "5"


def write_output_nodes(folder: Path, outputs: Sequence[tuple[Path, Kind]], version: Version) -> None:
    """Tell RELION the results of a job, so that later jobs offer them; every version reads the file.

    Args:
        folder: of the job.
        outputs: files, as seen from the project folder, and what they are.
        version: of RELION.
    """
    known = [(path, kind) for path, kind in outputs if version != "3.1" or kind != "optimisation set"]
    labels = _LABELS["4" if version == "4" else "5"]
    table = pd.DataFrame(
        {
            "rlnPipeLineNodeName": [str(path) for path, _ in known],
            "rlnPipeLineNodeType": [_NUMBERS[kind] for _, kind in known],
            "rlnPipeLineNodeTypeLabel": [labels[kind] for _, kind in known],
            "rlnPipeLineNodeTypeLabelDepth": [1] * len(known),
        }
    )
    write_star(folder / OUTPUT_NODES, {"output_nodes": table})


def coordinate_file(folder: Path, micrograph: str) -> Path:
    """Where RELION's extraction looks in the folder of a picking job for the coordinates in a micrograph.

    Args:
        folder: of the picking job.
        micrograph: rlnMicrographName; ``Import/job001/`` and the like at its beginning does not count.

    Raises:
        InputError: that would be outside of the folder.
    """
    below = _JOB_FOLDER.sub("", micrograph).lstrip("/")
    if ".." in Path(below).parts:
        raise InputError(
            "RELION would look for its coordinates outside of the job",
            file=micrograph,
            expected="a path without ..",
            cure="link the tomograms into the project folder and import them from there",
        )
    path = folder / below
    return path.with_name(f"{path.stem}{SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class Micrographs:
    """What a micrographs STAR lists.

    Attributes:
        names: rlnMicrographName, paths as seen from the project folder.
        pixel_size: angstrom, None when the file does not tell one for all of them.
    """

    names: list[str]
    pixel_size: float | None = None


def read_micrographs(path: Path) -> Micrographs | None:
    """Read a micrographs STAR; None when the file is another STAR, such as a tomograms.star.

    Raises:
        InputError: not a STAR file, or one that lists no micrograph.
    """
    blocks = read_star(path)
    table = next((blocks[name] for name in ("micrographs", "") if name in blocks and _MICROGRAPH in blocks[name]), None)
    if table is None or _COORDINATE_FILE in table:
        return None
    if table.empty:
        raise InputError("lists no micrograph", file=path)
    optics, pixel_size = blocks.get("optics"), None
    if optics is not None and "rlnMicrographPixelSize" in optics:
        sizes = set(star_numbers(optics, ["rlnMicrographPixelSize"], file=path)[:, 0].tolist())
        pixel_size = sizes.pop() if len(sizes) == 1 else None
    return Micrographs(names=list(dict.fromkeys(table[_MICROGRAPH])), pixel_size=pixel_size)


def clicked_in(coordinates: Path, micrographs: Sequence[str]) -> list[tuple[str, Path]]:
    """Which of the micrographs a picking job has coordinate files for, and these.

    Args:
        coordinates: the job's coords_suffix_*.star (RELION 3.1), or its list of micrographs and files (RELION 4 and 5).
        micrographs: rlnMicrographName of those that count, for RELION 3.1.
    """
    if coordinates.name.startswith("coords_suffix"):
        suffix = coordinates.name.removeprefix("coords_suffix")
        files = [(name, coordinate_file(coordinates.parent, name)) for name in micrographs]
        pairs = [(name, file.with_name(file.name.removesuffix(SUFFIX) + suffix)) for name, file in files]
        return [(name, file) for name, file in pairs if file.is_file()]
    tables = read_star(coordinates).values()
    table = next((table for table in tables if _COORDINATE_FILE in table and _MICROGRAPH in table), None)
    if table is None:
        return []
    return [(name, Path(file)) for name, file in zip(table[_MICROGRAPH], table[_COORDINATE_FILE], strict=True)]


def add_reconstructions(
    tomograms_star: Path, infos: Sequence[TomogramInfo], output: Path, *, broken: Mapping[str, Path]
) -> list[str]:
    """Write a tomograms.star as RELION 5 has it, with these tomograms for the tilt series of another one.

    Args:
        tomograms_star: of RELION 4, which knows tilt series only, or of RELION 5, whose tomograms are others.
        infos: the tomograms, named like the tilt series.
        output: the file to write.
        broken: files of further ones that cannot be used, by name; their binning is taken to be that of another.

    Returns:
        The tilt series without a tomogram; they are left out.

    Raises:
        InputError: all are without.
    """
    table = read_star(tomograms_star)["global"]
    files: dict[str, Path] = {info.name: info.path for info in infos} | dict(broken)
    voxel_sizes = {info.name: info.grid.voxel_size for info in infos}
    there = table[NAME].isin(list(files))
    missing = table[NAME][~there].tolist()
    if not there.any():
        raise InputError(
            "none of its tilt series has a tomogram",
            file=tomograms_star,
            expected=f"tomogram files named after {', '.join(missing[:5])}",
            found=", ".join(files),
            cure="give a parameter `tomograms` with the reconstructions, such as Volumes/*.mrc",
        )
    table = table[there].reset_index(drop=True)
    pixel_sizes = star_numbers(table, [PIXEL_SIZE], file=tomograms_star)[:, 0]
    usual = next(iter(voxel_sizes.values()))
    table[BINNING] = [voxel_sizes.get(name, usual) / size for name, size in zip(table[NAME], pixel_sizes, strict=True)]
    table[FILES["reconstructed"]] = [str(files[name]) for name in table[NAME]]
    write_star(output, {"global": table}, version="50001")
    return missing


def lacks_reconstructions(tomograms_star: Path) -> bool:
    """Whether a tomograms.star is one of RELION 4, which names no reconstructions.

    Raises:
        InputError: no tomograms.star at all.
    """
    table = read_star(tomograms_star).get("global")
    if table is None or NAME not in table or PIXEL_SIZE not in table:
        raise InputError(
            "neither a micrographs STAR nor a tomograms.star",
            file=tomograms_star,
            expected=f"a column {_MICROGRAPH}, or a block data_global with {NAME} and {PIXEL_SIZE}",
            cure="give the STAR of imported micrographs (RELION 3.1), or the tomograms.star of 'Reconstruct tomograms'",
        )
    named = (FILES["reconstructed"], HALF, FILES["denoised"], BINNING)
    return not any(label in table for label in named)
