"""Random changes of training crops that leave a tomogram a tomogram."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


class Pose(NamedTuple):
    """Where a crop lies in a volume, and how it is turned in its plane.

    Attributes:
        start: first voxel (z, y, x) of the crop before it is turned about its centre.
        shape: voxels (z, y, x).
        angle: from the volume's x towards its y, radians; 0 for a crop that is cut out as it is.
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    angle: float = 0.0

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """The voxels of the volume, when it is not turned."""
        z, y, x = (slice(first, first + n) for first, n in zip(self.start, self.shape, strict=True))
        return z, y, x

    def cut(self, volume: Tensor, *, nearest: bool = False) -> Tensor:
        """The crop of a volume (z, y, x), interpolated in the plane if it is turned; 0 beyond the volume.

        Args:
            volume: grey values, or a mask.
            nearest: take the nearest voxel instead of interpolating.
        """
        window = self.window
        if not self.angle:
            return volume[window]
        last = torch.tensor(volume.shape[1:], device=volume.device) - 1
        rows, columns = (torch.arange(n, device=volume.device) - (n - 1) / 2 for n in self.shape[1:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        middle = [first + (n - 1) / 2 for first, n in zip(self.start[1:], self.shape[1:], strict=True)]
        # grid_sample has x before y, and -1 and 1 at the centres of the outermost voxels
        at = torch.stack([middle[1] + cosine * x - sine * y, middle[0] + sine * x + cosine * y], dim=-1)
        mode = "nearest" if nearest else "bilinear"
        return grid_sample(volume[None, window[0]], (2 * at / last.flip(0) - 1)[None], mode, align_corners=True)[0]

    def place(self, points: Tensor) -> Tensor:
        """Points (n, 3), x, y, z in voxels of the volume, in voxels of the crop."""
        half = [(n - 1) / 2 for n in self.shape[::-1]]
        x, y, z = (points - torch.tensor(self.start[::-1], device=points.device)).unbind(dim=1)
        x, y = x - half[0], y - half[1]
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return torch.stack([half[0] + cosine * x + sine * y, half[1] - sine * x + cosine * y, z], dim=1)


def draw_symmetry(generator: torch.Generator) -> Tensor:
    """Four random bits: flip z, flip y, flip x, transpose x and y.

    In-plane flips and quarter turns move the missing wedge about z, which in practice costs nothing and teaches
    orientation.
    """
    return torch.rand(4, generator=generator) < 0.5


def apply_symmetry(crop: Tensor, bits: Tensor) -> Tensor:
    """Apply draw_symmetry's bits to a crop (..., z, y, x); y and x must be equally long to be transposed."""
    axes = [axis for axis, flip in zip((-3, -2, -1), bits.tolist()[:3], strict=True) if flip]
    crop = crop.flip(axes) if axes else crop
    return crop.transpose(-1, -2) if bits[3] else crop


def apply_symmetry_to_points(points: Tensor, bits: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Apply draw_symmetry's bits to points (n, 3), x, y, z in voxels of a crop of `shape` (z, y, x)."""
    last = torch.tensor(shape[::-1], dtype=points.dtype, device=points.device) - 1
    flips = bits[:3].flip(0).to(points.device)
    points = torch.where(flips, last - points, points)
    return points[:, [1, 0, 2]] if bits[3] else points


def vary_grey(crops: Tensor, generator: torch.Generator, *, contrast: float, shift: float, noise: float) -> Tensor:
    """Random contrast, brightness and noise of normalised crops (B, 1, z, y, x).

    Args:
        crops: normalised grey values.
        generator: on the CPU, so that a seed means the same on every device.
        contrast: factors are drawn from 1 +- contrast.
        shift: standard deviation of the brightness added.
        noise: half of the crops get white noise of up to this standard deviation.
    """
    batch = (len(crops), 1, 1, 1, 1)
    factor = 1 + contrast * (2 * torch.rand(batch, generator=generator) - 1)
    offset = shift * torch.randn(batch, generator=generator)
    sigma = noise * torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)
    white = torch.randn(crops.shape, generator=generator)
    factor, offset, sigma, white = (t.to(crops.device, crops.dtype) for t in (factor, offset, sigma, white))
    return crops * factor + offset + sigma * white
