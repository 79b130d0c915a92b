"""Synthetic tomograms with truth: a crowded specimen, imaged as a tilt series and reconstructed.

The specimen is a set of weighted points, each a Gaussian of one common width, so that its projections are exact at any
pixel size. Every tilt is projected, imaged (CTF, radiation damage, shot noise, misalignment) on a detector whose pixels
do not depend on the reconstruction, and back-projected: missing wedge, streaks and noise are those of the method. The
same settings and seed at another voxel size give the same scene with the same noise.

Coordinates here are angstrom x, y, z from the corner of the box unless said otherwise: the centre of voxel v lies at
(v + 0.5) * voxel_size. The tilt axis is y through the centre of the box; a point at x, z from the centre is seen
at x cos(tilt) + z sin(tilt).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import fft, sparse
from scipy.spatial.transform import Rotation

from cetpick.config import ParticleClass
from cetpick.errors import InputError
from cetpick.geometry import Points
from cetpick.io.tomograms import require_voxel_size

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Place = tuple[float, float, float]
Shape = Callable[[Points], Mask]
"""Which of the points (n, 3), in target diameters, belong to a protein; none lies farther than 1 from its middle."""
Difficulty = Literal["easy", "normal", "hard"]

WAVELENGTH = 0.0197
"""Of 300 kV electrons, angstrom."""
SPHERICAL_ABERRATION = 2.7e7
"""Angstrom."""
AMPLITUDE_CONTRAST = 0.08
PHASE_PER_ANGSTROM = 6.53e-4 * 2.5
"""Radian an angstrom of protein adds to ice: the interaction constant at 300 kV times 2.5 V more inner potential."""
GOLD_DENSITY = 10.0
LIPID_DENSITY = 1.5
CARBON_DENSITY = 2.0
"""Densities relative to ice, protein = 1."""
HOLE_RADIUS = 6000.0
"""Of the hole in a carbon film, angstrom."""
CARBON_REACH = 0.25
"""Distance of the hole's edge from the middle of the box, in units of its shorter side along x or y."""
LEAFLET_DISTANCE = 36.0
LEAFLET_THICKNESS = 20.0
"""Of the two leaflets of a membrane, angstrom."""
VESICLE_RADII = 1.5, 3.0
"""In target diameters."""
MEAN_FREE_PATH = 3500.0
"""Of electrons in ice, angstrom: what is scattered inelastically or beyond the aperture is lost."""
DAMAGE_PER_DOSE = 4.0
"""B-factor in square angstrom for each electron per square angstrom."""
MAX_TILT = 75.0
"""Degrees; what lies beside the box and overlaps with it grows with the tangent."""
DETECTOR_RIM = 100.0
"""Angstrom on each side."""
POINTS_PER_DIAMETER = 20
MOST_POINTS = 1e9
"""In a box; a tenth of them are in proteins, which some gigabytes hold."""
POINT_WIDTH = 0.6
"""Standard deviation of the Gaussians in units of the distance between points."""


def _ellipsoid(xyz: Points, centre: Place, semi_axes: Place) -> Mask:
    inside: Mask = (((xyz - np.array(centre)) / np.array(semi_axes)) ** 2).sum(axis=1) < 1
    return inside


def _ball(xyz: Points, centre: Place, radius: float) -> Mask:
    return _ellipsoid(xyz, centre, (radius, radius, radius))


def _rod(xyz: Points, start: Place, end: Place, radius: float) -> Mask:
    """Points nearer than `radius` to the line from start to end."""
    first, axis = np.array(start), np.array(end) - np.array(start)
    along = np.clip((xyz - first) @ axis / (axis @ axis), 0, 1)
    inside: Mask = np.linalg.norm(xyz - first - along[:, None] * axis, axis=1) < radius
    return inside


