"""Are labels on particles? The contrast at the labels against that at displaced copies of them, for every way in which
coordinates are commonly misread.

The contrast of a set of points is the mean response of a blob filter matched to the particle, at the points, compared
with that of copies of the whole set moved by 1 to 2 diameters: ``z = (mean - median of copies) / (1.4826 MAD of
copies)``. Moving the set as a whole keeps its arrangement, so that points which share a place, a membrane or a corner
of the volume do not look like more evidence than they are. Where labels sit on particles |z| grows with the square root
of their number; where they do not it is about normal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cetpick.baselines import blob_response
from cetpick.geometry import Points, as_points, rescale
from cetpick.preprocess import padding_mask
from cetpick.records import Grid
from cetpick.voxels import MAD_TO_SIGMA, Volume, centre_and_spread

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Verdict = Literal["fine", "swapped", "scaled", "shifted", "outside", "undecidable"]

VOXELS_PER_DIAMETER = 8
"""At least, of the working grid: finer ones change nothing but the time."""
CLIP = 4.0
"""Standard deviations: gold beyond it is no stronger than protein."""
COPIES = 200
"""Displaced copies that median and MAD come from."""
SCALES = (1 / 8, 1 / 4, 1 / 2, 2.0, 4.0, 8.0)
"""What coordinates are multiplied with: they were in unbinned, or in binned voxels."""
UNITS = {"angstrom": 1.0, "nanometres": 10.0}
"""Of coordinates that are not in voxels, in angstrom."""
SAME_SCALE = 0.05
"""Relative difference of two scales that are not told apart."""
FEWEST_LABELS = 4
"""Fewer say nothing."""
CONTRAST = 5.0
"""z from which labels are taken to be on particles."""
MANY_LABELS = 10
"""From so many on a contrast that is not clear is worth a warning; fewer may miss it by chance."""
OTHER_DIAMETERS = (0.5, 2.0)
"""In units of that given, which the contrast is compared with."""
CLEARER = 1.5
"""So many times farther must labels stand out under one of these to be told: simulated particles of 210 angstrom do 1.8
times at 210 when 420 is given, and less than once at 420 and 105 when 210 is given."""
RIVAL = 3.5
"""z from which another reading may be the right one."""
HEAVY_TAILS = 10.0
"""Divided by the number of labels, what is added to both for one reading, or shift, found among many: means of few
responses are far from normal (5 labels at random places reach 6.4 under one reading of 50 in a set of 100)."""
CLEARLY = 7.5
"""z of another reading from which labels without contrast are refused; that of right ones is not known to get there."""
MARGIN = 3.0
"""Difference in z from which one of two readings is the better one; that of two readings without signal is 1.4."""
OUTSIDE = 0.05
"""Share of labels outside of the volume from which a reading is impossible."""
EDGE = 1.0
"""Voxels: points no farther outside lie on the edge; programs count from different corners."""
SMALL_SHIFT, LARGE_SHIFT = 0.1, 0.25
"""Diameters: a constant shift from which it is told, and from which the labels are wrong."""
SHIFT_ERRORS = 4.0
"""Standard errors that a shift must have."""
WEAK = 0.15
"""Share of labels without contrast from which it is told; of labels at random places half have none."""
CROWDED = 0.5
"""Share of labels nearer than half a diameter to another from which a reading is impossible, unless as many are so as
given: a set that shrinks to a few places says no more than a few labels."""
FAINT = "labels of another tomogram, a wrong diameter, or particles too faint to tell"
"""Why there may be no contrast."""
AXES = "xyz"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A way to read coordinates.

    Attributes:
        order: where the new x, y, z come from; (0, 2, 1) takes y from z and z from y.
        flips: which of the new x, y, z count from the far end of the volume.
        scale: what all are multiplied with, about the outer corner.
        unit: that the coordinates are in, none for voxels.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    scale: float = 1.0
    unit: str = ""

    @property
    def name(self) -> str:
        """Such as ``as given``, ``xzy, z flipped``, ``scaled by 1/2`` or ``in angstrom``."""
        if self.unit:
            return f"in {self.unit}"
        parts = []
        if self.order != (0, 1, 2):
            parts.append("".join(AXES[axis] for axis in self.order))
        if any(self.flips):
            parts.append(" and ".join(axis for axis, flip in zip(AXES, self.flips, strict=True) if flip) + " flipped")
        if self.scale != 1:
            parts.append(f"scaled by {self.scale:g}" if self.scale > 1 else f"scaled by 1/{1 / self.scale:g}")
        return ", ".join(parts) or "as given"

    @property
    def rule(self) -> str:
        """What it makes of x, y, z, such as ``(x, z, NZ-1-y)`` with the sizes of the tomogram."""
        parts = [
            f"N{axis.upper()}-1-{AXES[source]}" if flip else AXES[source]
            for axis, source, flip in zip(AXES, self.order, self.flips, strict=True)
        ]
        if self.scale != 1:
            parts = [f"({axis}+0.5)*{self.scale:g}-0.5" for axis in AXES]
        return f"({', '.join(parts)})"

    @property
    def meaning(self) -> str | None:
        """What its order of axes means, None for the usual one."""
        moved = [AXES[new] for new, old in enumerate(self.order) if new != old]
        if not moved:
            return None
        name = "".join(AXES[axis] for axis in self.order)
        return f"{name}: {' and '.join(moved)} exchanged" if len(moved) == 2 else f"{name}: read in this order"

    @property
    def cure(self) -> str | None:
        """The option of `cetpick convert` that moves points so, None where there is none."""
        if self.scale != 1:
            return f"--bin {1 / self.scale:g}"
        axes = {(False, False, True): "rotx", (False, True, False): "undo-rotx", (False, False, False): "flipyz"}
        if self.order != (0, 2, 1) or self.flips not in axes:
            return None
        # labels lie outside of a volume that has other axes
        needed = "--tomogram THE VOLUME THEY WERE PICKED IN" if any(self.flips) else "without --tomogram"
        return f"--axes {axes[self.flips]} {needed}"

    def apply(self, xyz: ArrayLike, grid: Grid) -> Points:
        """Points (n, 3) in voxels of `grid` as this reading has them."""
        points = rescale(as_points(xyz)[:, list(self.order)], from_voxel_size=self.scale, to_voxel_size=1.0)
        size = np.array(grid.size)
        read: Points = np.where(self.flips, size - 1 - points, points)
        return read


AS_GIVEN = Reading()
READINGS: tuple[Reading, ...] = (
    *(
        Reading(order=(x, y, z), flips=(flip_x, flip_y, flip_z))
        for x, y, z in permutations(range(3))
        for flip_x, flip_y, flip_z in product((False, True), repeat=3)
    ),
    *(Reading(scale=scale) for scale in SCALES),
)
"""As given first, then the other axis orders and flips, then the scales."""


def readings_of(voxel_size: float) -> list[Reading]:
    """READINGS, and those of other units than voxels (angstrom), as far as they are not among them."""
    units = [Reading(scale=size / voxel_size, unit=unit) for unit, size in UNITS.items()]
    known = np.array([1.0, *SCALES])
    return [*READINGS, *(of for of in units if np.abs(known / of.scale - 1).min() > SAME_SCALE)]


@dataclass(frozen=True, kw_only=True)
class Response:
    """The answer of a blob filter to a tomogram, on a coarse grid.

    Attributes:
        values: (z, y, x), positive where a dark blob of the particle's size is centred, NaN where there is no data.
        step: stored voxels along each side of a voxel of `values`.
        grid: of the tomogram as stored.
        diameter: of the particle, in voxels of the tomogram as stored.
    """

    values: Volume
    step: int
    grid: Grid
    diameter: float

    def at(self, xyz: NDArray[np.float64]) -> NDArray[np.float32]:
        """Response at points (..., 3), in stored voxels: that of the nearest voxel; NaN outside; shape (...)."""
        size = np.array(self.grid.size)
        inside = ((xyz >= -0.5 - EDGE) & (xyz < size - 0.5 + EDGE)).all(axis=-1)
        last = np.array(self.values.shape[::-1]) - 1
        with np.errstate(invalid="ignore"):
            x, y, z = np.moveaxis(np.clip((xyz + 0.5) // self.step, 0, last).astype(np.intp), -1, 0)
        return np.where(inside, self.values[z, y, x], np.float32(np.nan))


def measure_response(data: NDArray[Any], grid: Grid, *, diameter: float, step: int | None = None) -> Response:
    """Filter a tomogram for dark blobs.

    It is averaged down to about VOXELS_PER_DIAMETER, normalised by median and MAD, and clipped.

    Args:
        data: (z, y, x) as stored; may hold NaN and constant padding, which give NaN.
        grid: of the tomogram.
        diameter: of the particle, angstrom.
        step: stored voxels to be averaged along each side; by default for VOXELS_PER_DIAMETER.
    """
    voxels = diameter / grid.voxel_size
    step = step or max(1, min(int(voxels / VOXELS_PER_DIAMETER), *data.shape))
    volume = bin_by_averaging(data, step)
    invalid = padding_mask(volume) | ~np.isfinite(volume)
    if invalid.all():
        return Response(values=np.full_like(volume, np.nan), step=step, grid=grid, diameter=voxels)
    median, spread = centre_and_spread(volume, ~invalid)
    with np.errstate(invalid="ignore"):
        volume = np.clip((volume - np.float32(median)) / np.float32(spread or 1.0), -CLIP, CLIP)
    volume[invalid] = 0
    values = -blob_response(volume, diameter=voxels / step)
    values[invalid] = np.nan
    return Response(values=values, step=step, grid=grid, diameter=voxels)


def bin_by_averaging(data: NDArray[Any], step: int) -> Volume:
    """Means of blocks of step x step x step voxels of (z, y, x); what is left over at the far faces is dropped."""
    z, y, x = (n // step * step for n in data.shape)
    total = np.zeros((z // step, y // step, x // step), np.float32)
    for k, j, i in product(range(step), repeat=3):
        total += data[k:z:step, j:y:step, i:x:step]
    total /= step**3
    return total


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The response at a set of points and at displaced copies of the set.

    Attributes:
        here: (n,) at the points; NaN for those outside of the data.
        there: (copies, n) at the copies, likewise.
    """

    here: NDArray[np.float32]
    there: NDArray[np.float32]

    @property
    def outside(self) -> int:
        """Points that lie outside of the data."""
        return int(np.isnan(self.here).sum())

    def background(self, chosen: Mask | None = None) -> tuple[float, float]:
        """Median and robust standard deviation of the copies' means, over the `chosen` points (n,), None for all.

        Points outside do not count. NaN when there are too few copies.
        """
        means = _means(self.there[:, self._inner(chosen)])
        if len(means) < COPIES // 4:
            return float("nan"), float("nan")
        median = float(np.median(means))
        return median, MAD_TO_SIGMA * float(np.median(np.abs(means - median)))

    def z(self, chosen: Mask | None = None) -> float:
        """Contrast of the `chosen` points (n,), None for all: positive when dark; NaN if it cannot be told."""
        here = self.here[self._inner(chosen)]
        median, spread = self.background(chosen)
        return (float(here.mean(dtype=np.float64)) - median) / spread if len(here) and spread > 0 else float("nan")

    def _inner(self, chosen: Mask | None) -> Mask:
        inner: Mask = np.isfinite(self.here)
        return inner if chosen is None else inner & chosen


