"""An External job of RELION: cetpick's commands run as subprocesses, their results put where RELION looks for them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.io.atomic import replacing
from cetpick.io.lock import alone_in
from cetpick.io.relion import (
    Flavour,
    annotations_in,
    write_annotations,
    write_optimisation_set,
    write_particles,
)
from cetpick.io.relion_job import (
    OUTPUT_NODES,
    SUFFIX,
    SUFFIX_FILE,
    AbortError,
    Kind,
    Version,
    abort_wanted,
    add_reconstructions,
    clicked_in,
    coordinate_file,
    lacks_reconstructions,
    read_micrographs,
    version_of,
    write_output_nodes,
)
from cetpick.io.table import read_table
from cetpick.records import TomogramInfo
from cetpick.workflows.inputs import InputOptions, list_tomograms, open_tomograms
from cetpick.workflows.record import checkpoint_beside, read_json, read_record, record_beside, report_beside, write_json
from cetpick.workflows.results import (
    ALL_TOGETHER,
    DATASET_FILES,
    RUN_FILE,
    discard,
    files_of,
    recorded,
    remove,
    set_edited_aside,
)
from cetpick.workflows.runs import run_files

POLL, GRACE = 0.5, 20.0
"""Seconds between looks for a wish to abort, and those that a command is given to end by itself."""
STATE = "cetpick_job.json"
"""What the job was asked for when its results were made, for `Continue`."""
ASIDE = ".earlier"
"""Folder in that of the job, of results of what was asked for before, until there are others."""
MODEL = "model.safetensors"
NEUTRAL = {
    "--memory", "--no-report", "--quiet", "-q", "--json", "--star", "--cluster", "--overwrite", "--resume", "--threads",
    "--device",
}  # fmt: skip
"""Options of `cetpick pick` that do not decide what the candidates are."""


@dataclass(frozen=True, kw_only=True)
class RelionJob:
    """What RELION's window asks for. Paths are as seen from the project folder, which is the current one.

    Attributes:
        folder: of the job, `External/jobNNN`.
        inputs: a tomograms.star, a micrographs STAR, or tomogram files.
        tomograms: reconstructions, where `inputs` is a tomograms.star of RELION 4; or tomogram files.
        model: model file; None to train one.
        train: tomograms to train on; empty for those of `inputs` that have labels.
        train_only: do not pick.
        labels: label files, or what a picking job of RELION gives.
        reject: files of places that are no particles.
        added: files of further labels, which were found by looking at picks.
        diameter: of the particle in angstrom, as text.
        count_hint: expected particles in a tomogram, as text.
        threshold: score from which a candidate is a pick; None for the model's own.
        precision: expected of the picks, instead.
        top: at most this many picks a tomogram.
        device: as `cetpick pick --device` has it.
        threads: CPU threads, as text.
        options: how to read the inputs.
        exe: the command line in the place of `cetpick`.
        extra: more arguments for it.
    """

    folder: Path
    inputs: Sequence[Path] = ()
    tomograms: Sequence[Path] = ()
    model: Path | None = None
    train: Sequence[Path] = ()
    train_only: bool = False
    labels: Sequence[Path] = ()
    reject: Sequence[Path] = ()
    added: Sequence[Path] = ()
    diameter: str | None = None
    count_hint: str | None = None
    threshold: float | None = None
    precision: float | None = None
    top: int | None = None
    device: str = "auto"
    threads: str | None = None
    options: InputOptions = field(default_factory=InputOptions)
    exe: Sequence[str] = ("cetpick",)
    extra: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The tomograms of a job.

    Attributes:
        paths: what `cetpick` is given.
        options: how to read them.
        infos: the usable ones.
        unusable: one error for each that is not.
        micrographs: rlnMicrographName of each of `infos`, where a micrographs STAR was given.
        star: the tomograms.star that RELION shall be told of.
    """

    paths: Sequence[Path]
    options: InputOptions
    infos: Sequence[TomogramInfo]
    unusable: Sequence[CetpickError]
    micrographs: Sequence[str] = ()
    star: Path | None = None


