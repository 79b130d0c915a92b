"""Where unlabelled particles probably are, and how many, told by two short trainings on halves of the labels.

Two kinds of unlabelled objects look like the labels: hidden particles, which must not be learned as background, and
look-alikes, which must. The score of the network being trained cannot tell them apart: it forgets the labels it does
not see as soon as it is taught that they are background, and what it is spared keeps its score. Two scouts can: each
learns from half of the labels, with all else as background, so that the labels it was not shown fare as hidden
particles do. Their ranks tell how many particles there are; and what both scouts, which share no label, rank high is
probably a particle. Those places hardly count as background in the training that follows; everything else does, and
most look-alikes are among it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logit

from cetpick.calibration import (
    Count,
    doubted,
    estimate_count,
    hinted,
    label_matches,
    label_ranks,
    label_scores,
    stray_labels,
    widened,
    within,
)
from cetpick.config import ModelSettings, TrainSettings
from cetpick.contrast import measure_response, outshone
from cetpick.dataset import Example
from cetpick.errors import CetpickWarning
from cetpick.geometry import Points
from cetpick.inference import find_candidates
from cetpick.mixture import fit
from cetpick.modes.default import STEPS as FULL_STEPS
from cetpick.modes.default import DefaultRecipe
from cetpick.optimisation import Progress, optimise
from cetpick.resume import Checkpoint

STEPS = 1 / 5
"""Length of each scout's training, as a fraction of the final one."""
SAME_PLACE = 0.3
"""Candidates of the two scouts nearer than this, in diameters, are one."""
NEAR = 0.45
"""A scout's candidate within so many diameters of a hidden label is that particle: others are a diameter away from it,
and farther from its label."""
USUAL, FINEST = 0.065, 16.0
"""Scatter of exact labels about the centres that scouts see, at most: diameters, or angstrom if that is more
(docs/experiments.md); how well a small particle is placed is a matter of the resolution."""
ENOUGH = 8
"""Labels that have to be found again to tell it."""
STILL = 0.3
"""Standard deviation of the logarithm of the scouts' number by look-alikes that these rank, and score, as particles."""
BLANK = 0.8
"""At places with density at least this share of a tomogram answers less to a blob filter."""
BOTH = 2
"""Marks labels that both scouts are shown."""


Ranks = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scout:
    """How one of them fared.

    Attributes:
        log: of its training, one dictionary a step.
        ranks: (n,) of the labels that it was not shown among its candidates; infinite where one was not found.
    """

    log: list[dict[str, float]]
    ranks: Ranks

    @property
    def hidden(self) -> int:
        """How many labels it was not shown."""
        return len(self.ranks)

    @property
    def found(self) -> int:
        """How many of these are among its candidates."""
        return int(np.isfinite(self.ranks).sum())


@dataclass(frozen=True, kw_only=True)
class Scouting:
    """What the scouts found.

    Attributes:
        count: particles in all training tomograms together, labelled ones included.
        unlabelled: for each training tomogram (n, 3) x, y, z of its candidates away from labels and rejected places,
            stored voxels.
        ranks: like unlabelled, (n,) rank among those of all tomograms, 1 = the best, the geometric mean of both
            scouts; infinite where only one found something.
        labels: for each training tomogram its labels (n, 3), moved towards the centres if they lie beside them; those
            that are stray as well.
        stray: for each which of its labels (n,) are probably no particles: they rank far behind the others, and nothing
            is seen there.
        scatter: how far labels typically lie from where the scout that was not shown them puts them, diameters.
        scouts: the two.
    """

    count: Count
    unlabelled: list[Points]
    ranks: list[Ranks]
    labels: list[Points]
    stray: list[NDArray[np.bool_]]
    scatter: float
    scouts: Sequence[Scout] = ()

    def doubtful(self, hidden: float) -> list[Points]:
        """The best ranked candidates, by tomogram, if `hidden` particles are unlabelled in all of them together."""
        return [points for points, _ in best_ranked(self.unlabelled, self.ranks, hidden)]


def best_ranked(
    points: Sequence[Points], ranks: Sequence[Ranks], number: float
) -> list[tuple[Points, NDArray[np.intp]]]:
    """The best ranked points of all tomograms together, by tomogram, each with its place in that list, 0 for the best.

    Args:
        points: (n, 3) of each tomogram.
        ranks: (n,) of each tomogram, the lowest is the best; those that are infinite are never among them.
        number: how many there are at most.
    """
    pooled = np.concatenate(ranks)
    places = np.empty(len(pooled), np.intp)
    places[np.argsort(pooled, kind="stable")] = np.arange(len(pooled))
    chosen = (places < round(number)) & np.isfinite(pooled)
    ends = np.cumsum([len(of) for of in ranks])[:-1]
    split = zip(points, np.split(chosen, ends), np.split(places, ends), strict=True)
    return [(of[these], place[these]) for of, these, place in split]


