"""Did training work? What the network makes of its own training tomograms, and what to do when that is nonsense."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cetpick.calibration import label_scores
from cetpick.errors import CetpickWarning, TrainingError
from cetpick.geometry import Points

NOTHING_LEARNED = 0.05
"""A network whose best score is below this has learned nothing."""
SATURATED = 0.3
"""Share of a tomogram that particles can fill; beyond it everything is a particle to the network."""
UNLIKE = 0.2
"""Share of labels below the threshold from which they are worth a warning."""
LISTED = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A training tomogram seen by the network that was trained on it; lengths in stored voxels.

    Attributes:
        name: of the tomogram.
        labels: (n, 3) x, y, z.
        candidates: (m, 3) x, y, z.
        scores: (m,) of the candidates.
        volume: of the tomogram, cubic voxels.
        radius: of the particle.
    """

    name: str
    labels: Points
    candidates: Points
    scores: Floats
    volume: float
    radius: float


def require_learned(outcomes: Sequence[Outcome]) -> None:
    """Make sure that training worked.

    Args:
        outcomes: of all training tomograms, with the network's own scores.

    Raises:
        TrainingError: the scores are constant or hopeless: nothing was learned, or everything is a particle.
    """
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    best = scores.max(initial=0.0)
    cure = "look at the labels with `cetpick check`, check --diameter, label more particles, or try another --seed"
    if best < NOTHING_LEARNED or (len(scores) > 1 and np.ptp(scores) == 0):
        raise TrainingError(
            "training failed: the network tells nothing apart",
            expected="high scores at the labels and low ones elsewhere",
            found=f"{len(scores)} candidates with scores from {scores.min(initial=best):.3g} to {best:.3g}",
            cure=cure,
        )
    for outcome in outcomes:
        filled = (outcome.scores >= 0.5).sum() * 4 / 3 * np.pi * outcome.radius**3 / outcome.volume
        if filled > SATURATED:
            raise TrainingError(
                f"training failed: nearly everything in {outcome.name} is a particle to the network",
                expected=f"particles that fill at most {SATURATED:.0%} of a tomogram",
                found=f"{filled:.0%}",
                cure=cure,
            )


def warn_of_unlike(outcomes: Sequence[Outcome], threshold: float) -> None:
    """Name labels that the network does not take for particles.

    Args:
        outcomes: of all training tomograms.
        threshold: score from which a candidate is a pick.

    Warns:
        CetpickWarning: there are many, which are unlike the others.
    """
    missed, total = [], 0
    for outcome in outcomes:
        of_labels = label_scores(outcome.labels, outcome.candidates, outcome.scores, radius=outcome.radius)
        total += len(of_labels)
        missed += [
            (score, _place(outcome.name, xyz))
            for score, xyz in zip(of_labels, outcome.labels, strict=True)
            if score < threshold
        ]
    if len(missed) > UNLIKE * total:
        places = "; ".join(place for _, place in sorted(missed)[:LISTED])
        warnings.warn(
            f"{len(missed)} of {total} labels look unlike the others to the network trained on them and score below "
            f"the threshold. The most unlike: {places}. Are they the same particle, and centred? `cetpick check` draws "
            "them",
            CetpickWarning,
            stacklevel=2,
        )


def warn_of_stray(names: Sequence[str], stray: Sequence[Points], labels: int) -> None:
    """Name labels that are probably no particles.

    Args:
        names: of the tomograms.
        stray: (n, 3) x, y, z of such labels in each.
        labels: how many there are of all kinds together.

    Warns:
        CetpickWarning: there are any.
    """
    places = [_place(name, xyz) for name, of in zip(names, stray, strict=True) for xyz in of]
    if places:
        are = "is probably no particle" if len(places) == 1 else "are probably no particles"
        warnings.warn(
            f"{len(places)} of {labels} labels {are}, and not learned from: {'; '.join(places[:LISTED])}"
            f"{'; ...' * (len(places) > LISTED)} (voxels). No density stands out there, and a network trained on half "
            "of the others ranks these far ahead. The training report and `cetpick check` draw the places. Take them "
            "out of the labels; what is a particle all the same is learned when it is given with --added instead",
            CetpickWarning,
            stacklevel=3,
        )


def _place(name: str, xyz: Points) -> str:
    return f"{name} at {', '.join(f'{value:.0f}' for value in xyz)}"
