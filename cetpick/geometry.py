"""The only home of coordinate conventions.

Internal convention: float64 ``x, y, z`` in voxels of the tomogram file as stored; 0 is the centre of the first voxel,
so a volume of n voxels spans [-0.5, n - 0.5). Arrays are ``(z, y, x)``, points are ``(n, 3)`` with columns x, y, z.
Every function here is pure, takes and returns such points, and names the convention of the other side.

Orientations are kept as RELION's ``rot, tilt, psi`` in degrees. What they mean physically, and so what every other
convention is translated by, is the rotation M that turns the reference into the particle as it lies in the tomogram
(x_tomogram = M x_reference):

============================  ======================  =================================================================
angles                        M, in scipy's terms     source
============================  ======================  =================================================================
RELION rot, tilt, psi         inverse of ZYZ          RELION euler.cpp, Euler_angles2matrix; particle_set.cpp: "maps
                                                      coordinates from particle space to tomogram space"
Dynamo tdrot, tilt, narot     inverse of zxz          eulerangles and dynamo2m (a pair of equal reconstructions is in
                                                      their tests)
TOM, av3, STOPGAP, PyTom      zxz                     cryoCAT; CryoET Data Portal, point_converter.py
phi, theta, psi
copick, CryoET Data Portal    the matrix itself       CryoET Data Portal: "to be applied to the instance volume"
============================  ======================  =================================================================

Capital letters turn about the axes as they have been turned already, small ones about those of the tomogram.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Points = NDArray[np.float64]

AngleConvention = Literal["relion", "dynamo", "tom"]
"""Whose Euler angles: rot, tilt, psi; tdrot, tilt, narot; phi, theta, psi."""

_EULER: dict[AngleConvention, tuple[Literal["ZYZ", "zxz"], bool]] = {
    "relion": ("ZYZ", True),
    "dynamo": ("zxz", True),
    "tom": ("zxz", False),
}
"""Axes, and whether the angles are those of the inverse of M."""

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


def rescale_centred(xyz: ArrayLike, *, from_voxel_size: float, to_voxel_size: float) -> Points:
    """Map points between two grids whose first voxels share their centre: v' = v * from / to.

    This is how RELION samples reconstructions of one tilt series at different binnings (voxel v at pixel v * binning).
    Arguments as of rescale.
    """
    points: Points = as_points(xyz) * (from_voxel_size / to_voxel_size)
    return points


Axes = Literal["rotx", "undo-rotx", "flipyz"]
"""How a volume was made from another one; see turn_axes."""


def turn_axes(xyz: ArrayLike, axes: Axes, *, size: ArrayLike) -> Points:
    """Map points as IMOD maps the voxels of a volume whose thin axis is y (`tilt` writes such) when it puts z there.

    ==========  =========================================  ======================================================
    axes        mapping                                    the same as
    ==========  =========================================  ======================================================
    rotx        (x, y, z) -> (x, z, ny - 1 - y)            ``clip rotx``, ``trimvol -rx``: a rotation by -90 degrees
    undo-rotx   (x, y, z) -> (x, nz - 1 - z, y)            its inverse
    flipyz      (x, y, z) -> (x, z, y)                     ``clip flipyz``, ``trimvol -yz``: a mirror, its own inverse
    ==========  =========================================  ======================================================

    Args:
        xyz: points in voxels of the volume before.
        axes: what was done to it.
        size: nx, ny, nz of the volume before.

    Returns:
        Points in voxels of the volume after, whose y and z sizes are swapped.
    """
    x, y, z = as_points(xyz).T
    _, ny, nz = np.asarray(size, float)
    turned = {"rotx": (z, ny - 1 - y), "undo-rotx": (nz - 1 - z, y), "flipyz": (z, y)}
    return as_points(np.column_stack([x, *turned[axes]]))


def turn_angles(angles: ArrayLike, axes: Axes) -> Points:
    """Angles (n, 3) of particles in a volume after turn_axes.

    Raises:
        ValueError: of a mirror; a mirrored particle has no orientation.
    """
    if axes == "flipyz":
        raise ValueError("a mirrored particle has no orientation")
    turn = Rotation.from_euler("x", -90 if axes == "rotx" else 90, degrees=True)
    return _angles(turn * _rotation(angles, "relion"), "relion")


def convert_angles(angles: ArrayLike, *, source: AngleConvention, target: AngleConvention) -> Points:
    """Euler angles (n, 3) in degrees of the same orientations in another convention; see the top of this module."""
    if source == target:
        return as_points(angles)
    return _angles(_rotation(angles, source), target)


def angles_to_matrices(angles: ArrayLike) -> NDArray[np.float64]:
    """Rotations M (n, 3, 3) of angles rot, tilt, psi (n, 3); x_tomogram = M x_reference."""
    matrices: NDArray[np.float64] = _rotation(angles, "relion").as_matrix().reshape(-1, 3, 3)
    return matrices


def matrices_to_angles(matrices: ArrayLike) -> Points:
    """Angles rot, tilt, psi (n, 3) of rotations M (n, 3, 3).

    Raises:
        ValueError: a matrix is no rotation, but a mirror, or farther from one than rounding explains.
    """
    given = np.asarray(matrices, dtype=np.float64).reshape(-1, 3, 3)
    off = np.abs(given @ given.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    if not off < MATRIX_ROUNDING or (np.linalg.det(given) < 0).any():
        raise ValueError("not a rotation matrix")
    return _angles(Rotation.from_matrix(given), "relion") if len(given) else as_points([])


def compose_angles(first: ArrayLike, then: ArrayLike) -> Points:
    """Angles (n, 3) of the orientation M = M_then M_first, as RELION composes rlnAngle* and rlnTomoSubtomogram*."""
    return _angles(_rotation(then, "relion") * _rotation(first, "relion"), "relion")


def rotate_by_angles(vectors: ArrayLike, angles: ArrayLike) -> Points:
    """Turn vectors (n, 3) by the rotations M of angles rot, tilt, psi (n, 3)."""
    points: Points = _rotation(angles, "relion").apply(as_points(vectors))
    return points


MATRIX_ROUNDING = 1e-2
"""How far M M^T of a matrix in a file may be from one."""


def _rotation(angles: ArrayLike, convention: AngleConvention) -> Rotation:
    axes, inverse = _EULER[convention]
    rotation = Rotation.from_euler(axes, as_points(angles), degrees=True)
    return rotation.inv() if inverse else rotation


def _angles(rotation: Rotation, convention: AngleConvention) -> Points:
    axes, inverse = _EULER[convention]
    with warnings.catch_warnings():
        # At tilt 0 only the sum of the other two angles counts, and scipy says that it has chosen.
        warnings.simplefilter("ignore", UserWarning)
        angles: Points = as_points((rotation.inv() if inverse else rotation).as_euler(axes, degrees=True)) + 0.0
    return angles  # with no -0


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


def matlab_to_voxel(xyz: ArrayLike) -> Points:
    """Positions of TOM, av3 and STOPGAP, which count from 1, to voxels."""
    points: Points = as_points(xyz) - 1
    return points


def voxel_to_matlab(xyz: ArrayLike) -> Points:
    """Voxels to positions that count from 1."""
    points: Points = as_points(xyz) + 1
    return points


def angstrom_to_voxel(xyz: ArrayLike, *, voxel_size: float) -> Points:
    """Angstrom from the centre of the first voxel (copick) to voxels."""
    points: Points = as_points(xyz) / voxel_size
    return points


def voxel_to_angstrom(xyz: ArrayLike, *, voxel_size: float) -> Points:
    """Voxels to angstrom from the centre of the first voxel."""
    points: Points = as_points(xyz) * voxel_size
    return points


def boxes_to_voxel(corners: ArrayLike, *, width: ArrayLike, height: ArrayLike) -> Points:
    """Corners of boxes in x and y, with the z of their centres (crYOLO, EMAN1), and their sides (n,) to voxels."""
    points: Points = as_points(corners).copy()
    points[:, 0] += np.asarray(width, float) / 2
    points[:, 1] += np.asarray(height, float) / 2
    return points


def voxel_to_boxes(xyz: ArrayLike, *, side: float) -> Points:
    """Voxels to corners of square boxes in x and y, with the z of their centres."""
    points: Points = as_points(xyz) - np.array([side / 2, side / 2, 0])
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
