"""Which network a model's settings describe."""

from __future__ import annotations

import torch

from cetpick.config import ModelSettings
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.paper import PaperNetwork


def build_network(settings: ModelSettings, *, seed: int = 0) -> DefaultNetwork | PaperNetwork:
    """The untrained network that `settings` describe, with weights drawn by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.mode == "paper":
            return PaperNetwork(classes=len(settings.classes))
        return DefaultNetwork(classes=len(settings.classes), width=settings.width, fused=settings.fused)
