"""JSON that every program reads."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cetpick.io.to_json import to_json


@dataclass
class Pair:
    first: float
    second: object


def shape() -> None: ...


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: Path("a/b")}, '{"1":"a/b"}'),
        (Pair(float("nan"), (np.float32(0.5), np.int64(2), np.bool_(True))), '{"first":null,"second":[0.5,2,true]}'),
        (np.array([[1.0, np.inf], [-np.inf, 2.0]]), "[[1.0,null],[null,2.0]]"),
        ([None, True, "é", shape, {3}], '[null,true,"\\u00e9","shape",[3]]'),
    ],
)
def test_anything(value: object, text: str) -> None:
    assert to_json(value, separators=(",", ":")) == text
    json.loads(text, parse_constant=pytest.fail)
