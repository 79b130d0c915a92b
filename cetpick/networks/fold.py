"""Batch normalisation folded into the convolutions before it, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network")

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def folded(network: Network) -> Network:
    """A copy of a network in eval mode that gives the same with fewer passes over the data."""
    quick = copy.deepcopy(network)
    assert isinstance(quick, nn.Module)
    for layers in [module for module in quick.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(layers) - 1):
            convolution, norm = layers[i], layers[i + 1]
            if isinstance(convolution, CONVOLUTIONS) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                layers[i] = fuse_conv_bn_eval(convolution, norm, transpose=transposed)
                layers[i + 1] = nn.Identity()
    return quick