def run_relion_job(job: RelionJob, *, say: Callable[[str], None] = print) -> None:
    """Do what the job asks for; of an earlier run with the same settings, what is done stays as it is.

    Args:
        job: what RELION's window asks for.
        say: told what happens.

    Raises:
        AbortError: the user aborted the job.
        InputError: unusable settings or input, or an earlier run of this job is still at work.
        CetpickError: a command failed, or some tomograms could not be picked; the results of the others are there.
    """
    # held by the command, too: it may outlive a job that is killed, and then is in the way of the next run
    with alone_in(job.folder, "cetpick_job") as held:
        _do(job, held, say)


def _do(job: RelionJob, held: Sequence[int], say: Callable[[str], None]) -> None:
    version = version_of(job.folder) or "5"
    inputs = _open(job, say)
    job = replace(job, options=inputs.options)
    trained_on, labels = _labels(job, inputs)
    _check(job, labels)
    if job.model is not None and job.diameter is not None:
        say("`diameter` is not used: the model knows that of its particle")
    _check_files(job, [*trained_on, *labels])
    asked = _asked(job, inputs, trained_on, labels)
    _refuse_others(job.folder)
    _restore(job)  # a run that was killed before it had made anything
    if _earlier(job.folder) != asked:
        _make_room(job, inputs, asked)
    try:
        _make(job, inputs, (trained_on, labels), version, held, say)
    finally:
        _restore(job)
    shutil.rmtree(job.folder / ASIDE, ignore_errors=True)


def _make(
    job: RelionJob,
    inputs: _Inputs,
    learned: tuple[Sequence[Path], Sequence[Path]],
    version: Version,
    held: Sequence[int],
    say: Callable[[str], None],
) -> None:
    """Train and pick what is not there yet; `learned` are tomograms to train on and labels."""
    (trained_on, labels), trained = learned, job.folder / MODEL
    if not inputs.unusable:  # of tomograms that are no longer asked for
        asked_for = {info.name for info in inputs.infos}
        for name in recorded(job.folder):
            if name not in asked_for:
                discard(job.folder, name)

    source = ["--model", str(job.model)] if job.model else [*_training(job, trained_on, labels), "--resume"]
    rejected = [word for path in job.reject for word in ("--reject", str(path))]
    if job.train_only:
        source = [*_training(job, [], labels), "--resume"]
        if _run(job, ["train", *_texts(trained_on or inputs.paths), *source, *rejected, "-o", str(trained)], held, say):
            raise CetpickError("the training failed; the reason is above, in run.err")
        say(f"model: {trained}")
        return
    code = _run(job, ["pick", *_texts(inputs.paths), *source, *rejected, "-o", str(job.folder), *_cut(job)], held, say)
    picked = _publish(job, inputs, version, say)
    lacking = [info.name for info in inputs.infos if info.name not in picked]
    for failure in inputs.unusable:
        say(f"not usable: {failure}")
    if lacking or inputs.unusable or code:
        raise CetpickError(
            f"{len(lacking) + len(inputs.unusable)} tomograms were not picked; the results of the others are complete",
            found=", ".join(lacking) or None,
            cure="see above, and continue the job for the rest; or mark it as finished",
        )


def _refuse_others(folder: Path) -> None:
    """Raise an InputError where there are results that no such job has made."""
    if not (folder / STATE).exists() and ((folder / RUN_FILE).exists() or (folder / MODEL).exists()):
        raise InputError(
            "holds results that are not of this job",
            file=folder,
            expected="the folder of a new job, or of one to continue",
            cure="choose another folder with --o",
        )


