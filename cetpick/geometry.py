"""The only home of coordinate conventions.

Internal convention: float64 ``x, y, z`` in voxels of the tomogram file as stored; 0 is the centre of the first voxel,
so a volume of n voxels spans [-0.5, n - 0.5). Arrays are ``(z, y, x)``, points are ``(n, 3)`` with columns x, y, z.
Every function here is pure, takes and returns such points, and names the convention of the other side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]

IMOD_CENTRE = np.array([0.5, 0.5, 0.0])
"""IMOD counts x and y from the edge of the first voxel, z from its centre (binspec, Model Coordinate Conventions)."""


def as_points(xyz: ArrayLike) -> Points:
    """Return ``xyz`` as a float64 array of shape (n, 3); an empty input gives (0, 3)."""
    points: Points = np.asarray(xyz, dtype=np.float64).reshape(-1, 3)
    return points


def rescale(xyz: ArrayLike, *, from_voxel_size: float, to_voxel_size: float) -> Points:
    """Map points between two grids that share their outer corner: v' + 0.5 = (v + 0.5) * from / to.

    Args:
        xyz: points in voxels of the first grid.
        from_voxel_size: angstrom a voxel of the first grid.
        to_voxel_size: angstrom a voxel of the second grid.

    Returns:
        Points in voxels of the second grid. This is the rule of binning by averaging (IMOD's newstack and binvol).
    """
    points: Points = (as_points(xyz) + 0.5) * (from_voxel_size / to_voxel_size) - 0.5
    return points


def imod_to_voxel(xyz: ArrayLike) -> Points:
    """IMOD model coordinates (as model2point prints them, unflipped) to voxels."""
    points: Points = as_points(xyz) - IMOD_CENTRE
    return points


def voxel_to_imod(xyz: ArrayLike) -> Points:
    """Voxels to IMOD model coordinates."""
    points: Points = as_points(xyz) + IMOD_CENTRE
    return points


def imod_to_other_volume(
    xyz: ArrayLike, *, scale: ArrayLike, translation: ArrayLike, voxel_size: float, origin: ArrayLike
) -> Points:
    """Move IMOD model coordinates from the volume a model was last shown on to another one, as IMOD does.

    ``index' = (index * scale - translation + origin) / voxel_size``

    Args:
        xyz: IMOD model coordinates on the first volume.
        scale: MINX ``cscale``: x, y, z pixel size of the first volume, angstrom.
        translation: MINX ``ctrans``: x, y, z image origin of the first volume, angstrom.
        voxel_size: of the second volume, angstrom.
        origin: x, y, z image origin in the header of the second volume, angstrom.

    Returns:
        IMOD model coordinates on the second volume.
    """
    moved = as_points(xyz) * np.asarray(scale, float) - np.asarray(translation, float) + np.asarray(origin, float)
    points: Points = moved / voxel_size
    return points


def relion_unbinned_to_voxel(xyz: ArrayLike, *, binning: float) -> Points:
    """RELION 4/5 rlnCoordinateX/Y/Z (pixels of the unbinned tilt series, 0-based) to voxels of the reconstruction."""
    points: Points = as_points(xyz) / binning
    return points


def voxel_to_relion_unbinned(xyz: ArrayLike, *, binning: float) -> Points:
    """Voxels of a RELION reconstruction to rlnCoordinateX/Y/Z in unbinned pixels."""
    points: Points = as_points(xyz) * binning
    return points


def relion_centred_to_voxel(xyz: ArrayLike, *, binning: float, size: ArrayLike, pixel_size: float) -> Points:
    """RELION 5 rlnCenteredCoordinate[XYZ]Angst to voxels of the reconstruction.

    Args:
        xyz: angstrom from the centre of the tomogram.
        binning: rlnTomoTomogramBinning.
        size: rlnTomoSizeX, Y, Z in unbinned pixels.
        pixel_size: rlnTomoTiltSeriesPixelSize, angstrom.

    Returns:
        Voxels. The centre is size/2 as RELION's C++ programs have it, not size/2 - 1 as its Python picker has it.
    """
    points: Points = (as_points(xyz) / pixel_size + np.asarray(size, float) / 2) / binning
    return points


def voxel_to_relion_centred(xyz: ArrayLike, *, binning: float, size: ArrayLike, pixel_size: float) -> Points:
    """Voxels of a RELION reconstruction to rlnCenteredCoordinate[XYZ]Angst; the inverse of relion_centred_to_voxel."""
    points: Points = (as_points(xyz) * binning - np.asarray(size, float) / 2) * pixel_size
    return points


def eman_to_voxel(xyz: ArrayLike, *, size: ArrayLike, voxel_size: float, apix_unbin: float | None) -> Points:
    """EMAN2 ``boxes_3d`` to voxels.

    Args:
        xyz: as stored in the info json.
        size: nx, ny, nz of the tomogram.
        voxel_size: of the tomogram, angstrom.
        apix_unbin: the json's ``apix_unbin``; with it boxes are unbinned pixels from the centre n // 2, without it
            they are voxels of the volume.
    """
    if apix_unbin is None:
        return as_points(xyz)
    points: Points = as_points(xyz) * (apix_unbin / voxel_size) + np.asarray(size, int) // 2
    return points


def voxel_to_eman(xyz: ArrayLike, *, size: ArrayLike, voxel_size: float, apix_unbin: float | None) -> Points:
    """Voxels to EMAN2 ``boxes_3d``; the inverse of eman_to_voxel."""
    if apix_unbin is None:
        return as_points(xyz)
    points: Points = (as_points(xyz) - np.asarray(size, int) // 2) * (voxel_size / apix_unbin)
    return points