def _target(xyz: Points) -> Mask:
    """Two unequal lobes with a groove between them, a bridge and a stalk."""
    large = _ellipsoid(xyz, (0, 0, -0.21), (0.45, 0.40, 0.22))
    small = _ellipsoid(xyz, (0.06, 0.16, 0.30), (0.38, 0.30, 0.18))
    bridge = _rod(xyz, (-0.1, -0.05, -0.1), (-0.1, -0.05, 0.3), 0.09)
    stalk = _rod(xyz, (0.28, 0.15, -0.22), (0.50, 0.26, -0.12), 0.08)
    return large | small | bridge | stalk


def _decoy(xyz: Points) -> Mask:
    """A dented globule: the target's mass, more compact."""
    return _ellipsoid(xyz, (0, 0, 0), (0.45, 0.40, 0.365)) & ~_ball(xyz, (0.34, 0.26, 0.05), 0.16)


def _sphere(xyz: Points) -> Mask:
    """A hollow sphere, like ferritin."""
    return _ball(xyz, (0, 0, 0), 0.3) & ~_ball(xyz, (0, 0, 0), 0.19)


def _barrel(xyz: Points) -> Mask:
    """A hollow barrel with a cap at one end, like a proteasome."""
    from_axis = np.hypot(xyz[:, 0], xyz[:, 1])
    wall = (from_axis < 0.24) & (from_axis > 0.09) & (np.abs(xyz[:, 2]) < 0.33)
    return wall | _ellipsoid(xyz, (0.06, 0, 0.42), (0.22, 0.17, 0.12))


def _chain(xyz: Points) -> Mask:
    """Four unequal lobes along an arc."""
    one_end = _ball(xyz, (-0.52, 0.1, 0), 0.17) | _ball(xyz, (-0.2, -0.05, 0.03), 0.2)
    return one_end | _ball(xyz, (0.14, -0.08, -0.03), 0.18) | _ball(xyz, (0.45, 0.1, 0), 0.21)


def _small(xyz: Points) -> Mask:
    """A small globular protein."""
    return _ellipsoid(xyz, (0, 0, 0), (0.19, 0.16, 0.14))


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {"target": _target, "decoy": _decoy, "chain": _chain, "barrel": _barrel, "sphere": _sphere, "small": _small}
)
"""The protein species, large before small; none has any symmetry."""