def _make_room(job: RelionJob, inputs: _Inputs, asked: dict[str, Any]) -> None:
    """Put results of what was asked for before aside, with which cetpick would refuse to go on.

    What is aside since then is forgotten, or comes back when it is what is asked for again.
    """
    folder, aside, trained = job.folder, job.folder / ASIDE, job.folder / MODEL
    names = {*recorded(folder), *(info.name for info in inputs.infos)}
    for name in names:
        set_edited_aside(folder, name)
    stale = [path for name in names for path in files_of(folder, name)]
    stale += [*(folder / name for name in (*DATASET_FILES, *ALL_TOGETHER)), *run_files(folder)]
    if job.model is None:  # which may be this one
        stale += [trained, record_beside(trained), report_beside(trained), checkpoint_beside(trained)]
    _withdraw(folder)
    if _earlier(aside) == asked:
        remove(stale)
        _restore(job)
        return
    shutil.rmtree(aside, ignore_errors=True)
    # what was asked for comes last: until it is there, nothing is put back
    _move([*stale, folder / STATE], folder, aside)
    write_json(folder / STATE, asked)


def _restore(job: RelionJob) -> None:
    """Put results back that were set aside, when what was asked for instead has left nothing, as after a typing error.

    RELION is not told of them again before the job is continued with what they were made with.
    """
    folder, aside, trained = job.folder, job.folder / ASIDE, job.folder / MODEL
    learned = job.model is None and (trained.exists() or checkpoint_beside(trained).exists())
    if learned or recorded(folder) or not (aside / STATE).exists():
        return
    files = [path for path in aside.rglob("*") if path.is_file() and path != aside / STATE]
    _move([*files, aside / STATE], aside, folder)
    shutil.rmtree(aside, ignore_errors=True)


def _move(files: Sequence[Path], source: Path, target: Path) -> None:
    """Move those of the files that are there to the same places in another folder, in this order."""
    for path in files:
        if path.exists():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def _withdraw(folder: Path) -> None:
    """Remove what RELION's other jobs would read of an earlier run, also of tomograms that now cannot be picked."""
    for path in (folder / OUTPUT_NODES, *annotations_in(folder), *folder.rglob(f"*{SUFFIX}")):
        path.unlink(missing_ok=True)


def _open(job: RelionJob, say: Callable[[str], None]) -> _Inputs:
    """The tomograms that the job is about."""
    paths, options, star = [*job.inputs], job.options, None
    micrographs: list[str] = []
    if len(paths) == 1 and paths[0].suffix == ".star":
        (star,) = paths
        if listed := read_micrographs(star):
            if job.tomograms:
                raise InputError(
                    "tomograms were given twice, by a STAR file of micrographs and by the parameter `tomograms`",
                    file=paths[0],
                    cure="clear the parameter, or import the tomograms that are to be picked and give their STAR file",
                )
            micrographs, star = listed.names, None
            paths = [Path(name) for name in micrographs]
            if options.voxel_size is None and listed.pixel_size:
                say(f"voxel size {listed.pixel_size:g} A, as {job.inputs[0]} has it")
                options = replace(options, voxel_size=listed.pixel_size)
            if len({path.name for path in paths}) < len(paths):
                options = replace(options, names="parent")
            for name in micrographs:
                coordinate_file(job.folder, name)
        elif lacks_reconstructions(star) or job.tomograms:
            if not job.tomograms:
                raise InputError(
                    "names no reconstructed tomograms, as usual in RELION 4",
                    file=star,
                    cure="give their files with a parameter `tomograms`, such as Volumes/*.mrc",
                )
            volumes, _ = _quietly(job.tomograms, options)
            known = {info.name for info in volumes}
            # named all the same: the command that is run tells what is wrong with them
            broken = {of.name: of.path for of in list_tomograms(job.tomograms, options) if of.name not in known}
            paths = [job.folder / "tomograms.star"]
            left_out = add_reconstructions(star, volumes, paths[0], broken=broken)
            options = replace(options, which="reconstructed")  # those that were named, whatever else the file names
            say(f"tilt series without a tomogram, left out: {', '.join(left_out) or 'none'}")
    elif not paths:
        paths = [*job.tomograms] or [*job.train]
    infos, unusable = _quietly(paths, options)
    if micrographs:
        order = dict(zip(paths, micrographs, strict=True))
        micrographs = [order[info.path] for info in infos]
    return _Inputs(paths=paths, options=options, infos=infos, unusable=unusable, micrographs=micrographs, star=star)


