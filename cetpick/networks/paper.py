"""The network of `paper` mode: a 2D U-Net for each slice, then one 3D convolution over neighbouring slices."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from cetpick.errors import InputError
from cetpick.networks import Neighbours, Output, Room, across

FEATURE_EPS = 1e-6
"""Shortest feature vector that is scaled to length 1. Where every ReLU of the fusion is off, a new network's vector is
exactly 0, and its gradient is 1 / FEATURE_EPS times that of the unit vector."""


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Twice: 3x3 convolution, BatchNorm, ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, stride=2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class PaperNetwork(nn.Module):
    """The `unet_4` (or `unet_5`) of the paper's first released code, 1,908,337 (7,746,417) parameters for one class.

    Encoder of `levels` blocks with 32, 64, 128, ... channels and 2x2 max-pooling between them, run on each slice alone;
    a decoder back to half resolution, so that an output cell covers 2 x 2 voxels of one slice; a 1x1 convolution to 32
    channels; a 3x3x3 convolution to 16 channels, which gives a context of 3 slices; 1x1x1 heads for the heatmap and for
    the contrastive features (16 channels, length 1). BatchNorm in evaluation uses stored statistics. New heatmaps have
    p = 0.1.

    Args:
        levels: 4 or 5.
        classes: particle classes, heatmap channels.

    Attributes:
        stride: input voxels per output cell along (z, y, x).
        halo: input voxels along (z, y, x) around a cell that can influence it.
        alignment: an input may be cut into tiles only at multiples of this along (z, y, x).
        bytes_per_voxel: of a chunk that `stream` takes in 16 and in 32 bits, measured on a CPU.
        bytes_kept: that it keeps besides for each voxel of a slice.

    Raises:
        InputError: `levels` is neither 4 nor 5.
    """

    stride = (1, 2, 2)
    bytes_per_voxel = (390, 560)
    bytes_kept = (50, 1500)

    def __init__(self, *, levels: int = 4, classes: int = 1) -> None:
        super().__init__()
        if levels not in (4, 5):
            raise InputError("the paper's network has 4 or 5 levels", expected="4 or 5", found=levels)
        cell = 2 ** (levels - 1)
        self.alignment = (1, cell, cell)
        self.halo = (1, 7 * cell, 7 * cell)
        widths = [32 * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(
            _block(inputs, outputs) for inputs, outputs in zip([1, *widths], widths, strict=False)
        )
        steps = list(pairwise(reversed(widths[1:])))
        self.up = nn.ModuleList(_up(deep, shallow) for deep, shallow in steps)
        self.decoder = nn.ModuleList(_block(2 * shallow, shallow) for _, shallow in steps)
        self.reduce = nn.Conv2d(64, 32, 1)
        self.fusion = nn.Conv3d(32, 16, 3, padding=1)
        self.heatmap = nn.Conv3d(16, classes, 1)
        self.project = nn.Conv3d(16, 16, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for convolution in (self.fusion, self.project):
            nn.init.normal_(convolution.weight, std=0.001)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.heatmap.bias, -2.19)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Output:
        """Heatmap logits (B, C, D, ceil(H/2), ceil(W/2)) and unit features (B, 16, ...) of crops (B, 1, D, H, W)."""
        fused = functional.relu(self.fusion(self._slices(x)))
        # float32 under autocast too: logits rounded to bfloat16 would make plateaus of what should be peaks
        with torch.autocast(x.device.type, enabled=False):
            fused = fused.to(self.heatmap.weight.dtype)
            heatmap = self.heatmap(fused)
            features = functional.normalize(self.project(fused), dim=1, eps=FEATURE_EPS)
        return Output(heatmap=heatmap, features=features)

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Heatmap logits of a volume that comes in chunks (B, 1, D, H, W) of slices, in other chunks."""
        seen = Neighbours(Room())
        for chunk in itertools.chain(chunks, [None]):
            window = seen.push(None if chunk is None else self._slices(chunk), last=chunk is None)
            if window is not None:
                fused = functional.relu(across(self.fusion, window))
                with torch.autocast(fused.device.type, enabled=False):
                    yield self.heatmap(fused.to(self.heatmap.weight.dtype))

    def _slices(self, x: Tensor) -> Tensor:
        """Features of each slice by itself."""
        b, _, d, h, w = x.shape
        slices = x.transpose(1, 2).reshape(b * d, 1, h, w)
        y = self.encoder[0](slices)
        skips: list[Tensor] = []
        for block in self.encoder[1:]:
            y = block(functional.max_pool2d(y, 2, ceil_mode=True))
            skips.append(y)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            y = block(torch.cat([up(y)[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1))
        y = self.reduce(y)
        volume: Tensor = y.reshape(b, d, *y.shape[1:]).transpose(1, 2)
        return volume
