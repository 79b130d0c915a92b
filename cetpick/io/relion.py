"""Particles in STAR files of RELION 3.1, 4 and 5 and of Warp.

RELION 5 measures from the centre of the tomogram, which its C++ programs put at half the unbinned size (and so does
this module), while its Python picker puts it one unbinned pixel lower.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import (
    Points,
    as_points,
    compose_angles,
    relion_centred_to_voxel,
    relion_unbinned_to_voxel,
    rotate_by_angles,
    voxel_to_relion_centred,
    voxel_to_relion_unbinned,
)
from cetpick.io.handler import Item, known_scores, needed_info
from cetpick.io.naming import find_tomograms, named_after, plain_name, warn_of_others, warp_name
from cetpick.io.numbered import class_names, class_numbers, whole_numbers
from cetpick.io.star import Block, read_star, read_text, star_numbers, write_star
from cetpick.io.tomograms import same_voxel_size
from cetpick.io.tomograms_star import read_tomograms_star
from cetpick.records import DEFAULT_CLASS, Coordinates, RelionTomogram, TomogramInfo

Flavour = Literal["relion5", "relion4", "relion31", "warp"]

ROUNDING = 1e-3
"""Voxels: points no farther than this outside of a volume lie on its edge, numbers in files are rounded."""

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
COORDINATE = [f"rlnCoordinate{axis}" for axis in "XYZ"]
_ORIGIN_ANGSTROM = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
_ORIGIN_PIXEL = [f"rlnOrigin{axis}" for axis in "XYZ"]
_ANGLES = [f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")]
_SUBTOMOGRAM_ANGLES = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
_CLASS, _PIXEL = "rlnClassNumber", "rlnPixelSize"
IMPORT_FILE = "rlnTomoImportParticleFile"
OPTIMISATION_SET = {"particles": "rlnTomoParticlesFile", "tomograms": "rlnTomoTomogramsFile"}
_SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "cetpickScore")
TOMOGRAM_NAMES = ("rlnTomoName", "rlnMicrographName")
_NAME_THE_STAR = "name tomograms.star in the place of the tomogram (`convert`, `evaluate`: --tomograms-star)"
FEWEST_NORMALISED = 3
"""So many particles do not all lie in the first voxel."""
_ANNOTATIONS, _ANNOTATION_ENDING = "annotations", "_particles"
"""Where RELION 5's picking job leaves what was clicked in each tomogram: annotations/<tomogram>_particles.star."""


def beyond_edge(points: Points, info: TomogramInfo) -> NDArray[np.float64]:
    """How many voxels each of the points (n, 3) lies outside of a tomogram, at most 0 inside; shape (n,)."""
    size = np.array(info.grid.size)
    distances: NDArray[np.float64] = (np.abs(points - (size - 1) / 2) - size / 2).max(axis=1, initial=-np.inf)
    return distances


