"""The report of `pick`: see frame.py for what all reports share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cetpick.report import frame
from cetpick.report.handover import NextStep

STEPS = 100
"""Of the threshold's slider, from 0 to 1."""
COLUMNS = ("Tomogram", "Picks", "Candidates", "Expected precision", "Expected recall", "Cut")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidates of a tomogram that a threshold chooses from.

    Attributes:
        xyz: (n, 3) voxels as stored, by falling score.
        scores: (n,).
        stored: (n,) their places in the table of candidates, which may hold more.
        top: at most so many of them are picks; None: all.
    """

    xyz: NDArray[np.float64]
    scores: NDArray[np.float64]
    stored: NDArray[np.int64]
    top: int | None = None

    def cuts(self) -> tuple[list[int], list[float]]:
        """How many picks each threshold 0, 0.01 ... 1 gives, and the sum of their scores."""
        thresholds = np.arange(STEPS + 1) / STEPS
        counts = (self.scores[None, :] >= thresholds[:, None]).sum(axis=1)
        if self.top is not None:
            counts = np.minimum(counts, self.top)
        sums = np.concatenate([[0.0], np.cumsum(self.scores)])[counts]
        return counts.tolist(), [round(float(value), 3) for value in sums]

    def histogram(self) -> list[int]:
        """Candidates with scores from 0, 0.02 ... 0.98 on."""
        counted, _ = np.histogram(self.scores, bins=STEPS // 2, range=(0, 1))
        return [int(number) for number in counted]

    def packed(self, size: Sequence[int]) -> str:
        """The best frame.MOST_DRAWN: their places over a volume of `size`, then bytes of scores; in base64."""
        scores = np.clip(np.rint(self.scores[: frame.MOST_DRAWN] * 255), 0, 255).astype(np.uint8)
        return frame.base64_of(frame.packed_places(self.xyz[: frame.MOST_DRAWN], size) + scores.tobytes())


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the report tells of a tomogram.

    Attributes:
        name: of the tomogram.
        record: what run.json tells of it.
        picks: their number.
        particles: how many of them are expected to be particles.
        everything: particles expected among all candidates, None when scores are no probabilities.
        flags: what is unlike the other tomograms.
        labels, rejected: (n, 3) places in it that the training was given, and that are no particles, voxels.
        candidates: of it.
        view: its pictures, as views.make_view has them; None without.
    """

    name: str
    record: Mapping[str, Any]
    picks: int
    particles: float
    everything: float | None
    flags: Sequence[str]
    labels: Sequence[Sequence[float]] = ()
    rejected: Sequence[Sequence[float]] = ()
    candidates: Candidates
    view: Mapping[str, Any] | None

    def values(self) -> dict[str, Any]:
        """For the script of the page."""
        counts, sums = self.candidates.cuts()
        size = self.record["size"]
        return {
            "name": self.name,
            "size": size,
            "voxel": self.record["voxel_size"],
            "picks": self.picks,
            "particles": round(self.particles, 3),
            "everything": None if self.everything is None else round(self.everything, 3),
            "lowest": self.record["threshold"],
            "candidates": len(self.candidates.scores),
            "counts": counts,
            "sums": sums,
            "histogram": self.candidates.histogram(),
            "flags": list(self.flags),
            "excluded": frame.excluded_text(
                self.record.get("excluded_voxels", {}), picks=self.record.get("excluded_picks", 0)
            ),
            "labels": frame.rounded_places(self.labels),
            "rejected": frame.rounded_places(self.rejected),
            "view": None if self.view is None else self._view(self.view, size),
        }

    def _view(self, view: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
        place = {int(stored): number for number, stored in enumerate(self.candidates.stored)}
        thumbs = view["thumbs"]
        return {
            "planes": view["planes"],
            "thumbs": thumbs and {**thumbs, "of": [place.get(stored) for stored in thumbs["of"]]},
            "average": view["average"],
            "contrast": view["contrast"],
            "points": self.candidates.packed(size),
        }


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the report tells.

    Attributes:
        title: name of the folder of results.
        told: the cut and what it is expected to give.
        calibrated: scores are probabilities.
        diameter: of the particle, angstrom.
        threshold: that was used, for the slider to start at.
        repick: the command that cuts again, up to the folder, and options that keep the rest of the cut.
        facts: what was run, on what, with what settings.
        training: what the record of the training tells of it, empty when it is not known.
        trained: the same for people.
        sections: the tomograms.
        steps: how other programs take over.
        folder: that their commands, and that of `repick`, are to be typed in.
        warnings: of the run.
        failures: what could not be picked, or is missing.
        note: what is left out of the report, None when nothing is.
        version: of cetpick.
    """

    title: str
    told: str
    calibrated: bool
    diameter: float
    threshold: float
    repick: tuple[str, str]
    version: str
    facts: Mapping[str, str]
    training: Mapping[str, Any]
    trained: Mapping[str, str]
    sections: Sequence[Section]
    steps: Sequence[NextStep] = ()
    folder: Path
    warnings: Sequence[str] = ()
    failures: Sequence[str] = ()
    note: str | None = None


def render(page: Page) -> str:
    """The report as HTML."""
    picks = sum(section.picks for section in page.sections)
    return frame.render(
        "pick",
        brand="cetpick report",
        title=page.title,
        summary=f"{picks} picks in {len(page.sections)} tomograms: {page.told}.",
        made="How the picks were made",
        facts=page.facts,
        warnings=page.warnings,
        failures=page.failures,
        version=page.version,
        values={
            "calibrated": page.calibrated,
            "diameter": page.diameter,
            "threshold": page.threshold,
            "repick": page.repick,
            "curves": frame.curve_values(page.training),
            "tomograms": [section.values() for section in page.sections],
        },
        unlike=_unlike(page.sections),
        note=f'<p class="note">{escape(page.note)}</p>' if page.note else "",
        table=frame.table(COLUMNS, _rows(page.sections)),
        training=frame.training_section(page.trained) if page.training else "",
        steps="\n".join(map(_step, page.steps)),
        folder=escape(str(page.folder)),
        hidden="" if page.calibrated else "hidden",
    )


def _unlike(sections: Sequence[Section]) -> str:
    """The flagged tomograms, so that they are seen without searching the table."""
    flagged = [(number, section) for number, section in enumerate(sections) if section.flags]
    if not flagged:
        return ""
    items = [
        f"<li>{frame.opener(number, section.name)} {_flags(section)}</li>"
        for number, section in flagged[: frame.MOST_LISTED]
    ]
    if len(flagged) > frame.MOST_LISTED:
        items.append(f"<li>and {len(flagged) - frame.MOST_LISTED} more, in the table</li>")
    title = f"Unlike the others: {len(flagged)}"
    return f'<details class="warn" open><summary>{title}</summary><ul>{"".join(items)}</ul></details>'


def _flags(section: Section) -> str:
    return "".join(f'<span class="flag">{escape(flag)}</span>' for flag in section.flags)


def _rows(sections: Sequence[Section]) -> Iterable[Sequence[str]]:
    """The table of tomograms, with the numbers of the records."""
    for number, section in enumerate(sections):
        note = section.record
        yield (
            f"{frame.opener(number, section.name)} {_flags(section)}",
            str(section.picks),
            str(note["candidates"]),
            _percent(note.get("expected_precision")),
            _percent(note.get("expected_recall")),
            f"{note['threshold']:.3f}",
        )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _step(step: NextStep) -> str:
    # each in its own lines of the page, and no line break within an option; copied text has neither
    lines = [re.sub(r"(?<!\S)-\S+", r"<span>\g<0></span>", escape(command)) for command in step.commands]
    commands = "\n</code><code>".join(lines)
    return (
        f"<details><summary>{escape(step.program)}</summary><p>{escape(step.text)}</p>"
        f'<div class="command"><pre tabindex="0" aria-label="{escape(step.where)}"><code>{commands}</code></pre>'
        '<button type="button" data-copy>Copy</button></div></details>'
    )
