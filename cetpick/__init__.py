"""cetpick: a particle picker for cryo-electron tomograms that learns from a few labels.

The commands as functions, for notebooks and scripts; each is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cetpick.io.coordinates import read_coordinates, write_coordinates
    from cetpick.io.tomograms import read_tomogram
    from cetpick.workflows.evaluate import run_evaluate as evaluate
    from cetpick.workflows.pick import run_pick as pick
    from cetpick.workflows.train import run_train as train

__version__ = "0.1.0"
__all__ = ["evaluate", "pick", "read_coordinates", "read_tomogram", "train", "write_coordinates"]

_HOMES = {
    "read_tomogram": ("cetpick.io.tomograms", "read_tomogram"),
    "read_coordinates": ("cetpick.io.coordinates", "read_coordinates"),
    "write_coordinates": ("cetpick.io.coordinates", "write_coordinates"),
    "train": ("cetpick.workflows.train", "run_train"),
    "pick": ("cetpick.workflows.pick", "run_pick"),
    "evaluate": ("cetpick.workflows.evaluate", "run_evaluate"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cetpick' has no attribute '{name}'")
    from importlib import import_module

    module, function = _HOMES[name]
    return getattr(import_module(module), function)