def read_particles(
    path: str | PathLike[str],
    tomograms: Sequence[TomogramInfo] = (),
    *,
    binned: bool | None = None,
    voxel_size: float | None = None,
) -> list[Coordinates]:
    """Read the particles of a STAR file, or those of the files that an optimisation_set.star or an import list names.

    An import list is what RELION's import of coordinates takes: rlnTomoName and rlnTomoImportParticleFile, of text
    files with three columns x y z, or six with rot tilt psi, or of STAR files.

    Args:
        path: the file.
        tomograms: those of interest; particles of others are left out, with a warning that names them. None given:
            all particles are read, as far as that is possible without.
        binned: whether rlnCoordinateX/Y/Z are voxels of the reconstruction (True) or pixels of the unbinned tilt
            series (False). None: voxels in files that name the tomogram by rlnMicrographName (RELION 3.1, Warp) or lie
            in a folder ``annotations``, otherwise unbinned pixels; but when at least half of the points fit into the
            volume only by the other reading, that one, with a warning. Pixels of rlnPixelSize, with a warning, in what
            Warp exports (TS_01.tomostar) with another pixel size than the tomogram's.
        voxel_size: angstrom, for when no tomogram tells.

    Returns:
        One record for each tomogram with particles, in order of appearance; origins (rlnOrigin*) are subtracted.
        Classes are rlnClassNumber, unless all have 0, or all 1. Angles are those of the particle in the tomogram:
        rlnAngle*, turned by rlnTomoSubtomogram* where there are such.

    Raises:
        InputError: not a file of particles, or what their coordinates need is not known.
    """
    path = Path(path)
    blocks = read_star(path)
    sets = [table.iloc[0] for table in blocks.values() if OPTIMISATION_SET["particles"] in table and len(table)]
    known: dict[str, RelionTomogram] = {}
    if sets:
        if OPTIMISATION_SET["tomograms"] in sets[0] and not (tomograms and all(info.relion for info in tomograms)):
            star = _project_file(path, sets[0][OPTIMISATION_SET["tomograms"]])
            known = {tomogram.name: tomogram for _, tomogram in read_tomograms_star(star)}
        path = _project_file(path, sets[0][OPTIMISATION_SET["particles"]])
        blocks = read_star(path)
    table = particle_table(path, blocks)
    if _CLASS in table:
        numbers = whole_numbers(path, _CLASS, star_numbers(table, [_CLASS], file=path)[:, 0])
        table = table.assign(**{_CLASS: class_names(map(str, numbers.tolist()))})
    names = next((label for label in TOMOGRAM_NAMES if label in table), None)
    groups = (
        [(_annotated(path) or _named_like(path, tomograms), table)]
        if names is None
        else [(str(name), rows) for name, rows in table.groupby(names, sort=False)]
    )

    if binned is not None and CENTRED[0] in table:
        told = "centred coordinates are no pixels, so that --binned and --unbinned change nothing"
        warnings.warn(f"{path}: {told}", CetpickWarning, stacklevel=2)
    records, others = [], []
    infos = find_tomograms([name for name, _ in groups], tomograms, file=path)
    for (name, rows), info in zip(groups, infos, strict=True):
        if tomograms and info is None:
            others.append(name or "(no name)")
            continue
        relion = info.relion if info and info.relion else known.get(name or "")
        records.append(_record(path, blocks, rows, name, info, relion, binned, voxel_size))
    warn_of_others(path, others)
    return records


def write_particles(
    path: str | PathLike[str], flavour: Flavour, picks: Sequence[tuple[TomogramInfo, pd.DataFrame]]
) -> None:
    """Write the particles of one or more tomograms; as write_items."""
    write_items(path, flavour, [Item(info=info, table=table) for info, table in picks])


def write_items(path: str | PathLike[str], flavour: Flavour, items: Sequence[Item]) -> None:
    """Write the particles of one or more tomograms; the file is replaced only when complete.

    Args:
        path: the file.
        flavour: ``relion5`` centred angstrom; ``relion4`` unbinned pixels with an optics table; ``relion31`` voxels of
            the tomogram file that rlnMicrographName gives; ``warp`` voxels of ``<name>.tomostar`` (tell Warp the voxel
            size with --coords_angpix).
        items: particles; their score and angles are written when all of them have such.

    Raises:
        InputError: what the flavour needs of a tomogram is not known.
    """
    write_star(path, _BLOCKS[flavour](Path(path), items), version=_VERSIONS.get(flavour))


def write_optimisation_set(
    path: str | PathLike[str], *, particles: str | PathLike[str], tomograms: str | PathLike[str]
) -> None:
    """Write RELION 5's optimisation_set.star.

    Args:
        path: the file.
        particles: the particles.star, as seen from the RELION project folder.
        tomograms: the tomograms.star, as seen from the RELION project folder.
    """
    files = {OPTIMISATION_SET["particles"]: str(particles), OPTIMISATION_SET["tomograms"]: str(tomograms)}
    write_star(path, {"optimisation_set": files}, version=_VERSIONS["relion5"])


def write_annotations(folder: Path, info: TomogramInfo, table: pd.DataFrame) -> Path:
    """Write the particles of a tomogram where RELION 5's picker looks for what was clicked in it; returns the file.

    Args:
        folder: of the job.
        info: the tomogram, of a tomograms.star.
        table: columns x, y, z in voxels and score.
    """
    name = info.relion.name if info.relion else info.name
    path = folder / _ANNOTATIONS / f"{name}{_ANNOTATION_ENDING}.star"
    frame = _frame(
        "rlnTomoName",
        _needed(path, Item(info=info, table=table), "relion5").name,
        COORDINATE,
        as_points(table[["x", "y", "z"]].to_numpy()),
    )
    frame[_SCORES[0]] = table["score"].to_numpy()
    write_star(path, {"": frame}, version=_VERSIONS["relion5"])
    return path


