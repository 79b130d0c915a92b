"""Checkpoints: the state of a training that was stopped, so that it goes on as if it had not been.

A training has parts (two scouts and two rounds of the final one), told apart by the name that `optimise` gives them.
The file holds the last state of each part begun; a part that was finished takes no further step when it is restored.
"""

from __future__ import annotations

import io
import pickle
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.atomic import replacing

EVERY = 60.0
"""Seconds between checkpoints, so many are lost at most when the machine fails."""
FORMAT = 4
SHORT, SHOWN = 20, 4
"""Values of so many characters are shown, and so many of them; hashes are not."""


class Checkpoint:
    """The checkpoint file of one training.

    Attributes:
        path: the file.
        resumed: the steps that each part had taken in the file that was loaded, empty for a training from the start.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, str], environment: str, every: float = EVERY) -> None:
        """Keep the state of a training in `path`.

        Args:
            path: the file; it appears with the first save.
            identity: tells this training from others: settings, inputs, version, by what they are called.
            environment: device, threads and torch version, of which the last digits of the weights depend.
            every: seconds between checkpoints.
        """
        self.path, self.resumed = path, dict[str, int]()
        self._identity, self._environment, self._every = dict(identity), environment, every
        self._parts: dict[str, dict[str, Any]] = {}
        self._saved = time.monotonic()

    def load(self) -> None:
        """Take over what the file holds, if there is one; loading it runs no code.

        Raises:
            InputError: it is damaged, or of another training.

        Warns:
            CetpickWarning: it was made on another device, with other threads or another torch.
        """
        if not self.path.exists():
            return
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            known = stored["format"] == FORMAT
            identity, environment, parts = stored["identity"], stored["environment"], stored["parts"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(
                "is no usable checkpoint",
                file=self.path,
                found=(str(error).splitlines() or [type(error).__name__])[0],
                cure="start the training again with --overwrite in the place of --resume",
            ) from None
        if not known or identity != self._identity:
            raise InputError(
                "is the checkpoint of another training",
                file=self.path,
                expected="the same tomograms, labels, settings and version of cetpick as when it was made",
                found=_differences(identity, self._identity) if known else "one of another version of cetpick",
                cure="repeat that command with --resume, or start again with --overwrite in the place of --resume",
            )
        if environment != self._environment:
            warnings.warn(
                f"{self.path}: made on {environment}, and now it goes on on {self._environment}; the model will differ "
                "in the last digits from that of an undisturbed training",
                CetpickWarning,
                stacklevel=2,
            )
        self._parts = parts
        self.resumed = {what: len(state["log"]) for what, state in parts.items()}

    def state(self, what: str) -> dict[str, Any] | None:
        """The saved state of a part, None when it was not begun."""
        return self._parts.get(what)

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._every

    def save(self, what: str, state: dict[str, Any]) -> None:
        """Replace the state of a part, and the file, atomically."""
        self._parts[what] = state
        values = {
            "format": FORMAT,
            "identity": self._identity,
            "environment": self._environment,
            "parts": self._parts,
        }
        buffer = io.BytesIO()
        torch.save(values, buffer)  # of a disk that is full torch itself tells in words of its own
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the training is over."""
        self.path.unlink(missing_ok=True)


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is not as it was, in words."""
    told = []
    for name in {**then, **now}:
        before, value = then.get(name, "none"), now.get(name, "none")
        if value != before:
            shown = max(len(before), len(value)) <= SHORT
            told.append(f"{name} {value}, then {before}" if shown else f"other {name}")
    return "; ".join([*told[:SHOWN], *(["and more"] if len(told) > SHOWN else [])])
