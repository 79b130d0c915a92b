"""The report of `evaluate`: precision and recall, and what became of each pick, on slices where there are any."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cetpick import scratch
from cetpick.config import ModelSettings, ParticleClass
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.naming import find_tomogram
from cetpick.io.tomograms import read_tomogram
from cetpick.metrics import Margin, evaluate, match_scene
from cetpick.preprocess import prepare
from cetpick.records import TomogramInfo
from cetpick.report import frame
from cetpick.report.evaluation import Judged, Page, Section, render
from cetpick.report.plots import plot_precision_recall
from cetpick.report.views import FORMAT, make_planes
from cetpick.workflows.record import read_json, versions
from cetpick.workflows.results import PLOTS

if TYPE_CHECKING:
    from cetpick.metrics import Scene
    from cetpick.workflows.evaluate import EvaluateSummary, PointSet

DRAWN = 16.0
"""Voxels along a diameter, in x and y, that tomograms are drawn with; half as many in z."""
FIGURES = (
    *("Radius of a match", "Picks", "Threshold", "Count", "Matched", "Reference points", "Precision", "Recall", "F1"),
    *("Average precision", "Localisation error (RMS)"),
)


def write_evaluation_report(
    path: Path,
    summary: EvaluateSummary,
    infos: Sequence[TomogramInfo],
    values: Mapping[str, Any],
    *,
    margin: Margin | None,
    diameter: float | None,
    plot: Path | None = None,
) -> dict[str, str]:
    """Make the report.

    Args:
        path: of the report.
        summary: what was found.
        infos: tomograms, as far as they were named.
        values: of the record of the run.
        margin: that does not count, x, y, z voxels.
        diameter: of the particle, angstrom, None when unknown: circles have the radius of a match.
        plot: file for precision against recall at the first radius.

    Returns:
        Why there are no slices, by tomogram.

    Raises:
        CetpickError: the report cannot be written.
    """
    diameter = diameter or 2 * summary.results[0].radius * (summary.voxel_size or 1.0)
    judged = [_judged(summary, scene, margin) for scene in summary.scenes]
    shown, lacking = _most_wrong(judged), dict[str, str]()
    sections = []
    for number, (scene, of, (picks, _)) in enumerate(zip(summary.scenes, judged, summary.tomograms, strict=True)):
        info, planes, excluded = find_tomogram(picks.tomogram, infos), None, ""
        if number in shown:
            try:
                planes, excluded = _slices(picks, info, path.parent, diameter)
            except CetpickError as error:
                lacking[scene.name] = str(error)
        sections.append(
            Section(
                scene=scene,
                judged=of,
                voxel_size=info.grid.voxel_size if info else picks.voxel_size or summary.voxel_size,
                excluded=excluded,
                planes=planes,
            )
        )
    notes = [f"Slices of {len(shown)} of {len(sections)} tomograms, those with the lowest F1; numbers are of all."]
    notes = notes if len(shown) < len(sections) else []
    notes += [f"No slices of {name}: {why.splitlines()[0]}" for name, why in list(lacking.items())[:1]]
    notes += [f"Nor of {len(lacking) - 1} others."] if len(lacking) > 1 else []
    page = Page(
        title=", ".join(dict.fromkeys(picks.origin.name or str(picks.origin) for picks, _ in summary.tomograms)),
        sections=sections,
        results=summary.results,
        radii=[summary.length(result.radius) for result in summary.results],
        figures=(FIGURES, _figures(summary)),
        scored=summary.scored,
        cut=summary.cut_is if summary.results[0].at_threshold else None,
        diameter=diameter,
        note=" ".join(notes) or None,
        facts=_facts(summary, values, margin),
        warnings=values["warnings"],
        version=values["cetpick"],
    )
    frame.write(path, render(page))
    if plot is not None:
        alone = {scene.name: of[0].result for scene, of in zip(summary.scenes, judged, strict=True) if of[0].result}
        plot_precision_recall(plot, summary.results[0], alone, cut=summary.cut_is)
    return lacking


def plot_file(kind: str) -> str:
    """Where precision against recall is drawn, seen from the report's folder."""
    return f"{PLOTS}/precision_recall.{kind}"


