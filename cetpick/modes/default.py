"""A training step of `default` mode: focal heatmap loss on random crops, where doubtful places weigh little."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cetpick.augment import vary_grey
from cetpick.config import ModelSettings, TrainSettings
from cetpick.dataset import CropSampler, Example, TrainingVolume, gaussian_targets, kernel_cells, to_cells, zone_weights
from cetpick.devices import autocast
from cetpick.losses import NegativeRisk, leave_out_focal_loss, soft_label_nnpu
from cetpick.networks.build import build_network
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.pretrained import load_pretrained

STEPS = {"pretrained": 500, "random": 1000}
"""Steps by the weights that training starts with."""
PRETRAINED_RATE = 0.5
"""Learning rate of pretrained weights, in units of that of the last layer."""
WARM_UP = 20
"""Steps over which the learning rate rises."""
ENDING = 50
"""Steps over which it falls to zero when a training is cut short."""
SIGMA = 1 / 8
"""Width of a target Gaussian, in diameters."""
LABELLED_CROPS = 0.5
"""Share of the crops that lie around a label."""
REJECTED_CROPS = 0.25
"""Share of the crops that lie around a rejected place, at most: as many are left to lie anywhere."""
TURNED = 0.75
"""Share of the crops that are turned by any angle about z, lest the few labels be learned by heart.

The missing wedge turns with them; that does no harm (docs/experiments.md).
"""
FIRST_LEAVE_OUT = 0.15
"""Fraction of the steps before which nothing is left out: scores mean nothing yet."""


class _Scored(nn.Module):
    """A network and its loss as one."""

    def __init__(self, network: DefaultNetwork, device: torch.device) -> None:
        super().__init__()
        self.network, self._device = network, device

    def logits(self, crops: Tensor) -> Tensor:
        with autocast(self._device):
            heatmap: Tensor = self.network(crops).heatmap
        return heatmap.float()

    def forward(self, crops: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The loss when nothing is left out, of what leave_out_focal_loss is given."""
        return leave_out_focal_loss(self.logits(crops), target, weight)


def _recorded(scored: _Scored, sample: tuple[Tensor, ...]) -> _Scored:
    """Let a GPU record what it does, forth and back, and replay it: telling it 400 small tasks one by one takes longer.

    Args:
        scored: in training mode; what its network has seen so far stays as it was.
        sample: inputs of the shapes that it will get.
    """
    state = {name: value.clone() for name, value in scored.network.state_dict().items()}
    with warnings.catch_warnings():
        # torch records on another stream than it warms up on, and warns of that
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
        recorded = torch.cuda.make_graphed_callables(scored, sample)
    assert isinstance(recorded, _Scored)
    scored.network.load_state_dict(state)
    return recorded


class _Batch(NamedTuple):
    """What a loss is computed of; see leave_out_focal_loss, and dataset.Batch for `uniform`."""

    crops: Tensor
    target: Tensor
    weight: Tensor
    uniform: Tensor


