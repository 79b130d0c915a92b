"""Pictures of labels or picks on their tomogram: slices with circles, and the average of what is labelled.

matplotlib is imported where it is used: commands that draw nothing do without it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cetpick.geometry import Points
from cetpick.io.atomic import replacing
from cetpick.records import Grid
from cetpick.voxels import Mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.float32]

WIDTH, DPI = 12.0, 110
"""Inches, and pixels an inch, of every picture to look at."""
LOWEST, HIGHEST = 1.2, 6.0
"""Inches that a row of pictures takes."""
TITLE_WIDTH = 130
"""Characters."""
HEADINGS = 0.55
"""Inches for the heading and the axis of a row."""
SLAB = 0.4
"""Thickness of the slabs that are averaged, in diameters."""
SMOOTHING = 0.08
"""Standard deviation of the filter of slabs (within their plane) and averages, in diameters: it hides no particle."""
GREYS = 0.5, 99.5
"""Percentiles that become black and white."""
COLOUR = "#ffb000"
"""Of circles: neither on a grey scale nor hard to tell for the colour-blind."""
SCORES = ("#2882ff", "#ffffff", "#ffaa00")
"""Of circles whose score is 0, 0.5 and 1; so are those of the report."""
DIMMED, HATCHED = (0.0, 0.0, 0.0, 0.45), "#b0b0b0"
"""What is left out: colour, with its opacity, over the grey values, and of the lines."""
GRAZED = 0.9
"""Of the radius: balls farther from the middle of a slab are not drawn."""
BOX = 2.5
"""Side of the averaged sub-volumes, in diameters."""
MOST_AVERAGED = 500
"""Sub-volumes in an average, evenly from all; the heading says how many."""
NICE_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Nanometres, of scale bars."""
PLANES = ((0, 1), (0, 2), (1, 2))
"""Horizontal and vertical axis of the three views; 0 is x."""
AXES = "xyz"


