"""The report as one HTML file: numbers as text in it, pictures in it, no other file and no network.

`page.html`, `page.css` and `page.js` beside this module are its parts. All that comes from files is escaped: text by
`html.escape`, what the script reads by JSON in which no `<`, `>` or `&` stands; the script sets text, never HTML.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cetpick.io.atomic import replacing
from cetpick.report.handover import NextStep

STEPS = 100
"""Of the threshold's slider, from 0 to 1."""
MOST_DRAWN = 4000
"""Candidates of a tomogram that can be drawn on slices, the best ones."""
MOST_LISTED = 30
"""Warnings and failures that are shown; run.json has all."""


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
        """The best MOST_DRAWN as base64 of little-endian uint16 x, y, z over the volume, then bytes of scores.

        Args:
            size: voxels of the tomogram along x, y, z.
        """
        share = np.clip((self.xyz[:MOST_DRAWN] + 0.5) / np.array(size), 0, 1)
        places = np.rint(share * 65535).astype("<u2")
        scores = np.clip(np.rint(self.scores[:MOST_DRAWN] * 255), 0, 255).astype(np.uint8)
        return base64.b64encode(places.tobytes() + scores.tobytes()).decode("ascii")


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
        warnings: that were given.
        candidates: of it.
        view: its pictures, as views.make_view has them; None without.
    """

    name: str
    record: Mapping[str, Any]
    picks: int
    particles: float
    everything: float | None
    flags: Sequence[str]
    warnings: Sequence[str]
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
        curve: points of the training, each with its step and numbers.
        sections: the tomograms.
        steps: how other programs take over.
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
    curve: Sequence[Mapping[str, Any]]
    sections: Sequence[Section]
    steps: Sequence[NextStep] = ()
    warnings: Sequence[str] = ()
    failures: Sequence[str] = ()
    note: str | None = None


def write_page(path: Path, page: Page) -> None:
    """Write the report.

    Raises:
        CetpickError: the file cannot be written.
    """
    text = render(page)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(page: Page) -> str:
    """The report as HTML."""
    parts = files("cetpick.report")
    values = {
        "calibrated": page.calibrated,
        "diameter": page.diameter,
        "threshold": page.threshold,
        "repick": page.repick,
        "curve": page.curve,
        "tomograms": [section.values() for section in page.sections],
    }
    picks = sum(section.picks for section in page.sections)
    return Template(parts.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        style=parts.joinpath("page.css").read_text(encoding="utf-8"),
        script=parts.joinpath("page.js").read_text(encoding="utf-8"),
        data=_json(values),
        title=escape(page.title),
        summary=escape(f"{picks} picks in {len(page.sections)} tomograms: {page.told}."),
        problems=_messages("Not picked", page.failures, "bad") + _messages("Warnings", page.warnings, "warn"),
        unlike=_unlike(page.sections),
        note=f'<p class="note">{escape(page.note)}</p>' if page.note else "",
        rows="\n".join(_row(number, section) for number, section in enumerate(page.sections)),
        facts="\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in page.facts.items()),
        steps="\n".join(map(_step, page.steps)),
        version=escape(page.version),
        hidden="" if page.calibrated else "hidden",
    )


def _unlike(sections: Sequence[Section]) -> str:
    """The flagged tomograms, so that they are seen without searching the table."""
    flagged = [(number, section) for number, section in enumerate(sections) if section.flags]
    if not flagged:
        return ""
    items = [f"<li>{_opener(number, section)} {_flags(section)}</li>" for number, section in flagged[:MOST_LISTED]]
    if len(flagged) > MOST_LISTED:
        items.append(f"<li>and {len(flagged) - MOST_LISTED} more, in the table</li>")
    title = f"Unlike the others: {len(flagged)}"
    return f'<details class="warn" open><summary>{title}</summary><ul>{"".join(items)}</ul></details>'


def _opener(number: int, section: Section) -> str:
    """A button that shows a tomogram."""
    return f'<button type="button" class="link" data-open="{number}">{escape(section.name)}</button>'


def _flags(section: Section) -> str:
    return "".join(f'<span class="flag">{escape(flag)}</span>' for flag in section.flags)


def _row(number: int, section: Section) -> str:
    """A row of the table of tomograms, with the numbers of the records."""
    note = section.record
    cells = [
        str(section.picks),
        str(section.record["candidates"]),
        _percent(note.get("expected_precision")),
        _percent(note.get("expected_recall")),
        f"{note['threshold']:.3f}",
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr data-row="{number}"><th scope="row">{_opener(number, section)} {_flags(section)}</th>{numbers}</tr>'


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _messages(title: str, messages: Sequence[str], kind: str) -> str:
    if not messages:
        return ""
    items = [f"<li>{escape(message)}</li>" for message in messages[:MOST_LISTED]]
    if len(messages) > MOST_LISTED:
        items.append(f"<li>and {len(messages) - MOST_LISTED} more, in run.json</li>")
    opened = " open" if kind == "bad" else ""
    count = len(messages)
    return f'<details class="{kind}"{opened}><summary>{title}: {count}</summary><ul>{"".join(items)}</ul></details>'


def _step(step: NextStep) -> str:
    commands = escape("\n".join(step.commands))
    return (
        f"<details><summary>{escape(step.program)}</summary><p>{escape(step.text)}</p>"
        f'<div class="command"><pre tabindex="0" aria-label="{escape(step.where)}">{commands}</pre>'
        '<button type="button" data-copy>Copy</button></div></details>'
    )


def _json(values: Any) -> str:
    """JSON that can stand in HTML; numbers that JSON does not know become null."""
    text = json.dumps(_finite(values), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _finite(value) for key, value in values.items()}
    if isinstance(values, Iterable) and not isinstance(values, str):
        return [_finite(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