class DefaultRecipe:
    """What the training loop needs: network, optimiser, and the loss of a step.

    Attributes:
        network: to be trained, on the device.
        steps: optimiser steps; fewer when it is cut short.
        averaging: decay of the moving average of the weights that is kept for inference.
        gradient_norm: gradients are scaled down to this norm.
    """

    averaging = 0.99
    gradient_norm = 5.0

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        settings: TrainSettings,
        model: ModelSettings,
        count: float,
        device: torch.device,
        network: DefaultNetwork | None = None,
        record: bool = True,
    ) -> None:
        """Prepare training.

        Args:
            examples: prepared tomograms with their labels.
            settings: batch, schedule, treatment of hidden particles, seed.
            model: working grid and network.
            count: expected particles in all examples together, labelled ones included.
            device: to train on.
            network: to go on with; None for one that has learned nothing of these examples.
            record: on a GPU, the network's part of a step, to replay it.
        """
        self.settings, self.device = settings, device
        self.steps = self._planned = settings.steps or STEPS[settings.start]
        self._cut: int | None = None
        if network is None:
            built = build_network(model, seed=settings.seed)
            assert isinstance(built, DefaultNetwork)
            network = built
            if settings.start == "pretrained":
                load_pretrained(network)
        self.network = copy.deepcopy(network).to(device)
        if settings.start == "pretrained":
            for part in (self.network.stem, self.network.encoder):
                part.requires_grad_(False)
        self._scored = _Scored(self.network, device)
        depth, height, width = (n // s for n, s in zip(settings.crop, network.stride, strict=True))
        self._shape = (depth, height, width)
        if record and device.type == "cuda" and settings.hidden in ("peaks", "none"):
            shapes = settings.crop, self._shape, self._shape
            sample = tuple(torch.zeros(settings.crops, 1, *shape, device=device) for shape in shapes)
            self._scored = _recorded(self._scored.train(), sample)
        self._generator = torch.Generator().manual_seed(settings.seed)
        volumes = [TrainingVolume.place(e, crop=settings.crop, device=device) for e in examples]
        cell = [size * s for size, s in zip(model.voxel_size, network.stride, strict=True)]
        z, y, x = (SIGMA * model.diameter / c for c in cell)
        self._sigma = (z, y, x)
        self._kernel = kernel_cells(self._sigma)
        # a target Gaussian is cut at 2.45 sigma
        reach = (3 * z * network.stride[0], 3 * y * network.stride[1], 3 * x * network.stride[2])
        labels = sum(len(e.labels) for e in examples)
        # each of a few rejected places is seen as often as each label
        often = LABELLED_CROPS * sum(len(e.rejected) for e in examples) / max(1, labels)
        self._sampler = CropSampler(
            volumes,
            crop=settings.crop,
            labelled=LABELLED_CROPS,
            rejected=min(REJECTED_CROPS, often),
            turned=TURNED,
            reach=reach,
            generator=self._generator,
        )
        self._hidden, self._particles = max(0.0, count - labels), max(count, float(labels))
        self._cells = sum(float(v.valid.sum()) for v in volumes) / math.prod(network.stride)
        self._risk: NegativeRisk | None = None
        self._next: _Batch | None = None
        self._before_next = self._generator.get_state()

    def optimizer(self) -> tuple[Optimizer, LambdaLR]:
        """AdamW with a short warm-up and a cosine to zero.

        Pretrained weights move more slowly than the last layer, those of the stem and encoder not at all: that
        takes less time, and from a few labels they learn nothing that helps (docs/experiments.md).
        """
        head = list(self.network.heatmap.parameters())
        trunk = [p for p in self.network.parameters() if p.requires_grad and not any(p is last for last in head)]
        rate = self.settings.learning_rate
        own = rate * PRETRAINED_RATE if self.settings.start == "pretrained" else rate
        groups = [{"params": trunk, "lr": own}, {"params": head, "lr": rate}]
        optimizer = AdamW(groups, weight_decay=1e-4, fused=True)

        def planned(step: int) -> float:
            return min(1.0, (step + 1) / WARM_UP) * _falling(step / self._planned)

        def factor(step: int) -> float:
            if self._cut is None or step < self._cut:
                return planned(step)
            return planned(self._cut) * _falling((step - self._cut) / ENDING)

        return optimizer, LambdaLR(optimizer, factor)

    def cut_short(self, step: int) -> None:
        """From this step on let the learning rate fall to zero over ENDING steps, which are the last."""
        self._cut, self.steps = step, min(self._planned, step + ENDING)

    def draw_ahead(self) -> None:
        """Draw the batch of the next loss already."""
        self._before_next, self._next = self._generator.get_state(), self._draw()

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Draw a batch; return its loss and what the log should know of it."""
        crops, target, weight, uniform = self._next or self._draw()
        self._next = None
        if self.settings.hidden == "nnpu":
            return self._nnpu(self._scored.logits(crops), target, weight, uniform)
        if self.settings.hidden != "leave-out":
            return self._scored(crops, target, weight), {}
        left_out = self._left_out(target, weight) if step >= FIRST_LEAVE_OUT * self.steps else 0
        loss = leave_out_focal_loss(self._scored.logits(crops), target, weight, left_out)
        return loss, {"left_out": float(left_out)}

    def _draw(self) -> _Batch:
        batch = self._sampler.draw(self.settings.crops)
        crops = vary_grey(batch.crops, self._generator, contrast=0.2, shift=0.1, noise=0.5)
        stride, shape = self.network.stride, self._shape
        target = gaussian_targets(to_cells(batch.centres, stride), shape, self._sigma)
        weight = torch.nn.functional.avg_pool3d(batch.valid, stride)
        doubt = zone_weights(to_cells(batch.doubtful, stride), batch.weights, shape, self._sigma)
        return _Batch(crops, target, torch.where(target <= 0, doubt * weight, weight), batch.uniform)

    def state_dict(self) -> dict[str, Any]:
        """What the next losses depend on besides the network."""
        risk = None if self._risk is None else list(self._risk)
        generator = self._generator.get_state() if self._next is None else self._before_next
        return {"generator": generator, "risk": risk, "cut": self._cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict gave."""
        self._generator.set_state(state["generator"])
        self._next = None
        if state["cut"] is not None:
            self.cut_short(state["cut"])
        risk = state["risk"]
        self._risk = None if risk is None else NegativeRisk(*(value.to(self.device) for value in risk))

    def _left_out(self, target: Tensor, weight: Tensor) -> int:
        """Cells of the batch that hidden particles are expected to fill."""
        unlabelled = ((target <= 0) & (weight > 0)).sum().item()
        return int(self._hidden * self._kernel / self._cells * unlabelled)

    def _nnpu(self, logits: Tensor, target: Tensor, weight: Tensor, uniform: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Soft-label nnPU with priors from the expected count; the loss is per hidden particle, to be of order one."""
        # labelled cells are no part of the unlabelled ones, so the prior is that of the hidden particles
        hidden = max(self._hidden, 1.0)
        prior = hidden / self._cells
        result, self._risk = soft_label_nnpu(
            logits,
            target,
            prior,
            prior * (self._kernel - 1),
            self._risk,
            weight=weight,
            unlabelled_weight=weight * uniform[:, None, None, None, None],
            centre_cost=self._particles / hidden,
        )
        return result.loss / prior, {"clamped": float(result.clamped)}


def _falling(share: float) -> float:
    """From 1 to 0, a half cosine."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
