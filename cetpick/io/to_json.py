"""Values as JSON that every program reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def to_json(values: Any, **layout: Any) -> str:
    """JSON of anything: numbers that it does not know (NaN, infinite) become null, what else it does not know text.

    Args:
        values: mappings and dataclasses become objects, what can be iterated over lists, numpy's numbers numbers.
        layout: as of json.dumps.
    """
    return json.dumps(_plain(values), allow_nan=False, **layout)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, Iterable):
        return [_plain(of) for of in value]
    if callable(value):  # the shapes of simulated proteins
        return value.__name__
    return str(value)