def _means(values: NDArray[np.float32]) -> Floats:
    """Means of the rows (copies, n) over what is not NaN, of rows of which at least two thirds are not."""
    known = np.isfinite(values)
    counts = known.sum(axis=1)
    rows = (counts > 0) & (counts * 3 >= values.shape[1] * 2)
    means: Floats = np.where(known, values, 0).sum(axis=1, dtype=np.float64)[rows] / counts[rows]
    return means


def measure_contrast(response: Response, xyz: Points, *, seed: int = 0) -> Contrast:
    """Response at points (n, 3) in stored voxels, and at COPIES copies of the set, displaced by 1 to 2 diameters.

    Copies that leave less than two thirds of the inner points inside are replaced by others.
    """
    rng = np.random.default_rng(seed)
    here = response.at(xyz)
    inner = np.isfinite(here)
    there = np.empty((0, len(here)), np.float32)
    for _ in range(20 if inner.any() else 0):  # a set that fills a thin volume has few places to go
        directions = rng.normal(size=(COPIES, 3))
        lengths = response.diameter * rng.uniform(1, 2, COPIES) / np.linalg.norm(directions, axis=1)
        copies = response.at(xyz + (directions * lengths[:, None])[:, None])
        kept = (np.isfinite(copies) & inner).sum(axis=1) * 3 >= inner.sum() * 2
        there = np.concatenate([there, copies[kept]])[:COPIES]
        if len(there) == COPIES:
            break
    return Contrast(here=here, there=there)