@cache
def density(shape: Shape, seed: int = 0) -> Points:
    """Points of equal weight (n, 3) that make up a protein, in target diameters from its centre of mass.

    They are those of a jittered lattice of spacing 1 / POINTS_PER_DIAMETER that lie in the shape, so every species has
    the same density; `seed` fixes the jitter.
    """
    jitter = np.random.default_rng(seed)
    cells = np.indices((2 * POINTS_PER_DIAMETER,) * 3).reshape(3, -1).T - POINTS_PER_DIAMETER + 0.5
    lattice = (cells + jitter.uniform(-0.5, 0.5, cells.shape)) / POINTS_PER_DIAMETER
    inside = lattice[shape(lattice)]
    points: Points = inside - inside.mean(axis=0)
    return points


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """A scene and how it is imaged.

    Attributes:
        size: of the box along x, y, z, angstrom.
        voxel_size: of the reconstruction, angstrom.
        seed: of everything random.
        diameter: of the target, angstrom; the other proteins scale with it.
        counts: how many of each species of `shapes`, and of ``gold``, lie in the box.
        shapes: the protein species; they are placed one after the other, the first of them before the gold.
        vesicles: number of membranes around a centre in the box, cut where they leave box or ice.
        carbon: thickness of a carbon film at the lower face of the ice, angstrom; the edge of a hole in it crosses the
            box. 0 for none.
        ice: thickness of the ice, as a fraction of the box along z.
        gold_diameter: angstrom.
        dose: of the whole series, electrons per square angstrom: less is noisier.
        tilts: degrees, imaged from low to high tilt.
        defocus: mean, angstrom underfocus.
        defocus_jitter: standard deviation from tilt to tilt, angstrom.
        misalignment: standard deviation of the error of each tilt's shift along x and y, angstrom.
        phase_flip: correct the signs of the CTF at the mean defocus.
        pixel_size: of the detector, angstrom.

    Raises:
        InputError: a value is out of range.
    """

    size: tuple[float, float, float]
    voxel_size: float
    counts: Mapping[str, int]
    shapes: Mapping[str, Shape] = field(default_factory=lambda: dict(SHAPES))
    seed: int = 0
    diameter: float = 210.0
    vesicles: int = 1
    carbon: float = 0.0
    ice: float = 0.8
    gold_diameter: float = 100.0
    dose: float = 100.0
    tilts: tuple[float, ...] = tuple(range(-60, 61, 3))
    defocus: float = 40000.0
    defocus_jitter: float = 500.0
    misalignment: float = 3.0
    phase_flip: bool = True
    pixel_size: float = 5.0

    def __post_init__(self) -> None:
        positive = ("voxel_size", "diameter", "ice", "gold_diameter", "dose", "defocus", "pixel_size")
        for name in positive:
            _check(0 < getattr(self, name) < np.inf, name, "a positive number", getattr(self, name))
        for name in ("seed", "vesicles", "carbon", "defocus_jitter", "misalignment"):
            _check(0 <= getattr(self, name) < np.inf, name, "zero or a positive number", getattr(self, name))
        _check(len(self.size) == 3 and min(self.shape) >= 1, "size", "at least a voxel along x, y and z", self.size)
        least = (float(np.prod(self.size)) / MOST_POINTS) ** (1 / 3) * POINTS_PER_DIAMETER
        _check(self.diameter >= least, "diameter", f"at least {least:.0f} A in a box of this size", self.diameter)
        _check(self.ice <= 1, "ice", "a fraction of the box, at most 1", self.ice)
        _check(self.pixel_size <= self.voxel_size, "pixel_size", f"at most a voxel, {self.voxel_size}", self.pixel_size)
        steep = max(map(abs, self.tilts), default=90.0)
        _check(steep <= MAX_TILT, "tilts", f"some angles of at most {MAX_TILT:g} degrees", self.tilts)
        unknown = sorted(set(self.counts) - {*self.shapes, "gold"})
        _check(not unknown, "counts", f"species among {', '.join(self.shapes)}, gold", ", ".join(unknown))
        _check(all(count >= 0 for count in self.counts.values()), "counts", "no negative number", dict(self.counts))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the reconstruction along (z, y, x)."""
        x, y, z = (round(length / self.voxel_size) for length in self.size)
        return z, y, x

    @property
    def spacing(self) -> float:
        """Distance between the points of the specimen, angstrom."""
        return self.diameter / POINTS_PER_DIAMETER

    @property
    def ice_faces(self) -> tuple[float, float]:
        """Lower and upper face of the ice along z, angstrom."""
        z = self.size[2]
        return z * (1 - self.ice) / 2, z * (1 + self.ice) / 2


def _check(good: bool, name: str, expected: str, found: object) -> None:
    if not good:
        raise InputError(f"simulation: {name} is out of range", expected=expected, found=found)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated tomogram.

    Attributes:
        data: (z, y, x) float32, protein dark.
        voxel_size: angstrom.
        truth: columns x, y, z (voxels, 0 = centre of the first voxel) and species, the target first, then the others.
    """

    data: Image
    voxel_size: float
    truth: pd.DataFrame


DEMO_COUNTS = MappingProxyType(
    {"target": 80, "decoy": 80, "chain": 40, "barrel": 40, "sphere": 50, "small": 400, "gold": 8}
)
"""In 560 cubes of the target's diameter."""
PRESETS = MappingProxyType({"easy": (400.0, 0.2, 0.5), "normal": (350.0, 0.3, 1.6), "hard": (100.0, 1.0, 1.0)})
"""Dose, and how many decoys and other particles there are compared with DEMO_COUNTS."""


