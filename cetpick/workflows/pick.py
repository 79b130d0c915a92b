"""`pick`: tomograms and a model, or labels to train one, in; particles for the other programs out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cetpick import scratch
from cetpick.checkpoint import load_model
from cetpick.cluster import Cluster
from cetpick.config import ModelSettings, PickSettings, TrainSettings
from cetpick.devices import device_name, resolve_device, resolve_devices
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.lock import alone_in
from cetpick.io.model import read_settings
from cetpick.io.relion import Flavour, seen_from
from cetpick.io.star import value_text
from cetpick.io.tomograms import Listed, read_tomogram
from cetpick.optimisation import Progress
from cetpick.preprocess import valid_voxels
from cetpick.records import TomogramInfo
from cetpick.tiling import TileableNetwork
from cetpick.workflows.batch import Batch, Errand, Hands, Job, hands_of
from cetpick.workflows.collect import run_collect
from cetpick.workflows.inputs import (
    InputOptions,
    Labelled,
    foreign_files,
    joined_points,
    limited,
    list_tomograms,
    none_usable,
    open_labelled,
    open_training,
    read_places,
    telling_unusable,
)
from cetpick.workflows.record import (
    RunRecord,
    Stamp,
    keeping_warnings,
    prepare_output,
    read_record,
    record_beside,
    refuse_earlier,
    report_beside,
)
from cetpick.workflows.results import (
    DATASET_FILES,
    Cut,
    Maker,
    clear,
    judge,
    read_tomogram_record,
    record_file,
    recorded,
    refuse_precision,
    tomogram_files,
    view_file,
)
from cetpick.workflows.runs import Plan, Shard, known_runs
from cetpick.workflows.train import is_model_of, train_and_save

SHOWN = 5
"""So many of the results that are in the way are named, and the number of the others."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train on before picking.

    Attributes:
        tomograms: labelled tomograms; empty to look for them among the tomograms to pick.
        labels: label files.
        added: files of further labels, which were found by looking at picks.
        settings: of the training.
    """

    tomograms: Sequence[Path]
    labels: Sequence[Path]
    added: Sequence[Path] = ()
    settings: TrainSettings


@dataclass(kw_only=True)
class PickSummary:
    """What `pick` tells.

    Attributes:
        output: folder.
        model: the model used.
        settings: of the model.
        threshold: scores from here on are picks.
        told: the cut and what it is expected to give.
        picks: number of picks by tomogram.
        candidates: number of candidates by tomogram.
        files: what the results are, the record of the run last.
        failures: one message a tomogram that could not be picked.
        missing: why, by tomogram, for those whose results were lost before they were collected.
        rejected: number of candidates left out at rejected places, by tomogram that has such.
        trained_on: names of those picked tomograms that were trained on.
        done_before: names of those whose results were there already.
        cut_again: names of those whose stored candidates were cut again.
        shard: which part of the tomograms this was, None for all.
    """

    output: Path
    model: Path
    settings: ModelSettings
    threshold: float
    told: str
    picks: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    done_before: list[str] = field(default_factory=list)
    cut_again: list[str] = field(default_factory=list)
    shard: Shard | None = None

    @property
    def exit_code(self) -> int:
        """0 when all was picked, else 1."""
        return 1 if self.failures or self.missing else 0


def run_pick(
    tomograms: Sequence[Path],
    *,
    output: Path,
    model: Path | None = None,
    training: Training | None = None,
    reject: Sequence[Path] = (),
    settings: PickSettings | None = None,
    options: InputOptions | None = None,
    star: Flavour | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory: float | None = None,
    shard: Shard | None = None,
    cluster: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PickSummary:
    """Pick tomograms and write the results to a folder; see the README for the files.

    What the folder holds already of the same tomograms, model and version is not done again; with another cut the
    stored candidates are cut again.

    Args:
        tomograms: to pick: tomogram files and tomograms.star files.
        output: folder.
        model: model file; else `training` says how to make one.
        training: labelled tomograms and settings; the model is kept as model.safetensors.
        reject: files of places that are no particles: background in the training, and where nothing is picked.
        settings: threshold and number of picks.
        options: how to read the inputs.
        star: flavour of particles.star; by default relion5 for tomograms of a tomograms.star, else relion31.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, or several with commas between: a process for each then picks
            tomograms, and the first one trains. `auto` are all GPUs.
        threads: CPU threads, of each process; by default the processes of a machine share its cores.
        memory: bytes that a tile may take on the device; by default devices.spare_memory.
        shard: pick this part only, and leave it to `collect` to make particles.star and run.json.
        cluster: where to pick, see Cluster.parse; the folders must be the same ones there.
        resume: go on from the checkpoint of a training that was stopped, if there is one.
        overwrite: do everything anew and replace earlier results, and without `resume` a checkpoint.
        report: make report.html, and the pictures for it while the tomograms are in memory.
        progress: told of every training step.
        say: told in a line what there is to do, and of every tomogram that is seen to.

    Raises:
        InputError: unusable input, no usable tomogram, results of something else in the way, or another run at work in
            the folder; nothing was written.
        TrainingError: the training failed.
    """
    options, settings, part = options or InputOptions(), settings or PickSettings(), shard or Shard()
    say = say or (lambda _: None)
    if (model is None) == (training is None):
        raise InputError(
            "give either a model or labels",
            cure="pick with --model FILE, or train first with --train TOMOGRAM --labels FILE --diameter ANGSTROM",
        )
    if shard is not None and model is None:
        raise InputError(
            "every shard would train a model of its own",
            cure="train first (`cetpick train ... -o MODEL`), then give --model MODEL with --shard",
        )
    if shard is not None and cluster is not None:
        raise InputError("--shard and --cluster both share out the tomograms", cure="give one of them")
    where = Cluster.parse(cluster) if cluster is not None else None
    record = RunRecord(
        "pick", {"pick": settings, "inputs": options, "train": training.settings if training else None, "star": star}
    )
    if training is not None and training.settings.mode == "paper":
        refuse_precision(settings, "paper")
    with record.keeping_warnings(), scratch.using(output), ExitStack() as held:
        listing = list_tomograms(tomograms, options)
        flavour = star or ("relion5" if all(entry.relion for entry in listing if not entry.error) else "relion31")
        check_flavour(listing, flavour)
        jobs, failures = _open(listing, part, options, flavour)
        if not jobs and shard is None:
            raise none_usable(list(failures.values()))
        _prepare(output, jobs, [*tomograms, *reject], model, training, part)
        labelled: list[Labelled] = []
        used = model or output / "model.safetensors"
        train_record = RunRecord("train", {"train": training.settings if training else None, "inputs": options})
        trained_before = False
        infos = [job.info for job in jobs]
        to_train = open_training(training.tomograms, options, among=infos) if training is not None else []
        with telling_unusable(list(failures.values())):
            aims, needed = to_train or infos, shard is None
            rejected = read_places(reject, aims, options, what="rejected places", others=infos, needed=needed)
            if training is not None:
                added = read_places(training.added, aims, options, what="added labels", others=infos)
                labelled = open_labelled(
                    to_train,
                    training.labels,
                    training.settings,
                    options,
                    rejected=rejected,
                    added=added,
                    others=infos,
                    option="--train",
                )
        for line in foreign_files(labelled):
            say(line)
        labels = {of.info.path.resolve(): of.labels.xyz for of in labelled}
        for job in jobs:
            job.rejected = joined_points(rejected.get(job.info.path.resolve(), []))
            job.labels = labels.get(job.info.path.resolve(), job.labels)
        if training is not None:
            _warn_of_untrained(jobs, labels, added)
            trained_before = not overwrite and is_model_of(used, labelled, training.settings, train_record)
        untrained = training is not None and not trained_before
        if not overwrite:
            if untrained:
                refuse_earlier(output, [used.name, record_beside(used).name])
            _compare(output, jobs, listing, None if untrained else _aim(used, settings))
        else:
            _refuse_to_lose(output, listing)
        if shard is None:  # of a shard there is one at a time, as its scheduler sees to
            held.enter_context(alone_in(output, part.run_file))
        if untrained:
            assert training is not None
            _require_one_usable([job.info for job in jobs])
            with train_record.keeping_warnings():
                train_and_save(
                    labelled,
                    training.settings,
                    used,
                    train_record,
                    options=options,
                    device=device.split(",")[0],
                    threads=threads,
                    resume=resume,
                    overwrite=overwrite,
                    # of the model that is replaced
                    make_way=partial(clear, output, [entry.name for entry in listing]) if overwrite else None,
                    report=report,
                    progress=progress,
                )
        maker, cut, model_settings = _aim(used, settings)
        record.values |= {"model_file": str(used), "model": model_settings}
        if training is not None:
            _note_training(record, train_record, used, before=trained_before)
        network: TileableNetwork | None = None
        devices: list[str] = []
        if to_pick := sum(job.todo == "pick" for job in jobs):
            devices = [device] if where is not None and not where.is_local else resolve_devices(device)
            devices = devices[:to_pick]
            alone = where is None and len(devices) == 1
            resolved = resolve_device(devices[0] if alone else "cpu", threads=threads)
            network, _ = load_model(used, resolved)
            record.values["device"] = device_name(resolved)
        stars = dict.fromkeys(entry.relion.star for entry in listing if entry.relion is not None)
        with record.timed("hashing"):
            sources = [file.source for files in rejected.values() for file in files if file.source]
            masks = dict.fromkeys(info.region.mask for info in infos if info.region.mask is not None)
            record.add_inputs([*([model] if model else []), *stars, *masks, *dict.fromkeys(sources)])
        plan = Plan(
            begun=time.time(),
            shard=part,
            listing=[entry.name for entry in listing],
            maker=maker,
            cut=cut,
            star=flavour,
            region=options.region,
            project=_project(listing) if flavour == "relion5" else None,
            failures={place: str(error) for place, error in failures.items()},
        )
        summary = PickSummary(
            output=output,
            model=used,
            settings=model_settings,
            threshold=cut.threshold,
            told=cut.told,
            trained_on=[job.info.name for job in jobs if job.info.path.resolve() in labels],
            shard=shard,
        )
        batch = Batch(
            output, record, plan, jobs, alone=shard is None, overwrite=overwrite, pictures=report, memory=memory
        )
        hands: Hands | None = None
        if where is not None or len(devices) > 1:
            errand = Errand(
                folder=Path.cwd(),
                output=output,
                plan=replace(plan, listing=(), failures={}),
                model=used,
                device=device,
                threads=threads,
                pictures=report,
                memory=memory,
            )
            hands = hands_of(errand, where, devices, to_pick, say)
        batch.run(network, model_settings, say, hands)

        if shard is None and not batch.done:
            batch.withdraw()
            listed = "\n".join(batch.plan.failures.values())
            kind = CetpickError if batch.took_away else InputError
            raise kind(f"no tomogram could be picked\n{listed}")
        run_file = batch.finish()
        summary.done_before, summary.cut_again = batch.done_before, batch.cut_again
        summary.rejected = {done.info.name: done.rejected_candidates for done in batch.done if done.rejected}
        summary.failures = list(batch.plan.failures.values())
        if training is not None:
            summary.files.append(used)
        if shard is None:
            collected = run_collect(output, report=report, redraw=say)
            run_file.unlink()
            summary.picks, summary.candidates = collected.picks, collected.candidates
            summary.files += collected.files
            summary.told = collected.told
            summary.failures, summary.missing = collected.failures, collected.missing
        else:
            summary.picks = {done.info.name: done.picks for done in batch.done}
            summary.candidates = {done.info.name: done.candidates for done in batch.done}
            summary.files += [path for done in batch.done for path in tomogram_files(output, done.info.name)]
            summary.files.append(run_file)
    return summary


def _open(
    listing: Sequence[Listed], part: Shard, options: InputOptions, flavour: Flavour
) -> tuple[list[Job], dict[int, CetpickError]]:
    """The usable tomograms of a shard, and the errors of the others by their place in the listing."""
    jobs: list[Job] = []
    failures: dict[int, CetpickError] = {}
    for place in part.positions(len(listing)):
        warned: list[str] = []
        try:
            with keeping_warnings(warned):
                info = limited(listing[place].open(voxel_size=options.voxel_size), options)
                _check_name(info, flavour)
        except CetpickError as error:
            failures[place] = error
        else:
            jobs.append(Job(place=place, info=info, warnings=warned))
    return jobs, failures


def _check_name(info: TomogramInfo, flavour: Flavour) -> None:
    """Raise an InputError for a name that no STAR file can hold, or that one of the files of all results has."""
    value_text(info.path, "rlnMicrographName", info.path if flavour == "relion31" else info.name)
    if taken := {file.name for file in tomogram_files(Path(), info.name)}.intersection(DATASET_FILES):
        raise InputError(
            f"its results would take the place of {min(taken)}",
            file=info.path,
            cure="name a link to it that is called otherwise",
        )


def _prepare(
    output: Path,
    jobs: Sequence[Job],
    tomograms: Sequence[Path],
    model: Path | None,
    training: Training | None,
    part: Shard,
) -> None:
    """Refuse an output folder that cannot be written to, and one in which an input would be overwritten."""
    names = [*DATASET_FILES, part.run_file]
    for job in jobs:
        name = job.info.name
        files = (*tomogram_files(output, name), record_file(output, name), view_file(output, name))
        names += [str(path.relative_to(output)) for path in files]
    inputs = [*tomograms, *(job.info.path for job in jobs)]
    if training is not None:
        made = Path("model.safetensors")
        names += [made.name, record_beside(made).name, report_beside(made).name]
        inputs += [*training.tomograms, *training.labels, *training.added]
    prepare_output(output, names, overwrite=True, inputs=[*inputs, *([model] if model else [])])


def _aim(model: Path, settings: PickSettings) -> tuple[Maker, Cut, ModelSettings]:
    """What is to make the candidates, what is to cut them, and the model's settings.

    Raises:
        InputError: the model file cannot be used, or not for this cut.
    """
    model_settings = read_settings(model)
    calibrated = bool(model_settings.calibration)
    maker = Maker(model=Stamp.of(model).sha256, calibrated=calibrated)
    return maker, Cut.chosen(settings, model_settings), model_settings


def _warn_of_untrained(jobs: Sequence[Job], trained: Container[Path], added: Container[Path]) -> None:
    """Warn of rejected places and added labels that the training does not learn: their tomograms are only picked."""
    others = [job for job in jobs if job.info.path.resolve() not in trained]
    lost = {
        "rejected places in {} are kept out of the picks but": [job for job in others if len(job.rejected)],
        "added labels in {} are": [job for job in others if job.info.path.resolve() in added],
    }
    for what, of in lost.items():
        if of:
            names = _shown([job.info.name for job in of])
            warnings.warn(
                f"{what.format(names)} not learned from; add --train with these tomograms for that",
                CetpickWarning,
                stacklevel=3,
            )


def _compare(
    output: Path,
    jobs: Sequence[Job],
    listing: Sequence[Listed],
    aim: tuple[Maker, Cut, ModelSettings] | None,
) -> None:
    """See what the folder holds and what there is to do, and refuse results that this command would not have made.

    Args:
        output: the folder.
        jobs: tomograms to see to; they are told what there is to do.
        listing: all tomograms of the command.
        aim: what is to make and cut the candidates, None when a model is yet to be trained.

    Raises:
        InputError: there are such, with what makes them different.
    """
    no_model = "made with a model that is not there"
    foreign: list[str] = []
    earlier = max(known_runs(output), key=lambda run: run.plan.begun, default=None)
    present = ", ".join(name for name in DATASET_FILES if (output / name).exists())
    if present and earlier is None:
        foreign.append(f"{present}: not known how they were made")
    elif present and earlier is not None and (unlike := aim[0].unlike(earlier.plan.maker) if aim else no_model):
        foreign.append(f"{present}: {unlike}")
    else:
        _refuse_to_lose(output, listing)
    for job in jobs:
        job.record = read_tomogram_record(output, job.info.name)
        if aim is None:
            files = [*tomogram_files(output, job.info.name), record_file(output, job.info.name)]
            there = ", ".join(str(path.relative_to(output)) for path in files if path.exists())
            foreign += [f"{there}: {no_model}"] if there else []
        else:
            job.todo, other = judge(output, job.info, job.record, *aim[:2], rejected=job.rejected)
            foreign += [other] if other else []
    if foreign:
        raise InputError(
            "already holds results of something else",
            file=output,
            expected="no results, or those of the same tomograms, model and version of cetpick",
            found=_shown(foreign, "\n         "),
            cure="choose another folder with -o; or move these files away; or add --overwrite to do everything anew",
        )


def _refuse_to_lose(output: Path, listing: Sequence[Listed]) -> None:
    """Raise an InputError when a folder holds picks of tomograms that are not listed."""
    names = {entry.name for entry in listing}
    if left := [name for name in recorded(output) if name not in names]:
        raise InputError(
            "holds picks of tomograms that this command does not name, and particles.star would lose them",
            file=output,
            found=_shown(left),
            cure="name them too, which without --overwrite picks nothing twice; or choose another folder with -o; or, "
            "when they are to go, remove records/NAME.json, candidates/NAME.csv, NAME.csv and NAME.mod",
        )


def _shown(items: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join([*items[:SHOWN], *more])


def _note_training(record: RunRecord, train_record: RunRecord, model: Path, *, before: bool) -> None:
    """Tell in the record of the run how the model was trained, also when that was done before."""
    trained: dict[str, Any] = train_record.values
    if before:
        identity = read_settings(model).provenance["training"]
        stored = read_record(record_beside(model)) or {}
        if stored.get("training", {}).get("identity") == identity:
            trained = stored
            record.values["warnings"] += stored["warnings"]
        else:  # the model itself tells a part
            trained["training"] = dict(read_settings(model).provenance)
    else:
        record.values["seconds"] |= {what: s for what, s in trained["seconds"].items() if what != "total"}
    record.values["inputs"] |= trained["inputs"]
    record.values["seed"] = trained.get("seed")
    record.values["training"] = trained["training"] | {"done_before": before}


def _project(listing: Sequence[Listed]) -> tuple[Path, str] | None:
    """RELION's project folder, and tomograms.star as it is found from there; None when there is not one such file."""
    stars = {entry.relion.star: entry.relion.project for entry in listing if entry.relion is not None}
    if len(stars) != 1:
        return None
    ((star, project),) = stars.items()
    return project.absolute(), str(seen_from(project, star))


def _require_one_usable(infos: Sequence[TomogramInfo]) -> None:
    """Read tomograms until one holds data, so that no network is trained for nothing.

    Raises:
        InputError: none does.
    """
    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)  # given when the tomograms are picked
        for info in infos:
            try:
                valid_voxels(read_tomogram(info))
            except CetpickError as error:
                failures.append(str(error))
            else:
                return
    raise InputError("\n".join(["no tomogram could be picked", *failures]))


def check_flavour(listing: Sequence[Listed], flavour: Flavour) -> None:
    """Make sure before the work that particles.star can be written.

    Raises:
        InputError: RELION 4 and 5 count in pixels of the tilt series, which only a tomograms.star tells.
    """
    lacking = [entry for entry in listing if entry.relion is None and entry.error is None]
    if flavour in ("relion4", "relion5") and lacking:
        raise InputError(
            f"--star {flavour} needs the tilt series' pixel size, binning and size",
            file=lacking[0].path,
            expected="tomograms named by a RELION 5 tomograms.star",
            found=f"{len(lacking)} of {len(listing)} tomograms named as files",
            cure="give tomograms.star in the place of the tomogram files, or choose --star relion31 or warp",
        )