def outshone(response: Response, xyz: Points) -> Floats:
    """How large a share of a tomogram answers less than each of the points (n, 3), stored voxels; shape (n,).

    Where most of the points are bright, the share that answers more. NaN outside of the data.
    """
    values = np.sort(response.values[np.isfinite(response.values)])
    there = response.at(xyz)
    shares = np.where(np.isfinite(there), np.searchsorted(values, there) / max(1, len(values)), np.nan)
    bright: Floats = 1 - shares
    return bright if (bright > 0.5).sum() > (shares > 0.5).sum() else shares


@dataclass(frozen=True, kw_only=True)
class Shift:
    """By how much all labels sit off.

    Attributes:
        xyz: from the labels to where the particles are, voxels along x, y, z.
        error: its standard error, voxels.
        z: contrast there, positive when dark.
    """

    xyz: tuple[float, float, float]
    error: float
    z: float

    @property
    def length(self) -> float:
        """Voxels."""
        return float(np.linalg.norm(self.xyz))

    @property
    def most(self) -> tuple[float, ...]:
        """Voxels along x, y, z, 0 for what is small beside the rest."""
        return tuple(value if abs(value) > 0.3 * self.length else 0.0 for value in self.xyz)

    @property
    def told(self) -> str:
        """Such as ``+3.2 voxels along z``."""
        along = zip(AXES, self.most, strict=True)
        return " and ".join(f"{value:+.1f} voxels along {axis}" for axis, value in along if value)


