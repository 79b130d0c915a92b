"""Model files: weights in safetensors, settings in its header (io.model); loading executes no code."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from cetpick.config import ModelSettings
from cetpick.errors import InputError
from cetpick.io.atomic import replacing
from cetpick.io.model import CURE, read_settings, to_metadata
from cetpick.networks.build import build_network
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.paper import PaperNetwork


def save_model(path: str | PathLike[str], network: nn.Module, settings: ModelSettings) -> None:
    """Write a model file, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(Path(path)) as temporary:
        # save_file would make a file that nobody else can read
        temporary.write_bytes(save(weights, metadata=to_metadata(settings)))


def load_model(path: str | PathLike[str], device: torch.device) -> tuple[DefaultNetwork | PaperNetwork, ModelSettings]:
    """Rebuild the network of a model file on `device`, in eval mode.

    Raises:
        InputError: not a model file, or weights that do not fit its settings or are not finite.
    """
    settings = read_settings(path)
    network = build_network(settings)
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        found = str(error).splitlines()[-1].strip()  # torch lists every tensor
        raise InputError("the weights do not fit the model's settings", file=path, found=found, cure=CURE) from None
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise InputError(
            "the model's weights are not numbers",
            file=path,
            expected="finite weights",
            found="NaN or infinity",
            cure=CURE,
        )
    return network.to(device).eval(), settings
