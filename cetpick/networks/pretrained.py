"""Weights that `default` mode starts with, learned from simulated random proteins by benchmarks/pretrain.py."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from cetpick.networks.default import DefaultNetwork

WEIGHTS = Path(__file__).with_name("pretrained.safetensors")
HEAD = "heatmap."
"""Names of the last layer's weights, which are learned from the labels alone."""


def load_pretrained(network: DefaultNetwork, file: Path = WEIGHTS) -> None:
    """Replace all weights but those of the last layer by those of a file, in place.

    Raises:
        ValueError: the network is of another width.
    """
    weights = load_file(file)
    own = network.state_dict()
    changed = [name for name, value in own.items() if not name.startswith(HEAD) and value.shape != weights[name].shape]
    if changed:
        raise ValueError(f"the weights of {changed[0]} are of another shape: {own[changed[0]].shape}")
    network.load_state_dict(weights, strict=False)  # all but the head, as the comparison has made sure
