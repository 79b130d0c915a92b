"""The report of a training: see frame.py for what all reports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cetpick.config import ModelSettings
from cetpick.geometry import Points, as_points
from cetpick.records import Grid
from cetpick.report import frame

COLUMNS = (
    "Tomogram",
    "Labels",
    "moved",
    "in padding or outside of the region",
    "probably no particles",
    "May be particles",
    "Rejected places",
)
MOVED = 0.01
"""Diameters from which a label was moved."""


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A tomogram that was trained on.

    Attributes:
        name: of it.
        grid: of it.
        diameter: of the particle, angstrom.
        given: (n, 3) where its labels were given, voxels.
        labels: (n, 3) where they are for the final training, voxels.
        left_out: labels that lie where nothing counts.
        stray: (n, 3) where labels were given that are probably no particles, voxels.
        doubtful: (m, 3) places that count less as background, voxels.
        rejected: (k, 3) places that are background for certain, voxels.
        excluded_voxels: how many, by the reason.
        planes: its slices, as views.make_planes has them; None without.
    """

    name: str
    grid: Grid
    diameter: float
    given: Points
    labels: Points
    left_out: int
    stray: Points
    doubtful: Points
    rejected: Points
    excluded_voxels: Mapping[str, int]
    planes: Mapping[str, Any] | None

    def moved(self) -> Points:
        """Where labels that were moved had been, voxels (k, 3)."""
        shift = np.linalg.norm(self.labels - self.given, axis=1)
        return as_points(self.given[shift > MOVED * self.diameter / self.grid.voxel_size])

    def row(self, number: int) -> list[str]:
        """Of the table."""
        used = len(self.labels), len(self.moved()), self.left_out, len(self.stray)
        return [frame.opener(number, self.name), *map(str, (*used, len(self.doubtful), len(self.rejected)))]

    def values(self) -> dict[str, Any]:
        """For the script."""
        return {
            "name": self.name,
            "size": self.grid.size,
            "voxel": self.grid.voxel_size,
            "excluded": frame.excluded_text(self.excluded_voxels),
            "labels": frame.rounded_places(self.labels),
            "given": frame.rounded_places(self.moved()),
            "stray": frame.rounded_places(self.stray),
            "doubtful": frame.rounded_places(self.doubtful),
            "rejected": frame.rounded_places(self.rejected),
            "view": self.planes and {"planes": self.planes},
        }


def render(
    title: str,
    tomograms: Sequence[TrainedOn],
    record: Mapping[str, Any],
    settings: ModelSettings,
    facts: Mapping[str, str],
) -> str:
    """The report as HTML.

    Args:
        title: name of the model file.
        tomograms: that were trained on.
        record: of the run, with `training`.
        settings: of the model.
        facts: how the model was made.
    """
    labels = sum(len(of.labels) for of in tomograms)
    return frame.render(
        "train",
        brand="cetpick training report",
        title=title,
        summary=f"Trained on {labels} labels in {len(tomograms)} tomograms: {settings.told}.",
        made="How the model was made",
        facts=facts,
        warnings=record["warnings"],
        version=record["cetpick"],
        values={
            "diameter": settings.diameter,
            "curves": frame.curve_values(record["training"]),
            "tomograms": [of.values() for of in tomograms],
        },
        training=frame.training_section(
            facts_of(record["training"], settings), [of.row(i) for i, of in enumerate(tomograms)], COLUMNS
        ),
    )


def facts_of(training: Mapping[str, Any], settings: ModelSettings) -> dict[str, str]:
    """What a training did, for people.

    Args:
        training: of the record of the run; what an earlier version did not note is left out.
        settings: of the model.
    """
    recipe, scouts = training.get("recipe") or {}, training.get("scouts") or []
    facts = {"Steps": str(training["steps"])}
    if recipe.get("cut_short"):
        facts["Steps"] += ", fewer than usual: scores of particles soon lay clearly apart from all others"
    if final := training.get("final"):
        facts["Loss of the last step"] = f"{final['loss']:.4g}"
    if scouts:
        found, hidden = (sum(scout[key] for scout in scouts) for key in ("found", "hidden"))
        facts["Scouts"] = (
            f"{len(scouts)}, each trained on half of the labels; they found {found} of {hidden} labels again that they "
            "were not shown"
        )
    if (count := recipe.get("count")) and count["expected"]:
        facts["Particles, told by the scouts"] = (
            f"{count['expected']:.0f} ({count['low']:.0f} to {count['high']:.0f}) in all training tomograms"
        )
    if (doubtful := recipe.get("doubtful_places")) is not None:
        weight = f"{recipe['doubtful_weight']:.1%}" if "doubtful_weight" in recipe else "less"
        facts["Unlabelled places that may be particles"] = f"{doubtful}, which count {weight} as background"
    if scatter := recipe.get("label_scatter"):
        facts["Labels off centre"] = f"typically {scatter:.1%} of the diameter, as the scouts see them"
    if settings.count:
        low, high = settings.count_limits
        facts["Particles"] = f"about {settings.count:.0f} ({low:.0f} to {high:.0f}) in a training tomogram"
    facts["Threshold"] = f"{settings.threshold:.3f}" + (", scores are probabilities" if settings.calibration else "")
    return facts
