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


class Room:
    """Memory for a few slices that is taken once.

    The C library gives a block of over 32 MiB back at once, and gets each new one cleared: with large slices that took
    a third of the time of inference.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def like(self, slices: Tensor, number: int) -> Tensor:
        """So many slices (B, C, number, H, W), in the order of memory of those given; what was in the room is gone."""
        batch, channels, _, height, width = slices.shape
        size = batch * channels * number * height * width
        if self._memory is None or len(self._memory) < size:
            self._memory = slices.new_empty(size)
        if slices.is_contiguous(memory_format=torch.channels_last_3d):
            return self._memory[:size].view(batch, number, height, width, channels).permute(0, 4, 1, 2, 3)
        return self._memory[:size].view(batch, channels, number, height, width)


class Neighbours:
    """What a convolution over three slices needs of a volume that comes in chunks of them."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held: Tensor | None = None

    def push(self, chunk: Tensor | None, *, last: bool, rectified: bool = False) -> Tensor | None:
        """The slices whose neighbours are known by now, with a slice more on either side; None when there are none.

        They lie in the room.

        Args:
            chunk: slices (B, C, D, H, W), None when no more have come.
            last: no more will come. Beyond the volume are zeros.
            rectified: the chunk's negative values are taken as zeros.
        """
        like = self._held if chunk is None else chunk
        if like is None:
            return None
        before, new = 1 if self._held is None else 2, 0 if chunk is None else chunk.shape[2]
        window = self._room.like(like, before + new + last)
        if self._held is None:
            window[:, :, 0].zero_()
        else:
            window[:, :, :2].copy_(self._held)
        if chunk is not None:
            place = window[:, :, before : before + new]
            _ = torch.clamp_min(chunk, 0, out=place) if rectified else place.copy_(chunk)
        if last:
            window[:, :, -1].zero_()
        self._held = window[:, :, -2:].clone()
        return window if window.shape[2] > 2 else None


def across(convolution: nn.Conv3d, window: Tensor) -> Tensor:
    """A convolution over three slices of what Neighbours gives, without padding along z."""
    padding = convolution.padding
    assert not isinstance(padding, str)
    return functional.conv3d(window, convolution.weight, convolution.bias, padding=(0, *padding[1:]))
