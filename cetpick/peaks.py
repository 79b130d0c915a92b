"""From a heatmap to particle centres: local maxima, sub-cell refinement, distance suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from cetpick import scratch
from cetpick.geometry import Points


def local_maxima(
    heatmap: NDArray[np.float32], *, floor: float, size: tuple[int, int, int] = (3, 3, 3)
) -> NDArray[np.intp]:
    """Cells of a heatmap (z, y, x) that are the largest of the `size` (odd) cells around them and at least `floor`.

    Returns:
        Indices (n, 3) along z, y, x. Where neighbouring cells are equal only the first is a maximum, so that a flat
        heatmap is no heap of candidates.
    """
    before = np.zeros(size, bool)
    before.flat[: before.size // 2] = True
    after = before[::-1, ::-1, ::-1]
    halo = size[0] // 2
    cells = []
    for slab in scratch.slabs(heatmap.shape):
        first = max(0, slab.start - halo)
        part = heatmap[first : slab.stop + halo]
        largest = part > ndimage.maximum_filter(part, footprint=before, mode="constant", cval=-np.inf)
        largest &= part >= ndimage.maximum_filter(part, footprint=after, mode="constant", cval=-np.inf)
        largest[: slab.start - first] = largest[slab.stop - first :] = False
        cells.append(np.argwhere(largest & (part >= floor)) + np.array([first, 0, 0]))
    return np.concatenate(cells)


def refine(heatmap: NDArray[np.float32], cells: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sub-cell positions of maxima: the apex of a parabola through each cell and its two neighbours along each axis.

    Args:
        heatmap: (z, y, x) logits or any other smooth score.
        cells: (n, 3) indices of maxima.

    Returns:
        (n, 3) positions along z, y, x, at most half a cell from `cells`; on a border the cell itself.
    """
    refined = cells.astype(np.float64)
    for axis, length in enumerate(heatmap.shape):
        inner = (cells[:, axis] > 0) & (cells[:, axis] < length - 1)
        centre = cells[inner]
        step = np.zeros(3, int)
        step[axis] = 1
        left, middle, right = (heatmap[tuple((centre + shift * step).T)].astype(np.float64) for shift in (-1, 0, 1))
        curvature = left - 2 * middle + right
        shift = np.divide(left - right, 2 * curvature, out=np.zeros_like(left), where=curvature < 0)
        refined[inner, axis] += np.clip(shift, -0.5, 0.5)
    return refined


def suppress(points: Points, scores: NDArray[np.float64], *, distance: float) -> NDArray[np.intp]:
    """Greedy distance suppression: by falling score, drop every point closer than `distance` to one already kept.

    Args:
        points: (n, 3), in units of `distance`.
        scores: (n,); equal scores keep the order given.
        distance: points nearer than this exclude each other.

    Returns:
        Indices of the kept points, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    if not len(order) or distance <= 0:
        return order
    ranked = points[order]
    pairs = cKDTree(ranked).query_pairs(np.nextafter(distance, 0), output_type="ndarray")
    # each pair is (better, worse) by rank; walk the worse ones in rank order
    pairs = np.sort(pairs, axis=1)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    kept = np.ones(len(order), bool)
    starts = np.searchsorted(pairs[:, 1], np.arange(len(order) + 1))
    for worse in np.unique(pairs[:, 1]):
        kept[worse] = not kept[pairs[starts[worse] : starts[worse + 1], 0]].any()
    return order[kept]
