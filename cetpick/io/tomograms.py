"""Tomograms in: names, voxel sizes, and which reader a file needs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io import em, hdf, mrc, omezarr
from cetpick.io.mrc import VolumeHeader
from cetpick.io.tomograms_star import Which, scan_tomograms_star
from cetpick.records import Grid, RelionTomogram, Tomogram, TomogramInfo

TILT_SERIES_ENDINGS = (".ali", ".st", ".mrcs", ".preali")
STORE_ENDINGS = (".ome.zarr", ".zarr")
ENDINGS = (".mrc", ".rec", ".map", ".ccp4", ".em", *TILT_SERIES_ENDINGS, *hdf.ENDINGS, *STORE_ENDINGS)
COMPRESSED_ENDINGS = (".gz", ".bz2")
NOT_COMPRESSED = (".em", ".hdf", ".h5")
"""Endings of volumes that are read as they are only."""
COPICK_SPACING = "VoxelSpacing"
"""How folders begin that copick keeps tomograms in, within one folder a run."""

VOXEL_SIZES = (0.1, 100.0)
"""Angstrom; what lies outside is no tomogram of biology but a header in other units, or empty."""
SAME_VOXEL_SIZE = 0.005
"""Relative difference up to which two voxel sizes are taken for the same."""
GREY_LEVELS = 100
"""A volume of more values, none of which is 0, is no mask."""
FEWEST_SECTIONS = 100
"""A stack of fewer images than this may well be a tilt series."""


def tomogram_name(path: str | PathLike[str]) -> str:
    """Return the file name without its endings (.mrc.gz and the like) and a leading ``rec_``.

    A level in a Zarr store is called like the store. copick calls stores by the kind of reconstruction: those directly
    in a folder ``VoxelSpacing10.000`` or the like are called like the run, which is the folder above that.
    """
    path = _named_by(Path(path))
    name, folder = path.name, path.absolute().parent
    if name.lower().endswith(STORE_ENDINGS) and folder.name.startswith(COPICK_SPACING) and folder.parent.name:
        return folder.parent.name
    stem = _without(_without(name, COMPRESSED_ENDINGS), ENDINGS)
    return stem.removeprefix("rec_") or stem or name


def read_info(
    path: str | PathLike[str],
    *,
    name: str | None = None,
    voxel_size: float | None = None,
    relion: RelionTomogram | None = None,
) -> TomogramInfo:
    """Read what can be known of a tomogram without its voxels.

    Args:
        path: an MRC file, plain or compressed by gzip or bzip2; an EM file (by its ending); an HDF5 file of EMAN2; an
            OME-Zarr store, for its finest level, or one level in it (``tomogram.zarr/1``).
        name: by default rlnTomoName, else the file name as tomogram_name has it.
        voxel_size: angstrom; else that of `relion` is taken (pixel size x binning), else that of the header.
        relion: its row of a tomograms.star.

    Raises:
        InputError: unreadable, not a volume, truncated, or without a usable voxel size.

    Warns:
        CetpickWarning: for each oddity of the header, voxel sizes that disagree, and what looks like a tilt series or
            like a tomogram whose thin axis is y.
    """
    path = Path(path)
    header = _read_header(path, relion)
    used = _voxel_size(path, header, voxel_size, relion)
    messages = [*header.problems, *_doubts(path, header, relion, said=voxel_size is not None)]
    for message in messages:
        warnings.warn(f"{path}: {message}", CetpickWarning, stacklevel=2)
    return TomogramInfo(
        name=name or (relion.name if relion else tomogram_name(path)),
        path=path,
        grid=Grid(shape=header.shape, voxel_size=used, origin=header.origin),
        header_voxel_size=header.voxel_sizes[0] if _is_voxel_size(header.voxel_sizes[0]) else None,
        relion=relion,
        header={**header.details, "problems": messages},
    )


def read_tomogram(
    source: TomogramInfo | str | PathLike[str],
    *,
    name: str | None = None,
    voxel_size: float | None = None,
    relion: RelionTomogram | None = None,
) -> Tomogram:
    """Read a tomogram: (z, y, x), read-only, in the dtype of the file; MRC and EM are memory-mapped, unless compressed.

    Args:
        source: a file, or what read_info told of it; the other arguments are those of read_info and for a file only.
        name: as in read_info.
        voxel_size: as in read_info.
        relion: as in read_info.

    Raises:
        InputError: as read_info, or the file is not the one any more that `source` tells of.

    Warns:
        CetpickWarning: as read_info, unless `source` is its result.
    """
    if not isinstance(source, TomogramInfo):
        source = read_info(source, name=name, voxel_size=voxel_size, relion=relion)
    header = _read_header(source.path, source.relion)
    if header.shape != source.grid.shape:
        raise InputError(
            "changed since it was first read",
            file=source.path,
            expected="{2} x {1} x {0} voxels".format(*source.grid.shape),
            found="{2} x {1} x {0} voxels".format(*header.shape),
        )
    _, read_voxels = _readers(source.path)
    mask = None if source.region.mask is None else _read_mask(source.region.mask, source)
    return Tomogram(info=source, data=read_voxels(source.path, header), mask=mask)


def _read_mask(path: Path, info: TomogramInfo) -> NDArray[Any]:
    """The voxels of a mask; their size does not count, as programs that make masks often leave it out."""
    read_header, read_voxels = _readers(path)
    header = read_header(path)
    scale = header.shape[2] / info.grid.shape[2]
    if any(abs(n - scale * whole) > max(1.0, scale) for n, whole in zip(header.shape, info.grid.shape, strict=True)):
        raise InputError(
            f"is no mask of tomogram {info.name}",
            file=path,
            expected="{2} x {1} x {0} voxels, or all of them binned alike".format(*info.grid.shape),
            found="{2} x {1} x {0} voxels".format(*header.shape),
            cure="make the mask from this tomogram, without trimming or turning it",
        )
    mask = read_voxels(path, header)
    some = np.asarray(mask[:: max(1, len(mask) // 8)])
    if (some < 0).any() or ((some > 0).all() and len(np.unique(some)) > GREY_LEVELS):
        raise InputError(
            "holds grey values, and is no mask",
            file=path,
            expected="0 where nothing is to be looked for, and above 0 elsewhere",
            found=f"values from {some.min():g} to {some.max():g}",
            cure="check --mask: the name may be that of a tomogram",
        )
    return mask


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A tomogram that was named, not opened yet.

    Attributes:
        name: what it will be called; the file where that cannot be told.
        path: the file.
        relion: its row of a tomograms.star, if it came from one.
        error: why it cannot be used, where a tomograms.star tells that already.
    """

    name: str
    path: Path
    relion: RelionTomogram | None = None
    error: CetpickError | None = None

    def open(self, *, voxel_size: float | None = None) -> TomogramInfo:
        """Read its header; as read_info.

        Raises:
            CetpickError: it cannot be used.
        """
        if self.error is not None:
            raise self.error
        return read_info(self.path, name=self.name, voxel_size=voxel_size, relion=self.relion)


