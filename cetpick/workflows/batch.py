"""Tomograms seen to one after the other, here or by other processes, so that what is done stays done."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from cetpick import scratch
from cetpick.calibration import within
from cetpick.checkpoint import load_model
from cetpick.cluster import Cluster
from cetpick.config import ModelSettings
from cetpick.devices import device_name, resolve_device
from cetpick.errors import CetpickError, CetpickWarning
from cetpick.geometry import Points, as_points
from cetpick.inference import find_candidates
from cetpick.io.tomograms import read_tomogram
from cetpick.limits import cores
from cetpick.preprocess import Prepared, prepare
from cetpick.processes import in_processes
from cetpick.records import TomogramInfo
from cetpick.tiling import TileableNetwork
from cetpick.workflows.inputs import warn_of_contrast, warn_of_scale, warn_of_thinness
from cetpick.workflows.record import RunRecord, Stamp, keeping_warnings, revision, size_and_time
from cetpick.workflows.report import keep_view
from cetpick.workflows.results import (
    RUN_FILE,
    Todo,
    TomogramRecord,
    clear,
    discard,
    judge,
    read_tomogram_record,
    record_file,
    renewed,
    set_edited_aside,
    write_tomogram,
)
from cetpick.workflows.runs import Plan, complete_record, write_run

FEW, MANY = 5, 0.3
"""So many places, and such a share of them, may look like picks in gold or carbon without a word."""
SEEN_WITHIN = 90.0
"""Seconds within which files that another machine wrote are there; NFS looks for new ones once a minute."""


@dataclass(kw_only=True)
class Job:
    """One tomogram to see to.

    Attributes:
        place: in the listing.
        info: the tomogram.
        warnings: given when it was opened.
        todo: what there is to do.
        record: of the results that are there.
        rejected: places (n, 3) in it where nothing is to be picked, voxels.
        labels: in it, (n, 3), as far as they are known.
    """

    place: int
    info: TomogramInfo
    warnings: list[str]
    todo: Todo = "pick"
    record: TomogramRecord | None = None
    rejected: Points = field(default_factory=lambda: np.empty((0, 3)))
    labels: Points = field(default_factory=lambda: np.empty((0, 3)))


Seconds = Mapping[str, float]
"""Spent, by what on."""
Hands = Callable[[Sequence[Job]], Generator[tuple[Job, Seconds | Exception], None, None]]
"""Other processes that pick tomograms: each, as they are done, with the seconds or what went wrong."""


class Batch:
    """Sees to one tomogram after the other, so that what is done stays done whenever it is stopped."""

    def __init__(
        self,
        output: Path,
        record: RunRecord,
        plan: Plan,
        jobs: Sequence[Job],
        *,
        alone: bool,
        overwrite: bool,
        pictures: bool,
        memory: float | None,
        begun: bool = False,
    ) -> None:
        self.plan, self.done = plan, list[TomogramRecord]()
        self.done_before, self.cut_again = list[str](), list[str]()
        self.took_away = False  # earlier results
        self._outdated = list[str]()  # what failed before anything was done
        self._output, self._record, self._jobs = output, record, jobs
        self._alone, self._overwrite, self._pictures, self._begun = alone, overwrite, pictures, begun
        self._memory = memory

    def run(
        self,
        network: TileableNetwork | None,
        settings: ModelSettings,
        say: Callable[[str], None],
        hands: Hands | None = None,
    ) -> None:
        """See to all tomograms, with `hands` in other processes; one that fails does so alone."""
        todo = [job for job in self._jobs if job.todo != "nothing"]
        for job in self._jobs:
            if job.todo == "nothing" and job.record is not None:
                self.done.append(renewed(self._output, job.record, job.info))
                self.done_before.append(job.info.name)
        total = len(self.plan.shard.positions(len(self.plan.listing)))
        if self.done:
            say(f"{len(self.done)} of {total} tomograms done before")
        if not self._alone:
            self._begin()  # `collect` is to know of a shard that has begun
        with closing(self._outcomes(todo, network, settings, hands)) as outcomes:
            for number, (job, done) in enumerate(outcomes, start=total - len(todo) + 1):
                name = job.info.name
                if isinstance(done, Exception):
                    self._fail(job, done)
                    say(f"{number}/{total} failed {name}")
                    continue
                self.done.append(done)
                how = "picked"
                before = ""
                if job.todo == "cut":
                    how = "cut again"
                    self.cut_again.append(name)
                    if job.record is not None and job.record.cut != done.cut:  # as `repick` may have left it
                        before = f", {done.cut.told}; before: {job.record.picks} picks, {job.record.cut.told}"
                say(f"{number}/{total} {how} {name}: {done.picks} picks of {done.candidates} candidates{before}")

    def _outcomes(
        self, todo: Sequence[Job], network: TileableNetwork | None, settings: ModelSettings, hands: Hands | None
    ) -> Generator[tuple[Job, TomogramRecord | Exception], None, None]:
        """Each tomogram with its new record, or with what went wrong; stored candidates are always cut here."""
        for job in todo:
            if job.todo == "cut" or hands is None:
                try:
                    done = self._cut(job, settings) if job.todo == "cut" else self.pick(job, network, settings)
                except Exception as error:  # noqa: BLE001 -- hundreds of others are to be picked
                    yield job, error
                else:
                    yield job, done
        picks = [job for job in todo if job.todo == "pick"]
        if hands is None or not picks:
            return
        self._begin()
        for job in picks:  # the hands would not tell of it
            set_edited_aside(self._output, job.info.name)
        with closing(hands(picks)) as handed:
            for job, spent in handed:
                yield job, spent if isinstance(spent, Exception) else self._arrived(job, spent)

    def _arrived(self, job: Job, spent: Seconds) -> TomogramRecord | CetpickError:
        """The record of a tomogram that was picked elsewhere, once its files are to be seen from here."""
        end = time.monotonic() + SEEN_WITHIN
        while (record := complete_record(self._output, job.info.name, self.plan)) is None:
            if time.monotonic() > end:
                return CetpickError(
                    "was picked, but the results are not to be seen here",
                    file=record_file(self._output, job.info.name),
                    expected=f"complete results within {SEEN_WITHIN:.0f} s",
                    cure="let -o name a folder that all machines share",
                )
            time.sleep(0.5)
        for what, seconds in spent.items():
            self._record.add_seconds(what, seconds)
        for text in record.warnings[len(job.warnings) :]:
            warnings.warn(text, CetpickWarning, stacklevel=2)
        return record

    def finish(self) -> Path:
        """Write the run file for the last time; returns it."""
        if self._outdated:
            self._begin()
        self.plan = replace(self.plan, finished=True)
        return write_run(self._output, self._record, self.plan)

    def withdraw(self) -> None:
        """Leave no run file, when there is nothing to tell."""
        (self._output / self.plan.shard.run_file).unlink(missing_ok=True)

    def _begin(self) -> None:
        """Before the first results are written: tell of the run, and take away what would not tell of it."""
        if self._begun:
            return
        write_run(self._output, self._record, self.plan)
        self._begun = True
        outdated = [job.info.name for job in self._jobs if job.todo == "pick" and job.record is not None]
        if self._overwrite:  # also of those that could not be opened
            outdated = [self.plan.listing[place] for place in self.plan.shard.positions(len(self.plan.listing))]
        outdated += self._outdated
        earlier = [record_file(self._output, name) for name in outdated] + [self._output / RUN_FILE]
        self.took_away = any(path.exists() for path in earlier)
        clear(self._output, outdated, together=self._alone)

    def pick(self, job: Job, network: TileableNetwork | None, settings: ModelSettings) -> TomogramRecord:
        """Pick a tomogram and write its results.

        Raises:
            CetpickError: the tomogram cannot be used.
        """
        assert network is not None
        info, start = job.info, time.monotonic()
        before = size_and_time(info.path)
        with keeping_warnings(job.warnings), self._record.timed("picking"):
            candidates, prepared = pick_tomogram(info, network, settings, memory=self._memory)
            _warn_of_contamination(info, prepared, candidates, settings.threshold)
            radius = settings.diameter / 2 / info.grid.voxel_size
            refused = within(as_points(candidates[["x", "y", "z"]]), job.rejected, radius)
            candidates = candidates[~refused].reset_index(drop=True)
        seconds = round(time.monotonic() - start, 3)
        with self._record.timed("hashing"):
            stamp = Stamp.of(info.path)
        if (stamp.bytes, stamp.modified) != before:
            raise CetpickError("was written to while it was picked", file=info.path, cure="repeat the command later")
        made = TomogramRecord(
            maker=self.plan.maker,
            file=info.path.resolve(),
            input=stamp,
            info=replace(info, header={}),
            device=self._record.values["device"],
            picked=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            seconds=seconds,
            candidates=len(candidates),
            best_score=float(candidates["score"].max()) if len(candidates) else None,
            excluded_voxels=vars(prepared.exclusions),
            labels=job.labels.tolist(),
            rejected=job.rejected.tolist(),
            rejected_candidates=int(refused.sum()),
            excluded_picks=candidates.attrs.get("excluded", 0),
            warnings=job.warnings,
            cut=self.plan.cut,
        )
        self._begin()
        made = write_tomogram(self._output, made, diameter=settings.diameter, candidates=candidates)
        if self._pictures:
            with self._record.timed("pictures"):
                keep_view(self._output, made, prepared, candidates, diameter=settings.diameter)
        return made

    def _cut(self, job: Job, settings: ModelSettings) -> TomogramRecord:
        assert job.record is not None
        self._begin()
        set_edited_aside(self._output, job.info.name)  # renewing the record forgets how it was written
        record = replace(renewed(self._output, job.record, job.info), cut=self.plan.cut)
        with self._record.timed("cutting"):
            return write_tomogram(self._output, record, diameter=settings.diameter)

    def _fail(self, job: Job, error: Exception) -> None:
        """Note a failure, and take away results of the tomogram as it was before; candidates to be cut stay."""
        if not isinstance(error, CetpickError):
            error = CetpickError(f"{type(error).__name__}: {error}", file=job.info.path)
        self.plan = replace(self.plan, failures={**self.plan.failures, job.place: str(error)})
        try:
            write_run(self._output, self._record, self.plan)  # with nothing done, it is taken away again
        except CetpickError as full:
            told = str(full) if str(full) in str(error) else f"{error}\n{full}"
            raise CetpickError(f"{told}\nno further tomogram was tried") from None
        if job.todo != "pick":
            return
        if self._begun:
            discard(self._output, job.info.name)
        elif job.record is not None:
            self._outdated.append(job.info.name)


def _warn_of_contamination(info: TomogramInfo, prepared: Prepared, candidates: pd.DataFrame, threshold: float) -> None:
    """Warn when much that scores as a pick lies in what was taken for gold or carbon."""
    region = info.region
    if prepared.contaminated is None or region.mask is not None or region.slab is not None:
        return
    lost, picks = candidates.attrs["excluded"], int((candidates["score"] >= threshold).sum())
    if lost > max(FEW, MANY * (lost + picks)):
        warnings.warn(
            f"{info.path}: {lost} of {lost + picks} places that score as picks lie in what looks like gold or carbon "
            "and are left out; if the report shows particles there, add --keep gold --keep carbon",
            CetpickWarning,
            stacklevel=2,
        )


@dataclass(frozen=True, kw_only=True)
class Errand:
    """How to pick a tomogram in another process, perhaps on another machine; all of it stays in files there.

    Attributes:
        folder: that relative paths start at.
        output: folder of results.
        plan: of the run; neither listing nor failures are needed.
        model: model file.
        device: to compute on.
        threads: CPU threads, None as torch has them.
        pictures: for the report, too.
        memory: as of pick_tomogram.
    """

    folder: Path
    output: Path
    plan: Plan
    model: Path
    device: str
    threads: int | None
    pictures: bool
    memory: float | None

    def __call__(self, job: Job) -> Seconds | CetpickError:
        """Pick a tomogram, unless a worker that was lost has done so; what is wrong with it, or the seconds.

        Raises:
            Exception: it may go better on another machine.
        """
        maker, cut, record = self.plan.maker, self.plan.cut, RunRecord("pick", {})
        spent: dict[str, float] = record.values["seconds"]
        if maker.cetpick != revision():
            raise CetpickError(
                f"cetpick {maker.cetpick} gave work to cetpick {revision()}",
                file=platform.node(),
                cure="let the workers use the same installation",
            )
        # the client tells of warnings, which are in the record
        with chdir(self.folder), scratch.using(self.output), warnings.catch_warnings():
            warnings.showwarning = _say_nothing
            stored = read_tomogram_record(self.output, job.info.name)
            if judge(self.output, job.info, stored, maker, cut, rejected=job.rejected)[0] == "nothing":
                return {}
            network, settings, record.values["device"] = _loaded(self.model, maker.model, self.device, self.threads)
            batch = Batch(
                self.output,
                record,
                self.plan,
                [],
                alone=False,
                overwrite=False,
                pictures=self.pictures,
                memory=self.memory,
                begun=True,
            )
            try:
                batch.pick(job, network, settings)
            except CetpickError as error:
                return error
        return spent


@lru_cache(maxsize=1)
def _loaded(model: Path, sha256: str, device: str, threads: int | None) -> tuple[TileableNetwork, ModelSettings, str]:
    """Network and settings of a model file, and what the device is called, kept for the next tomogram."""
    resolved = resolve_device(device, threads=threads)
    if Stamp.of(model).sha256 != sha256:
        raise CetpickError("is another model than it was when the work was given out", file=model)
    return *load_model(model, resolved), device_name(resolved)


def hands_of(
    errand: Errand, where: Cluster | None, devices: Sequence[str], jobs: int, say: Callable[[str], None]
) -> Hands:
    """The processes that pick so many tomograms: of a cluster, or one for each device."""
    if where is not None and not where.is_local:
        return partial(where.share_out, [replace(errand, threads=errand.threads or where.threads)], say=say)
    count = len(devices)
    if where is not None:
        count = min(jobs, where.number or (cores() if "cpu" in devices else count))
    threads = errand.threads or max(1, cores() // max(1, count))
    errands = [replace(errand, device=devices[number % len(devices)], threads=threads) for number in range(count)]
    return partial(in_processes, errands) if where is None else partial(where.share_out, errands, say=say)


def _say_nothing(*_: object, **__: object) -> None:
    pass


def pick_tomogram(
    info: TomogramInfo,
    network: TileableNetwork,
    settings: ModelSettings,
    *,
    memory: float | None = None,
) -> tuple[pd.DataFrame, Prepared]:
    """Find the candidates in one tomogram.

    Args:
        info: the tomogram, not yet read.
        network: in eval mode.
        settings: of its model.
        memory: bytes that a tile may take on the device; by default devices.spare_memory.

    Returns:
        The candidates, as find_candidates has them, and the tomogram as the network saw it.

    Raises:
        CetpickError: the tomogram cannot be used.
    """
    warn_of_scale(info, settings.stored_voxel_size)
    warn_of_thinness(info, settings.diameter)
    prepared = prepare(read_tomogram(info), settings)
    warn_of_contrast(info, prepared.skewness, settings.skewness)
    candidates = find_candidates(network, prepared, info.grid, settings, memory=memory)
    return candidates, prepared
