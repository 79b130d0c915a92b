"""Pictures of one tomogram for the report: slices, sub-volumes at candidates, the average of the best ones.

They are made while the tomogram is in memory and kept as plain values, so that the report needs no tomogram.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cetpick.geometry import Points
from cetpick.preprocess import Prepared
from cetpick.records import Grid
from cetpick.report.overlay import AXES, GREYS, PLANES, SLAB, SMOOTHING

Floats = NDArray[np.float32]

FORMAT = 2
"""Of a view; one of another format is not used."""
SIDE = 288
"""Pixels along the longer side of a slice."""
SLICES = {"xy": 12, "xz": 6, "yz": 6}
"""How many slices of each plane, evenly over the tomogram."""
THUMB, THUMB_BOX, THUMB_DEPTH = 40, 1.5, 0.8
"""Pixels and diameters along the side of a sub-volume of the gallery, and how thick it is along z, in diameters."""
ROW = 8
"""Sub-volumes in a row of the gallery."""
SPREAD = 40
"""Sub-volumes evenly over all scores, besides those around the cut, so that the gallery can follow another one."""
AVERAGE, AVERAGE_BOX = 40, 2.5
"""Voxels and diameters along the side of the average."""
MOST_AVERAGED = 100
"""Candidates in the average, the best ones."""
CORE, SHELL = 0.35, (0.8, 1.2)
"""Radius of the middle of a particle, and of the shell around it that its contrast is measured against, diameters."""
QUALITIES = ((1, 75), (1, 60), (1, 45), (0.85, 45), (0.85, 30), (0.7, 30), (0.55, 30), (0.4, 30), (0.25, 30))
"""Share of SIDE, and quality of JPEG: the first one at which the slices of a tomogram need no more than MOST_BYTES."""
MOST_BYTES = 195_000
"""Of the slices of a tomogram, with what is left out of them."""
MASK_SIDE = SIDE // 2
"""Pixels along the longer side of the picture of what is left out."""


def make_view(
    prepared: Prepared, xyz: Points, scores: NDArray[np.float64], grid: Grid, *, diameter: float, picks: int
) -> dict[str, Any]:
    """Draw a tomogram for the report.

    Args:
        prepared: the tomogram, normalised.
        xyz: candidates (n, 3) by falling score, in voxels of `grid`.
        scores: (n,) theirs.
        grid: of the tomogram as stored.
        diameter: of the particle, angstrom.
        picks: how many of the candidates are picks.

    Returns:
        Values for JSON. `planes`: see make_planes; `thumbs`: one picture of all sub-volumes, projected along z,
        and which candidates they are; `average`: of the best candidates, three central slices, and its radial profile
        in angstrom and standard deviations of the tomogram's grey values; `contrast` of its middle against the shell
        around it in the same unit, None without candidates.
    """
    sizes = np.array(prepared.voxel_size)
    centres = (xyz[:, ::-1] + 0.5) * (grid.voxel_size / sizes) - 0.5
    view = {
        "format": FORMAT,
        "planes": make_planes(prepared, grid, diameter=diameter),
        "thumbs": _thumbs(prepared.volume, centres, shown_candidates(scores, picks), sizes, diameter),
    }
    return view | _average(prepared.volume, centres[: min(max(picks, ROW), MOST_AVERAGED)], sizes, diameter)


def shown_candidates(scores: NDArray[np.float64], picks: int) -> list[int]:
    """Which candidates, by falling score, the gallery holds: best, median, last picks, first others, and evenly spread.

    Args:
        scores: (n,), falling.
        picks: how many of them are picks.

    Returns:
        Their places, rising.
    """
    n = len(scores)
    places = {*range(ROW), *range(picks // 2 - ROW // 2, picks // 2 + ROW // 2), *range(picks - ROW, picks + ROW)}
    if n:
        levels = np.linspace(scores[0], scores[-1], SPREAD)
        places |= {*np.abs(scores[:, None] - levels).argmin(axis=0).tolist()}
    return sorted(place for place in places if 0 <= place < n)


def make_planes(prepared: Prepared, grid: Grid, *, diameter: float) -> dict[str, Any]:
    """Slices of the three planes, at the best quality that MOST_BYTES allows; arguments as of make_view.

    Returns:
        By plane, xy, xz and yz: `at`, the places of the middles of its slices, and their `thickness`, in stored voxels;
        `slices`, their pictures, and `left_out`, pictures that are black where nothing counts and clear elsewhere, None
        where all does. The vertical axis points upwards.
    """
    volume, sizes = prepared.volume, np.array(prepared.voxel_size)
    planes: dict[str, Any] = {}
    greys: dict[str, list[NDArray[np.uint8]]] = {}
    coded: dict[str, list[str]] = {}
    for plane in PLANES:
        name = AXES[plane[0]] + AXES[plane[1]]
        (axis,) = {0, 1, 2} - {*plane}
        working = 2 - axis
        length = volume.shape[working]
        thickness = min(max(1, round(SLAB * diameter / sizes[working])), length)
        count = min(SLICES[name], length // thickness)
        # the middles of equal parts: nothing is farther from one than half a part, at the faces too
        firsts = (np.arange(count) + 0.5) * length / count - thickness / 2
        slabs, places, left_out = [], [], []
        for first in np.rint(firsts.clip(0, length - thickness)).astype(int):
            part = range(first, first + thickness)
            slab = volume.take(part, axis=working)
            in_plane = np.delete(sizes, working)
            slabs.append(ndimage.gaussian_filter(slab.mean(axis=working), SMOOTHING * diameter / in_plane))
            middle = first + (slab.shape[working] - 1) / 2
            places.append(round(float((middle + 0.5) * sizes[working] / grid.voxel_size - 0.5), 2))
            valid = None if prepared.valid is None else prepared.valid.take(part, axis=working)
            left_out.append(None if valid is None else _left_out(valid.mean(axis=working) < 0.5, plane, grid))
        greys[name] = _greys(slabs)
        planes[name] = {
            "at": places,
            "left_out": left_out,
            "thickness": round(thickness * float(sizes[working]) / grid.voxel_size, 2),
        }
    most = MOST_BYTES - sum(len(mask or "") for plane in planes.values() for mask in plane["left_out"])
    middles = {name: images[len(images) // 2 :][:1] for name, images in greys.items()}
    for share, quality in QUALITIES:
        # the middle slices tell how large all will be, so that most qualities are not tried on all of them
        likely = sum(
            len(code) * len(greys[name]) for name, (code,) in _coded_slices(middles, grid, share, quality).items()
        )
        if likely <= most:
            coded = _coded_slices(greys, grid, share, quality)
            if sum(len(code) for codes in coded.values() for code in codes) <= most:
                break
    for name, codes in coded.items():
        planes[name]["slices"] = codes
    return planes


def _coded_slices(
    greys: Mapping[str, Sequence[NDArray[np.uint8]]], grid: Grid, share: float, quality: int
) -> dict[str, list[str]]:
    """Slices of each plane as JPEG, all on one scale whose longest side has `share` of SIDE pixels."""
    coded = {}
    for plane in PLANES:
        width, height = (max(1, round(share * SIDE * grid.size[axis] / max(grid.size))) for axis in plane)
        name = AXES[plane[0]] + AXES[plane[1]]
        coded[name] = [_jpeg(_picture(image, (width, height)), quality) for image in greys[name]]
    return coded


def _left_out(mask: NDArray[np.bool_], plane: tuple[int, int], grid: Grid) -> str | None:
    """What is left out of a slice, (vertical, horizontal), as a PNG of one bit a pixel; None for nothing."""
    if not mask.any():
        return None
    width, height = (max(1, round(MASK_SIDE * grid.size[axis] / max(grid.size))) for axis in plane)
    image = _picture(mask.astype(np.uint8) * 255, (width, height)).point(lambda grey: grey > 127)
    image.putpalette([0] * 6)
    return _coded(image, "png", optimize=True, bits=1, transparency=0)


def _thumbs(
    volume: Floats, centres: NDArray[np.float64], places: Sequence[int], sizes: NDArray[np.float64], diameter: float
) -> dict[str, Any] | None:
    """All sub-volumes of the gallery side by side in rows of ROW."""
    if not places:
        return None
    across = (np.arange(THUMB) + 0.5 - THUMB / 2) * THUMB_BOX * diameter / THUMB
    depth = np.linspace(-THUMB_DEPTH / 2, THUMB_DEPTH / 2, 7) * diameter
    boxes = [_sampled(volume, centres[place], (depth, across, across), sizes).mean(axis=0) for place in places]
    boxes = [ndimage.gaussian_filter(box, SMOOTHING * THUMB / THUMB_BOX) for box in boxes]
    sheet = Image.new("L", (ROW * THUMB, -(-len(places) // ROW) * THUMB))
    for number, image in enumerate(_greys(boxes)):
        sheet.paste(_picture(image, (THUMB, THUMB)), (number % ROW * THUMB, number // ROW * THUMB))
    return {"side": THUMB, "row": ROW, "of": list(places), "picture": _jpeg(sheet, 60)}


def _average(
    volume: Floats, centres: NDArray[np.float64], sizes: NDArray[np.float64], diameter: float
) -> dict[str, Any]:
    """The mean sub-volume in three central slices, its radial profile, and the contrast."""
    if not len(centres):
        return {"average": None, "contrast": None}
    step = AVERAGE_BOX * diameter / AVERAGE
    along = (np.arange(AVERAGE) + 0.5 - AVERAGE / 2) * step
    mean = np.mean([_sampled(volume, centre, (along, along, along), sizes) for centre in centres], axis=0)
    distance = np.sqrt(sum(part**2 for part in np.meshgrid(along, along, along, indexing="ij")))
    shells = np.floor(distance / step).astype(int)
    profile = ndimage.mean(mean, shells, np.arange(AVERAGE // 2))
    radius = ndimage.mean(distance, shells, np.arange(AVERAGE // 2))
    core = mean[distance < CORE * diameter].mean()
    shell = mean[(distance > SHELL[0] * diameter) & (distance < SHELL[1] * diameter)].mean()
    smooth = ndimage.gaussian_filter(mean, SMOOTHING * AVERAGE / AVERAGE_BOX)
    middle = slice(AVERAGE // 2 - 1, AVERAGE // 2 + 1)
    views = [smooth[middle].mean(axis=0), smooth[:, middle].mean(axis=1), smooth[:, :, middle].mean(axis=2)]
    return {
        "average": {
            "count": len(centres),
            "box": AVERAGE_BOX,
            "pictures": [_png(_picture(image, (AVERAGE, AVERAGE))) for image in _greys(views)],
            "profile": [[round(float(r), 1), round(float(v), 4)] for r, v in zip(radius, profile, strict=True)],
        },
        "contrast": round(float(core - shell), 4),
    }


def _sampled(
    volume: Floats, centre: NDArray[np.float64], offsets: tuple[NDArray[Any], ...], sizes: NDArray[np.float64]
) -> Floats:
    """The volume around a centre (z, y, x), at offsets along each axis in angstrom; 0, the mean grey, outside of it."""
    axes = [place + offset / size for place, offset, size in zip(centre, offsets, sizes, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    box: Floats = ndimage.map_coordinates(volume, points, order=1, mode="constant", output=np.float32)
    return box


def _greys(images: Sequence[Floats]) -> list[NDArray[np.uint8]]:
    """Images (vertical, horizontal) as bytes, on one grey scale for all."""
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), GREYS)
    scale = 255 / max(float(high - low), 1e-6)
    return [np.clip((image - low) * scale, 0, 255).astype(np.uint8) for image in images]


def _picture(image: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """An image of (width, height) pixels whose vertical axis points upwards, as other programs show tomograms."""
    return Image.fromarray(np.ascontiguousarray(image[::-1])).resize(size, Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, quality: int) -> str:
    return _coded(image, "jpeg", quality=quality, optimize=True)


def _png(image: Image.Image) -> str:
    return _coded(image, "png", optimize=True)


def _coded(image: Image.Image, kind: str, **options: Any) -> str:
    """As a data URI."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