def _judged(summary: EvaluateSummary, scene: Scene, margin: Margin | None) -> list[Judged]:
    """A tomogram by itself, at each radius."""
    found = []
    for pooled in summary.results:
        matches = match_scene(scene, pooled.radius, margin)
        alone = None if matches.ignored_truths.all() else evaluate([scene], pooled.radius, margin)
        found.append(Judged(matches=matches, result=alone))
    return found


def _most_wrong(judged: Sequence[Sequence[Judged]]) -> set[int]:
    """Places of the tomograms to be shown, at most frame.MOST_SHOWN: those with the lowest F1."""

    def f1(number: int) -> float:
        result = judged[number][0].result
        return 0.0 if result is None else (result.at_threshold or result.all_picks).f1

    return set(sorted(range(len(judged)), key=f1)[: frame.MOST_SHOWN])


def _slices(
    picks: PointSet, info: TomogramInfo | None, folder: Path, diameter: float
) -> tuple[Mapping[str, Any] | None, str]:
    """Slices of a tomogram, those that `pick` has kept or of its file, and what was left out of it.

    Raises:
        CetpickError: there are neither, or the tomogram cannot be used.
    """
    if picks.run is not None and picks.run.view is not None:
        view = read_json(picks.run.view)
        if view is not None and view.get("format") == FORMAT:
            return view["planes"], frame.excluded_text(picks.run.excluded)
    if info is None:
        raise InputError("no pictures of it", cure="name the tomogram with --tomogram")
    plane = diameter / DRAWN
    settings = ModelSettings(classes=(ParticleClass(diameter=diameter),), voxel_size=(2 * plane, plane, plane))
    with warnings.catch_warnings(), scratch.using(folder):
        warnings.simplefilter("ignore", CetpickWarning)  # what is left out is told in the report
        prepared = prepare(read_tomogram(info), settings)
    return make_planes(prepared, info.grid, diameter=diameter), frame.excluded_text(vars(prepared.exclusions))


def _figures(summary: EvaluateSummary) -> list[list[str]]:
    """What is told of all tomograms together."""
    rows = []
    for result in summary.results:
        rows += [
            [
                summary.length(result.radius),
                name,
                "-" if threshold is None else f"{threshold:.4g}",
                *map(str, (score.picks, score.matched, score.truths)),
                *(f"{value:.4f}" for value in (score.precision, score.recall, score.f1)),
                f"{result.average_precision:.4f}" if summary.scored else "-",
                "-" if score.localisation_error is None else summary.length(score.localisation_error),
            ]
            for name, score, threshold in summary.sets(result)
        ]
    return rows


def _facts(summary: EvaluateSummary, values: Mapping[str, Any], margin: Margin | None) -> dict[str, str]:
    first = summary.results[0]
    return {
        "Command": shlex.join(["cetpick", *values["arguments"]]),
        "Begun": str(values["started"]),
        "Picks": ", ".join(f"{picks.source} ({len(picks.coordinates)})" for picks, _ in summary.tomograms),
        "Reference points": ", ".join(f"{truth.source} ({len(truth.coordinates)})" for _, truth in summary.tomograms),
        "Radius of a match": f"{', '.join(summary.length(result.radius) for result in summary.results)}; "
        f"{summary.radius_is}",
        "Matching": "one to one, by falling score, each pick with the nearest reference point within the radius that "
        "is still free",
        "Margin": "none"
        if margin is None
        else f"{', '.join(f'{width:g}' for width in margin)} voxels along x, y, z do not count: "
        f"{first.ignored_picks} picks, {first.ignored_truths} reference points ignored",
        "Versions": versions(values),
    }
