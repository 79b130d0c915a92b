"""Training data: prepared tomograms on the device, random crops of them, heatmap targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cetpick.augment import Pose, draw_pose, looks
from cetpick.geometry import Points, rescale
from cetpick.preprocess import Prepared
from cetpick.records import Tomogram

KERNEL_CUT = 0.05
"""Below this a target Gaussian is no longer the particle's zone."""
FAR = 1e6
"""Where the centres that fill up a batch lie: beyond every crop."""


class Batch(NamedTuple):
    """Crops and what is known of them.

    Attributes:
        crops: (B, 1, z, y, x) normalised grey values.
        valid: like crops, 1 where there is data, 0 in padding.
        centres: (B, N, 3) x, y, z of the labels in voxels of the crop; unused places lie FAR away.
        doubtful: like centres, for the places that count less as background.
        weights: (B, M) what those count.
        uniform: (B,) True for crops drawn anywhere, False for those around a label or a rejected place.
    """

    crops: Tensor
    valid: Tensor
    centres: Tensor
    doubtful: Tensor
    weights: Tensor
    uniform: Tensor


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training tomogram on the working grid, and what is known of it.

    Attributes:
        tomogram: as stored.
        prepared: on the working grid.
        labels: (n, 3) x, y, z of labelled particles, stored voxels.
        chosen: (n,) whether a label was found by looking at picks, so that it is no random one of the particles; None
            if none was.
        doubtful: (m, 3) places that count less as background, stored voxels.
        weights: (m,) what those count, 0 to 1.
        rejected: (k, 3) places that are background for certain, stored voxels.
        stray: (j, 3) labels that are probably no particles, stored voxels: neither particles nor background.
    """

    tomogram: Tomogram
    prepared: Prepared
    labels: Points
    chosen: NDArray[np.bool_] | None = None
    doubtful: Points = field(default_factory=lambda: np.empty((0, 3)))
    weights: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rejected: Points = field(default_factory=lambda: np.empty((0, 3)))
    stray: Points = field(default_factory=lambda: np.empty((0, 3)))

    @property
    def fair(self) -> NDArray[np.bool_]:
        """Which labels (n,) are random ones of the particles: those that were not `chosen`."""
        return np.ones(len(self.labels), bool) if self.chosen is None else ~self.chosen

    @property
    def voxel_size(self) -> float:
        """Angstrom a stored voxel."""
        return self.tomogram.info.grid.voxel_size

    def on_working_grid(self, stored: Points) -> Points:
        """Points (n, 3) x, y, z in stored voxels, in voxels of the working grid."""
        columns = [
            rescale(stored, from_voxel_size=self.voxel_size, to_voxel_size=size)[:, axis]
            for axis, size in enumerate(self.prepared.voxel_size[::-1])
        ]
        return np.stack(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class TrainingVolume:
    """A prepared tomogram on the device, and what is known of it on the CPU, lest each crop wait for the device.

    Attributes:
        voxels: (z, y, x) normalised grey values, at least as large as a crop, on the device.
        valid: (z, y, x) float, 1 where there is data, on the device.
        present: the same as bool on the CPU.
        centres: (n, 3) x, y, z of the labels, voxels.
        doubtful: (m, 3) x, y, z of places that may well be unlabelled particles, voxels.
        weights: (m,) what those count as background.
        rejected: (k, 3) x, y, z of places that are background for certain, voxels.
    """

    voxels: Tensor
    valid: Tensor
    present: NDArray[np.bool_]
    centres: NDArray[np.float32]
    doubtful: NDArray[np.float32]
    weights: NDArray[np.float32]
    rejected: NDArray[np.float32]

    @classmethod
    def place(cls, example: Example, *, crop: tuple[int, int, int], device: torch.device) -> TrainingVolume:
        """Pad an example to the size of a crop (z, y, x) at least and move it to the device."""
        volume, valid = example.prepared.volume, example.prepared.valid
        present = np.ones(volume.shape, bool) if valid is None else valid
        if example.prepared.contaminated is not None:
            # background for certain, where no candidate comes from
            present = present | example.prepared.contaminated
        padding = [(0, max(0, c - n)) for c, n in zip(crop, volume.shape, strict=True)]
        if np.any(padding):
            volume, present = np.pad(volume, padding), np.pad(present, padding)
        points = {
            "centres": example.on_working_grid(example.labels),
            "doubtful": example.on_working_grid(np.vstack([example.doubtful, example.stray])),
            "weights": np.append(example.weights, np.zeros(len(example.stray))),
            "rejected": example.on_working_grid(example.rejected),
        }
        return cls(
            voxels=torch.from_numpy(volume).to(device),
            valid=torch.from_numpy(present.astype(np.float32)).to(device),
            present=present,
            **{name: of.astype(np.float32) for name, of in points.items()},
        )


Places = list[tuple[TrainingVolume, NDArray[np.float32]]]
"""Volumes, and a place (3,) x, y, z in each, voxels."""


class CropSampler:
    """Draws random crops, a part of them around labels, a part around rejected places, the rest anywhere.

    Uniform crops make unlabelled voxels a fair sample of the tomogram; the others see each known place often.
    """

    JITTER = 0.35
    """A place lies at most this fraction of the crop from its centre, along each axis."""
    TRIES = 30
    """Crops that are drawn for one that holds data."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        *,
        crop: tuple[int, int, int],
        labelled: float,
        rejected: float = 0.0,
        turned: float = 0.0,
        reach: tuple[float, float, float],
        generator: torch.Generator,
    ) -> None:
        """Sample crops of `crop` (z, y, x) voxels from `volumes`.

        The fraction `labelled` of them lies around a label, the fraction `rejected` around a rejected place; the
        fraction `turned` is turned in the plane by any angle.

        Points are told as far as `reach` (z, y, x) voxels beyond a crop.
        """
        self.volumes, self.crop, self.generator, self.reach = list(volumes), crop, generator, reach
        self._labels: Places = [(volume, centre) for volume in self.volumes for centre in volume.centres]
        self._rejected: Places = [(volume, place) for volume in self.volumes for place in volume.rejected]
        self._labelled = labelled if self._labels else 0.0
        self._known = self._labelled + (rejected if self._rejected else 0.0)
        self._turned = turned
        self._sizes = torch.tensor([float(volume.voxels.numel()) for volume in self.volumes])

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _place(self, around: Places | None) -> tuple[TrainingVolume, Pose]:
        """A random volume and a crop in it, `around` one of these places or anywhere."""
        size = np.array(self.crop)
        place = None
        for _ in range(self.TRIES):
            if around is not None:
                volume, place = around[int(self._random(1).item() * len(around))]
                start = place[::-1] - size / 2 + (2 * self._random(3).numpy() - 1) * self.JITTER * size
            else:
                volume = self.volumes[int(torch.multinomial(self._sizes, 1, generator=self.generator))]
                start = self._random(3).numpy() * (np.array(volume.voxels.shape) - size + 1) - 0.5
            z, y, x = np.rint(start).clip(0, np.array(volume.voxels.shape) - size).astype(int).tolist()
            if volume.present[Pose((z, y, x), self.crop).window].any():
                break
        pose = draw_pose((z, y, x), self.crop, self.generator, turned=self._turned)
        if place is not None and not pose.holds(place[None])[0]:
            pose = pose._replace(angle=0.0)  # it would turn away from a place in a corner of the volume
        return volume, pose

    def _near(self, points: NDArray[np.float32], pose: Pose) -> tuple[NDArray[np.bool_], Tensor]:
        """Which of the points (n, 3) lie in a crop or within reach of it, and those in voxels of the crop."""
        near = pose.holds(points, reach=self.reach)
        return near, torch.from_numpy(pose.place(points[near]))

    def draw(self, count: int) -> Batch:
        """Draw `count` crops, each in a random orientation; see augment.draw_pose."""
        drawn = self._random(count) if self._known else torch.ones(count)
        chosen = [
            self._place(self._labels if n < self._labelled else self._rejected if n < self._known else None)
            for n in drawn.tolist()
        ]
        at = looks([pose for _, pose in chosen], [volume.voxels for volume, _ in chosen])
        crops = [pose.cut(volume.voxels, where) for (volume, pose), where in zip(chosen, at, strict=True)]
        valid = [pose.cut(volume.valid, where, nearest=True) for (volume, pose), where in zip(chosen, at, strict=True)]
        centres = [self._near(volume.centres, pose)[1] for volume, pose in chosen]
        doubtful, weights = [], []
        for volume, pose in chosen:
            near, places = self._near(volume.doubtful, pose)
            doubtful.append(places)
            weights.append(torch.from_numpy(volume.weights[near]))
        padded = [
            pad_sequence(of, batch_first=True, padding_value=filling).to(at.device, non_blocking=True)
            for of, filling in ((centres, FAR), (doubtful, FAR), (weights, 1.0))
        ]
        return Batch(
            torch.stack(crops)[:, None],
            torch.stack(valid)[:, None],
            centres=padded[0],
            doubtful=padded[1],
            weights=padded[2],
            uniform=(drawn >= self._known).to(at.device, non_blocking=True),
        )


