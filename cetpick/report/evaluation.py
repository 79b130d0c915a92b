"""The report of `evaluate`: see frame.py for what all reports share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cetpick.metrics import Matches, Result, Scene, Score
from cetpick.report import frame

STEPS = 100
"""Of the threshold's slider."""
COLUMNS = (
    *("Tomogram", "Picks", "Hits", "False", "Missed", "Precision", "Recall", "F1"),
    *("Average precision", "Localisation error (voxels)"),
)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The picks of one tomogram at one radius.

    Attributes:
        matches: what became of each.
        result: None when there is no reference point that counts.
    """

    matches: Matches
    result: Result | None

    @property
    def error(self) -> float | None:
        """Localisation error of the picks at the tomogram's own threshold, of all without one, voxels."""
        result = self.result
        return None if result is None else (result.at_threshold or result.all_picks).localisation_error


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the report tells of a tomogram.

    Attributes:
        scene: its picks and reference points.
        judged: at each radius.
        voxel_size: angstrom, None when unknown.
        excluded: what was left out of its volume, see frame.excluded_text.
        planes: its slices, as views.make_planes has them; None without.
    """

    scene: Scene
    judged: Sequence[Judged]
    voxel_size: float | None
    excluded: str
    planes: Mapping[str, Any] | None

    @property
    def order(self) -> NDArray[np.intp]:
        """The picks by falling score."""
        return np.argsort(-self.scene.scores, kind="stable")

    @property
    def accepted(self) -> int:
        """How many of them are picks at the tomogram's own threshold; all without one."""
        threshold = self.scene.threshold
        return len(self.scene.scores) if threshold is None else int((self.scene.scores >= threshold).sum())

    def row(self, number: int, *, scored: bool) -> list[str]:
        """Of the table, at the first radius."""
        (judged, *_), order = self.judged, self.order[: self.accepted]
        counted = ~judged.matches.ignored_picks[order]
        picks, hits = int(counted.sum()), int((counted & (judged.matches.partner[order] >= 0)).sum())
        truths = int((~judged.matches.ignored_truths).sum())
        result, error = judged.result, judged.error
        return [
            frame.opener(number, self.scene.name),
            *map(str, (picks, hits, picks - hits, truths - hits)),
            f"{hits / picks:.0%}" if picks else "-",
            f"{hits / truths:.0%}" if truths else "-",
            f"{2 * hits / max(picks + truths, 1):.3f}",
            f"{result.average_precision:.3f}" if result and scored else "-",
            "-" if error is None else f"{error:.3g}",
        ]

    def values(self, thresholds: Floats, *, scored: bool) -> dict[str, Any]:
        """For the script."""
        size = None if self.scene.shape is None else self.scene.shape[::-1]
        levels = self._levels(thresholds)
        view = None
        if self.planes is not None and size is not None:
            view = {
                "planes": self.planes,
                "picks": frame.base64_of(frame.packed_places(self.scene.picks[self.order][: frame.MOST_DRAWN], size)),
                "truths": frame.base64_of(frame.packed_places(self.scene.truth[: frame.MOST_DRAWN], size)),
            }
        return {
            "name": self.scene.name,
            "size": size,
            "voxel": self.voxel_size,
            "excluded": self.excluded if view else "",
            "accepted": self.accepted,
            "levels": frame.base64_of(levels[: frame.MOST_DRAWN].tobytes()),
            "radii": [self._at_radius(judged, levels, scored=scored) for judged in self.judged],
            "view": view,
        }

    def _levels(self, thresholds: Floats) -> NDArray[np.uint8]:
        """The highest step of the slider at which each pick, by falling score, is still one."""
        steps = np.searchsorted(thresholds, self.scene.scores[self.order], side="right") - 1
        return np.clip(steps, 0, STEPS).astype(np.uint8)

    def _at_radius(self, judged: Judged, levels: NDArray[np.uint8], *, scored: bool) -> dict[str, Any]:
        order, matches = self.order, judged.matches
        partner, ignored = matches.partner[order], matches.ignored_picks[order]
        hit = (partner >= 0) & ~ignored
        # of each reference point 1 + the level of its pick, + 128 when that is accepted; 0 without one
        found = np.zeros(len(matches.ignored_truths), np.uint8)
        found[partner[partner >= 0]] = (levels + 1 + 128 * (np.arange(len(order)) < self.accepted))[partner >= 0]
        counted = {"picks": ~ignored, "matched": hit}
        own = {what: int(chosen[: self.accepted].sum()) for what, chosen in counted.items()}
        at_least = levels[None, :] >= np.arange(STEPS + 1)[:, None]
        result = judged.result
        return {
            "outcome": "".join(np.where(ignored, "i", np.where(hit, "h", "f"))[: frame.MOST_DRAWN]),
            "found": frame.base64_of(found[: frame.MOST_DRAWN].tobytes()),
            "ignored": np.flatnonzero(matches.ignored_truths[: frame.MOST_DRAWN]).tolist(),
            "counts": (at_least & counted["picks"]).sum(axis=1).tolist(),
            "matched": (at_least & counted["matched"]).sum(axis=1).tolist(),
            "truths": int((~matches.ignored_truths).sum()),
            "error": judged.error,
            "own": own,
            **_curve(result if scored else None),
        }


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the report tells.

    Attributes:
        title: what was judged.
        sections: the tomograms.
        results: of all together, one for each radius.
        radii: in words.
        figures: rows of the table of results, in words, and their headings.
        scored: the picks have scores.
        cut: what their own cut is called, None when they have none.
        diameter: of the circles, angstrom.
        note: what is left out of the report, None when nothing is.
        facts: how it was made.
        warnings: of the run.
        version: of cetpick.
    """

    title: str
    sections: Sequence[Section]
    results: Sequence[Result]
    radii: Sequence[str]
    figures: tuple[Sequence[str], Sequence[Sequence[str]]]
    scored: bool
    cut: str | None
    diameter: float
    note: str | None
    facts: Mapping[str, str]
    warnings: Sequence[str]
    version: str


def render(page: Page) -> str:
    """The report as HTML."""
    own = [result.at_threshold or result.all_picks for result in page.results]
    thresholds = _thresholds([section.scene.scores for section in page.sections])
    cuts = [section.scene.threshold for section in page.sections if section.scene.threshold is not None]
    head, rows = page.figures
    best = own[0]
    return frame.render(
        "evaluate",
        brand="cetpick evaluation",
        title=page.title,
        summary=f"{best.picks} picks in {len(page.sections)} tomograms, {best.matched} of them within "
        f"{page.radii[0]} of one of {best.truths} reference points: precision {best.precision:.3f}, recall "
        f"{best.recall:.3f}, F1 {best.f1:.3f}.",
        made="How the picks were judged",
        facts=page.facts,
        warnings=page.warnings,
        version=page.version,
        values={
            "diameter": page.diameter,
            "cut": page.cut,
            "thresholds": thresholds.tolist(),
            "threshold": float(np.median(cuts)) if cuts else float(thresholds[0]),
            "radii": page.radii,
            "pooled": [
                {"own": _counts(score), **_curve(result if page.scored else None)}
                for result, score in zip(page.results, own, strict=True)
            ],
            "tomograms": [section.values(thresholds, scored=page.scored) for section in page.sections],
        },
        scored="" if page.scored else "hidden",
        several="" if len(page.radii) > 1 else "hidden",
        note=f'<p class="note">{escape(page.note)}</p>' if page.note else "",
        figures=frame.table(head, rows, tomograms=False),
        table=frame.table(
            COLUMNS, [section.row(number, scored=page.scored) for number, section in enumerate(page.sections)]
        ),
    )


def curve_points(result: Result) -> list[tuple[float, float]]:
    """Recall and precision along the curve, by falling threshold; at most about frame.POINTS_OF_CURVE of them."""
    chosen = np.arange(len(result.recall))
    if len(chosen) > frame.POINTS_OF_CURVE:
        wanted = np.linspace(0, result.recall[-1], frame.POINTS_OF_CURVE)
        chosen = np.unique([*np.searchsorted(result.recall, wanted), chosen[-1]])
    return [(round(float(result.recall[i]), 4), round(float(result.precision[i]), 4)) for i in chosen]


def _curve(result: Result | None) -> dict[str, Any]:
    if result is None:
        return {"curve": [], "best": None, "average_precision": None}
    return {
        "curve": curve_points(result),
        "best": _counts(result.best),
        "average_precision": result.average_precision,
    }


def _counts(score: Score) -> dict[str, int]:
    return {"picks": score.picks, "matched": score.matched}


def _thresholds(scores: Sequence[Floats]) -> Floats:
    """Of the slider: from 0 to 1 when all scores lie there, else over all of them.

    They have few digits, so that the page shows them whole, and `--threshold` takes the same ones.
    """
    every = np.concatenate(scores)
    inside = not len(every) or (every.min() >= 0 and every.max() <= 1)
    low, high = (0.0, 1.0) if inside else (float(every.min()), float(every.max()))
    digits = 2 if high == low else min(3 - math.floor(math.log10(high - low)), 300)
    steps = low + (high - low) * np.arange(STEPS + 1) / STEPS
    # downwards: the lowest score is a pick at the first step; 0.29 * 100 is 28.999999999999996
    return np.array([round(whole / 10.0**digits, digits) for whole in np.floor(steps * 10.0**digits + 1e-9)])