def draw_labels(
    path: Path,
    data: NDArray[Any],
    grid: Grid,
    xyz: Points,
    *,
    diameter: float,
    title: str,
    scores: NDArray[np.float64] | None = None,
    valid: Mask | None = None,
    what: str = "labels",
    dpi: float = DPI,
) -> None:
    """Draw slabs along the three axes through the places with most labels, with a circle for each label nearby.

    A circle is the section of a ball of the particle's diameter with the middle of the slab; balls that are only
    grazed, and labels outside of the volume, are not drawn. What does not count is dimmed and hatched.

    Args:
        path: the file; its ending tells the format.
        data: (z, y, x) as stored.
        grid: of `data`.
        xyz: labels (n, 3) in voxels.
        diameter: of the particle, angstrom.
        title: above the picture.
        scores: (n,) from 0 to 1, told by the colour of the circles.
        valid: voxels (z, y, x) that count, of the same extent on any grid; None when all do.
        what: they are called.
        dpi: pixels an inch.

    Raises:
        CetpickError: the file cannot be written.
    """
    voxels = diameter / grid.voxel_size
    inside = grid.contains(xyz)
    xyz, colours = xyz[inside], _colours(scores)[inside] if scores is not None else np.full(inside.sum(), COLOUR)
    counts = 3, 2, 2
    heights = [
        min(max(WIDTH / count * grid.size[v] / grid.size[h], LOWEST), HIGHEST) + HEADINGS
        for (h, v), count in zip(PLANES, counts, strict=True)
    ]
    figure = _figure(sum(heights), title)
    rows = figure.add_gridspec(3, 6, height_ratios=heights)
    for row, (plane, count) in enumerate(zip(PLANES, counts, strict=True)):
        (axis,) = {0, 1, 2} - {*plane}
        for column, place in enumerate(fullest_places(xyz[:, axis], grid.size[axis], SLAB * voxels, count)):
            panel = figure.add_subplot(rows[row, column * 6 // count : (column + 1) * 6 // count])
            _draw_slab(panel, data, grid, xyz, plane, place, voxels, colours=colours, valid=valid, what=what)
    if scores is not None:
        _explain_scores(figure)
    save(figure, path, dpi=dpi)


def draw_averages(
    path: Path,
    data: NDArray[Any],
    grid: Grid,
    sets: Mapping[str, Points],
    *,
    diameter: float,
    title: str,
    dpi: float = DPI,
) -> None:
    """Draw the average sub-volume at each set of points, in three central slices, on one grey scale.

    Args:
        path: the file; its ending tells the format.
        data: (z, y, x) as stored.
        grid: of `data`.
        sets: points (n, 3) in voxels, by what they are.
        diameter: of the particle, angstrom.
        title: above the picture.
        dpi: pixels an inch.

    Raises:
        CetpickError: the file cannot be written.
    """
    voxels = diameter / grid.voxel_size
    averages = {name: average_box(data, xyz, max(2, round(BOX / 2 * voxels))) for name, xyz in sets.items()}
    averages = {name: (_smoothed(box, voxels), count) for name, (box, count) in averages.items()}
    figure = _figure(len(sets) * WIDTH / 3, title)
    grey = (
        min(float(box.min()) for box, _ in averages.values()),
        max(float(box.max()) for box, _ in averages.values()),
    )
    for row, (name, (box, count)) in enumerate(averages.items()):
        middle = len(box) // 2
        for column, plane in enumerate(PLANES):
            (axis,) = {0, 1, 2} - {*plane}
            panel = figure.add_subplot(len(sets), 3, row * 3 + column + 1)
            extent = (-middle - 0.5, middle + 0.5) * 2
            panel.imshow(box.take(middle, 2 - axis), cmap="gray", origin="lower", extent=extent, clim=grey)
            panel.set_title(f"{name} ({count} of {len(sets[name])})" if column == 0 else name, parse_math=False)
            _circle(panel, 0, 0, voxels / 2)
            _finish(panel, plane, grid.voxel_size, 2 * middle + 1)
    save(figure, path, dpi=dpi)


def fullest_places(positions: NDArray[np.float64], size: int, thickness: float, count: int) -> list[float]:
    """Where slabs across an axis hold most of the labels, each counted once.

    Args:
        positions: of the labels along the axis, voxels (n,).
        size: voxels along the axis.
        thickness: of a slab, voxels.
        count: number of slabs.

    Returns:
        Middles of the slabs, rising; with fewer than `count` labels apart evenly spread ones make up for the rest.
    """
    places: list[float] = []
    left = positions[(positions >= -0.5) & (positions < size - 0.5)]
    while len(places) < count and len(left):
        near = np.abs(left[:, None] - left[None, :]) <= thickness / 2
        best = int(near.sum(axis=1).argmax())
        places.append(float(left[near[best]].mean()))
        left = left[np.abs(left - places[-1]) > thickness]
    spread = [size * (number + 0.5) / count for number in range(count)]
    return sorted(places + spread[: count - len(places)])


def average_box(data: NDArray[Any], xyz: Points, half: int) -> tuple[Image, int]:
    """Average of cubes around points, to the nearest voxel.

    Args:
        data: (z, y, x); may hold NaN, which does not count.
        xyz: centres (n, 3) in voxels.
        half: voxels on each side of the centre.

    Returns:
        (2 half + 1,) * 3, NaN where no cube has data, and how many cubes went in: at most MOST_AVERAGED, those around
        points outside of the volume never.
    """
    side = 2 * half + 1
    total, known = np.zeros((side,) * 3), np.zeros((side,) * 3)
    shape = np.array(data.shape)
    centres = np.floor(xyz[:, ::-1] + 0.5).astype(int)
    centres = centres[((centres >= 0) & (centres < shape)).all(axis=1)]
    centres = centres[:: -(-len(centres) // MOST_AVERAGED) or 1]
    for centre in centres:
        low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, shape)
        cube = np.asarray(data[tuple(map(slice, low, high))], np.float32)
        there = tuple(map(slice, low - centre + half, high - centre + half))
        finite = np.isfinite(cube)
        total[there] += np.where(finite, cube, 0)
        known[there] += finite
    mean = np.divide(total, known, out=np.full(total.shape, np.nan), where=known > 0)
    return mean.astype(np.float32), len(centres)


def _draw_slab(
    panel: Axes,
    data: NDArray[Any],
    grid: Grid,
    xyz: Points,
    plane: tuple[int, int],
    place: float,
    voxels: float,
    *,
    colours: NDArray[Any],
    valid: Mask | None,
    what: str,
) -> None:
    (axis,) = {0, 1, 2} - {*plane}
    thickness = max(1, round(SLAB * voxels))
    first = min(max(0, round(place - (thickness - 1) / 2)), max(0, grid.size[axis] - thickness))
    chosen = [slice(None)] * 3
    chosen[2 - axis] = slice(first, first + thickness)
    image = _smoothed(_filled(np.asarray(data[tuple(chosen)], np.float32)).mean(axis=2 - axis), voxels)
    panel.imshow(image, cmap="gray", origin="lower", interpolation="bilinear", clim=_grey_range(image))
    if valid is not None:
        depth = valid.shape[2 - axis]
        start, stop = first * depth // grid.size[axis], -(-(first + thickness) * depth // grid.size[axis])
        _hatch(panel, valid.take(range(start, min(stop, depth)), axis=2 - axis).mean(axis=2 - axis) < 0.5, image.shape)
    middle = first + (thickness - 1) / 2
    near = np.abs(xyz[:, axis] - middle) < GRAZED * voxels / 2
    for point, colour in zip(xyz[near], colours[near], strict=True):
        radius = float(np.sqrt((voxels / 2) ** 2 - (point[axis] - middle) ** 2))
        _circle(panel, point[plane[0]], point[plane[1]], radius, colour)
    panel.set_title(
        f"{AXES[axis]} = {middle:.0f}, {thickness * grid.voxel_size / 10:.0f} nm thick; {what}: {near.sum()}"
    )
    panel.set_xlim(-0.5, grid.size[plane[0]] - 0.5)
    panel.set_ylim(-0.5, grid.size[plane[1]] - 0.5)
    _finish(panel, plane, grid.voxel_size, grid.size[plane[0]])


def _hatch(panel: Axes, left_out: Mask, shape: tuple[int, ...]) -> None:
    """Dim and hatch what is left out of a picture of (vertical, horizontal) pixels, of the same extent."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, left_out.shape, strict=True))
    drawn = left_out[np.ix_(rows, columns)]
    if drawn.any():
        areas = panel.contourf(drawn, levels=[0.5, 1.5], colors=[DIMMED], hatches=["////"])
        areas.set_edgecolor(HATCHED)
        areas.set_linewidth(0)


def _figure(height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, TITLE_WIDTH)]
    figure = Figure(figsize=(WIDTH, height + 0.25 * len(lines)), dpi=DPI, layout="constrained")
    figure.suptitle("\n".join(lines), fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def _circle(panel: Axes, x: float, y: float, radius: float, colour: Any = COLOUR) -> None:
    from matplotlib.patches import Circle

    panel.add_patch(Circle((x, y), radius, fill=False, edgecolor=colour, linewidth=1.2))


def _finish(panel: Axes, plane: tuple[int, int], voxel_size: float, width: int) -> None:
    """Axis names and a scale bar of about a fifth of the width, in voxels, of the picture."""
    from matplotlib.patheffects import withStroke

    panel.set_xlabel(f"{AXES[plane[0]]} (voxels)", fontsize=8)
    panel.set_ylabel(f"{AXES[plane[1]]} (voxels)", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.title.set_fontsize(9)
    wanted = width * voxel_size / 10 / 5
    length = min(NICE_LENGTHS, key=lambda nice: abs(np.log(nice / wanted)))
    edge = [withStroke(linewidth=2.5, foreground="black")]
    panel.annotate(
        f"{length} nm",
        xy=(0.03, 0.05),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        color="white",
        fontsize=8,
        path_effects=edge,
    )
    share = length * 10 / voxel_size / width
    panel.plot(
        [0.03, 0.03 + share], [0.05, 0.05], transform=panel.transAxes, color="white", linewidth=2.5, path_effects=edge
    )


def _filled(values: Image) -> Image:
    """The values with their median in the place of those that are not finite."""
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.median(values[finite]) if finite.any() else 0)


def _smoothed(values: Image, voxels: float) -> Image:
    smooth: Image = ndimage.gaussian_filter(_filled(values), SMOOTHING * voxels)
    return smooth


def _grey_range(image: Image) -> tuple[float, float]:
    low, high = np.percentile(image, GREYS)
    return float(low), float(high)


def _colours(scores: NDArray[np.float64]) -> NDArray[Any]:
    """Of circles, (n, 4) red, green, blue, alpha."""
    from matplotlib.colors import LinearSegmentedColormap

    return np.asarray(LinearSegmentedColormap.from_list("scores", SCORES)(scores))


def _explain_scores(figure: Figure) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    shades = ScalarMappable(Normalize(0, 1), LinearSegmentedColormap.from_list("scores", SCORES))
    bar = figure.colorbar(shades, ax=figure.axes, location="bottom", shrink=0.25, aspect=30)
    bar.set_label("score", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def save(figure: Figure, path: Path, *, dpi: float) -> None:
    """Write a figure in the format of the file's ending: text stays text, and no date makes two files differ.

    Raises:
        CetpickError: the file cannot be written.
    """
    from matplotlib import rc_context

    kind = path.suffix[1:]
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with (
        replacing(path) as temporary,
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "cetpick", "pdf.fonttype": 42}),
    ):
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=dates.get(kind))