def _quietly(paths: Sequence[Path], options: InputOptions) -> tuple[list[TomogramInfo], list[CetpickError]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)  # the command that is run gives them
        return open_tomograms(paths, options)


def _labels(job: RelionJob, inputs: _Inputs) -> tuple[list[Path], list[Path]]:
    """Tomograms to train on, empty for those with labels among the inputs, and label files."""
    trained_on, files = [*job.train], []
    for label in job.labels:
        if label.suffix != ".star" or label.is_dir() or not (clicked := clicked_in(label, inputs.micrographs)):
            if label.name.startswith("coords_suffix"):
                raise InputError("has no coordinates of any of the micrographs", file=label)
            files.append(label)
            continue
        if not job.train:
            trained_on += [Path(name) for name, _ in clicked]
        files += [file for _, file in clicked]
    return trained_on, files


def _check(job: RelionJob, labels: Sequence[Path]) -> None:
    """Raise an InputError unless the job has either a model or what training needs."""
    if job.model is not None and (labels or job.train or job.train_only):
        raise InputError(
            "a model and labels were given, and only one of them can be used",
            cure="clear the parameter `model` to train; or `labels`, `train` and the input coordinates to pick with it",
        )
    if job.model is not None and (job.added or job.count_hint):
        raise InputError(
            f"a model and `{'added' if job.added else 'count_hint'}` were given, of which only a training learns",
            cure="clear the parameter `model`, and give `labels` as well, to train anew; or clear the other one",
        )
    if job.model is None and not labels:
        raise InputError(
            "neither a model nor labels were given",
            cure="add a parameter `model`, or `labels` and `diameter` (or choose input coordinates) to train one",
        )
    if job.model is None and job.diameter is None:
        raise InputError("training needs the particle's diameter", cure="add a parameter `diameter`, in angstrom")


def _check_files(job: RelionJob, files: Sequence[Path]) -> None:
    """Raise an InputError unless there is all that the job learns from, outside of its own folder.

    Results of an earlier run are removed when other settings are asked for: better not for a mistyped name.
    """
    learned = [*files, *job.reject, *job.added]
    for path in [*learned, *([job.model] if job.model else [])]:
        if not path.exists():
            raise InputError(
                "is not there",
                file=path,
                expected="a path as seen from the project folder",
                cure="correct the parameter that names it",
            )
        if path in learned and path.resolve().is_relative_to(job.folder.resolve()):
            raise InputError(
                "lies in the job's own folder, whose results this run replaces",
                file=path,
                cure=f"copy it elsewhere and name that, or start a new job that takes it from {job.folder}",
            )