def to_cells(centres: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Points (..., 3) x, y, z in voxels to heatmap cells of `stride` (z, y, x) voxels; cell i covers i*s to i*s+s-1."""
    steps = torch.tensor(stride[::-1], dtype=centres.dtype).to(centres.device, non_blocking=True)
    return (centres + 0.5) / steps - 0.5


def gaussian_targets(centres: Tensor, shape: tuple[int, int, int], sigma: tuple[float, float, float]) -> Tensor:
    """Target heatmaps: the larger of the labels' Gaussians, 0 below KERNEL_CUT, exactly 1 in the cell of a centre.

    Args:
        centres: (B, N, 3) x, y, z in cells, sub-cell.
        shape: (z, y, x) cells.
        sigma: (z, y, x) cells.

    Returns:
        (B, 1, z, y, x).
    """
    if not centres.shape[1]:
        return centres.new_zeros((len(centres), 1, *shape))
    heatmap = _gaussians(centres, shape, sigma).amax(dim=1)
    heatmap = torch.where(heatmap < KERNEL_CUT, 0, heatmap)
    # without a list of those inside, for which a GPU would be waited for
    depth, height, width = shape
    x, y, z = centres.round().long().unbind(-1)
    inside = (z >= 0) & (z < depth) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = ((z * height + y) * width + x).where(inside, 0)
    heatmap.view(len(centres), -1).scatter_reduce_(1, at, inside.to(heatmap.dtype), "amax")
    return heatmap[:, None]


def zone_weights(
    places: Tensor, weights: Tensor, shape: tuple[int, int, int], sigma: tuple[float, float, float]
) -> Tensor:
    """What each cell counts: in the zones of some places what these do, the least where zones overlap, else 1.

    Args:
        places: (B, N, 3) x, y, z in cells.
        weights: (B, N), 0 to 1.
        shape: (z, y, x) cells.
        sigma: (z, y, x) cells, of the Gaussian whose part above KERNEL_CUT is a zone.

    Returns:
        (B, 1, z, y, x).
    """
    if not places.shape[1]:
        return places.new_ones((len(places), 1, *shape))
    # few cells lie about a place: only those are looked at, along each axis at first
    squares, at = places.new_zeros(()), torch.zeros((), dtype=torch.long, device=places.device)
    for axis, (length, width) in enumerate(zip(shape, sigma, strict=True)):
        centre = places[..., 2 - axis, None]
        reach = _reach(width)
        cells = centre.round().long() + torch.arange(-reach, reach + 1, device=places.device)
        square = torch.where((cells >= 0) & (cells < length), ((cells - centre) / width).square(), math.inf)
        squares, at = squares[..., None] + _along(square, axis), at[..., None] * length + _along(cells, axis)
    zones = torch.exp(squares / -2) >= KERNEL_CUT
    least = places.new_ones((len(places), math.prod(shape)))
    least.scatter_reduce_(
        1, at.where(zones, 0).flatten(1), weights[..., None, None, None].where(zones, 1.0).flatten(1), "amin"
    )
    return least.view(-1, 1, *shape)


def _gaussians(centres: Tensor, shape: tuple[int, int, int], sigma: tuple[float, float, float]) -> Tensor:
    """A Gaussian about each centre, (B, N, z, y, x); see gaussian_targets."""
    profiles = []
    for axis, (length, width) in enumerate(zip(shape, sigma, strict=True)):
        cells = torch.arange(length, device=centres.device, dtype=centres.dtype)
        offset = cells - centres[..., 2 - axis, None]
        profiles.append(torch.exp(-offset.square() / (2 * width**2)))
    z, y, x = profiles
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def _along(values: Tensor, axis: int) -> Tensor:
    """Values (B, N, n) of the cells along an axis, to be broadcast with those along the axes before it."""
    return values.reshape(*values.shape[:2], *[1] * axis, -1)


def _reach(sigma: float) -> int:
    """Cells beyond which no zone of a Gaussian of `sigma` cells goes."""
    return math.ceil(3 * sigma)


def kernel_cells(sigma: tuple[float, float, float]) -> int:
    """Cells of one particle's zone: those of a Gaussian of `sigma` (z, y, x) cells that reach KERNEL_CUT."""
    grid = np.mgrid[tuple(slice(-_reach(s), _reach(s) + 1) for s in sigma)]
    distance = sum((axis / s) ** 2 for axis, s in zip(grid, sigma, strict=True))
    return int((np.exp(-distance / 2) >= KERNEL_CUT).sum())