def scout(
    settings: TrainSettings,
    model: ModelSettings,
    examples: Sequence[Example],
    device: torch.device,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Scouting:
    """Train the two scouts and compare their candidates.

    Args:
        settings: of the training; seed, batch, crops and the expected count are used.
        model: working grid and network.
        examples: training tomograms with all their labels. Both scouts are shown those that were chosen: found among
            what a network ranks low, or high, they tell nothing of where other particles rank. What lies within half a
            diameter of a rejected place is background to both scouts, and no candidate.
        device: where.
        progress: told of every step.
        checkpoint: where to go on from and to save the state.
    """
    halves = _halves([e.fair for e in examples], settings.seed)
    short = replace(
        settings, steps=max(1, round(STEPS * (settings.steps or FULL_STEPS[settings.start]))), hidden="none"
    )
    found, scouts, listed, hidden_labels = [], [], [], []
    seen = [np.full_like(e.labels, np.nan) for e in examples]
    ranks, around = (np.full(sum(len(e.labels) for e in examples), np.nan) for _ in range(2))
    for half in (0, 1):
        known = [replace(e, labels=e.labels[h != 1 - half]) for e, h in zip(examples, halves, strict=True)]
        recipe = DefaultRecipe(known, settings=short.of_part(2 + half), model=model, count=0.0, device=device)
        network, log = optimise(recipe, progress, what=f"scout {half + 1} of 2", checkpoint=checkpoint)
        looks = [
            _look(network, model, known_of, of.labels[h == 1 - half])
            for known_of, of, h in zip(known, examples, halves, strict=True)
        ]
        for centres, h, look in zip(seen, halves, looks, strict=True):
            centres[h == 1 - half] = look.centres
        pooled = np.concatenate([look.scores for look in looks])
        hidden_labels.append(np.concatenate(halves) == 1 - half)
        ranks[hidden_labels[-1]] = label_ranks(np.concatenate([look.at_hidden for look in looks]), pooled)
        around[hidden_labels[-1]] = label_ranks(np.concatenate([look.around_hidden for look in looks]), pooled)
        listed.append(pooled)
        scouts.append(Scout(log=log, ranks=ranks[hidden_labels[-1]]))
        found.append([(look.places, label_ranks(look.scores, pooled)) for look in looks])
    joined = [_join(e, model.diameter, *pair) for e, *pair in zip(examples, *found, strict=True)]
    shortest = min(map(len, listed))
    stray = _behind(ranks, around, shortest)
    if stray.any():
        stray &= np.concatenate([_blank(e, model.diameter) for e in examples])
    told = np.concatenate([ranks[of & ~stray] for of in hidden_labels])
    # each scout was shown half of the labels, and all that were chosen: they are not among the candidates it is counted
    # with
    labels = int((~stray).sum())
    shown = labels - len(told) / 2
    hint = None if settings.count_hint is None else max(1.0, settings.count_hint * len(examples) - shown)
    hidden = doubted(estimate_count(told, shortest))
    if hint is not None:
        hidden = hinted(hidden, hint)
    hidden = widened(_with_scores(hidden, listed), STILL)
    if np.isinf(told).mean() > 0.5:
        warnings.warn(
            f"{np.isinf(told).sum()} of {len(told)} labels were not found again by a network trained on the others; "
            "the estimated number of particles and the threshold mean little. Check the labels and the diameter, or "
            "label more particles",
            CetpickWarning,
            stacklevel=2,
        )
    strays = np.split(stray, np.cumsum([len(e.labels) for e in examples])[:-1])
    for centres, of in zip(seen, strays, strict=True):
        centres[of] = np.nan
    moved, scatter = recentre(
        [e.labels for e in examples],
        seen,
        [model.diameter / e.voxel_size for e in examples],
        usual=max(USUAL, FINEST / model.diameter),
    )
    return Scouting(
        labels=moved,
        stray=strays,
        scatter=scatter,
        scouts=scouts,
        count=Count(*(max(float(labels), number + shown) for number in hidden)),
        unlabelled=[points for points, _ in joined],
        ranks=[ranks for _, ranks in joined],
    )


class _Look(NamedTuple):
    """What a scout makes of a tomogram.

    Attributes:
        places: (n, 3) of its candidates away from labels it was shown and from rejected places, stored voxels.
        scores: (n,) of these.
        at_hidden: (k,) scores at the labels it was not shown, 0 where it found nothing.
        around_hidden: (k,) the best scores within a diameter of these, of all candidates.
        centres: (k, 3) where it sees them, NaN where it found nothing near.
    """

    places: Points
    scores: Ranks
    at_hidden: Ranks
    around_hidden: Ranks
    centres: Points


def _look(network: Any, model: ModelSettings, known: Example, hidden: Points) -> _Look:
    """See _Look.

    Args:
        network: the scout.
        model: working grid and network.
        known: a tomogram with the labels that it was shown.
        hidden: (k, 3) those that it was not, stored voxels.
    """
    diameter = model.diameter / known.voxel_size
    xyz, score = candidates(network, model, known)
    unknown = ~within(xyz, np.vstack([known.labels, known.rejected]), diameter / 2)
    places, scores = xyz[unknown], score[unknown]
    matches = label_matches(hidden, places, scores, radius=NEAR * diameter)
    return _Look(
        places=places,
        scores=scores,
        at_hidden=label_scores(hidden, places, scores, radius=diameter / 2),
        # a label that was not found may be one with a neighbour that was
        around_hidden=label_scores(hidden, xyz, score, radius=diameter),
        centres=np.vstack([places, np.full(3, np.nan)])[matches],
    )


def _behind(ranks: Ranks, around: Ranks, candidates: int) -> NDArray[np.bool_]:
    """Which labels (n,) rank far behind the others, see stray_labels.

    Args:
        ranks: (n,) of all labels; NaN for those that both scouts were shown, which tell nothing.
        around: like ranks, of what is best within a diameter of each.
        candidates: how many there are.
    """
    behind = np.zeros(len(ranks), bool)
    tried = ~np.isnan(ranks)
    # what a scout learned by heart may score above all that is unlabelled
    behind[tried] = stray_labels(np.where(np.isinf(ranks), np.maximum(around, 1), ranks)[tried], candidates)
    return behind


def _blank(example: Example, diameter: float) -> NDArray[np.bool_]:
    """At which labels (n,) of a tomogram no density of the particle's size is seen; at none unless it is at most."""
    tomogram = example.tomogram
    shares = outshone(measure_response(tomogram.data, tomogram.info.grid, diameter=diameter), example.labels)
    blank: NDArray[np.bool_] = shares < BLANK
    return blank if 2 * blank.sum() < len(blank) else np.zeros(len(blank), bool)


def _with_scores(hidden: Count, scores: Sequence[Ranks]) -> Count:
    """The count, with what both scouts' scores tell besides, in the mean.

    Args:
        hidden: particles among the candidates, told by ranks.
        scores: (n,) of the candidates of each scout.
    """
    fits = [found for of in scores if hidden.low > 0 and (found := fit(logit(of), hidden)) is not None]
    if len(fits) < len(scores):
        return hidden
    return Count(*np.exp(np.log([f.count for f in fits]).mean(axis=0)).tolist())


def recentre(
    labels: Sequence[Points], seen: Sequence[Points], diameters: Sequence[float], *, usual: float = USUAL
) -> tuple[list[Points], float]:
    """Move labels that lie beside the centres towards where a network that was not shown them sees these.

    Careful labels scatter about such centres by less than usual, as the network is not exact either, and stay. What the
    scatter of others has beyond that is their own, and decides how far they go.

    Args:
        labels: (n, 3) of each tomogram.
        seen: like labels, NaN where nothing was found nearby.
        diameters: of the particle in each tomogram, in units of the labels.
        usual: scatter, diameters.

    Returns:
        The labels, and their median distance from the centres in diameters, 0 when too few were found.

    Warns:
        CetpickWarning: they were moved.
    """
    shifts = [centres - given for given, centres in zip(labels, seen, strict=True)]
    far = np.concatenate([np.linalg.norm(s, axis=1) / d for s, d in zip(shifts, diameters, strict=True)])
    far = far[np.isfinite(far)]
    if len(far) < ENOUGH:
        return list(labels), 0.0
    scatter = float(np.median(far))
    weight = 1 - (usual / scatter) ** 2 if scatter > usual else 0.0
    if weight > 0:
        warnings.warn(
            f"labels lie beside the particles' centres as a network trained on the others sees them, typically by "
            f"{scatter:.0%} of the diameter; {len(far)} of them were moved towards these centres for the training. "
            "the report of the training draws both",
            CetpickWarning,
            stacklevel=3,
        )
    return [given + weight * np.nan_to_num(shift) for given, shift in zip(labels, shifts, strict=True)], scatter


def candidates(network: Any, model: ModelSettings, example: Example) -> tuple[Points, NDArray[np.float64]]:
    """Places (n, 3), stored voxels, and scores (n,) of the candidates in a training tomogram."""
    table = find_candidates(network, example.prepared, example.tomogram.info.grid, model)
    return table[["x", "y", "z"]].to_numpy(), table["score"].to_numpy()


def _halves(fair: Sequence[NDArray[np.bool_]], seed: int) -> list[NDArray[np.int64]]:
    """For the labels of each tomogram a 0 or 1, half of all fair ones each, and BOTH for the others."""
    pooled = np.concatenate(fair)
    halves = np.full(len(pooled), BOTH)
    halves[pooled] = np.random.default_rng(seed).permutation(pooled.sum()) % 2
    return np.split(halves, np.cumsum([len(of) for of in fair])[:-1])


def _join(
    example: Example, diameter: float, first: tuple[Points, Ranks], second: tuple[Points, Ranks]
) -> tuple[Points, Ranks]:
    """Candidates of the first scout away from all labels, with the geometric mean of their ranks in both.

    What the second scout did not find ranks behind everything.
    """
    away = ~within(first[0], example.labels, diameter / 2 / example.voxel_size)
    points, ranks = first[0][away], first[1][away]
    others = np.full(len(points), np.inf)
    if len(second[0]) and len(points):
        near = cKDTree(second[0]).query_ball_point(points, SAME_PLACE * diameter / example.voxel_size)
        others = np.array([second[1][n].min(initial=np.inf) for n in near])
    return points, np.sqrt(ranks * others)