def demo_settings(seed: int) -> SimulationSettings:
    """The scene of `cetpick demo` and of the tests: the normal preset, 192 x 192 x 64 voxels of 13 angstrom.

    Less noisy than the preset, so that one draw of labels is like another, while blobs alone still do not tell species.
    """
    return replace(preset("normal", seed=seed), dose=600.0)


def preset(
    difficulty: Difficulty,
    *,
    seed: int,
    shape: tuple[int, int, int] = (64, 192, 192),
    voxel_size: float = 13.0,
    diameter: float = 210.0,
) -> SimulationSettings:
    """Settings of a crowded scene with a membrane and gold.

    Args:
        difficulty: easy, normal or hard, by dose, number of look-alikes and crowding.
        seed: of everything random.
        shape: voxels along (z, y, x); the numbers of particles grow with the volume.
        voxel_size: angstrom.
        diameter: of the target, angstrom.

    Raises:
        InputError: a value is out of range.
    """
    ParticleClass(diameter=diameter)  # checks it
    require_voxel_size(voxel_size)
    dose, look_alikes, others = PRESETS[difficulty]
    z, y, x = (length * voxel_size for length in shape)
    room = x * y * z / diameter**3 / 560
    shares = {"target": 1.0, "decoy": look_alikes}
    return SimulationSettings(
        size=(x, y, z),
        voxel_size=voxel_size,
        seed=seed,
        diameter=diameter,
        counts={species: round(n * room * shares.get(species, others)) for species, n in DEMO_COUNTS.items()},
        dose=dose,
    )


def simulate(settings: SimulationSettings) -> Simulation:
    """Make a tomogram; the same settings give the same tomogram.

    Raises:
        InputError: the particles do not fit into the box.
    """
    scene, noise = np.random.default_rng(settings.seed).spawn(2)
    truth, points, phase_shifts = _specimen(settings, scene)
    truth[["x", "y", "z"]] = truth[["x", "y", "z"]] / settings.voxel_size - 0.5
    data = _reconstruct(settings, _tilt_series(settings, points, phase_shifts, noise))
    return Simulation(data=data, voxel_size=settings.voxel_size, truth=truth)


class _Space:
    """Which cubes of a box are occupied."""

    def __init__(self, low: Points, high: Points, cube: float) -> None:
        self.low, self.cube = low, cube
        self.occupied = np.zeros(np.ceil((high - low) / cube).astype(int), dtype=bool)

    def _cubes(self, points: Points) -> tuple[NDArray[np.intp], ...]:
        return tuple(((points - self.low) / self.cube).astype(np.intp).T)

    def is_free(self, points: Points) -> bool:
        return not self.occupied[self._cubes(points)].any()

    def occupy(self, points: Points) -> None:
        self.occupied[self._cubes(points)] = True


def _specimen(settings: SimulationSettings, rng: np.random.Generator) -> tuple[pd.DataFrame, Points, Floats]:
    """Centres and species in the box; points (n, 3) and their phase shifts (n,), radian times square angstrom."""
    x, y, _ = settings.size
    bottom, top = settings.ice_faces
    # what lies beside the box along x overlaps with it in the projections at high tilt
    beside = (top - bottom) * float(np.tan(np.radians(np.abs(settings.tilts).max())))
    edges = {"box": (0.0, x), "left": (-beside, 0.0), "right": (x, x + beside)}
    space = _Space(np.array([-beside, 0.0, bottom]), np.array([x + beside, y, top]), 2 * settings.spacing)

    clouds = [_membrane(settings, rng) for _ in range(settings.vesicles)]
    masses = [LIPID_DENSITY * LEAFLET_THICKNESS * settings.spacing**2] * len(clouds)
    for cloud in clouds:
        space.occupy(cloud)
    if settings.carbon:
        film = _carbon(settings, rng, beside)
        space.occupy(film)
        clouds.append(film)
        masses.append(CARBON_DENSITY * settings.spacing**3)
    tables = []
    first, *others = settings.shapes
    for species in (first, "gold", *others):
        model, relative_density = _model(species, settings)
        for region, (left, right) in edges.items():
            count = round(settings.counts.get(species, 0) * (right - left) / x)
            low, high = np.array([left, 0.0, bottom]), np.array([right, y, top])
            centres, placed = _place(rng, model, count, low, high, space)
            clouds += placed
            masses += [relative_density * settings.spacing**3] * count
            if region == "box":
                tables.append(pd.DataFrame(centres, columns=["x", "y", "z"]).assign(species=species))
    points = np.concatenate([np.empty((0, 3)), *clouds])
    return pd.concat(tables, ignore_index=True), points, PHASE_PER_ANGSTROM * np.repeat(masses, list(map(len, clouds)))


