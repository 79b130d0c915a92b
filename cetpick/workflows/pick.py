"""`pick`: tomograms and a model, or labels to train one, in; particles for the other programs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cetpick.checkpoint import load_model
from cetpick.config import ModelSettings, PickSettings, TrainSettings
from cetpick.devices import device_name, resolve_device
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.inference import TileableNetwork, find_candidates
from cetpick.interrupts import held_signals
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.relion import Flavour, write_optimisation_set, write_particles
from cetpick.io.table import write_table
from cetpick.io.tomograms import read_tomogram
from cetpick.optimisation import Progress
from cetpick.preprocess import Exclusions, prepare, valid_voxels
from cetpick.records import Picks, TomogramInfo
from cetpick.workflows.inputs import InputOptions, open_labelled, open_tomograms, warn_of_contrast, warn_of_scale
from cetpick.workflows.record import RunRecord, prepare_output
from cetpick.workflows.train import train_and_save

RUN_FILES = ("particles.star", "optimisation_set.star", "run.json")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train on before picking.

    Attributes:
        tomograms: labelled tomograms; empty to look for them among the tomograms to pick.
        labels: label files.
        settings: of the training.
    """

    tomograms: Sequence[Path]
    labels: Sequence[Path]
    settings: TrainSettings


@dataclass(kw_only=True)
class PickSummary:
    """What `pick` tells.

    Attributes:
        output: folder.
        model: the model used.
        settings: of the model.
        threshold: scores from here on are picks.
        picks: number of picks by tomogram.
        candidates: number of candidates by tomogram.
        files: what was written, run.json last.
        failures: one message a tomogram that could not be picked.
        trained_on: names of those picked tomograms that were trained on.
    """

    output: Path
    model: Path
    settings: ModelSettings
    threshold: float
    picks: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    trained_on: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when all was picked, else 1."""
        return 1 if self.failures else 0


def run_pick(
    tomograms: Sequence[Path],
    *,
    output: Path,
    model: Path | None = None,
    training: Training | None = None,
    settings: PickSettings | None = None,
    options: InputOptions | None = None,
    star: Flavour | None = None,
    device: str = "auto",
    threads: int | None = None,
    symmetries: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    picked: Callable[[TomogramInfo, int, int], None] | None = None,
) -> PickSummary:
    """Pick tomograms and write the results to a folder; see the README for the files.

    Args:
        tomograms: to pick: tomogram files and tomograms.star files.
        output: folder.
        model: model file; else `training` says how to make one.
        training: labelled tomograms and settings; the model is kept as model.safetensors.
        settings: threshold and number of picks.
        options: how to read the inputs.
        star: flavour of particles.star; by default relion5 for tomograms of a tomograms.star, else relion31.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads.
        symmetries: average over the eight in-plane symmetries.
        resume: go on from the checkpoint of a training that was stopped, if there is one.
        overwrite: replace earlier results, and without `resume` a checkpoint.
        progress: told of every training step.
        picked: told of every picked tomogram, its picks and candidates.

    Raises:
        InputError: unusable input, or no usable tomogram; nothing was written.
        TrainingError: the training failed.
    """
    options, settings = options or InputOptions(), settings or PickSettings()
    if (model is None) == (training is None):
        raise InputError(
            "give either a model or labels",
            cure="pick with --model FILE, or train first with --train TOMOGRAM --labels FILE --diameter ANGSTROM",
        )
    record = RunRecord(
        "pick", {"pick": settings, "inputs": options, "train": training.settings if training else None, "star": star}
    )
    with record.keeping_warnings():
        infos, failures = open_tomograms(tomograms, options)
        flavour = star or ("relion5" if all(info.relion for info in infos) else "relion31")
        check_flavour(infos, flavour)
        files = [*RUN_FILES, *(name for info in infos for name in (f"{info.name}.mod", f"{info.name}.csv"))]
        given = [*training.tomograms, *training.labels] if training else []
        prepare_output(
            output,
            files if model else [*files, "model.safetensors"],
            overwrite=overwrite,
            inputs=[info.path for info in infos] + given + ([model] if model else []),
        )
        resolved = resolve_device(device, threads=threads)
        network: TileableNetwork
        if training is not None:
            labelled = open_labelled(training.tomograms, training.labels, options, among=infos)
            require_one_usable(infos)
            used = output / "model.safetensors"
            trained = train_and_save(
                labelled,
                training.settings,
                used,
                record,
                options=options,
                device=device,
                threads=threads,
                resume=resume,
                overwrite=overwrite,
                progress=progress,
            )
            network, model_settings = trained.network, trained.settings
            trained_paths = {info.path.resolve() for info, _ in labelled}
            trained_on = [info.name for info in infos if info.path.resolve() in trained_paths]
        else:
            assert model is not None
            used, trained_on = model, []
            network, model_settings = load_model(model, resolved)
            record.add_inputs([model])
            record.values |= {"device": device_name(resolved), "model": model_settings}
        threshold = model_settings.threshold if settings.threshold is None else settings.threshold
        summary = PickSummary(
            output=output, model=used, settings=model_settings, threshold=threshold, trained_on=trained_on
        )
        if training is not None:
            summary.files.append(used)

        for name in RUN_FILES:  # of an earlier run; they would not tell of what this one has picked when it is stopped
            (output / name).unlink(missing_ok=True)
        results: list[Picks] = []
        notes: dict[str, dict[str, object]] = {}
        for info in infos:
            for stale in tomogram_files(output, info.name):
                stale.unlink(missing_ok=True)
            try:
                with record.timed("picking"):
                    picks, exclusions = pick_tomogram(
                        info, network, model_settings, threshold=threshold, top=settings.top, symmetries=symmetries
                    )
                    with held_signals():
                        summary.files += write_tomogram(output, picks, model_settings.diameter)
            except CetpickError as error:
                failures.append(error)
                continue
            except (OSError, MemoryError, RuntimeError) as error:  # torch: out of memory, unusable device
                failures.append(CetpickError(f"{type(error).__name__}: {error}", file=info.path))
                continue
            if not len(picks.accepted):
                best = picks.candidates["score"].max()
                warnings.warn(
                    f"{info.path}: no candidate reaches the threshold {threshold:.3g} (best score {best:.3g}); is it "
                    "like the training tomogram? A lower --threshold gives the candidates",
                    CetpickWarning,
                    stacklevel=2,
                )
            results.append(picks)
            summary.picks[info.name], summary.candidates[info.name] = len(picks.accepted), len(picks.candidates)
            notes[info.name] = {
                "file": info.path,
                "size": info.grid.size,
                "voxel_size": info.grid.voxel_size,
                "threshold": picks.cut,
                "picks": len(picks.accepted),
                "candidates": len(picks.candidates),
                "excluded_voxels": exclusions,
            }
            if picked is not None:
                picked(info, summary.picks[info.name], summary.candidates[info.name])
        if not results:
            listed = "\n".join(str(failure) for failure in failures)
            raise InputError(f"no tomogram could be picked\n{listed}")
        with record.timed("hashing"):
            stars = {info.relion.star: None for info in infos if info.relion is not None}
            record.add_inputs([*(info.path for info in infos), *stars])
        summary.files += write_dataset(output, results, flavour)
        summary.failures = [str(failure) for failure in failures]
        record.values |= {"threshold": threshold, "star": flavour, "tomograms": notes, "failures": summary.failures}
        record.values["outputs"] = [str(path) for path in summary.files]
        record.write(output / "run.json")
        summary.files.append(output / "run.json")
    return summary


def require_one_usable(infos: Sequence[TomogramInfo]) -> None:
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


def check_flavour(infos: Sequence[TomogramInfo], flavour: Flavour) -> None:
    """Make sure before the work that particles.star can be written.

    Raises:
        InputError: RELION 4 and 5 count in pixels of the tilt series, which only a tomograms.star tells.
    """
    lacking = [info for info in infos if info.relion is None]
    if flavour in ("relion4", "relion5") and lacking:
        raise InputError(
            f"--star {flavour} needs the tilt series' pixel size, binning and size",
            file=lacking[0].path,
            expected="tomograms named by a RELION 5 tomograms.star",
            found=f"{len(lacking)} of {len(infos)} tomograms named as files",
            cure="give tomograms.star in the place of the tomogram files, or choose --star relion31 or warp",
        )


def pick_tomogram(
    info: TomogramInfo,
    network: TileableNetwork,
    settings: ModelSettings,
    *,
    threshold: float,
    top: int | None = None,
    symmetries: bool = True,
) -> tuple[Picks, Exclusions]:
    """Pick one tomogram.

    Args:
        info: the tomogram, not yet read.
        network: in eval mode.
        settings: of its model.
        threshold: scores from here on are picks.
        top: at most this many picks.
        symmetries: average over the eight in-plane symmetries.

    Returns:
        The picks, and what was left out of the volume.

    Raises:
        CetpickError: the tomogram cannot be used.
    """
    warn_of_scale(info, settings.stored_voxel_size)
    prepared = prepare(read_tomogram(info), settings)
    warn_of_contrast(info, prepared.skewness, settings.skewness)
    candidates = find_candidates(network, prepared, info.grid, settings, symmetries=symmetries)
    return Picks(info=info, candidates=candidates, threshold=threshold, top=top), prepared.exclusions


def seen_from(project: Path, path: Path) -> Path:
    """How RELION, which runs in its project folder, finds `path`: absolute when it lies outside of another project."""
    if project == Path():
        return path
    absolute, folder = path.resolve(), project.resolve()
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute


def tomogram_files(output: Path, name: str) -> tuple[Path, Path, Path]:
    """Model, table and candidates of a tomogram."""
    return output / f"{name}.mod", output / f"{name}.csv", output / "candidates" / f"{name}.csv"


def write_tomogram(output: Path, picks: Picks, diameter: float) -> list[Path]:
    """Write the model, table and candidates of one tomogram; returns the files."""
    model, table, candidates = tomogram_files(output, picks.info.name)
    coordinates_to_mod(model, picks.info, picks.accepted, radius=diameter / 2)
    write_table(table, picks.accepted)
    write_table(candidates, picks.candidates)
    return [model, table, candidates]


def write_dataset(output: Path, results: Sequence[Picks], flavour: Flavour) -> list[Path]:
    """Write particles.star, and for RELION 5 optimisation_set.star; returns the files."""
    particles = output / "particles.star"
    write_particles(particles, flavour, [(picks.info, picks.accepted) for picks in results])
    files = [particles]
    stars = {picks.info.relion.star: picks.info.relion.project for picks in results if picks.info.relion is not None}
    if flavour == "relion5" and len(stars) == 1:
        ((star, project),) = stars.items()
        files.append(output / "optimisation_set.star")
        write_optimisation_set(files[-1], particles=seen_from(project, particles), tomograms=seen_from(project, star))
    elif flavour == "relion5":
        warnings.warn(
            f"no optimisation_set.star, which names one tomograms.star, and these were {len(stars)}; pick them one by "
            "one for it",
            CetpickWarning,
            stacklevel=2,
        )
    return files
