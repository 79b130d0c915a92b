"""`paper` mode: Huang et al., ECCV 2022, as their first released code has it, with its slips corrected where said.

Everything that makes one training step: targets, pairs of crops, the flipped view, the losses and the optimiser.
Input voxels are those of a tomogram whose pairs of z slices were merged; output cells cover 2 x 2 of them in x, y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cetpick.errors import InputError
from cetpick.geometry import Points, as_points
from cetpick.losses import (
    PULoss,
    consistency_loss,
    leave_out_focal_loss,
    pu_focal_loss_paper,
    supervised_debiased_contrastive,
    unsupervised_debiased_contrastive,
)
from cetpick.networks.paper import PaperNetwork

JITTER = (1, 2, 2)
"""How far a crop's centre is moved off its label at most, in output cells along (z, y, x)."""
UNLABELLED = -1.0
"""Target of a cell that no label's kernel reaches."""
P_MIN = 1e-4
"""Probabilities are kept in [P_MIN, 1 - P_MIN] for the losses."""


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """Settings of `paper` mode; the defaults are the paper's, or its code's where the paper is silent.

    Attributes:
        prior: pi_p of the losses. In them it acts as a weight: shares of voxels are far smaller.
        temperature: of the contrastive losses.
        contrastive_weight: lambda_1, weight of both contrastive losses.
        unsupervised_weight: lambda_2, weight of the unsupervised one within them.
        consistency_weight: lambda_3 (printed as a second lambda_1).
        unlabelled: in the heatmap loss, `pu` is the paper's; `negative` takes unlabelled voxels as background, which is
            CornerNet's focal loss, for comparison.
        anchors: unlabelled voxels drawn for the unsupervised contrastive loss in each step, out of the about 20,000 of
            two views of a pair of crops, each compared with all voxels; None is all, as in the paper, which takes
            twenty times as long as 1024.
        steps: training steps.
        learning_rate: of Adam, divided by 10 every `decay_every` steps.
        decay_every: steps between these.
        crop: voxels of a crop along (z, y, x); y and x even, large enough for a moved label.
        levels: of the network, 4 or 5.

    Raises:
        InputError: a setting is out of range; the message names it.
    """

    prior: float = 0.1
    temperature: float = 0.07
    contrastive_weight: float = 0.1
    unsupervised_weight: float = 0.5
    consistency_weight: float = 0.1
    unlabelled: Literal["pu", "negative"] = "pu"
    anchors: int | None = 1024
    steps: int = 600
    learning_rate: float = 1e-3
    decay_every: int = 200
    crop: tuple[int, int, int] = (5, 64, 64)
    levels: int = 4

    def __post_init__(self) -> None:
        self._require("prior", 0 < self.prior < 1, "between 0 and 1")
        self._require("unlabelled", self.unlabelled in ("pu", "negative"), "pu or negative")
        self._require("anchors", self.anchors is None or self.anchors > 0, "1 or more, or None for all")
        smallest = tuple((2 * j + 1) * s for j, s in zip(JITTER, PaperNetwork.stride, strict=True))
        holds_label = all(n >= least for n, least in zip(self.crop, smallest, strict=True))
        even = not any(n % s for n, s in zip(self.crop, PaperNetwork.stride, strict=True))
        self._require("crop", holds_label and even, f"at least {smallest} along z, y, x, and even in y and x")
        self._require("levels", self.levels in (4, 5), "4 or 5")
        for name in ("temperature", "learning_rate"):
            self._require(name, 0 < getattr(self, name) < math.inf, "a finite number above 0")
        for name in ("contrastive_weight", "unsupervised_weight", "consistency_weight"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a finite number, 0 or more")
        for name in ("steps", "decay_every"):
            self._require(name, getattr(self, name) > 0, "1 or more")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(
                f"setting {name} of paper mode is out of range", expected=expected, found=getattr(self, name)
            )


class Batch(NamedTuple):
    """A pair of crops.

    Attributes:
        volume: (2, 1, z, y, x) normalised voxels.
        target: (2, 1, z, y / 2, x / 2) target heatmap.
    """

    volume: Tensor
    target: Tensor


def paper_radius_sigma(bbox: int) -> tuple[int, float]:
    """Radius and sigma of the target's Gaussian, in output cells, isotropic.

    CornerNet's radius for a box of side h = bbox // 2 and an overlap of 0.7, in the case that binds, as its code has
    it: the positive root of 2.8 r^2 + 2.8 h r - 0.3 h^2 = 0, but divided by 2 in the place of 2 x 2.8, so r = 0.2733 h,
    rounded down. Sigma is a sixth of the kernel's width 2 r + 1.

    Args:
        bbox: particle diameter in input voxels.
    """
    h = bbox // 2
    radius = int((-2.8 * h + math.sqrt(7.84 * h**2 + 3.36 * h**2)) / 2)
    return radius, (2 * radius + 1) / 6


def paper_target(
    shape: tuple[int, int, int], centres: NDArray[np.integer[Any]], *, radius: int, sigma: float
) -> NDArray[np.float32]:
    """Target heatmap (section 3.2 of the paper): 1 at a centre, a Gaussian on a cube around it, -1 elsewhere.

    Args:
        shape: cells along (z, y, x).
        centres: (n, 3) indices z, y, x of labelled cells inside `shape`.
        radius: half width of the cube; it is cut off at the borders of the heatmap.
        sigma: of the Gaussian. Where kernels overlap, the larger value counts.

    Returns:
        float32 array of `shape`.
    """
    offsets = np.arange(-radius, radius + 1)
    squared = offsets[:, None, None] ** 2 + offsets[:, None] ** 2 + offsets**2
    kernel = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    padded = np.full([n + 2 * radius for n in shape], UNLABELLED, dtype=np.float32)
    for z, y, x in centres:
        zone = padded[z : z + 2 * radius + 1, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
        np.maximum(zone, kernel, out=zone)
    z, y, x = shape
    return padded[radius : radius + z, radius : radius + y, radius : radius + x]


def output_cells(centres: Points, shape: tuple[int, int, int], stride: tuple[int, int, int]) -> NDArray[np.int64]:
    """Output cells that points lie in.

    Args:
        centres: (n, 3) x, y, z in input voxels.
        shape: cells along (z, y, x).
        stride: input voxels per cell along (z, y, x).

    Returns:
        (n, 3) indices z, y, x, kept inside `shape`. A cell of stride 2 covers [2i - 0.5, 2i + 1.5): for whole numbers
        that is the floor(x / 2) of the paper, and of two neighbouring cells it is the nearer one for all others.
    """
    cells = np.floor((as_points(centres)[:, ::-1] + 0.5) / np.array(stride)).astype(np.int64)
    inside: NDArray[np.int64] = cells.clip(0, np.array(shape) - 1)
    return inside


class PaperRecipe:
    """What `paper` mode trains, and on what.

    Args:
        volumes: float32 (z, y, x) arrays, pairs of z slices merged by maximum, mean 0 and standard deviation 1.
        centres: for each volume (n, 3) x, y, z in its voxels; at least one label in all.
        diameter: of the particle, in voxels along x, y.
        settings: see `PaperSettings`.
        generator: on the CPU; all randomness comes from it.
        device: where to compute.

    Attributes:
        network: in training mode, on `device`.
        steps: how many training steps to take.
        averaging: 0, the paper keeps no moving average of the weights.
        gradient_norm: infinite, the paper does not clip gradients.

    Raises:
        InputError: there is no label.
    """

    averaging = 0.0
    gradient_norm = math.inf

    def __init__(
        self,
        volumes: Sequence[NDArray[np.float32]],
        centres: Sequence[Points],
        *,
        diameter: float,
        settings: PaperSettings,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.settings, self.steps = settings, settings.steps
        self._generator, self._device = generator, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._integer(2**31))
            self.network = PaperNetwork(levels=settings.levels).to(device).train()

        radius, sigma = paper_radius_sigma(round(diameter))
        self._volumes = [torch.from_numpy(_enlarged(volume, settings.crop)) for volume in volumes]
        shapes = [_output_shape(v.shape) for v in self._volumes]
        cells = [output_cells(c, shape, PaperNetwork.stride) for c, shape in zip(centres, shapes, strict=True)]
        self._targets = [
            torch.from_numpy(paper_target(shape, c, radius=radius, sigma=sigma))
            for shape, c in zip(shapes, cells, strict=True)
        ]
        self._labels = [(which, cell) for which, of_volume in enumerate(cells) for cell in of_volume.tolist()]
        if not self._labels:
            raise InputError("no label to train on", expected="at least 1", found=0)

    def optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam, and the schedule to step once after each training step."""
        adam = torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate)
        return adam, torch.optim.lr_scheduler.StepLR(adam, self.settings.decay_every, gamma=0.1)

    def draw_ahead(self) -> None:
        """Nothing: a loss waits for the device itself, to tell its parts."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:  # noqa: ARG002 (the same in every step)
        """Draw a pair of crops and its flipped view, and return the training objective (Eq 15).

        The heatmap loss sees the first view only. As in the code, each view is a forward pass with batch statistics of
        its own.

        Returns:
            The loss to differentiate, and a log of its unweighted parts; ``clamped`` is 1 where the heatmap loss left
            the unlabelled voxels out.
        """
        settings = self.settings
        batch = self.draw()
        axis = -1 - self._integer(2)
        views = self.network(batch.volume), self.network(batch.volume.flip(axis))
        heatmaps = views[0].heatmap, views[1].heatmap.flip(axis)
        features = torch.stack([_by_voxel(views[0].features), _by_voxel(views[1].features.flip(axis))])
        p = torch.stack([h.sigmoid().clamp(P_MIN, 1 - P_MIN) for h in heatmaps])

        heatmap = self._heatmap_loss(heatmaps[0], p[0], batch.target)
        target = batch.target.flatten()
        supervised = supervised_debiased_contrastive(
            features, target, prior=settings.prior, temperature=settings.temperature
        )
        unsupervised = unsupervised_debiased_contrastive(
            features,
            target,
            p.flatten(1),
            prior=settings.prior,
            temperature=settings.temperature,
            anchors=self._anchors(batch.target),
        )
        consistency = consistency_loss(p[0], p[1])
        total = (
            heatmap.loss
            + settings.contrastive_weight * (supervised + settings.unsupervised_weight * unsupervised)
            + settings.consistency_weight * consistency
        )
        parts = {
            "loss": total,
            "heatmap": heatmap.loss,
            "positive": heatmap.positive,
            "negative": heatmap.negative,
            "clamped": heatmap.clamped,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "consistency": consistency,
        }
        values = torch.stack([part.detach().to(total.dtype) for part in parts.values()])
        return total, dict(zip(parts, values.tolist(), strict=True))

    def _heatmap_loss(self, logits: Tensor, p: Tensor, target: Tensor) -> PULoss:
        if self.settings.unlabelled == "pu":
            return pu_focal_loss_paper(p, target, self.settings.prior)
        loss, zero = leave_out_focal_loss(logits, target), logits.new_zeros(())
        return PULoss(loss, zero, loss, zero)

    def state_dict(self) -> dict[str, Any]:
        """What the next losses depend on besides the network."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict gave."""
        self._generator.set_state(state["generator"])

    def draw(self) -> Batch:
        """Draw a pair of crops from one volume: the first on a label, the second on a label or anywhere, half and half.

        A crop on a label is moved by up to `JITTER`, then into the volume, so that it never loses its label.
        """
        which, cell = self._labels[self._integer(len(self._labels))]
        volume, target = self._volumes[which], self._targets[which]
        stride = PaperNetwork.stride
        size = _output_shape(self.settings.crop)
        last = [n - c for n, c in zip(target.shape, size, strict=True)]

        def on_label(cell: Sequence[int]) -> list[int]:
            moved = (c + self._integer(2 * j + 1) - j - n // 2 for c, j, n in zip(cell, JITTER, size, strict=True))
            return [min(max(start, 0), end) for start, end in zip(moved, last, strict=True)]

        starts = [on_label(cell)]
        if self._integer(2):
            neighbours = [c for w, c in self._labels if w == which]
            starts.append(on_label(neighbours[self._integer(len(neighbours))]))
        else:
            starts.append([self._integer(end + 1) for end in last])
        crops = [
            _cut(volume, [a * s for a, s in zip(start, stride, strict=True)], self.settings.crop) for start in starts
        ]
        targets = [_cut(target, start, size) for start in starts]
        return Batch(*(torch.stack(pair)[:, None].to(self._device) for pair in (crops, targets)))

    def _anchors(self, target: Tensor) -> Tensor | None:
        """Random unlabelled voxels of both views, as indices into the flattened (2, N); None is all of them."""
        if self.settings.anchors is None:
            return None
        unlabelled = (target.flatten() == UNLABELLED).repeat(2).nonzero().squeeze(1)
        order = torch.randperm(len(unlabelled), generator=self._generator)[: self.settings.anchors]
        return unlabelled[order.to(unlabelled.device)]

    def _integer(self, n: int) -> int:
        """A random integer from 0 to n - 1."""
        return int(torch.randint(n, (), generator=self._generator))


def _enlarged(volume: NDArray[np.float32], crop: tuple[int, int, int]) -> NDArray[np.float32]:
    """Append zeros (the mean) until the volume holds a crop and whole output cells."""
    shape = [max(n, c) for n, c in zip(volume.shape, crop, strict=True)]
    shape = [math.ceil(n / s) * s for n, s in zip(shape, PaperNetwork.stride, strict=True)]
    return np.pad(volume, [(0, full - n) for full, n in zip(shape, volume.shape, strict=True)])


def _output_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    (z, y, x), (sz, sy, sx) = shape, PaperNetwork.stride
    return z // sz, y // sy, x // sx


def _cut(array: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    return array[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]


def _by_voxel(features: Tensor) -> Tensor:
    """(B, F, z, y, x) to (B z y x, F)."""
    return features.movedim(1, -1).flatten(0, -2)
