"""What all reports share: one HTML file, numbers as text in it, pictures in it, no other file and no network.

`frame.html`, `page.css` and `common.js` beside this module are its parts; `<kind>.html` and `<kind>.js` are those of a
kind of report. All that comes from files is escaped: text by `html.escape`, what the script reads by JSON in which no
`<`, `>` or `&` stands; the script sets text, never HTML.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cetpick.io.atomic import replacing
from cetpick.io.to_json import to_json

MOST_SHOWN = 50
"""Tomograms with pictures in a report; bounds its size."""
MOST_DRAWN = 4000
"""Points of a tomogram that can be drawn on slices, of picks the best ones."""
MOST_LISTED = 30
"""Warnings and failures that are shown; the record has all."""
POINTS_OF_CURVE = 200
"""Of a curve, at most."""


def render(
    kind: str,
    *,
    brand: str,
    title: str,
    summary: str,
    made: str,
    facts: Mapping[str, str],
    values: Mapping[str, Any],
    version: str,
    warnings: Sequence[str] = (),
    failures: Sequence[str] = (),
    **parts: str,
) -> str:
    """A report as HTML.

    Args:
        kind: of report: its HTML and script.
        brand: what it is.
        title: what it is about.
        summary: the result, in a sentence.
        made: heading of the facts.
        facts: how it was made.
        values: for the script; `tomograms` and `diameter` are those of the slices.
        version: of cetpick.
        warnings: of the run.
        failures: what could not be picked, or is missing.
        **parts: HTML of the kind's own.
    """
    return _filled(
        "frame.html",
        brand=escape(brand),
        title=escape(title),
        summary=escape(summary),
        problems=_messages("Not picked", failures, "bad") + _messages("Warnings", warnings, "warn"),
        made=escape(made),
        facts=listed(facts),
        version=escape(version),
        style=_part("page.css"),
        script=_part("common.js") + _part(f"{kind}.js"),
        data=_json(values),
        body=_filled(f"{kind}.html", viewer=_part("viewer.html"), threshold=_part("threshold.html"), **parts),
    )


def write(path: Path, text: str) -> None:
    """Write a report.

    Raises:
        CetpickError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def training_section(facts: Mapping[str, str], rows: Sequence[Sequence[str]] = (), head: Sequence[str] = ()) -> str:
    """HTML of how a model was trained; the script adds the curves."""
    return _filled("training.html", facts=listed(facts), table=table(head, rows) if rows else "")


def listed(facts: Mapping[str, str]) -> str:
    """HTML of names and what is to be said of each."""
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, tomograms: bool = True) -> str:
    """HTML of a table.

    Args:
        head: of its columns.
        rows: of each the first cell is its heading, and HTML already.
        tomograms: a row is a tomogram, which the script knows by its number.
    """
    known = ' class="tomograms"' if tomograms else ""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for number, (first, *cells) in enumerate(rows):
        others = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        place = f' data-row="{number}"' if tomograms else ""
        lines.append(f'<tr{place}><th scope="row">{first}</th>{others}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll">\n<table{known}>\n<thead><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
        '<p class="sideways" hidden>more columns: scroll the table sideways →</p>'
    )


def opener(number: int, name: str) -> str:
    """HTML of a button that shows a tomogram."""
    return f'<button type="button" class="link" data-open="{number}">{escape(name)}</button>'


def packed_places(xyz: ArrayLike, size: Sequence[int]) -> bytes:
    """Places (n, 3) in voxels as little-endian uint16 x, y, z over the volume of `size` voxels along x, y, z."""
    share = np.clip((np.asarray(xyz, np.float64).reshape(-1, 3) + 0.5) / np.array(size), 0, 1)
    return bytes(np.rint(share * 65535).astype("<u2").tobytes())


def base64_of(content: bytes) -> str:
    """Bytes as text for the script."""
    return base64.b64encode(content).decode("ascii")


def rounded_places(xyz: ArrayLike) -> list[list[float]]:
    """The first MOST_DRAWN places (n, 3), voxels, for the script."""
    places: list[list[float]] = np.asarray(xyz, np.float64).reshape(-1, 3)[:MOST_DRAWN].round(1).tolist()
    return places


def excluded_text(counts: Mapping[str, int], *, picks: int = 0) -> str:
    """What of a tomogram was left out, in a sentence; empty when nothing was.

    Args:
        counts: of voxels, as preprocess.Exclusions has them.
        picks: candidates good enough for the model's own threshold that lie there.
    """
    reasons = {
        "off_slab": "outside of the slab",
        "masked": "outside of the mask",
        "padding": "padding without data",
        "not_finite": "NaN or infinite",
        "empty": "in empty slices",
        "gold": "in and about {gold_places} places of gold or the like",
        "carbon": "at edges of carbon",
    }
    told = [
        f"{counts[key] / counts['total']:.1%} {reason.format(**counts)}"
        for key, reason in reasons.items()
        if counts.get(key)
    ]
    if not told:
        return ""
    lost = f"; {picks} candidates there, good enough for the model's threshold, do not count" if picks else ""
    return f"Left out of the volume, hatched: {', '.join(told)}{lost}."


def curve_values(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The curves of a training for the script, from its record: the losses in all their parts; one of both scouts."""
    final, scouts = training.get("curve") or [], [scout["curve"] for scout in training.get("scouts") or []]
    parts = [name for name in (final[0] if final else ()) if name not in ("step", "clamped")]
    curves = [{"name": "Final training", "value": name, "lines": [_points(final, name)]} for name in parts]
    curves += [{"name": "Scouts", "value": "loss", "lines": [_points(log, "loss") for log in scouts]}] if scouts else []
    return [curve for curve in curves if min(map(len, curve["lines"])) > 1]


def _points(log: Sequence[Mapping[str, Any]], value: str) -> list[list[float]]:
    """Step and value, where it is a number."""
    known = [[entry["step"], entry[value]] for entry in log if entry.get(value) is not None]
    return [point for point in known if math.isfinite(point[1])]


def _messages(title: str, messages: Sequence[str], kind: str) -> str:
    if not messages:
        return ""
    items = [f"<li>{escape(message)}</li>" for message in messages[:MOST_LISTED]]
    if len(messages) > MOST_LISTED:
        items.append(f"<li>and {len(messages) - MOST_LISTED} more, in the record of the run</li>")
    opened = " open" if kind == "bad" else ""
    count = len(messages)
    return f'<details class="{kind}"{opened}><summary>{title}: {count}</summary><ul>{"".join(items)}</ul></details>'


def _part(name: str) -> str:
    return files("cetpick.report").joinpath(name).read_text(encoding="utf-8")


def _filled(name: str, **values: str) -> str:
    return Template(_part(name)).substitute(values)


def _json(values: Any) -> str:
    """JSON that can stand in HTML; numbers that JSON does not know become null."""
    text = to_json(values, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
