"""Charts as files, for papers and slides: scores with the cut, training curves, precision against recall.

matplotlib is imported where it is used: commands that draw nothing do without it. Slices and averages: overlay.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cetpick.metrics import Result, Score
from cetpick.report.overlay import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 4.5, 3.2, 300
"""Inches of a chart, a column of a page wide, and pixels an inch."""
BINS = 50
PICKED, OTHER, CUT = "#0072b2", "#b9c4cf", "#a3210f"
MEAN = 15
"""The moving mean of a training curve is over this fraction of its points."""
MOST_CURVES = 12
"""Tomograms whose own curves are drawn beside that of all."""


def plot_scores(path: Path, picked: NDArray[np.float64], others: NDArray[np.float64], *, cut: float | None) -> None:
    """Draw the histogram of the candidates' scores.

    Args:
        path: the file; its ending tells the format.
        picked: scores of the picks (n,).
        others: of the other candidates (m,).
        cut: the threshold, None when each tomogram has its own.
    """
    figure, panel = _chart("Score", "Candidates")
    names = [f"picks ({len(picked)})", f"other candidates ({len(others)})"]
    bins = np.linspace(0, 1, BINS + 1).tolist()
    panel.hist([picked, others], bins=bins, stacked=True, color=[PICKED, OTHER], label=names)
    if cut is not None:
        panel.axvline(cut, color=CUT, linestyle="--", linewidth=1.2, label=f"cut at {cut:.3g}")
    panel.set_yscale("log")
    panel.set_xlim(0, 1)
    _finish(panel)
    save(figure, path, dpi=DPI)


def plot_training(path: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Draw training curves, each value faintly and its moving mean.

    Args:
        path: the file; its ending tells the format.
        curves: as frame.curve_values has them.
    """
    figure, _ = _chart("", "", rows=len(curves))
    for panel, curve in zip(figure.axes, curves, strict=True):
        for number, points in enumerate(curve["lines"]):
            step, value = np.array(points).T
            window = np.ones(max(1, len(value) // MEAN))
            counted = np.convolve(np.ones_like(value), window, "same")
            (line,) = panel.plot(step, np.convolve(value, window, "same") / counted, label=f"scout {number + 1}")
            panel.plot(step, value, color=line.get_color(), alpha=0.3, linewidth=0.7)
        panel.set_xlabel("Step")
        panel.set_ylabel(curve["value"].capitalize())
        panel.set_title(curve["name"], fontsize=9)
        if len(curve["lines"]) > 1:
            _finish(panel)
    save(figure, path, dpi=DPI)


def plot_precision_recall(path: Path, pooled: Result, alone: Mapping[str, Result], *, cut: str) -> None:
    """Draw precision against recall, of all tomograms and of the first MOST_CURVES of several.

    Args:
        path: the file; its ending tells the format.
        pooled: of all tomograms together.
        alone: of each that has reference points.
        cut: what the picks' own threshold is called.
    """
    figure, panel = _chart("Recall", "Precision")
    if len(alone) > 1:
        for number, (name, result) in enumerate(list(alone.items())[:MOST_CURVES]):
            _curve(panel, name, result, color=f"C{number % 10}", linewidth=0.7)
    _curve(panel, "all", pooled, color="black", linewidth=1.8)
    _dot(panel, pooled.best, "best", facecolor="white")
    if pooled.at_threshold is not None:
        _dot(panel, pooled.at_threshold, cut, facecolor=CUT)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.03)
    _finish(panel)
    save(figure, path, dpi=DPI)


def _curve(panel: Axes, name: str, result: Result, **style: Any) -> None:
    label = f"{name}: AP {result.average_precision:.3f}"
    # what begins with _ has no place in a legend
    panel.plot(result.recall, result.precision, label=f" {label}" if label.startswith("_") else label, **style)


def _dot(panel: Axes, score: Score, name: str, *, facecolor: str) -> None:
    panel.plot(
        [score.recall], [score.precision], "o", markerfacecolor=facecolor, markeredgecolor=CUT, zorder=5,
        label=f"{name}: F1 {score.f1:.3f}",
    )  # fmt: skip


def _chart(x: str, y: str, *, rows: int = 1) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT * rows), layout="constrained")
    figure.subplots(rows, 1)
    first = figure.axes[0]
    first.set_xlabel(x)
    first.set_ylabel(y)
    return figure, first


def _finish(panel: Axes) -> None:
    for text in panel.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)  # a $ of a tomogram's name is one