def list_inputs(
    paths: Iterable[str | PathLike[str]],
    *,
    which: Which = "reconstructed",
    names: Literal["file", "parent"] = "file",
) -> list[Listed]:
    """Name tomograms and those that RELION's tomograms.star files list, without opening any of them.

    Args:
        paths: tomograms and tomograms.star files (by the ending .star), mixed.
        which: of the tomograms in a tomograms.star, those as reconstructed or as denoised.
        names: "parent" puts the name of the parent folder and an underscore before every name.

    Returns:
        One entry a tomogram, row of a tomograms.star or file that is none, in the order given.

    Raises:
        InputError: two tomograms have the same name.
    """
    listed = [entry for path in map(Path, paths) for entry in _listed(path, which, names)]
    _check_names((entry for entry in listed if entry.error is None), names)
    return listed


def open_inputs(
    paths: Iterable[str | PathLike[str]],
    *,
    voxel_size: float | None = None,
    which: Which = "reconstructed",
    names: Literal["file", "parent"] = "file",
) -> tuple[list[TomogramInfo], list[CetpickError]]:
    """Read the headers of tomograms and of those that RELION's tomograms.star files list.

    Args:
        paths: as of list_inputs.
        voxel_size: angstrom, of all of them; see read_info.
        which: as of list_inputs.
        names: as of list_inputs.

    Returns:
        The tomograms in the order given, and an error for each that cannot be used.

    Raises:
        InputError: two tomograms have the same name.
    """
    infos: list[TomogramInfo] = []
    failures: list[CetpickError] = []
    for entry in list_inputs(paths, which=which, names=names):
        try:
            infos.append(entry.open(voxel_size=voxel_size))
        except CetpickError as error:
            failures.append(error)
    return infos, failures


def _listed(path: Path, which: Which, names: Literal["file", "parent"]) -> Iterator[Listed]:
    rows: list[tuple[Path, RelionTomogram | None] | InputError] = [(path, None)]
    if path.suffix.lower() == ".star":
        try:
            rows = [*scan_tomograms_star(path, which=which)]
        except InputError as error:
            rows = [error]
    for row in rows:
        if isinstance(row, InputError):
            yield Listed(name=str(path), path=path, error=row)
            continue
        file, relion = row
        name = relion.name if relion else tomogram_name(file)
        if names == "parent":
            name = f"{_named_by(file).parent.resolve().name}_{name}"
        yield Listed(name=name, path=file, relion=relion)


def _check_names(listed: Iterable[Listed], names: Literal["file", "parent"]) -> None:
    mend = "--names parent, " if names == "file" else ""
    seen: dict[str, Listed] = {}
    for entry in listed:
        if other := seen.get(entry.name):
            same = entry.path.resolve() == other.path.resolve()
            raise InputError(
                f"two tomograms are called {entry.name}",
                found=f"{other.path} and {entry.path}",
                cure="name it once"
                if same
                else f"use {mend}a link to one of them that is called otherwise, or another output folder for it",
            )
        seen[entry.name] = entry


