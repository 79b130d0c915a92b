"""From labelled tomograms to a trained model: working grid, scouts, final training, threshold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cetpick.calibration import choose_threshold
from cetpick.config import ModelSettings, ParticleClass, TrainSettings
from cetpick.dataset import Example
from cetpick.errors import CetpickWarning, InputError
from cetpick.modes.default import DefaultRecipe
from cetpick.modes.paper import PaperRecipe, PaperSettings
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.paper import PaperNetwork
from cetpick.optimisation import Progress, optimise
from cetpick.preprocess import prepare
from cetpick.records import Coordinates, Tomogram, TomogramInfo
from cetpick.scouting import candidates, scout

FEWEST_LABELS = 3
"""Fewer labels than this are an error."""
FEW_LABELS = 10
"""Fewer labels than this are worth a warning."""
Z_VOXEL = 2.0
"""Working voxels are this much longer along z, where the missing wedge has taken the resolution."""
PAPER_THRESHOLD = 0.25
"""The cut of the paper (section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training leaves.

    Attributes:
        network: in eval mode, on the training device.
        settings: of the model file, with threshold and count.
        log: one dictionary a step.
    """

    network: DefaultNetwork | PaperNetwork
    settings: ModelSettings
    log: list[dict[str, float]]


def model_settings(settings: TrainSettings, tomograms: Sequence[Tomogram]) -> ModelSettings:
    """Choose the working grid from the diameter (`default`) or from the first tomogram (`paper`)."""
    stored = tomograms[0].info.grid.voxel_size
    if settings.mode == "paper":
        voxel_size = (2 * stored, stored, stored)
    else:
        plane = settings.diameter / settings.voxels_per_diameter
        voxel_size = (Z_VOXEL * plane, plane, plane)
    return ModelSettings(
        mode=settings.mode,
        classes=(ParticleClass(diameter=settings.diameter),),
        voxel_size=voxel_size,
        stored_voxel_size=stored,
    )


def check_labels(labels: Sequence[tuple[TomogramInfo, Coordinates]], diameter: float) -> None:
    """Say before training what is wrong with the labels.

    Raises:
        InputError: too few in all, or the particle does not fit into a tomogram.

    Warns:
        CetpickWarning: few labels.
    """
    total = sum(len(c) for _, c in labels)
    if total < FEWEST_LABELS:
        raise InputError(
            "too few labels",
            file=labels[0][1].source if labels else None,
            expected=f"at least {FEWEST_LABELS}, better 20 to 50",
            found=total,
            cure="label more particles of the same kind",
        )
    if total < FEW_LABELS:
        warnings.warn(f"only {total} labels; 20 to 50 pick more reliably", CetpickWarning, stacklevel=2)
    for info, _ in labels:
        grid = info.grid
        shortest = min(grid.shape) * grid.voxel_size
        if diameter > shortest:
            raise InputError(
                "the particle is larger than the tomogram",
                file=info.path,
                expected=f"a diameter below {shortest:.0f} angstrom, its shortest side",
                found=f"{diameter:g} angstrom at {grid.voxel_size:g} angstrom a voxel",
                cure="check --diameter (angstrom) and the voxel size",
            )


def train(
    labelled: Sequence[tuple[Tomogram, Coordinates]],
    settings: TrainSettings,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a network on tomograms with a few labels each.

    Args:
        labelled: tomograms and the labels in them (voxels as stored).
        settings: how.
        device: where.
        progress: told of every step.

    Returns:
        The averaged network, its settings with the threshold chosen on the training tomograms, and the log.

    Raises:
        InputError: unusable labels or tomogram.
        TrainingError: the loss became NaN.
    """
    check_labels([(tomogram.info, labels) for tomogram, labels in labelled], settings.diameter)
    model = model_settings(settings, [tomogram for tomogram, _ in labelled])
    examples = [Example(tomogram=t, labels=c.xyz, prepared=prepare(t, model)) for t, c in labelled]
    model = replace(model, skewness=float(np.mean([e.prepared.skewness for e in examples])))
    if settings.mode == "paper":
        paper = PaperSettings() if settings.steps is None else PaperSettings(steps=settings.steps)
        recipe = PaperRecipe(
            [e.prepared.volume for e in examples],
            [e.on_working_grid(e.labels) for e in examples],
            diameter=model.diameter / model.voxel_size[2],
            settings=paper,
            generator=torch.Generator().manual_seed(settings.seed),
            device=device,
        )
        network, log = optimise(recipe, progress)
        return TrainedModel(network=network, settings=replace(model, threshold=PAPER_THRESHOLD), log=log)

    hint = settings.count_hint
    count = 0.0 if hint is None else hint * len(examples)
    if hint is None or settings.hidden == "peaks":
        found = scout(settings, model, examples, device, progress)
        count = found.count if hint is None else count
        if settings.hidden == "peaks":
            hidden = round(count) - sum(len(e.labels) for e in examples)
            examples = [replace(e, doubtful=d) for e, d in zip(examples, found.likeliest(hidden), strict=True)]
    network, log = optimise(
        DefaultRecipe(examples, settings=settings, model=model, count=count, device=device), progress
    )
    scores = np.concatenate([candidates(network, model, example)[1] for example in examples])
    model = replace(model, count=count / len(examples), threshold=choose_threshold(scores, count))
    return TrainedModel(network=network, settings=model, log=log)
