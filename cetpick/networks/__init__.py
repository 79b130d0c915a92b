"""Networks: (B, 1, z, y, x) crops of a normalised tomogram in, heatmap logits on a coarser grid out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        heatmap: logits (B, C, D, H', W'), one channel a particle class.
        features: (B, F, D, H', W') of unit length along F, for the contrastive losses, or None.
    """

    heatmap: Tensor
    features: Tensor | None