def measure_shift(response: Response, xyz: Points, contrast: Contrast, *, seed: int = 0) -> Shift | None:
    """Where within a diameter around the points their mean response is strongest, dark or bright.

    The place is the centre of gravity of the top of the peak; its error comes from drawing the points again
    (bootstrap).

    Args:
        response: to the tomogram.
        xyz: (n, 3) stored voxels.
        contrast: of these points.
        seed: of the bootstrap.

    Returns:
        None if the contrast cannot be told, or fewer than FEWEST_LABELS, or than half, lie in the data.
    """
    median, spread = contrast.background()
    inner = xyz[np.isfinite(contrast.here)]
    if not spread > 0 or len(inner) < max(FEWEST_LABELS, len(xyz) / 2):
        return None
    reach = int(response.diameter / response.step)
    lattice = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = lattice[np.linalg.norm(lattice, axis=1) <= reach] * float(response.step)
    values = np.stack([response.at(point + offsets) for point in inner], axis=1)
    known = np.isfinite(values).astype(np.float32)
    values[known == 0] = 0

    def profiles(weights: NDArray[np.float32]) -> Floats:
        """Contrast z at each offset, of points counted `weights` (n, draws) times; shape (offsets, draws)."""
        counts = known @ weights
        means = np.full(counts.shape, median)
        np.divide(values @ weights, counts, out=means, where=counts * 3 >= 2 * len(inner))
        profile: Floats = (means - median) / spread
        return profile

    def peak(heights: Floats) -> Floats:
        near = np.linalg.norm(offsets - offsets[np.argmax(heights)], axis=1) <= response.diameter / 2
        top = np.clip(heights - 0.75 * heights.max(), 0, None) * near
        place: Floats = top @ offsets / top.sum() if top.any() else np.zeros(3)
        return place

    whole = profiles(np.ones((len(inner), 1), np.float32))[:, 0]
    z = float(whole[np.argmax(np.abs(whole))])
    draws = np.random.default_rng(seed).multinomial(len(inner), np.full(len(inner), 1 / len(inner)), size=100)
    places = np.array([peak(heights * np.sign(z)) for heights in profiles(draws.T.astype(np.float32)).T])
    x, y, depth = map(float, peak(whole * np.sign(z)))
    return Shift(xyz=(x, y, depth), error=float(np.sqrt(places.var(axis=0).sum())), z=z)


