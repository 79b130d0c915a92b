"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cetpick.calibration import choose_threshold, estimate_count, label_ranks, label_scores, within
from cetpick.checkpoint import build_network
from cetpick.config import ModelSettings, ParticleClass, TrainSettings
from cetpick.dataset import TrainingVolume
from cetpick.errors import CetpickWarning, InputError, TrainingError
from cetpick.geometry import Points
from cetpick.inference import find_candidates
from cetpick.modes.default import DefaultRecipe
from cetpick.modes.paper import PaperRecipe, PaperSettings
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.paper import PaperNetwork
from cetpick.preprocess import Prepared, prepare
from cetpick.records import Coordinates, Tomogram, TomogramInfo

FEWEST_LABELS = 3
"""Fewer labels than this are an error."""
FEW_LABELS = 10
"""Fewer labels than this are worth a warning."""
Z_VOXEL = 2.0
"""Working voxels are this much longer along z, where the missing wedge has taken the resolution."""
COUNTING_STEPS = 200
"""Length of each of the two trainings that estimate the number of particles."""
PAPER_THRESHOLD = 0.25
"""The cut of the paper (section 4.1)."""

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the step (from 1), the number of steps, and the log of the step."""


class Recipe(Protocol):
    """What a mode brings to the loop; see modes.default and modes.paper."""

    network: Any
    steps: int
    averaging: float
    gradient_norm: float

    def optimizer(self) -> tuple[Optimizer, LRScheduler]: ...  # noqa: D102

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]: ...  # noqa: D102


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


@dataclass(frozen=True, kw_only=True)
class _Example:
    """A training tomogram on the working grid with its labels as stored."""

    tomogram: Tomogram
    labels: Points
    prepared: Prepared

    @property
    def centres(self) -> Points:
        """Labels in voxels of the working grid, (n, 3) x, y, z."""
        angstrom = (self.labels + 0.5) * self.tomogram.info.grid.voxel_size
        points: Points = angstrom / np.array(self.prepared.voxel_size[::-1]) - 0.5
        return points


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
    examples = [_Example(tomogram=t, labels=c.xyz, prepared=prepare(t, model)) for t, c in labelled]
    model = replace(model, skewness=float(np.mean([e.prepared.skewness for e in examples])))
    if settings.mode == "paper":
        recipe: Recipe = _paper_recipe(settings, model, examples, device)
        network, log = optimise(recipe, progress)
        return TrainedModel(network=network, settings=replace(model, threshold=PAPER_THRESHOLD), log=log)

    if settings.count_hint is not None:
        count = settings.count_hint * len(examples)
    else:
        count = count_particles(settings, model, examples, device, progress)
    network, log = optimise(_default_recipe(settings, model, examples, count, device), progress)
    scores = np.concatenate([_candidates(network, model, example)[1] for example in examples])
    model = replace(model, count=count / len(examples), threshold=choose_threshold(scores, count))
    return TrainedModel(network=network, settings=model, log=log)


def optimise(recipe: Recipe, progress: Progress | None = None) -> tuple[Any, list[dict[str, float]]]:
    """Take all steps of a recipe; return the averaged network in eval mode and one log entry a step.

    Raises:
        TrainingError: the loss became NaN or infinite.
    """
    optimizer, schedule = recipe.optimizer()
    average = WeightAverage(recipe.network, decay=recipe.averaging)
    log: list[dict[str, float]] = []
    recipe.network.train()
    for step in range(recipe.steps):
        loss, entry = recipe.loss(step)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in step {step + 1}",
                cure="train again with another --seed; if it recurs, check the tomogram for extreme values",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(recipe.network.parameters(), recipe.gradient_norm)
        optimizer.step()
        schedule.step()
        average.update(recipe.network)
        log.append({"step": step + 1, "loss": loss.item(), **entry})
        if progress is not None:
            progress(step + 1, recipe.steps, log[-1])
    return average.network(), log


def count_particles(
    settings: TrainSettings,
    model: ModelSettings,
    examples: Sequence[_Example],
    device: torch.device,
    progress: Progress | None = None,
) -> float:
    """Estimate the particles in all training tomograms together, labelled ones included.

    Two short trainings, each on half of the labels; the other half stays unlabelled, so that its scores are those of
    hidden particles. Neither leaves anything out.
    """
    generator = np.random.default_rng(settings.seed)
    halves = [generator.permutation(len(e.labels)) % 2 for e in examples]
    short = replace(settings, steps=min(settings.steps or COUNTING_STEPS, COUNTING_STEPS), hidden="none")
    ranks, used = [], 0
    for half in (0, 1):
        known = [replace(e, labels=e.labels[h == half]) for e, h in zip(examples, halves, strict=True)]
        hidden = [e.labels[h != half] for e, h in zip(examples, halves, strict=True)]
        used += sum(len(e.labels) for e in known)
        network, _ = optimise(_default_recipe(short, model, known, 0.0, device), progress)
        of_labels, scores = [], []
        for example, labels in zip(known, hidden, strict=True):
            xyz, found = _candidates(network, model, example)
            radius = model.diameter / 2 / example.tomogram.info.grid.voxel_size
            unknown = ~within(xyz, example.labels, radius)
            of_labels.append(label_scores(labels, xyz[unknown], found[unknown], radius=radius))
            scores.append(found[unknown])
        ranks.append(label_ranks(np.concatenate(of_labels), np.concatenate(scores)))
    return estimate_count(np.concatenate(ranks)) + used / 2


def _candidates(network: Any, model: ModelSettings, example: _Example) -> tuple[Points, Any]:
    """Places (n, 3) and scores (n,) of the candidates in a training tomogram."""
    table = find_candidates(network, example.prepared, example.tomogram.info.grid, model)
    return table[["x", "y", "z"]].to_numpy(), table["score"].to_numpy()


def _paper_recipe(
    settings: TrainSettings, model: ModelSettings, examples: Sequence[_Example], device: torch.device
) -> PaperRecipe:
    return PaperRecipe(
        [e.prepared.volume for e in examples],
        [e.centres for e in examples],
        diameter=model.diameter / model.voxel_size[2],
        settings=PaperSettings() if settings.steps is None else PaperSettings(steps=settings.steps),
        generator=torch.Generator().manual_seed(settings.seed),
        device=device,
    )


def _default_recipe(
    settings: TrainSettings, model: ModelSettings, examples: Sequence[_Example], count: float, device: torch.device
) -> DefaultRecipe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network(model)
    assert isinstance(network, DefaultNetwork)
    z, y, x = (model.diameter / size for size in model.voxel_size)
    return DefaultRecipe(
        [
            TrainingVolume.prepare(e.prepared.volume, e.prepared.valid, e.centres, crop=settings.crop, device=device)
            for e in examples
        ],
        diameter=(z, y, x),
        settings=settings,
        network=network,
        count=count,
        generator=torch.Generator().manual_seed(settings.seed),
        device=device,
    )


class WeightAverage:
    """Exponential moving average of weights and batch statistics; young averages forget faster."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        """Average `network`; with a decay of 0 the average is the latest state."""
        self.decay, self._steps = decay, 0
        self._source = network
        self._state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one more state into the average."""
        self._steps += 1
        decay = min(self.decay, self._steps / (self._steps + 9))
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self._state[name].lerp_(value, 1 - decay)
            else:
                self._state[name].copy_(value)

    def network(self) -> Any:
        """A copy of the network with the averaged state, in eval mode."""
        averaged = copy.deepcopy(self._source)
        averaged.load_state_dict(self._state)
        return averaged.eval()