def _model(species: str, settings: SimulationSettings) -> tuple[Points, float]:
    """Points (n, 3) around the centre, angstrom, and their density relative to protein."""
    if species != "gold":
        return density(settings.shapes[species], list(settings.shapes).index(species)) * settings.diameter, 1.0
    n = int(settings.gold_diameter / settings.spacing)
    lattice = (np.indices((2 * n + 1,) * 3).reshape(3, -1).T - n) * settings.spacing
    return lattice[np.linalg.norm(lattice, axis=1) < settings.gold_diameter / 2], GOLD_DENSITY


def _membrane(settings: SimulationSettings, rng: np.random.Generator) -> Points:
    """Points of the two leaflets of a vesicle around a random centre in the box, where they lie in box and ice."""
    x, y, _ = settings.size
    bottom, top = settings.ice_faces
    low, high = np.array([0, 0, bottom]), np.array([x, y, top])
    centre = rng.uniform(low, high)
    radius = rng.uniform(*VESICLE_RADII) * settings.diameter
    leaflets = []
    for distance in (radius - LEAFLET_DISTANCE / 2, radius + LEAFLET_DISTANCE / 2):
        directions = rng.normal(size=(round(4 * np.pi * (distance / settings.spacing) ** 2), 3))
        leaflets.append(centre + distance * directions / np.linalg.norm(directions, axis=1, keepdims=True))
    points = np.concatenate(leaflets)
    return points[((points >= low) & (points < high)).all(axis=1)]


def _carbon(settings: SimulationSettings, rng: np.random.Generator, beside: float) -> Points:
    """Points of a carbon film around a hole, in the box and as far as `beside` it along x."""
    x, y, _ = settings.size
    bottom, top = settings.ice_faces
    low, high = np.array([-beside, 0, bottom]), np.array([x + beside, y, min(top, bottom + settings.carbon)])
    numbers = ((high - low) / settings.spacing).astype(int)
    cells = np.indices(tuple(numbers)).reshape(3, -1).T
    points = low + (cells + rng.uniform(0, 1, cells.shape)) * settings.spacing
    direction = rng.uniform(0, 2 * np.pi)
    middle = HOLE_RADIUS - CARBON_REACH * min(x, y)
    hole = np.array([x / 2 - middle * np.cos(direction), y / 2 - middle * np.sin(direction)])
    film: Points = points[np.linalg.norm(points[:, :2] - hole, axis=1) > HOLE_RADIUS]
    return film


def _place(
    rng: np.random.Generator, model: Points, count: int, low: Points, high: Points, space: _Space
) -> tuple[Points, list[Points]]:
    """Put `count` randomly turned copies of a model between two corners where nothing is (random sequential addition).

    Returns:
        Centres (count, 3) and the points (n, 3) of each copy.
    """
    centres: list[Points] = []
    placed: list[Points] = []
    for _ in range(500 * count):
        if len(centres) == count:
            break
        centre = rng.uniform(low, high)
        points = Rotation.from_quat(rng.normal(size=4)).apply(model) + centre
        if (points >= low).all() and (points < high).all() and space.is_free(points):
            space.occupy(points)
            centres.append(centre)
            placed.append(points)
    if len(centres) < count:
        raise InputError(
            "the specimen does not fit into the box",
            expected=f"room for {count} particles of one species",
            found=f"room for {len(centres)}",
            cure="ask for fewer or smaller particles or a larger box",
        )
    return np.array(centres).reshape(-1, 3), placed