def found_among_many(z: float, labels: int) -> float:
    """The z that one of many readings must have, when `z` is enough for a single one, with so many labels."""
    return z + HEAVY_TAILS / max(labels, 1)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A reading in the ranking.

    Attributes:
        reading: the reading.
        z: contrast of all labels, positive when dark; NaN when it was not measured.
        outside: labels outside of the volume.
        moved: labels that lie more than half a diameter from where they are as given.
        moved_z: contrast of those alone, under this reading and as given; NaN when fewer than FEWEST_LABELS moved.
    """

    reading: Reading
    z: float
    outside: int
    moved: int = 0
    moved_z: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def beats_given(self) -> bool:
        """Whether it is clearly better than the reading as given."""
        here, given = map(abs, self.moved_z)
        return here >= found_among_many(CONTRAST, self.moved) and not given > here - MARGIN

    @property
    def rivals_given(self) -> bool:
        """Whether it may be the right one as well."""
        here, given = map(abs, self.moved_z)
        return here >= found_among_many(RIVAL, self.moved) and not given >= here + MARGIN


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether labels are on particles.

    Attributes:
        verdict: in a word.
        message: the verdict in a sentence.
        notes: what else a user should know, a sentence each.
        labels: number of labels.
        given: the reading as given.
        ranking: all possible readings by falling contrast, dark or bright.
        impossible: how many readings put too many labels outside of the volume, or on top of each other.
        contrast: of the particles, where they were found.
        shift: of the labels as given, when it is significant.
    """

    verdict: Verdict
    message: str
    notes: tuple[str, ...]
    labels: int
    given: Ranked
    ranking: tuple[Ranked, ...]
    impossible: int
    contrast: Literal["dark", "bright"] | None
    shift: Shift | None

    @property
    def better(self) -> Reading | None:
        """The reading to use in the place of the given one, if one was found."""
        return self.ranking[0].reading if self.verdict in ("swapped", "scaled") else None

    @property
    def is_clearly_off(self) -> bool:
        """Whether another reading is on particles, and next to nothing shows at MANY_LABELS or more as given."""
        if self.better is None or self.labels < MANY_LABELS:
            return False
        best, given = abs(self.ranking[0].z), abs(self.given.z)
        return best >= CLEARLY and not given >= min(CONTRAST, best / 3)

    @property
    def is_faint(self) -> bool:
        """Whether there is no clear contrast although there are MANY_LABELS."""
        return self.verdict == "undecidable" and self.contrast is None and self.labels >= MANY_LABELS

    def mended(self, xyz: ArrayLike, grid: Grid) -> tuple[str, Points] | None:
        """What would make the labels right, and the labels (n, 3) after it; None when nothing is known to."""
        if self.better:
            return f"read as {self.better.name}", self.better.apply(xyz, grid)
        if self.verdict == "shifted" and self.shift:
            return f"moved by {self.shift.told}", as_points(xyz) + self.shift.xyz
        return None


