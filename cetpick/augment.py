"""Random changes of training crops that leave a tomogram a tomogram."""

from __future__ import annotations

import torch
from torch import Tensor


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