def _detector(settings: SimulationSettings) -> tuple[int, int]:
    """Pixels along (y, x): the shadow of the box at every tilt, and a rim for what the CTF spreads."""
    tilts = np.radians(settings.tilts)
    x, y, z = settings.size
    shadow = float((x * np.cos(tilts) + z * np.abs(np.sin(tilts))).max())
    rows, columns = (
        fft.next_fast_len(int(np.ceil((length + 2 * DETECTOR_RIM) / settings.pixel_size)), real=True)
        for length in (y, shadow)
    )
    return rows, columns


def _frequencies(shape: tuple[int, int], pixel_size: float) -> tuple[Floats, Floats]:
    """Frequencies ky (rows, 1) and kx (1, columns // 2 + 1) of a real Fourier transform, 1 / angstrom."""
    rows, columns = shape
    return fft.fftfreq(rows, pixel_size)[:, None], fft.rfftfreq(columns, pixel_size)[None, :]


def contrast_transfer(squared_frequency: Floats, defocus: float) -> Floats:
    """CTF of an image whose phase darkens it: sin(chi + asin(amplitude contrast)), positive at low frequency.

    chi = pi lambda defocus k^2 - pi / 2 Cs lambda^3 k^4 (Rohou & Grigorieff 2015, underfocus positive).

    Args:
        squared_frequency: k^2, 1 / square angstrom, any shape.
        defocus: angstrom.
    """
    phase = (
        np.pi
        * WAVELENGTH
        * squared_frequency
        * (defocus - SPHERICAL_ABERRATION * WAVELENGTH**2 * squared_frequency / 2)
    )
    transfer: Floats = np.sin(phase + np.arcsin(AMPLITUDE_CONTRAST))
    return transfer


def _tilt_series(
    settings: SimulationSettings, points: Points, phase_shifts: Floats, rng: np.random.Generator
) -> Iterator[tuple[float, Image]]:
    """Tilt angle in radian and image (rows, columns) relative to the mean intensity, one tilt after the other."""
    shape, pixel = _detector(settings), settings.pixel_size
    ky, kx = _frequencies(shape, pixel)
    squared = kx**2 + ky**2
    # the bilinear weights spread each point over a triangle, np.sinc(...)**2, which is taken back here
    spread = (np.sinc(kx * pixel) * np.sinc(ky * pixel)) ** 2
    blur = np.exp(-2 * (np.pi * POINT_WIDTH * settings.spacing) ** 2 * squared) / spread
    flip = np.sign(contrast_transfer(squared, settings.defocus)) if settings.phase_flip else np.ones_like(squared)
    centred = points - np.array(settings.size) / 2
    bottom, top = settings.ice_faces
    dose = settings.dose / len(settings.tilts)
    for number, tilt in enumerate(np.radians(sorted(settings.tilts, key=abs))):
        shadow = centred[:, 0] * np.cos(tilt) + centred[:, 2] * np.sin(tilt)
        phase = _deposit(shadow / pixel, centred[:, 1] / pixel, phase_shifts / pixel**2, shape)
        shift_x, shift_y = rng.normal(0, settings.misalignment, 2)
        defocus = settings.defocus + rng.normal(0, settings.defocus_jitter)
        moved = np.exp(-2j * np.pi * (kx * shift_x + ky * shift_y))
        damage = np.exp(-DAMAGE_PER_DOSE * dose * (number + 0.5) / 4 * squared)
        transfer = blur * moved * damage * contrast_transfer(squared, defocus)
        # weak phase: intensity = 1 - 2 phase; the exponential equals it to first order and stays positive in gold
        intensity = np.exp(-2 * fft.irfft2(fft.rfft2(phase) * transfer, shape))
        electrons = dose * pixel**2 * np.exp((bottom - top) / np.cos(tilt) / MEAN_FREE_PATH)
        image = rng.poisson(electrons * intensity) / electrons - 1
        yield tilt, fft.irfft2(fft.rfft2(image) * flip, shape).astype(np.float32)


