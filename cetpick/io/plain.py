"""JSON and numbers in text files, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cetpick.errors import InputError
from cetpick.io.star import read_text


def load_json(path: str | PathLike[str]) -> Any:
    """Return what a JSON file holds.

    Raises:
        InputError: not JSON, or nested without end.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | PathLike[str], *, line: int | None = None) -> Any:
    """As load_json, of a text, whose line number a problem tells."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or nested without end
        where = "" if line is None else f"line {line} "
        found = f"{type(error).__name__}: {error}"
        raise InputError(f"{where}is not JSON", file=path, found=found) from None


def finite_numbers(path: str | PathLike[str], rows: Iterable[Sequence[Any]], *, width: int) -> NDArray[np.float64]:
    """Rows of values as finite numbers, shape (rows, width).

    Raises:
        InputError: something else is among them.
    """
    try:
        values = np.array(list(rows), dtype=np.float64).reshape(-1, width)
    except (TypeError, ValueError, OverflowError):
        raise InputError("holds something else where numbers belong", file=path) from None
    if not np.isfinite(values).all():
        raise InputError("holds numbers that are not finite", file=path)
    return values