def _asked(job: RelionJob, inputs: _Inputs, trained_on: Sequence[Path], labels: Sequence[Path]) -> dict[str, Any]:
    """What decides the candidates: results of an earlier run that was asked for the same can stay."""
    extra = _deciding(job.extra)
    files = [*labels, *job.reject, *job.added, *trained_on, *([job.model] if job.model else []), *map(Path, extra)]
    within = [file for path in files for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    asked: dict[str, Any] = {
        "files": {str(file): file.stat().st_mtime_ns for file in within if file.is_file()},
        "train": _texts(trained_on),
        "added": _texts(job.added),
        "diameter": job.diameter,
        "count_hint": job.count_hint,
        "options": vars(inputs.options),
        "extra": extra,
    }
    # as it comes back from its file, to be compared with what is there
    plain: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return plain


def _deciding(extra: Sequence[str]) -> list[str]:
    """Of more arguments those with which the candidates may be others."""
    kept: list[str] = []
    neutral = False
    for word in extra:
        if word.startswith("-") and not word[1:2].isdigit():
            neutral = word.split("=", 1)[0] in NEUTRAL
        if not neutral:
            kept.append(word)
    return kept


def _earlier(folder: Path) -> object:
    return read_json(folder / STATE)


def _training(job: RelionJob, trained_on: Sequence[Path], labels: Sequence[Path]) -> list[str]:
    return [
        *(word for path in trained_on for word in ("--train", str(path))),
        *(word for path in labels for word in ("--labels", str(path))),
        *(word for path in job.added for word in ("--added", str(path))),
        *_option("--diameter", job.diameter),
        *_option("--count-hint", job.count_hint),
    ]


def _cut(job: RelionJob) -> list[str]:
    cut = {"--threshold": job.threshold, "--target-precision": job.precision, "--top": job.top}
    return [word for name, value in cut.items() for word in _option(name, value)]


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _texts(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def _run(job: RelionJob, arguments: Sequence[str], held: Sequence[int], say: Callable[[str], None]) -> int:
    """Run a command of cetpick, which inherits `held`, until it ends; returns 0, or 1 when it says a part is done.

    Raises:
        AbortError: RELION asked to abort.
        CetpickError: it cannot be run, or did nothing.
    """
    options = job.options
    device = job.device.split(",")[0] if arguments[0] == "train" else job.device
    command = [
        *job.exe, *arguments, "--device", device, *_option("--threads", job.threads),
        *_option("--voxel-size", options.voxel_size), *_option("--which", options.which),
        *_option("--names", options.names), *job.extra,
    ]  # fmt: skip
    say(shlex.join(command))
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=held)
    except OSError as error:
        raise InputError(
            f"cannot be run: {error.strerror}", file=command[0], cure="correct the parameter `exe`"
        ) from None
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL)
                break
            if abort_wanted(job.folder):
                raise AbortError("aborted")
    finally:
        _end(process)
    if abort_wanted(job.folder):
        raise AbortError("aborted")
    if code not in (0, 1):
        # one line: RELION's window shows the last two or three of run.err, and the reason stands above
        raise CetpickError(f"cetpick {arguments[0]} ended with exit code {code}; the reason is above, in run.err")
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was started and all that it has started; a container's engine passes the first signal on."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _publish(job: RelionJob, inputs: _Inputs, version: Version, say: Callable[[str], None]) -> list[str]:
    """Write all that RELION's other jobs read of what was picked; returns the names of its tomograms."""
    folder = job.folder
    run = read_record(folder / RUN_FILE) or {}
    picked = [info.name for info in inputs.infos if info.name in run.get("tomograms", {})]
    if not picked:
        raise CetpickError("no tomogram was picked; the reason is above, in run.err")
    _withdraw(folder)
    outputs: list[tuple[Path, Kind]] = []
    chosen = []
    for number, info in enumerate(inputs.infos):
        if info.name not in picked:
            continue
        accepted = read_table(folder / f"{info.name}.csv", info).table
        if inputs.micrographs:
            if len(accepted):  # RELION passes over a micrograph without such a file, not over an empty one
                target = coordinate_file(folder, inputs.micrographs[number])
                write_particles(target, "relion31", [(info, accepted)])
        elif info.relion is not None and len(accepted):
            write_annotations(folder, info, accepted)
        chosen.append((info, accepted))
    particles = folder / "particles.star"
    flavour: Flavour = "relion31" if inputs.star is None else "relion4" if version == "4" else "relion5"
    write_particles(particles, flavour, chosen)
    outputs.append((particles, "particles"))
    if inputs.star is not None:
        write_optimisation_set(folder / "optimisation_set.star", particles=particles, tomograms=inputs.star)
        outputs.append((folder / "optimisation_set.star", "optimisation set"))
    if inputs.micrographs:
        with replacing(folder / SUFFIX_FILE) as temporary:
            temporary.write_text(f"{job.inputs[0]}\n")
        outputs += [(folder / SUFFIX_FILE, "coordinates")] if version == "3.1" else []
    write_output_nodes(folder, outputs, version)
    total = sum(len(accepted) for _, accepted in chosen)
    say(f"{total} picks in {len(chosen)} tomograms, threshold {run['threshold']:.3f}: {particles}")
    return picked
