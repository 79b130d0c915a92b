"""The header of a model file: settings as JSON in the metadata of a safetensors file, readable without torch."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cetpick.config import ModelSettings
from cetpick.errors import InputError

FORMAT_VERSION = 1
"""Raised when the meaning of a stored setting or weight changes; `read_settings` then upgrades older files."""
CURE = "give a model.safetensors that `cetpick train` or `cetpick pick --labels` wrote"
_KEY = "cetpick"


def to_metadata(settings: ModelSettings) -> dict[str, str]:
    """What goes into the safetensors header."""
    return {_KEY: json.dumps({"format_version": FORMAT_VERSION, "settings": settings.to_dict()})}


def is_model(path: str | PathLike[str]) -> bool:
    """Whether a file is called, or begins, like a safetensors file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(10)[8:] == b'{"'


def read_settings(path: str | PathLike[str]) -> ModelSettings:
    """The settings of a model file, without its weights; raises as read_header."""
    return read_header(path)[1]


def read_header(path: str | PathLike[str]) -> tuple[int, ModelSettings]:
    """Format version and settings of a model file.

    Raises:
        InputError: missing, no safetensors, not cetpick's, of a later version, or with unusable settings.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such model file", file=path, cure=CURE)
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError("cannot be read", file=path, found=error, cure="check the permissions") from None
    try:
        with safe_open(path, framework="np") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
        version = int(header["format_version"])
        if version > FORMAT_VERSION:
            raise InputError(
                "the model was written by a later cetpick",
                file=path,
                expected=f"format version up to {FORMAT_VERSION}",
                found=version,
                cure="upgrade cetpick",
            )
        return version, ModelSettings.from_dict(header["settings"])
    except InputError as error:
        if error.file is None:
            problem = f"the model's settings are unusable: {error.problem}"
            raise InputError(problem, file=path, expected=error.expected, found=error.found, cure=CURE) from None
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError(
            "not a cetpick model", file=path, expected="safetensors with cetpick's header", found=found, cure=CURE
        ) from None
