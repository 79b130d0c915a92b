"""Networks: (B, 1, z, y, x) crops of a normalised tomogram in, heatmap logits on a coarser grid out.

Each takes a volume as a whole (`forward`), or as chunks of slices (`stream`): most layers see one slice at a time, and
a convolution over three of them needs no more than two of what it has seen before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        heatmap: logits (B, C, D, H', W'), one channel a particle class.
        features: (B, F, D, H', W') of unit length along F, for the contrastive losses, or None.
    """

    heatmap: Tensor
    features: Tensor | None


class Neighbours:
    """What a convolution over three slices needs of a volume that comes in chunks of them."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def push(self, chunk: Tensor | None, *, last: bool) -> Tensor | None:
        """The slices whose neighbours are known by now, with a slice more on either side; None when there are none.

        Args:
            chunk: slices (B, C, D, H, W), None when no more have come.
            last: no more will come. Beyond the volume are zeros.
        """
        like = self._held if chunk is None else chunk
        if like is None:
            return None
        beyond = torch.zeros_like(like[:, :, :1])
        parts = [beyond if self._held is None else self._held, *([] if chunk is None else [chunk])]
        window = torch.cat([*parts, beyond] if last else parts, dim=2)
        self._held = window[:, :, -2:].clone()  # lest all of it stay in memory
        return window if window.shape[2] > 2 else None


def across(convolution: nn.Conv3d, window: Tensor) -> Tensor:
    """A convolution over three slices of what Neighbours gives, without padding along z."""
    padding = convolution.padding
    assert not isinstance(padding, str)
    return functional.conv3d(window, convolution.weight, convolution.bias, padding=(0, *padding[1:]))
