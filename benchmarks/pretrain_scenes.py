"""Scenes of random proteins, from which the weights that every training starts with are learned (pretrain.py).

python benchmarks/pretrain_scenes.py FOLDER FIRST LAST
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cetpick.errors import InputError
from cetpick.geometry import Points
from cetpick.io.mrc import write_mrc
from cetpick.simulate import Mask, Shape, SimulationSettings, simulate

DIAMETER = 200.0
"""Angstrom, of the sphere around a target of nominal size."""
SHAPE = (64, 192, 192)
"""Voxels (z, y, x) of a scene."""
ROOM = 0.055
"""Share of the box that proteins fill, at most; a crowded cytosol has about a quarter, dilute samples far less."""


def random_shape(rng: np.random.Generator, diameter: float) -> Shape:
    """A random protein that a sphere of `diameter` (in target diameters) around its centre of mass encloses."""
    parts = _globules(rng) if rng.random() < 0.8 else _hollow(rng)
    symmetry = int(rng.choice([1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8]))
    ring = rng.uniform(0.1, 0.4) if symmetry > 1 else 0.0
    dihedral = symmetry > 1 and rng.random() < 0.4
    rise = rng.uniform(0.1, 0.4)

    def raw(xyz: Points) -> Mask:
        inside = np.zeros(len(xyz), bool)
        for copy in range(symmetry):
            turned = Rotation.from_euler("z", 360 / symmetry * copy, degrees=True).apply(xyz)
            inside |= parts(turned - [ring, 0, rise if dihedral else 0])
            if dihedral:
                inside |= parts(turned * [1, -1, -1] - [ring, 0, rise])
        return inside

    # its centre of mass and reach, from a coarse lattice
    lattice = (np.indices((40,) * 3).reshape(3, -1).T - 19.5) / 10
    points = lattice[raw(lattice)]
    if len(points) < 8:
        return random_shape(rng, diameter)
    centre = points.mean(axis=0)
    reach = np.linalg.norm(points - centre, axis=1).max() + 0.05
    scale = 2 * reach / diameter
    return lambda xyz: raw(xyz * scale + centre)


def _globules(rng: np.random.Generator) -> Shape:
    """A chain of ellipsoids, perhaps with grooves."""
    count = int(rng.integers(1, 7))
    steps = rng.normal(0, 0.3, (count, 3))
    centres = np.cumsum(steps, axis=0) if rng.random() < 0.5 else steps
    axes = rng.uniform(0.12, 0.45, (count, 1)) * rng.uniform(0.6, 1.4, (count, 3))
    turns = Rotation.random(count, random_state=rng)
    dents = rng.normal(0, 0.4, (int(rng.integers(0, 3)), 3))

    def inside(xyz: Points) -> Mask:
        found = np.zeros(len(xyz), bool)
        for number in range(count):
            found |= ((turns[number].apply(xyz - centres[number]) / axes[number]) ** 2).sum(axis=1) < 1
        for dent in dents:
            found &= np.linalg.norm(xyz - dent, axis=1) > 0.2
        return found

    return inside


def _hollow(rng: np.random.Generator) -> Shape:
    """A shell or a barrel."""
    thickness = rng.uniform(0.25, 0.6)
    if rng.random() < 0.5:
        return lambda xyz: (np.linalg.norm(xyz, axis=1) < 0.6) & (np.linalg.norm(xyz, axis=1) > 0.6 * (1 - thickness))
    length = rng.uniform(0.3, 0.8)

    def barrel(xyz: Points) -> Mask:
        from_axis = np.hypot(xyz[:, 0], xyz[:, 1])
        return (from_axis < 0.4) & (from_axis > 0.4 * (1 - thickness)) & (np.abs(xyz[:, 2]) < length)

    return barrel


def scene_settings(seed: int) -> SimulationSettings:
    """A scene of a dozen species, six of them of about the nominal diameter (``kind-0`` to ``kind-5``)."""
    rng = np.random.default_rng([2026, seed])
    sizes = [*rng.uniform(0.8, 1.2, 6), *rng.uniform(0.35, 0.75, 4), *rng.uniform(1.25, 1.7, 2)]
    shapes = {f"kind-{n}": random_shape(rng, size) for n, size in enumerate(sizes)}
    numbers = np.concatenate([rng.integers(25, 70, 6), rng.integers(20, 120, 4), rng.integers(3, 15, 2)])
    order = sorted(shapes, key=lambda name: -sizes[int(name[5:])])
    voxel_size = DIAMETER / rng.uniform(14, 19)
    z, y, x = (n * voxel_size for n in SHAPE)
    crowding = rng.uniform(0.5, 1.3) * x * y * z / (DIAMETER**3 * 560)
    counts = {f"kind-{n}": round(number * crowding) for n, number in enumerate(numbers)}
    return SimulationSettings(
        size=(x, y, z),
        voxel_size=voxel_size,
        seed=seed,
        diameter=DIAMETER,
        shapes={name: shapes[name] for name in order},
        counts={**counts, "gold": int(rng.integers(0, 10))},
        vesicles=int(rng.integers(0, 3)),
        dose=float(np.exp(rng.uniform(np.log(10), np.log(150)))),
        defocus=float(rng.uniform(25000, 50000)),
        misalignment=float(rng.uniform(1, 6)),
    )


def main(folder: Path, first: int, last: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, last):
        start = time.monotonic()
        if (folder / f"{seed:03d}.csv").exists():
            continue
        try:
            scene = simulate(scene_settings(seed))
        except InputError as error:  # too crowded
            print(seed, "skipped:", error.problem, flush=True)
            continue
        write_mrc(folder / f"{seed:03d}.mrc", scene.data, voxel_size=scene.voxel_size)
        scene.truth.to_csv(folder / f"{seed:03d}.csv", index=False)
        counts = scene.truth["species"].value_counts()
        print(seed, f"{time.monotonic() - start:.0f} s", dict(counts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