def _read_header(path: Path, relion: RelionTomogram | None) -> VolumeHeader:
    if relion and not path.exists():
        raise InputError(
            f"the file of tomogram {relion.name} is not there",
            file=path,
            expected=f"it in a folder above {relion.star}, which names it, or in the current one",
            cure="run in the RELION project folder",
        )
    read_header, _ = _readers(path)
    return read_header(path)


def _readers(path: Path) -> tuple[Callable[[Path], VolumeHeader], Callable[[Path, VolumeHeader], NDArray[Any]]]:
    """What reads header and voxels of a file."""
    if omezarr.is_store(path):
        return omezarr.read_header, omezarr.read_voxels
    if hdf.is_hdf(path):
        return hdf.read_header, hdf.read_voxels
    unpacked = Path(_without(path.name.lower(), COMPRESSED_ENDINGS))
    if unpacked.suffix in NOT_COMPRESSED and unpacked.suffix != path.suffix.lower():
        raise InputError(f"compressed {unpacked.suffix} files cannot be read", file=path, cure="unpack it")
    return em.read_header if path.suffix.lower() == ".em" else mrc.read_header, mrc.read_voxels


def _named_by(path: Path) -> Path:
    """What a tomogram is named after: the store for a level in one, else the file itself."""
    inside = not path.suffix
    return next((folder for folder in path.parents if inside and folder.name.lower().endswith(STORE_ENDINGS)), path)


def _voxel_size(path: Path, header: VolumeHeader, voxel_size: float | None, relion: RelionTomogram | None) -> float:
    expected = "{} to {} A".format(*VOXEL_SIZES)
    if voxel_size is not None:
        require_voxel_size(voxel_size, path)
        return voxel_size
    if relion:
        if not _is_voxel_size(relion.voxel_size):
            raise InputError(
                f"unusable voxel size of tomogram {relion.name}",
                file=relion.star,
                expected=expected,
                found=f"{relion.voxel_size:g} A (pixel size {relion.pixel_size:g} A x binning {relion.binning:g})",
                cure="give --voxel-size",
            )
        return relion.voxel_size
    stored = header.voxel_sizes[0]
    if not _is_voxel_size(stored):
        raise InputError(
            "no usable voxel size in its header",
            file=path,
            expected=expected,
            found=header.no_voxel_size or f"{stored:g} A",
            cure="give --voxel-size",
        )
    if math.isclose(stored, 1.0, rel_tol=1e-6):
        raise InputError(
            "the voxel size in its header is 1 A, which usually means that nobody set it",
            file=path,
            cure="give --voxel-size (--voxel-size 1.0 if it is right)",
        )
    return stored


def _doubts(path: Path, header: VolumeHeader, relion: RelionTomogram | None, *, said: bool) -> Iterator[str]:
    """What the user should know; `said`: the voxel size was given, which settles what concerns it."""
    x, y, z = header.voxel_sizes
    if not said and _is_voxel_size(x):
        if not (same_voxel_size(y, x) and same_voxel_size(z, x)):
            yield f"voxel sizes differ along x, y, z in the header: {x:g}, {y:g}, {z:g} A; that of x counts"
        if relion and not same_voxel_size(x, relion.voxel_size):
            yield f"voxel size {x:g} A in the header, but {relion.voxel_size:g} A in {relion.star}, which counts"
    nz, ny, nx = header.shape
    if relion and any(abs(n - size / relion.binning) > 1 for n, size in zip((nx, ny, nz), relion.size, strict=True)):
        wanted = " x ".join(f"{size / relion.binning:.0f}" for size in relion.size)
        yield f"{nx} x {ny} x {nz} voxels, but {wanted} by the sizes and the binning in {relion.star}"
    ending = _without(path.name, COMPRESSED_ENDINGS).lower()
    if nz < FEWEST_SECTIONS and (header.details.get("stack") or ending.endswith(TILT_SERIES_ENDINGS)):
        yield f"looks like a tilt series ({nz} sections, by its ending or header a stack), not like a tomogram"
    if ny < 0.6 * nx and nz > ny:
        yield f"looks un-rotated: y ({ny} voxels) is thinner than x ({nx}) and z ({nz}); see IMOD's `trimvol -rx`"


def require_voxel_size(value: float, path: Path | None = None, *, option: str = "--voxel-size") -> None:
    """Refuse a voxel size, angstrom, given for a file or by an option, that no tomogram has.

    Raises:
        InputError: it is not within VOXEL_SIZES.
    """
    if not _is_voxel_size(value):
        expected = "{} to {} A".format(*VOXEL_SIZES)
        raise InputError(
            f"unusable {option}", file=path, expected=expected, found=f"{value:g} A", cure="give it in angstrom"
        )


def _is_voxel_size(value: float) -> bool:
    return VOXEL_SIZES[0] <= value <= VOXEL_SIZES[1]


def same_voxel_size(value: float, reference: float) -> bool:
    """Whether two voxel sizes differ by no more than SAME_VOXEL_SIZE, relatively."""
    return abs(value - reference) <= SAME_VOXEL_SIZE * reference


def _without(name: str, endings: tuple[str, ...]) -> str:
    return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), name)