def judge_labels(response: Response, xyz: ArrayLike, *, seed: int = 0) -> Judgement:
    """Tell whether labels are on particles, as given or read in another way.

    Args:
        response: to the tomogram, see measure_response.
        xyz: labels (n, 3) in stored voxels, those outside of the volume too.
        seed: of the displacements.
    """
    points = np.unique(as_points(xyz), axis=0)
    contrast = measure_contrast(response, points, seed=seed)
    given = Ranked(reading=AS_GIVEN, z=contrast.z(), outside=contrast.outside)
    readings = readings_of(response.grid.voxel_size)
    others = [_rank(response, points, contrast, reading, seed) for reading in readings[1:]]
    possible = [item for item in (given, *others) if item.outside <= OUTSIDE * len(points) and np.isfinite(item.z)]
    better = max((item for item in possible if item.beats_given), key=lambda item: abs(item.z), default=None)
    # a better reading leads the ranking, though labels that it does not move may lend another one a higher contrast
    ranking = sorted(possible, key=lambda item: (item is better, abs(item.z)), reverse=True)
    shift = measure_shift(response, points, contrast, seed=seed)
    if shift and abs(shift.z) < found_among_many(CONTRAST, len(points)):
        shift = None
    if shift and shift.length < SHIFT_ERRORS * shift.error:
        shift = None
    verdict, message, seen = _verdict(response, len(points), given, ranking, shift)
    notes = _notes(response, points, contrast, ranking, shift, fine=verdict == "fine", sign=seen)
    return Judgement(
        verdict=verdict,
        message=message,
        notes=tuple(notes),
        labels=len(points),
        given=given,
        ranking=tuple(ranking),
        impossible=len(readings) - len(possible),
        contrast=None if seen == 0 else "dark" if seen > 0 else "bright",
        shift=shift,
    )


def clearer_diameter(
    data: NDArray[Any], response: Response, xyz: ArrayLike, *, seed: int = 0
) -> tuple[float, float] | None:
    """Half or twice the diameter (angstrom) and its contrast z, if labels stand out much more so; else None.

    Compared is the mean response at the labels, less that of the copies, in standard deviations of all of the response:
    other than z it does not depend on how far the copies are displaced.

    Args:
        data: (z, y, x) as stored.
        response: to it.
        xyz: labels (n, 3) in stored voxels.
        seed: of the displacements.
    """
    points = np.unique(as_points(xyz), axis=0)
    given = measure_contrast(response, points, seed=seed)
    z = float(np.nan_to_num(given.z()))
    clear = abs(z) >= CONTRAST
    for factor in OTHER_DIAMETERS:
        diameter = factor * response.diameter * response.grid.voxel_size
        step = response.step if factor < 1 else None  # a finer grid would take eight times as long
        other = measure_response(data, response.grid, diameter=diameter, step=step)
        contrast = measure_contrast(other, points, seed=seed)
        there = contrast.z()
        if clear and there * z < 0:
            continue  # such as the middle of a hollow particle
        needed = max(abs(z), found_among_many(CONTRAST, len(points)))
        if abs(there) >= needed and _height(other, contrast) >= CLEARER * (_height(response, given) if clear else 0):
            return diameter, abs(there)
    return None


def _height(response: Response, contrast: Contrast) -> float:
    """How far labels stand out, in standard deviations of the response; positive for dark and bright."""
    above = np.nanmean(contrast.here, dtype=np.float64) - contrast.background()[0]
    return abs(float(above)) / float(np.nanstd(response.values, dtype=np.float64))


def _rank(response: Response, points: Points, given: Contrast, reading: Reading, seed: int) -> Ranked:
    read = reading.apply(points, response.grid)
    outside = int(np.isnan(response.at(read)).sum())
    crowded = reading.scale < 1 and _crowding(read, response) > max(CROWDED, _crowding(points, response))
    if crowded or outside > OUTSIDE * len(points):
        return Ranked(reading=reading, z=float("nan"), outside=outside)
    contrast = measure_contrast(response, read, seed=seed)
    moved = np.linalg.norm(read - points, axis=1) > response.diameter / 2
    moved_z = (contrast.z(moved), given.z(moved)) if moved.sum() >= FEWEST_LABELS else (float("nan"), float("nan"))
    return Ranked(reading=reading, z=contrast.z(), outside=outside, moved=int(moved.sum()), moved_z=moved_z)


def _crowding(points: Points, response: Response) -> float:
    """Share of the points (n, 3) that lie nearer than half a diameter to another."""
    if len(points) < 2:
        return 0.0
    distances = np.asarray(cKDTree(points).query(points, k=2)[0])
    return float((distances[:, 1] < response.diameter / 2).mean())


