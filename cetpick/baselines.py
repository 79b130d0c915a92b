"""Pickers that learn nothing, to measure the others against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cetpick.errors import InputError
from cetpick.geometry import Points
from cetpick.peaks import local_maxima, refine, suppress

WIDTH_RATIO = 1.6
"""Of the two Gaussians; their difference is then closest to a Laplacian (Marr & Hildreth 1980)."""
SPACING = 0.7
"""Smallest distance of two picks, in diameters: less than 1 as particles are not spheres."""


def blob_response(volume: NDArray[np.float32], *, diameter: float) -> NDArray[np.float32]:
    """Difference of two Gaussian filters, matched in size to a ball: positive where it is bright.

    The widths are sigma / sqrt(1.6) and sigma * sqrt(1.6) with sigma = radius / sqrt(3), the scale at which the
    Laplacian of a Gaussian answers a ball most (Lindeberg 1998).

    Args:
        volume: (z, y, x).
        diameter: of the ball, voxels.

    Returns:
        (z, y, x), in the unit of the volume.

    Raises:
        InputError: the diameter is not positive.
    """
    if not diameter > 0:
        raise InputError("the diameter must be positive", expected="voxels > 0", found=diameter)
    sigma, spread = diameter / (2 * np.sqrt(3)), np.sqrt(WIDTH_RATIO)
    response: NDArray[np.float32] = ndimage.gaussian_filter(volume, sigma / spread)
    response -= ndimage.gaussian_filter(volume, sigma * spread)
    return response


def difference_of_gaussians(
    volume: NDArray[np.float32], *, diameter: float, dark: bool = True
) -> tuple[Points, NDArray[np.float64]]:
    """Pick blobs: maxima of the difference of two Gaussian filters, see blob_response.

    Args:
        volume: (z, y, x).
        diameter: of the particles, voxels.
        dark: particles are darker than their surroundings.

    Returns:
        Centres (n, 3) along x, y, z in voxels and their scores (n,) in units of the volume's standard deviation,
        by falling score; every positive maximum that is the best within 0.7 diameters.

    Raises:
        InputError: the diameter is not positive.
    """
    particle = volume * np.float32((-1 if dark else 1) / (np.std(volume, dtype=np.float64) or 1.0))
    response = blob_response(particle, diameter=diameter)
    cells = local_maxima(response, floor=float(np.finfo(np.float32).tiny))
    scores = response[tuple(cells.T)].astype(np.float64)
    centres = refine(response, cells)[:, ::-1]
    kept = suppress(centres, scores, distance=SPACING * diameter)
    return centres[kept], scores[kept]