def annotations_in(folder: Path) -> list[Path]:
    """The files of write_annotations in the folder of a job."""
    return sorted((folder / _ANNOTATIONS).glob(f"*{_ANNOTATION_ENDING}.star"))


def particle_table(path: Path, blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The particles of all blocks; where these name no tomogram, the names of several are those of tomograms."""
    found = {name: table for name, table in blocks.items() if {CENTRED[0], COORDINATE[0]} & set(table.columns)}
    found = {name: table for name, table in found.items() if len(table)} or dict([*found.items()][:1])
    if len({frozenset(table.columns) for table in found.values()}) > 1:
        raise InputError(
            "its blocks of particles have not the same labels",
            file=path,
            found="; ".join(f"data_{name}: {', '.join(table.columns)}" for name, table in found.items()),
            cure="make a file of each block",
        )
    if (
        len(found) > 1
        and not _annotated(path)
        and not any({*TOMOGRAM_NAMES} & set(table.columns) for table in found.values())
    ):
        found = {name: table.assign(**{TOMOGRAM_NAMES[1]: name}) for name, table in found.items()}
    if found:
        return pd.concat(found.values(), ignore_index=True)
    for table in blocks.values():
        if IMPORT_FILE in table and TOMOGRAM_NAMES[0] in table:
            return _imported(path, table)
    raise InputError(
        "holds no particles",
        file=path,
        expected=f"{COORDINATE[0]} or {CENTRED[0]} among the labels",
        found=", ".join(label for table in blocks.values() for label in table.columns[:5]) or "no labels",
        cure="give the particles.star of the job",
    )


def _imported(path: Path, listed: pd.DataFrame) -> pd.DataFrame:
    """The particles of all files in an import list, as if they were one table."""
    frames = []
    for name, file in zip(listed[TOMOGRAM_NAMES[0]], listed[IMPORT_FILE], strict=True):
        target = _project_file(path, file)
        if target.suffix.lower() == ".star":
            blocks = read_star(target)
            if any(IMPORT_FILE in table for table in blocks.values()):
                raise InputError("an import list names another import list", file=path, found=file)
            frame = particle_table(target, blocks)
        else:
            rows = [line.split() for line in read_text(target).splitlines() if line.strip()]
            labels = [*COORDINATE, *_SUBTOMOGRAM_ANGLES][: 6 if rows and len(rows[0]) == 6 else 3]
            if bad := next((number for number, row in enumerate(rows, start=1) if len(row) != len(labels)), None):
                expected = "x y z in all rows, or x y z rot tilt psi in all"
                found = " ".join(rows[bad - 1])[:80]
                raise InputError(f"row {bad} does not fit", file=target, expected=expected, found=found)
            frame = pd.DataFrame(rows, columns=labels, dtype=object)
        frames.append(frame.assign(**{TOMOGRAM_NAMES[0]: name}))
    mixed = pd.concat(
        [pd.DataFrame(columns=[TOMOGRAM_NAMES[0], *COORDINATE], dtype=object), *frames], ignore_index=True
    )
    return mixed.dropna(axis="columns", how="all").fillna("0") if len(mixed) else mixed


def _annotated(path: Path) -> str | None:
    """The tomogram of an annotation that does not name it."""
    folder = path.absolute().parent.name
    return path.stem.removesuffix(_ANNOTATION_ENDING) if folder == _ANNOTATIONS else None


def _named_like(path: Path, tomograms: Sequence[TomogramInfo]) -> str | None:
    """The tomogram that a file which names none is named after, such as t1_pick.star."""
    info = named_after(path, tomograms) if len(tomograms) > 1 else None
    return info.name if info else None


def _project_file(path: Path, name: str) -> Path:
    """A file named relative to the RELION project folder, which lies above `path` or is the current one."""
    for folder in (*path.absolute().parents, Path()):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"names a file that is not there: {name}", file=path, cure="call cetpick in the RELION project folder"
    )


def _record(
    path: Path,
    blocks: dict[str, pd.DataFrame],
    rows: pd.DataFrame,
    name: str | None,
    info: TomogramInfo | None,
    relion: RelionTomogram | None,
    binned: bool | None,
    voxel_size: float | None,
) -> Coordinates:
    """The particles of one tomogram."""
    voxel_size = info.grid.voxel_size if info else relion.voxel_size if relion else voxel_size
    if CENTRED[0] in rows:
        if relion is None:
            raise InputError(
                f"the centred coordinates of {name} need the size, binning and pixel size of its tilt series",
                file=path,
                cure=f"{_NAME_THE_STAR}, or give the optimisation_set.star",
            )
        points = relion_centred_to_voxel(
            star_numbers(rows, CENTRED, file=path),
            binning=relion.binning,
            size=relion.size,
            pixel_size=relion.pixel_size,
        )
    else:
        points = _uncentred(path, rows, info, _binning(path, blocks, info, relion), binned)
    if info:
        name = info.name
    elif name is not None and "rlnTomoName" not in rows:
        name = plain_name(name)
    return Coordinates.from_points(
        points - _offsets(path, rows, voxel_size),
        score=_scores(path, rows),
        class_=rows.get(_CLASS),
        angles=_angles(path, rows),
        tomogram=name,
        voxel_size=voxel_size,
        source=path,
    )


def seen_from(project: Path, path: Path) -> Path:
    """How RELION, which runs in its project folder, finds `path`: absolute when it lies outside."""
    for absolute, folder in ((path.absolute(), project.absolute()), (path.resolve(), project.resolve())):
        if absolute.is_relative_to(folder):
            return absolute.relative_to(folder)
    return path.absolute()


def _names_tilt_series(rows: pd.DataFrame) -> bool:
    """Whether they are Warp's."""
    return TOMOGRAM_NAMES[1] in rows and bool(rows[TOMOGRAM_NAMES[1]].str.endswith(".tomostar").all())


def _scores(path: Path, rows: pd.DataFrame) -> NDArray[np.float64] | None:
    """Scores of all particles, if each has one."""
    label = next((label for label in _SCORES if label in rows), None)
    if label is None:
        return None
    scores = pd.to_numeric(rows[label], errors="coerce").to_numpy(np.float64)
    if np.isfinite(scores).all():
        return scores
    lacking = np.count_nonzero(~np.isfinite(scores))
    warnings.warn(
        f"{path}: {lacking} of {len(rows)} particles have no {label}, which is left out",
        CetpickWarning,
        stacklevel=2,
    )
    return None


def _binning(
    path: Path, blocks: dict[str, pd.DataFrame], info: TomogramInfo | None, relion: RelionTomogram | None
) -> float | None:
    """Binning of the reconstruction, if need be from the pixel size that the optics table agrees on."""
    if relion:
        return relion.binning
    optics = blocks.get("optics")
    if info is None or optics is None or "rlnTomoTiltSeriesPixelSize" not in optics:
        return None
    pixel_sizes = np.unique(star_numbers(optics, ["rlnTomoTiltSeriesPixelSize"], file=path))
    return info.grid.voxel_size / float(pixel_sizes[0]) if len(pixel_sizes) == 1 and pixel_sizes[0] > 0 else None


def _of_warp(path: Path, rows: pd.DataFrame, stored: Points, info: TomogramInfo | None) -> dict[str, Points]:
    """What the coordinates are, and in voxels, where Warp's own export tells another pixel size than the tomogram's.

    Source: warpem/warp, ExportParticlesTiltseries.cs, which counts from the centre of the first voxel.
    """
    if info is None or _PIXEL not in rows or not _names_tilt_series(rows):
        return {}
    sizes = np.unique(star_numbers(rows, [_PIXEL], file=path))
    if len(sizes) != 1 or sizes[0] <= 0 or same_voxel_size(float(sizes[0]), info.grid.voxel_size):
        return {}
    return {f"pixels of {sizes[0]:g} A ({_PIXEL})": stored * float(sizes[0]) / info.grid.voxel_size}


def _uncentred(
    path: Path, rows: pd.DataFrame, info: TomogramInfo | None, binning: float | None, binned: bool | None
) -> Points:
    """rlnCoordinateX/Y/Z to voxels, by the rules of read_particles."""
    if COORDINATE[2] not in rows:
        raise InputError(
            "its particles have no z",
            file=path,
            expected=", ".join(COORDINATE),
            cure="picks of a tomogram are needed, not of a micrograph",
        )
    stored = star_numbers(rows, COORDINATE, file=path)
    if len(stored) >= FEWEST_NORMALISED and (np.abs(stored - 0.5) <= 0.5).all() and _names_tilt_series(rows):
        raise InputError(
            "its coordinates are shares of the tomogram's sides, as Warp's template matching writes them",
            file=path,
            expected="voxels",
            found=f"{len(stored)} points, all between 0 and 1",
            cure="multiply them by the tomogram's sides in voxels",
        )
    in_voxels = (
        binned if binned is not None else "rlnTomoName" not in rows or path.absolute().parent.name == _ANNOTATIONS
    )
    if not in_voxels and binning is None:
        raise InputError(
            "its coordinates are pixels of the unbinned tilt series, and the binning of the tomogram is not known",
            file=path,
            cure=f"{_NAME_THE_STAR}, or give --binned when they are voxels of the tomogram",
        )
    readings = {"voxels of the tomogram": stored}
    warp = _of_warp(path, rows, stored, info) if in_voxels and binned is None else {}
    if binning is not None:
        readings["pixels of the unbinned tilt series"] = relion_unbinned_to_voxel(stored, binning=binning)
    readings = warp | readings if in_voxels else dict(reversed(readings.items()))
    preferred, *others = readings
    if binned is not None or info is None or not len(stored) or _fits(info, readings[preferred]):
        _warn_of_a_corner(path, info, readings[preferred], binning, asked=binned is not None or in_voxels)
        if warp and info is not None and len(stored):
            warnings.warn(f"{path}: coordinates of {info.name} are {preferred}", CetpickWarning, stacklevel=2)
        return readings[preferred]
    for other in others:
        if _fits(info, readings[other]):
            warnings.warn(
                f"{path}: coordinates of {info.name} are taken as {other}, because as {preferred} they lie outside of "
                f"its {info.grid.size} voxels",
                CetpickWarning,
                stacklevel=2,
            )
            return readings[other]
    raise InputError(
        f"most of its points lie outside of {info.name}",
        file=path,
        expected=f"x, y, z within {info.grid.size} voxels",
        found="; ".join(
            f"as {name} x, y, z from {points.min(axis=0).round(1)} to {points.max(axis=0).round(1)}"
            for name, points in readings.items()
        ),
        cure="are tomogram and particles of the same data set, and is the binning right?",
    )


def _warn_of_a_corner(
    path: Path, info: TomogramInfo | None, points: Points, binning: float | None, *, asked: bool
) -> None:
    """Warn when unbinned pixels fill no more than the corner that binned voxels would fill by mistake."""
    if asked or info is None or binning is None or len(points) < FEWEST_TO_JUDGE:
        return
    if (points.max(axis=0) * binning < np.array(info.grid.size)).all():
        warnings.warn(
            f"{path}: read as pixels of the unbinned tilt series, all points of {info.name} lie within "
            f"{points.max(axis=0).round(1)} of {info.grid.size} voxels; if they count voxels, add --binned",
            CetpickWarning,
            stacklevel=2,
        )


FEWEST_TO_JUDGE = 5
"""Points from which their extent tells something."""


def _fits(info: TomogramInfo, points: Points) -> bool:
    return bool((beyond_edge(points, info) <= ROUNDING).mean() >= 0.5)


def _offsets(path: Path, rows: pd.DataFrame, voxel_size: float | None) -> Points:
    """What refinement asks to subtract from the coordinates, in voxels; RELION's particle_set.cpp, getPosition."""
    if not {*_ORIGIN_ANGSTROM} & set(rows.columns):
        return _numbers_or_zero(path, rows, _ORIGIN_PIXEL)
    angstrom = _numbers_or_zero(path, rows, _ORIGIN_ANGSTROM)
    if not angstrom.any():
        return angstrom
    if voxel_size is None:
        warnings.warn(
            f"{path}: its origins ({_ORIGIN_ANGSTROM[0]} and others) are left out, because the voxel size is not "
            "known; give the tomogram or --voxel-size",
            CetpickWarning,
            stacklevel=2,
        )
        return np.zeros_like(angstrom)
    if {*_SUBTOMOGRAM_ANGLES} & set(rows.columns):
        # The shifts are in the frame of the extracted subtomogram.
        angstrom = rotate_by_angles(angstrom, _numbers_or_zero(path, rows, _SUBTOMOGRAM_ANGLES))
    return np.asarray(angstrom / voxel_size, dtype=np.float64)


def _angles(path: Path, rows: pd.DataFrame) -> Points | None:
    """Angles of the particles in the tomogram (n, 3), None when the file has none."""
    particle, subtomogram = ({*labels} & set(rows.columns) for labels in (_ANGLES, _SUBTOMOGRAM_ANGLES))
    if not subtomogram:
        return _numbers_or_zero(path, rows, _ANGLES) if particle else None
    outer = _numbers_or_zero(path, rows, _SUBTOMOGRAM_ANGLES)
    inner = _numbers_or_zero(path, rows, _ANGLES)
    return compose_angles(inner, outer) if inner.any() else outer


def _numbers_or_zero(path: Path, rows: pd.DataFrame, labels: list[str]) -> Points:
    """Three columns, zero where the file has none, as RELION has it."""
    return star_numbers(rows.reindex(columns=labels, fill_value="0"), labels, file=path)


def _relion5(path: Path, items: Sequence[Item]) -> dict[str, Block]:
    frames = []
    for item in items:
        relion = _needed(path, item, "relion5")
        points = voxel_to_relion_centred(
            item.points, binning=relion.binning, size=relion.size, pixel_size=relion.pixel_size
        )
        frames.append(_frame("rlnTomoName", relion.name, CENTRED, points))
    return {"particles": _joined(path, frames, items)}


def _relion4(path: Path, items: Sequence[Item]) -> dict[str, Block]:
    groups: dict[float, int] = {}
    frames = []
    for item in items:
        relion = _needed(path, item, "relion4")
        points = voxel_to_relion_unbinned(item.points, binning=relion.binning)
        frame = _frame("rlnTomoName", relion.name, COORDINATE, points)
        frame.insert(1, "rlnTomoParticleName", [f"{relion.name}/{number}" for number in range(1, len(frame) + 1)])
        frame["rlnOpticsGroup"] = groups.setdefault(relion.pixel_size, len(groups) + 1)
        frames.append(frame)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": list(groups.values()),
            "rlnOpticsGroupName": [f"opticsGroup{group}" for group in groups.values()],
            "rlnTomoTiltSeriesPixelSize": list(groups),
        }
    )
    return {"optics": optics, "particles": _joined(path, frames, items)}


