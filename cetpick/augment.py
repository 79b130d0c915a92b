"""Random changes of training crops that leave a tomogram a tomogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample


class Pose(NamedTuple):
    """Where a crop lies in a volume, and how it is turned.

    Attributes:
        start: first voxel (z, y, x) of the crop before it is turned about its centre.
        shape: voxels (z, y, x).
        angle: from the volume's x towards its y, radians.
        flips: whether it is then flipped along z, y, x.
        transposed: whether y and x, which must be equally long, are swapped last.
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    angle: float = 0.0
    flips: tuple[bool, bool, bool] = (False, False, False)
    transposed: bool = False

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """The voxels of the volume, when it is not turned by an angle."""
        z, y, x = (slice(first, first + n) for first, n in zip(self.start, self.shape, strict=True))
        return z, y, x

    @property
    def middle(self) -> tuple[float, float, float]:
        """Its centre (z, y, x), voxels of the volume."""
        z, y, x = (first + (n - 1) / 2 for first, n in zip(self.start, self.shape, strict=True))
        return z, y, x

    @property
    def turn(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The matrix that brings offsets (y, x) from the crop's centre to those in the volume."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        y, x = (-1 if flip else 1 for flip in self.flips[1:])
        rows = (cosine * y, sine * x), (-sine * y, cosine * x)
        return (rows[0][::-1], rows[1][::-1]) if self.transposed else rows

    def cut(self, volume: Tensor, at: Tensor, *, nearest: bool = False) -> Tensor:
        """The crop of a volume (z, y, x), interpolated in the plane; 0 beyond the volume.

        Args:
            volume: grey values, or a mask.
            at: (y, x, 2) what `looks` tells of this pose.
            nearest: take the nearest voxel instead of interpolating.
        """
        mode = "nearest" if nearest else "bilinear"
        crop = grid_sample(volume[None, self.window[0]], at[None], mode, align_corners=True)[0]
        return crop.flip(0) if self.flips[0] else crop

    def place(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (n, 3), x, y, z in voxels of the volume, in voxels of the crop."""
        offsets = points[:, ::-1] - np.array(self.middle, np.float32)
        if self.flips[0]:
            offsets[:, 0] *= -1
        offsets[:, 1:] @= np.array(self.turn, np.float32)  # the inverse, as points are rows
        half = (np.array(self.shape, np.float32) - 1) / 2
        return (offsets + half)[:, ::-1].astype(np.float32)

    def holds(
        self, points: NDArray[np.float32], *, reach: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> NDArray[np.bool_]:
        """Which of the points (n, 3), see place, lie in the crop or within `reach` (z, y, x) voxels of its faces."""
        half = np.array(self.shape[::-1]) / 2
        away = np.abs(self.place(points) + 0.5 - half)
        held: NDArray[np.bool_] = (away <= half + np.array(reach[::-1])).all(axis=1)
        return held


def looks(poses: Sequence[Pose], volumes: Sequence[Tensor]) -> Tensor:
    """Where in their planes the voxels of crops lie: (B, y, x, 2) as grid_sample wants them, for all crops at once.

    Args:
        poses: of one shape.
        volumes: of each, (z, y, x), all on one device.
    """
    device = volumes[0].device
    numbers = [
        [*pose.middle[1:], *pose.turn[0], *pose.turn[1], *volume.shape[1:]]
        for pose, volume in zip(poses, volumes, strict=True)
    ]
    told = torch.tensor(numbers).to(device, non_blocking=True)[..., None, None]
    y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in poses[0].shape[1:])
    row = told[:, 0] + told[:, 2] * y[:, None] + told[:, 3] * x
    column = told[:, 1] + told[:, 4] * y[:, None] + told[:, 5] * x
    # x before y, and -1 and 1 at the centres of the outermost voxels
    return torch.stack([2 * column / (told[:, 7] - 1) - 1, 2 * row / (told[:, 6] - 1) - 1], dim=-1)


def draw_pose(
    start: tuple[int, int, int], shape: tuple[int, int, int], generator: torch.Generator, *, turned: float
) -> Pose:
    """A crop in a random orientation: in-plane symmetries, the z flip, and in a part of the cases any angle.

    In-plane flips and quarter turns move the missing wedge about z, which in practice costs nothing and teaches
    orientation.

    Args:
        start: first voxel (z, y, x).
        shape: voxels (z, y, x).
        generator: on the CPU, so that a seed means the same on every device.
        turned: share of the crops that are turned by any angle.
    """
    chance, angle, *bits = torch.rand(6, generator=generator).tolist()
    z, y, x, transposed = (bit < 0.5 for bit in bits)
    return Pose(start, shape, 2 * math.pi * angle if chance < turned else 0.0, (z, y, x), transposed)


def vary_grey(crops: Tensor, generator: torch.Generator, *, contrast: float, shift: float, noise: float) -> Tensor:
    """Random contrast, brightness and noise of normalised crops (B, 1, z, y, x).

    Args:
        crops: normalised grey values.
        generator: on the CPU, so that a seed means the same on every device; the noise alone is another on each.
        contrast: factors are drawn from 1 +- contrast.
        shift: standard deviation of the brightness added.
        noise: half of the crops get white noise of up to this standard deviation.
    """
    batch = (len(crops), 1, 1, 1, 1)
    factor = 1 + contrast * (2 * torch.rand(batch, generator=generator) - 1)
    offset = shift * torch.randn(batch, generator=generator)
    sigma = noise * torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)
    told = torch.stack([factor, offset, sigma]).to(crops.device, crops.dtype, non_blocking=True)
    factor, offset, sigma = told
    # made where it is used: on a CPU it would take a GPU's step as long again
    seed = int(torch.randint(2**62, (), generator=generator))
    white = torch.empty_like(crops).normal_(generator=torch.Generator(crops.device).manual_seed(seed))
    varied: Tensor = crops * factor + offset + sigma * white
    return varied