def _deposit(x: Floats, y: Floats, weights: Floats, shape: tuple[int, int]) -> Floats:
    """Image (rows, columns) of weighted points at x, y pixels from its centre, with bilinear weights."""
    rows, columns = shape
    x, y = x + (columns - 1) / 2, y + (rows - 1) / 2
    seen = (x >= 0) & (x < columns - 1) & (y >= 0) & (y < rows - 1)
    x, y, weights = x[seen], y[seen], weights[seen]
    column, row = x.astype(np.intp), y.astype(np.intp)
    right, up = x - column, y - row
    corner = row * columns + column
    image = np.zeros(rows * columns)
    for step, share in (
        (0, (1 - up) * (1 - right)),
        (1, (1 - up) * right),
        (columns, up * (1 - right)),
        (columns + 1, up * right),
    ):
        image += np.bincount(corner + step, share * weights, rows * columns)
    return image.reshape(shape)


def _reconstruct(settings: SimulationSettings, series: Iterator[tuple[float, Image]]) -> Image:
    """Weighted back-projection, (z, y, x) float32."""
    rows, columns = shape = _detector(settings)
    ky, kx = _frequencies(shape, settings.pixel_size)
    # up to the Nyquist frequency of the voxels, with a soft edge
    lowpass = 1 / (1 + (2.1 * settings.voxel_size * np.hypot(kx, ky)) ** 20)
    weighting = (lowpass * np.abs(kx)).astype(np.float32)
    # linear interpolation needs at least two pixels a voxel
    finer = int(np.ceil(2 * settings.pixel_size / settings.voxel_size))
    pixel = settings.pixel_size / finer
    nz, ny, nx = settings.shape
    # voxel centres from the centre of the box
    z, y, x = (
        (np.arange(n) + 0.5) * settings.voxel_size - length / 2
        for n, length in zip(settings.shape, settings.size[::-1], strict=True)
    )
    along_y = _interpolation(y / pixel + (rows - 1) / 2 * finer, rows * finer)
    volume = np.zeros((nz * nx, ny), dtype=np.float32)
    for tilt, image in series:
        filtered = _refine(fft.rfft2(image) * weighting, shape, finer)
        shadow = (x * np.cos(tilt) + z[:, None] * np.sin(tilt)).ravel()
        along_x = _interpolation(shadow / pixel + (columns - 1) / 2 * finer, columns * finer)
        volume += along_x @ (along_y @ filtered).T
    return np.ascontiguousarray(volume.reshape(nz, nx, ny).transpose(0, 2, 1))


def _refine(transform: NDArray[np.complex64], shape: tuple[int, int], finer: int) -> Image:
    """The image of a real Fourier transform at `finer` times as many pixels, pixel i at i * finer."""
    rows, columns = shape
    positive = (rows + 1) // 2
    padded = np.zeros((rows * finer, columns * finer // 2 + 1), dtype=transform.dtype)
    padded[:positive, : transform.shape[1]] = transform[:positive]
    padded[positive - rows :, : transform.shape[1]] = transform[positive:]
    image: Image = fft.irfft2(padded, (rows * finer, columns * finer)) * np.float32(finer**2)
    return image


def _interpolation(place: NDArray[np.floating], pixels: int) -> sparse.csr_array:
    """Matrix (n, pixels) that reads a line of pixels at each place (n,), in pixels, linearly."""
    left = np.clip(np.floor(place).astype(np.intp), 0, pixels - 2)
    right = place - left
    entries = np.stack([1 - right, right], axis=1).astype(np.float32)
    columns = np.stack([left, left + 1], axis=1)
    return sparse.csr_array(
        (entries.ravel(), columns.ravel(), np.arange(0, entries.size + 1, 2)), shape=(len(place), pixels)
    )