def _relion31(path: Path, items: Sequence[Item]) -> dict[str, Block]:
    return _in_voxels(path, items, [str(needed_info(path, item).path) for item in items])


def _warp(path: Path, items: Sequence[Item]) -> dict[str, Block]:
    # Warp knows tilt series by name alone
    tomograms = [item.name if item.info is None and item.name else needed_info(path, item).name for item in items]
    names = [warp_name(tomogram) for tomogram in tomograms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            "Warp knows tilt series, not their tomograms",
            file=path,
            expected="one tomogram of each",
            found=f"several of {twice}",
            cure="write a file for each of these",
        )
    return _in_voxels(path, items, [f"{name}.tomostar" for name in names])


_BLOCKS = {"relion5": _relion5, "relion4": _relion4, "relion31": _relion31, "warp": _warp}
_VERSIONS = {"relion5": "50001", "relion4": "30001"}


def _needed(path: Path, item: Item, flavour: Flavour) -> RelionTomogram:
    info = needed_info(path, item)
    if info.relion is None:
        raise InputError(
            f"STAR of flavour {flavour} needs the tilt-series pixel size, binning and unbinned size of {info.name}",
            file=path,
            cure="give --tomograms-star (the tomograms.star of RELION's reconstruction job), or choose --star relion31",
        )
    return info.relion


def _in_voxels(path: Path, items: Sequence[Item], names: Sequence[str]) -> dict[str, Block]:
    frames = [
        _frame("rlnMicrographName", name, COORDINATE, item.points) for name, item in zip(names, items, strict=True)
    ]
    return {"": _joined(path, frames, items)}


def _frame(label: str, name: str, labels: list[str], points: Points) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=labels)
    frame.insert(0, label, name)
    return frame


def _joined(path: Path, frames: list[pd.DataFrame], items: Sequence[Item]) -> pd.DataFrame:
    """All particles, with their classes when there are such, and scores and angles when all have them."""
    table = pd.concat(frames, ignore_index=True)
    classes = [name for item in items for name in item.classes]
    angles = [item.angles for item in items]
    known = [values for values in angles if values is not None]
    if known and len(known) == len(angles):
        table[_ANGLES] = np.concatenate(known)
    elif known:
        warnings.warn(f"{path}: some particles have no angles, so none are written", CetpickWarning, stacklevel=2)
    if {*classes} - {DEFAULT_CLASS}:
        numbers = class_numbers(classes)
        table[_CLASS] = [numbers[name] for name in classes]
    if scores := known_scores(path, items):
        table[_SCORES[0]] = np.concatenate(scores)
    return table