def _verdict(
    response: Response, labels: int, given: Ranked, ranking: Sequence[Ranked], shift: Shift | None
) -> tuple[Verdict, str, float]:
    """Verdict, the same in a sentence, and the contrast of the particles, 0 where none were found."""
    if labels < FEWEST_LABELS:
        return "undecidable", f"cannot be told: {labels} labels, at least {FEWEST_LABELS} are needed", 0.0
    first = ranking[0] if ranking else given
    off = shift if shift and shift.length >= LARGE_SHIFT * response.diameter else None
    if first.beats_given and not (off and abs(off.z) > abs(first.z)):
        scale = first.reading.scale
        against = f" against {_told(given.z)}" if np.isfinite(given.z) else "; as given all lie outside"
        verdict: Verdict = "swapped" if scale == 1 else "scaled"
        looks = "swapped" if scale == 1 else "binned" if scale > 1 else "unbinned"
        if first.reading.unit:
            looks = f"like {first.reading.unit}, not voxels"
        return verdict, f"these look {looks}: {first.reading.name} fits better ({_told(first.z)}{against})", first.z
    if off:
        fits = f"{off.told} would put them on particles ({_told(off.z)} against {_told(given.z)})"
        return "shifted", f"these look shifted: {fits}", off.z
    best = "" if first is given else f"; the best, {first.reading.name}, has {_told(first.z)}"
    if given.outside > OUTSIDE * labels:
        message = f"wrong: {given.outside} of {labels} labels lie outside, no other reading clearly fits{best}"
        return "outside", message, 0.0
    if not abs(given.z) >= CONTRAST:
        has = f"{math.floor(10 * abs(given.z)) / 10:.1f}" if np.isfinite(given.z) else "too few labels"
        message = f"no clear contrast at the labels ({has}; {CONTRAST:g} is clear{best}): {FAINT}"
        return "undecidable", f"cannot be told: {message}", 0.0
    if rivals := [item for item in ranking if item.rivals_given]:
        other = f"{rivals[0].reading.name} ({_told(rivals[0].z)})"
        return "undecidable", f"cannot be told: as given ({_told(given.z)}) and {other} fit too much alike", given.z
    return "fine", f"fine: the labels sit on {'dark' if given.z > 0 else 'bright'} blobs ({_told(given.z)})", given.z


def _notes(
    response: Response,
    points: Points,
    contrast: Contrast,
    ranking: Sequence[Ranked],
    shift: Shift | None,
    *,
    fine: bool,
    sign: float,
) -> Iterator[str]:
    """What else a user should know; `sign` of the particles' contrast, 0 where none were found."""
    if ranking and ranking[0].beats_given:
        first = ranking[0]
        cure = f"; `cetpick convert` does that: {first.reading.cure}" if first.reading.cure else ""
        yield f"{first.reading.name}: x, y, z are to become {first.reading.rule}{cure}"
        for item in ranking[1:]:
            if abs(item.z) > abs(first.z) - MARGIN:
                yield f"{item.reading.name} fits about as well ({_told(item.z)}): {item.reading.rule}"
    elif not fine and shift and shift.length >= LARGE_SHIFT * response.diameter:
        yield f"`cetpick convert` does that: --shift {' '.join(f'{value:.1f}' for value in shift.most)}"
    if sign < 0:
        yield "particles are bright in this tomogram; usual is dark"
    if contrast.outside:
        yield f"{contrast.outside} of {len(points)} labels lie outside of the data"
    if not fine:
        return
    weak = int((contrast.here * np.sign(sign) < contrast.background()[0] * np.sign(sign)).sum())
    if weak > WEAK * len(points):
        yield f"{weak} of {len(points)} labels have no more contrast than their surroundings"
    if shift and shift.length >= max(1.0, SMALL_SHIFT * response.diameter):
        yield f"a little off: the particles are {shift.told} from the labels"
    alike = [item for item in ranking if item.reading != AS_GIVEN and item.moved < FEWEST_LABELS]
    for item in alike:
        yield f"{item.reading.name} cannot be told apart from as given: it moves {item.moved} labels by half a diameter"


def _told(z: float) -> str:
    return f"{abs(z):.1f}" if np.isfinite(z) else "none"
