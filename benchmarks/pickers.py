"""The methods that accuracy.py compares, each with the command line of `cetpick pick`.

    python benchmarks/pickers.py METHOD TOMOGRAM... --train T --labels L --diameter A --output OUT [...]

METHOD is one of METHODS. `trees` needs scikit-learn (pip install scikit-learn), which nothing else here does. All write
OUT/candidates/<name>.csv (x, y, z, score) and OUT/run.json, whose `threshold` is the method's own cut, if it has one.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from cetpick.baselines import SPACING, difference_of_gaussians
from cetpick.config import ModelSettings, ParticleClass
from cetpick.geometry import Points
from cetpick.io.coordinates import read_coordinates
from cetpick.io.table import write_table
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.peaks import local_maxima, refine, suppress
from cetpick.preprocess import prepare
from cetpick.voxels import Volume

Found = tuple[Points, NDArray[np.float64]]

VOXELS_PER_DIAMETER = 12
"""Of the grid that the trees see."""
SCALES = (0.08, 0.14, 0.24, 0.4, 0.65)
"""Widths of their filters, diameters."""
ON_LABEL, OFF_LABEL = 0.15, 0.5
"""Voxels nearer to a label than this (diameters) are positive; negative ones are drawn beyond that."""
NEGATIVES, ENSEMBLES = 20_000, 3
SMOOTHING = 0.1
"""Width of the Gaussian that the probabilities are smoothed with, diameters."""
FLOOR = 1e-3


def tool(arguments: Sequence[str], *, mode: str | None = None, paper: Mapping[str, Any] | None = None) -> None:
    """`cetpick pick`, with other settings of `paper` mode if given: they are no options of the command."""
    from cetpick import training
    from cetpick.cli import main

    if paper:
        training.PaperSettings = functools.partial(training.PaperSettings, **paper)  # type: ignore[misc, assignment]
    sys.argv = ["cetpick", "pick", *arguments, *(["--mode", mode] if mode else [])]
    main()


def blobs(arguments: Sequence[str]) -> None:
    """Difference of Gaussians of the true diameter; labels and seed do not matter."""
    options = parsed(arguments)

    def pick(path: Path) -> Found:
        tomogram = read_tomogram(read_info(path))
        size = options.diameter / tomogram.info.grid.voxel_size
        return difference_of_gaussians(tomogram.data.astype(np.float32), diameter=size)

    pick_all(options, pick)


def trees(arguments: Sequence[str]) -> None:
    """Boosted trees on filter responses of single voxels; everything unlabelled is taken as background."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    options = parsed(arguments)
    spacing = options.diameter / VOXELS_PER_DIAMETER
    settings = ModelSettings(classes=(ParticleClass(diameter=options.diameter),), voxel_size=(spacing,) * 3)

    def prepared(path: Path) -> tuple[Volume, float]:
        tomogram = read_tomogram(read_info(path))
        return prepare(tomogram, settings).volume, tomogram.info.grid.voxel_size

    volume, voxel_size = prepared(options.train)
    labels = (read_coordinates(options.labels)[0].xyz + 0.5) * voxel_size / spacing - 0.5
    zyx = np.indices(volume.shape).reshape(3, -1).T
    distance, _ = cKDTree(labels[:, ::-1]).query(zyx, distance_upper_bound=OFF_LABEL * VOXELS_PER_DIAMETER)
    positive = np.flatnonzero(distance <= ON_LABEL * VOXELS_PER_DIAMETER)
    negative = np.flatnonzero(np.isinf(distance))
    responses = features(volume)
    rng = np.random.default_rng(options.seed)
    models = []
    for seed in rng.integers(2**31, size=ENSEMBLES).tolist():
        chosen = np.concatenate([positive, rng.choice(negative, min(NEGATIVES, len(negative)), replace=False)])
        model = HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.06, max_leaf_nodes=12, min_samples_leaf=20, l2_regularization=5.0,
            max_features=0.3, class_weight="balanced", early_stopping=False, random_state=seed,
        )  # fmt: skip
        models.append(model.fit(responses[chosen], np.arange(len(chosen)) < len(positive)))

    def pick(path: Path) -> Found:
        volume, voxel_size = prepared(path)
        responses = features(volume)
        margin = np.mean([model.decision_function(responses) for model in models], axis=0)
        heatmap = expit(margin).astype(np.float32).reshape(volume.shape)
        heatmap = ndimage.gaussian_filter(heatmap, SMOOTHING * VOXELS_PER_DIAMETER)
        cells = local_maxima(heatmap, floor=FLOOR)
        scores = heatmap[tuple(cells.T)].astype(np.float64)
        centres = refine(heatmap, cells)[:, ::-1]
        kept = suppress(centres, scores, distance=SPACING * VOXELS_PER_DIAMETER)
        return (centres[kept] + 0.5) * spacing / voxel_size - 0.5, scores[kept]

    pick_all(options, pick)


def features(volume: Volume) -> NDArray[np.float32]:
    """Filter responses (voxels, features) of a volume (z, y, x) at SCALES.

    At each scale: Gaussian, gradient magnitude, Laplacian, standard deviation, and the eigenvalues of the Hessian, all
    in units of the scale.
    """
    columns: list[NDArray[np.float32]] = []
    for width in np.array(SCALES) * VOXELS_PER_DIAMETER:
        mean = ndimage.gaussian_filter(volume, width)
        spread = np.sqrt(np.maximum(ndimage.gaussian_filter(volume**2, width) - mean**2, 0))
        gradient = np.gradient(mean * width)
        hessian = np.empty((*volume.shape, 3, 3), np.float32)
        for i, slope in enumerate(gradient):
            for j, second in enumerate(np.gradient(slope * width)):
                hessian[..., i, j] = second
        curvatures = np.linalg.eigvalsh(hessian)
        magnitude = np.sqrt(sum(slope**2 for slope in gradient))
        columns += [mean, magnitude, curvatures.sum(axis=-1), spread, *np.moveaxis(curvatures, -1, 0)]
    return np.stack([column.ravel() for column in columns], axis=1)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of `cetpick pick` that the methods outside of it need."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tomograms", nargs="+", type=Path)
    for name in ("train", "labels", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--diameter", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def pick_all(options: argparse.Namespace, pick: Callable[[Path], Found]) -> None:
    """Pick the tomograms and write candidates and run.json as the tool does."""
    (options.output / "candidates").mkdir(parents=True, exist_ok=True)
    for path in options.tomograms:
        xyz, scores = pick(path)
        table = pd.DataFrame(xyz, columns=["x", "y", "z"]).assign(score=scores)
        write_table(options.output / "candidates" / f"{read_info(path).name}.csv", table)
    (options.output / "run.json").write_text(json.dumps({"threshold": None}) + "\n")


METHODS: dict[str, Callable[[Sequence[str]], None]] = {
    "default": tool,
    "paper": functools.partial(tool, mode="paper"),
    "paper-no-contrastive": functools.partial(tool, mode="paper", paper={"contrastive_weight": 0.0}),
    "paper-no-pu": functools.partial(tool, mode="paper", paper={"unlabelled": "negative"}),
    "blobs": blobs,
    "trees": trees,
}
TRAINED_BY_STEPS = ("default", "paper", "paper-no-contrastive", "paper-no-pu")


if __name__ == "__main__":
    METHODS[sys.argv[1]](sys.argv[2:])
