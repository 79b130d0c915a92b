"""`report`: the folder of results of `pick` in, one self-contained HTML file out."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cetpick import scratch
from cetpick.config import ModelSettings
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.table import read_table
from cetpick.io.tomograms import read_tomogram
from cetpick.preprocess import Prepared, prepare
from cetpick.records import TomogramInfo
from cetpick.report.frame import MOST_SHOWN, write
from cetpick.report.handover import NextStep, next_steps
from cetpick.report.page import Candidates, Page, Section, render
from cetpick.report.training import facts_of
from cetpick.report.views import FORMAT, make_view
from cetpick.workflows.plots import write_plots
from cetpick.workflows.record import read_json, read_record, record_beside, report_beside, versions, write_json
from cetpick.workflows.results import REPORT_FILE, RUN_FILE, TomogramRecord, told_of_cut, tomogram_files, view_file
from cetpick.workflows.runs import (
    SPOILED,
    Plan,
    complete_records,
    optimisation_set,
    read_run,
    refuse_other_version,
    require_folder,
    spoiled,
)

EXTREMES = 8
"""Of these the tomograms with the highest, and with the lowest share of particles expected among the picks."""
FEWEST_TO_COMPARE = 5
"""Tomograms; among fewer none is unlike the others."""
UNLIKE = 3.5
"""Robust standard deviations from the median of all tomograms from which one is flagged."""


@dataclass(kw_only=True)
class ReportSummary:
    """What `report` tells.

    Attributes:
        file: the report.
        tomograms: how many it tells of.
        pictured: names of those that it shows pictures of.
        drawn: names of those whose pictures were made now.
        lacking: why there are no pictures, by tomogram.
        flagged: what is unlike the others, by tomogram.
        next: how other programs take over.
        plots: pictures as files, if they were asked for.
        not_plotted: why there are none, by tomogram.
        error: why the report, or else a plot, could not be written; None when they were. The rest is true.
    """

    file: Path
    tomograms: int = 0
    pictured: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    flagged: dict[str, list[str]] = field(default_factory=dict)
    next: list[NextStep] = field(default_factory=list)
    plots: list[Path] = field(default_factory=list)
    not_plotted: dict[str, str] = field(default_factory=dict)
    error: CetpickError | None = None


def run_report(output: Path, *, plots: str | None = None, say: Callable[[str], None] | None = None) -> ReportSummary:
    """Make report.html anew; pictures that are not there are drawn from the tomograms, where these are the same still.

    Args:
        output: folder of results, with run.json.
        plots: draw pictures as files too, png, svg or pdf; see plots.write_plots.
        say: told in a line of every tomogram that is read.

    Raises:
        InputError: no results of `pick` that were collected.
    """
    require_folder(output)
    run = read_run(output / RUN_FILE)
    if run is None:
        refuse_other_version(output)
        raise InputError(
            "holds no complete results of cetpick pick",
            file=output,
            expected="a folder with run.json",
            cure="when shards or an interrupted run have left results in it, `cetpick collect` them first",
        )
    records = complete_records(output, run.plan)
    there = {record.info.name for record in records}
    lost = [name for name in run.values["tomograms"] if name not in there]
    changed = all(spoiled(output, name, run.plan) for name in lost)
    why = f"{', '.join(lost)}: {SPOILED if changed else 'made anew since; `cetpick collect` makes one run of all'}"
    if not records:
        raise InputError(
            "its results are not those of run.json any more",
            file=output,
            found=why if lost else None,
            cure="`cetpick collect` tells what is missing",
        )
    if lost:
        warnings.warn(f"{output}: the report leaves out {why}", CetpickWarning, stacklevel=2)
    reporter = _Reporter(output, run.values, run.plan, records, redraw=True, say=say or (lambda _: None))
    try:
        reporter.write()
    except CetpickError as error:  # of a folder that only others may write to, the next steps are told
        reporter.summary.error = error
    if plots is not None:
        try:
            reporter.plot(plots)
        except CetpickError as error:
            reporter.summary.error = reporter.summary.error or error
    return reporter.summary


def write_report(
    output: Path,
    values: Mapping[str, Any],
    plan: Plan,
    records: Sequence[TomogramRecord],
    *,
    redraw: Callable[[str], None] | None = None,
) -> list[Path]:
    """Make report.html of the pictures that are there; a report that cannot be made is a warning, no error.

    Args:
        output: folder of results.
        values: of run.json.
        plan: of the run.
        records: of the tomograms with results.
        redraw: draw pictures that are not there from the tomograms, where these are the same still, and tell it in a
            line of each.

    Returns:
        The file, unless it could not be made.

    Warns:
        CetpickWarning: it could not be made.
    """
    try:
        say = redraw or (lambda _: None)
        _Reporter(output, values, plan, records, redraw=redraw is not None, say=say).write()
        return [output / REPORT_FILE]
    except Exception as error:  # noqa: BLE001 - the picks are there and good: nothing about the report may lose them
        _warn_of_report(output / REPORT_FILE, error)
        return []


def keep_view(
    output: Path, record: TomogramRecord, prepared: Prepared, candidates: pd.DataFrame, *, diameter: float
) -> bool:
    """Draw a tomogram for the report and keep the pictures in views/; returns whether that went well.

    Args:
        output: folder of results.
        record: of the tomogram, its results written.
        prepared: the tomogram.
        candidates: all, by falling score; columns x, y, z in voxels, score.
        diameter: of the particle, angstrom.

    Warns:
        CetpickWarning: the pictures could not be made.
    """
    path = view_file(output, record.info.name)
    try:
        view = make_view(
            prepared,
            candidates[["x", "y", "z"]].to_numpy(np.float64),
            candidates["score"].to_numpy(np.float64),
            record.info.grid,
            diameter=diameter,
            picks=record.picks,
        )
        write_json(path, {"candidates": _candidates_stamp(output, record), **view})
    except Exception as error:  # noqa: BLE001 - as in write_report
        _warn_of_report(path, error)
        return False
    return True


def read_view(output: Path, record: TomogramRecord) -> dict[str, Any] | None:
    """The pictures of a tomogram, None when there are none, or those of other candidates."""
    view = read_json(view_file(output, record.info.name))
    if view is None or view.get("format") != FORMAT or view.get("candidates") != _candidates_stamp(output, record):
        return None
    return view


def outliers(values: Mapping[str, float], *, least: float) -> dict[str, str]:
    """Which tomograms are unlike the others.

    Args:
        values: a number a tomogram; those that are not finite are left out.
        least: the standard deviation is taken to be at least this, so that nearly equal numbers are no reason.

    Returns:
        `low` or `high`, by tomogram; none when there are fewer than FEWEST_TO_COMPARE.
    """
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    if len(known) < FEWEST_TO_COMPARE:
        return {}
    numbers = np.array(list(known.values()))
    middle = float(np.median(numbers))
    spread = max(1.4826 * float(np.median(np.abs(numbers - middle))), least)
    return {
        name: "low" if value < middle else "high"
        for name, value in known.items()
        if abs(value - middle) > UNLIKE * spread
    }


def chosen_tomograms(records: Sequence[TomogramRecord], flagged: Iterable[str], *, most: int) -> list[str]:
    """Which tomograms to show when there are too many: unlike ones, best, worst, and evenly spaced ones.

    Args:
        records: of all.
        flagged: names of those that are unlike the others.
        most: so many at most.

    Returns:
        Names, in the order of `records`.
    """
    names = [record.info.name for record in records]
    if len(names) <= most:
        return names
    ranked = sorted(records, key=lambda record: record.particles / max(record.picks, 1))
    ends = [record.info.name for record in (*ranked[:EXTREMES], *ranked[: -EXTREMES - 1 : -1])]
    wanted = dict.fromkeys([*list(flagged)[: most // 2], *ends][:most])
    others = [name for name in names if name not in wanted]
    spaced = np.linspace(0, len(others) - 1, most - len(wanted)).round().astype(int)
    wanted |= dict.fromkeys(others[place] for place in spaced)
    return [name for name in names if name in wanted]


class _Reporter:
    """Gathers what the report tells."""

    def __init__(
        self,
        output: Path,
        values: Mapping[str, Any],
        plan: Plan,
        records: Sequence[TomogramRecord],
        *,
        redraw: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._output, self._values, self._plan, self._records = output, values, plan, records
        self._redraw, self._say = redraw, say
        self._model = ModelSettings.from_dict(values["model"])
        self.summary = ReportSummary(file=output / REPORT_FILE, tomograms=len(records))

    def write(self) -> None:
        """Write the report, and tell in `summary` of it.

        Raises:
            CetpickError: it cannot be written.
            OSError: candidates cannot be read.
        """
        summary, plan = self.summary, self._plan
        contrasts: dict[str, float | None] = {}
        able = []
        for record in self._records:
            view = read_view(self._output, record)
            contrasts[record.info.name] = view["contrast"] if view else None
            if self._redraw or view is not None:
                able.append(record)
        summary.flagged = self._flags(contrasts)
        shown = set(chosen_tomograms(able, summary.flagged, most=MOST_SHOWN))
        sections = [self._section(record, shown) for record in self._records]
        summary.next = next_steps(
            self._output,
            [self._found(record) for record in self._records],
            star=plan.star,
            diameter=self._model.diameter,
            optimisation_set=optimisation_set(self._output, plan),
        )
        cut = plan.cut
        kept = [*([] if cut.top is None else ["--top", str(cut.top)])]
        kept += [] if cut.separation is None else ["--separation", f"{cut.separation:g}"]
        training = self._training()
        page = Page(
            title=self._output.resolve().name,
            told=self._told(),
            calibrated=plan.maker.calibrated,
            diameter=self._model.diameter,
            threshold=cut.threshold,
            repick=(shlex.join(["cetpick", "repick", str(self._output)]), shlex.join(kept)),
            version=str(self._values["cetpick"]),
            facts=self._facts(),
            training=training,
            trained=self._trained(training) if training else {},
            sections=sections,
            steps=summary.next,
            folder=Path.cwd(),
            warnings=list(self._values["warnings"]),
            failures=[*self._values["failures"], *(f"{n}: {why}" for n, why in self._values["missing"].items())],
            note=self._note(len(shown)),
        )
        write(summary.file, render(page))

    def plot(self, kind: str) -> None:
        """Draw pictures as files, of MOST_SHOWN tomograms at most.

        Raises:
            CetpickError: one cannot be written.
            OSError: candidates cannot be read.
        """
        made = write_plots(
            self._output,
            kind,
            self._records,
            chosen_tomograms(self._records, self.summary.flagged, most=MOST_SHOWN),
            model=self._model,
            cut=self._plan.cut,
            training=self._training(),
            say=self._say,
        )
        self.summary.plots, self.summary.not_plotted = made.files, made.lacking

    def _told(self) -> str:
        """The cut and what it is expected to give."""
        records, calibrated = self._records, self._plan.maker.calibrated
        return told_of_cut(
            self._plan.cut,
            picks=sum(record.picks for record in records),
            particles=sum(record.particles for record in records),
            everything=sum(record.expected[0].particles for record in records) if calibrated else None,
        )

    def _section(self, record: TomogramRecord, shown: set[str]) -> Section:
        name = record.info.name
        view = read_view(self._output, record) if name in shown else None
        if view is None and name in shown:
            view = self._drawn(record)
        if view is not None:
            self.summary.pictured.append(name)
        table = read_table(tomogram_files(self._output, name)[2]).table
        stored = table.reset_index(drop=True)
        ranked = record.cut.apart(record.info, stored, diameter=self._model.diameter)
        return Section(
            record=record.note(),
            name=name,
            picks=record.picks,
            particles=record.particles,
            everything=record.expected[0].particles if record.expected else None,
            flags=self.summary.flagged.get(name, []),
            labels=record.labels,
            rejected=record.rejected,
            candidates=Candidates(
                xyz=ranked[["x", "y", "z"]].to_numpy(np.float64),
                scores=ranked["score"].to_numpy(np.float64),
                stored=ranked.index.to_numpy(),
                top=record.cut.top,
            ),
            view=view,
        )

    def _drawn(self, record: TomogramRecord) -> dict[str, Any] | None:
        """Pictures of a tomogram that has none, where its file is the same still."""
        name = record.info.name
        try:
            if not record.input.fits(record.file):
                raise InputError("is not there, or not the file any more that was picked", file=record.file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CetpickWarning)  # given when it was picked
                with scratch.using(self._output):
                    prepared = prepare(read_tomogram(replace(record.info, path=record.file)), self._model)
        except Exception as error:  # noqa: BLE001 - as in write_report
            self.summary.lacking[name] = str(error) or type(error).__name__
            return None
        candidates = read_table(tomogram_files(self._output, name)[2]).table
        if not keep_view(self._output, record, prepared, candidates, diameter=self._model.diameter):
            self.summary.lacking[name] = "could not be drawn"
            return None
        self.summary.drawn.append(name)
        self._say(f"drew {name}")
        return read_view(self._output, record)

    def _flags(self, contrasts: Mapping[str, float | None]) -> dict[str, list[str]]:
        """What is unlike the other tomograms, in words, by tomogram."""
        records = {record.info.name: record for record in self._records}
        found: dict[str, list[str]] = {}
        known = {name: value for name, value in contrasts.items() if value is not None}
        sign = float(np.sign(np.median(list(known.values())))) if known else 1.0  # of dark, or of bright particles
        compared: list[tuple[str, dict[str, float], float]] = [
            ("number of picks", {name: float(np.log1p(record.picks)) for name, record in records.items()}, 0.1),
            (
                "expected precision",
                {name: record.particles / record.picks for name, record in records.items() if record.particles},
                0.02,
            ),
            ("best score", {n: r.best_score for n, r in records.items() if r.best_score is not None}, 0.02),
            ("contrast", {name: sign * value for name, value in known.items()}, 0.05),
        ]
        for what, values, least in compared:
            for name, side in outliers(values, least=least).items():
                found.setdefault(name, []).append(f"{side} {what}")
        for name, record in records.items():
            if not record.picks:
                found.setdefault(name, []).append("no picks")
        return {name: found[name] for name in records if name in found}

    def _facts(self) -> dict[str, str]:
        """What was run, on what, with what settings."""
        values, model = self._values, self._model
        first = self._records[0].info.grid
        labels, rejected = (model.provenance.get(known, {}) for known in ("labels", "rejected"))
        told = {name: f", {count} rejected places" for name, count in rejected.items()}
        repicked = values.get("repicked")
        return {
            "Command": shlex.join(["cetpick", *values["arguments"]]),
            **({"Folder it was given in": values["folder"]} if "folder" in values else {}),
            **({"Cut again by": shlex.join(["cetpick", *repicked["arguments"]])} if repicked else {}),
            "Begun": str(values["started"]),
            "Tomograms": f"{len(self._records)} picked of {len(self._plan.listing)}; "
            f"{self._records[0].info.name}: {' x '.join(map(str, first.size))} voxels of {first.voxel_size:g} A",
            "Particle": f"diameter {model.diameter:g} A",
            "Cut": str(values.get("told", self._plan.cut.told)),
            "Model": f"{values['model_file']}, SHA-256 {self._plan.maker.model[:12]}, mode {model.mode}, {model.told}",
            "Trained on": ", ".join(f"{name} ({n} labels{told.get(name, '')})" for name, n in labels.items())
            or "not known",
            "Seed": str(model.provenance.get("seed", "not known")),
            "Device": str(values["device"]),
            "Time": f"{sum(record.seconds for record in self._records):.0f} s to pick all tomograms",
            "Versions": versions(values),
            "Everything else": "run.json, and records/ for each tomogram: settings, hashes of inputs and results",
        }

    def _training(self) -> dict[str, Any]:
        """What is known of the training: from the record of this run, or from that beside the model."""
        beside = (read_record(record_beside(self._model_file())) or {}).get("training") or {}
        identity = self._model.provenance.get("training")
        training: dict[str, Any] = self._values.get("training") or {}
        if "curve" not in training and identity and beside.get("identity") == identity:
            training = beside
        return training

    def _model_file(self) -> Path:
        """Where the model is, or was; one that was left with the results may have been moved with them."""
        given = self._seen(Path(self._values["model_file"]))
        return self._output / given.name if not given.exists() and (self._output / given.name).exists() else given

    def _seen(self, path: Path) -> Path:
        """A path that was given in the folder of the run, as it is found from the present one."""
        folder = Path(self._values.get("folder", ""))
        there = folder != Path.cwd() and (folder / path).exists()
        return folder / path if there and not path.is_absolute() else path

    def _found(self, record: TomogramRecord) -> TomogramInfo:
        """A tomogram, as its files are found from the present folder."""
        info, relion = record.found, record.info.relion
        if relion is None:
            return info
        return replace(info, relion=replace(relion, star=self._seen(relion.star), project=self._seen(relion.project)))

    def _trained(self, training: Mapping[str, Any]) -> dict[str, str]:
        """The same for people."""
        page = report_beside(self._model_file())
        return facts_of(training, self._model) | (
            {"Labels on slices": f"{page}, the report of the training"} if page.exists() else {}
        )

    def _note(self, shown: int) -> str | None:
        """What the report leaves out."""
        pictured, total = len(self.summary.pictured), len(self._records)
        if pictured == total:
            return None
        why = f"Pictures of {pictured} of {total} tomograms"
        if shown > pictured or shown < min(total, MOST_SHOWN):
            command = shlex.join(["cetpick", "report", str(self._output)])
            return f"{why}; the others have none. `{command}` draws what it can from the tomograms."
        return (
            f"{why}: those unlike the others, the {EXTREMES} best and the {EXTREMES} worst by expected precision, and "
            "evenly spaced ones. Numbers are of all."
        )


def _candidates_stamp(output: Path, record: TomogramRecord) -> str | None:
    """SHA-256 of the candidates that pictures are of."""
    key = tomogram_files(output, record.info.name)[2].relative_to(output).as_posix()
    return record.outputs[key].sha256 if key in record.outputs else None


def _warn_of_report(path: Path, error: Exception) -> None:
    warnings.warn(
        f"{path}: not made, the picks are complete: {type(error).__name__}: {error}", CetpickWarning, stacklevel=3
    )
