"""Where unlabelled particles probably are, and how many, told by two short trainings on halves of the labels.

Two kinds of unlabelled objects look like the labels: hidden particles, which must not be learned as background, and
look-alikes, which must. The score of the network being trained cannot tell them apart: it forgets the labels it does
not see as soon as it is taught that they are background, and what it is spared keeps its score. Two scouts can: each
learns from half of the labels, with all else as background, so that the labels it was not shown fare as hidden
particles do. Their ranks tell how many particles there are; and what both scouts, which share no label, rank high is
probably a particle. Those places are then neither positive nor negative for the final training; everything else,
look-alikes above all, is background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cetpick.calibration import estimate_count, label_ranks, label_scores, within
from cetpick.config import ModelSettings, TrainSettings
from cetpick.dataset import Example
from cetpick.geometry import Points
from cetpick.inference import find_candidates
from cetpick.modes.default import DefaultRecipe
from cetpick.optimisation import Progress, optimise

STEPS = 200
"""Of each scout."""
SAME_PLACE = 0.3
"""Candidates of the two scouts nearer than this, in diameters, are one."""


@dataclass(frozen=True, kw_only=True)
class Scouting:
    """What the scouts found.

    Attributes:
        count: estimated particles in all training tomograms together, labelled ones included.
        unlabelled: for each training tomogram (n, 3) x, y, z of its candidates away from labels, stored voxels.
        ranks: like unlabelled, (n,) rank among those of all tomograms, 1 = the best; the mean of both scouts.
    """

    count: float
    unlabelled: list[Points]
    ranks: list[NDArray[np.float64]]

    def likeliest(self, number: int) -> list[Points]:
        """The `number` best ranked candidates, by tomogram."""
        ranked = np.sort(np.concatenate(self.ranks))
        limit = ranked[min(number, len(ranked)) - 1] if number > 0 and len(ranked) else 0.0
        return [points[ranks <= limit] for points, ranks in zip(self.unlabelled, self.ranks, strict=True)]


def scout(
    settings: TrainSettings,
    model: ModelSettings,
    examples: Sequence[Example],
    device: torch.device,
    progress: Progress | None = None,
) -> Scouting:
    """Train the two scouts and compare their candidates.

    Args:
        settings: of the training; seed, batch and crops are used.
        model: working grid and network.
        examples: training tomograms with all their labels.
        device: where.
        progress: told of every step.
    """
    generator = np.random.default_rng(settings.seed)
    halves = [generator.permutation(len(e.labels)) % 2 for e in examples]
    steps = min(settings.steps or STEPS, STEPS)
    short = replace(settings, steps=steps, hidden="none")
    found, label_rank = [], []
    for half in (0, 1):
        known = [replace(e, labels=e.labels[h == half]) for e, h in zip(examples, halves, strict=True)]
        recipe = DefaultRecipe(known, settings=short, model=model, count=0.0, device=device)
        network, _ = optimise(recipe, progress, what=f"scout {half + 1} of 2")
        of_labels: list[NDArray[np.float64]] = []
        places: list[Points] = []
        scores: list[NDArray[np.float64]] = []
        for example, h in zip(known, halves, strict=True):
            radius = model.diameter / 2 / example.voxel_size
            xyz, score = candidates(network, model, example)
            unknown = ~within(xyz, example.labels, radius)
            hidden = examples[len(places)].labels[h != half]
            of_labels.append(label_scores(hidden, xyz[unknown], score[unknown], radius=radius))
            places.append(xyz[unknown])
            scores.append(score[unknown])
        pooled = np.concatenate(scores)
        label_rank.append(label_ranks(np.concatenate(of_labels), pooled))
        found.append((places, [label_ranks(s, pooled) for s in scores]))
    labels = sum(len(e.labels) for e in examples)
    joined = [
        _join(example, model.diameter, *scouts) for example, *scouts in zip(examples, *map(_pairs, found), strict=True)
    ]
    return Scouting(
        count=max(float(labels), estimate_count(np.concatenate(label_rank)) + labels / 2),
        unlabelled=[points for points, _ in joined],
        ranks=[ranks for _, ranks in joined],
    )


def candidates(network: Any, model: ModelSettings, example: Example) -> tuple[Points, NDArray[np.float64]]:
    """Places (n, 3), stored voxels, and scores (n,) of the candidates in a training tomogram."""
    table = find_candidates(network, example.prepared, example.tomogram.info.grid, model)
    return table[["x", "y", "z"]].to_numpy(), table["score"].to_numpy()


Ranked = tuple[Points, NDArray[np.float64]]


def _pairs(found: tuple[list[Points], list[NDArray[np.float64]]]) -> list[Ranked]:
    return list(zip(*found, strict=True))


def _join(example: Example, diameter: float, first: Ranked, second: Ranked) -> Ranked:
    """Candidates of the first scout away from all labels, with the geometric mean of their ranks in both."""
    away = ~within(first[0], example.labels, diameter / 2 / example.voxel_size)
    points, ranks = first[0][away], first[1][away]
    lowest = float(second[1].max(initial=1.0))
    others = np.full(len(points), lowest)
    if len(second[0]) and len(points):
        near = cKDTree(second[0]).query_ball_point(points, SAME_PLACE * diameter / example.voxel_size)
        others = np.array([second[1][n].min(initial=lowest) for n in near])
    return points, np.sqrt(ranks * others)
