import base64
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: tests share the cores

import numpy as np
import pytest
from PIL import Image

from cetpick import scratch
from cetpick.checkpoint import save_model
from cetpick.cli import main
from cetpick.config import ModelSettings, ParticleClass
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.mrc import write_mrc
from cetpick.io.tomograms import read_info
from cetpick.networks.build import build_network
from cetpick.records import Coordinates

Run = Callable[..., tuple[int, str, str]]


class TinySet:
    """Two small tomograms of dark blobs in noise, easy enough to be learned in a few dozen steps."""

    diameter = 160.0
    voxel_size = 10.0
    shape = (24, 96, 104)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth: dict[str, np.ndarray] = {}
        for seed, name in enumerate(("one", "two")):
            self.truth[name] = self._make(name, seed)
        self.labels = folder / "one.mod"
        info = read_info(self.path("one"))
        table = Coordinates.from_points(self.truth["one"][:8]).table
        coordinates_to_mod(self.labels, info, table, radius=self.diameter / 2)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.mrc"

    def _make(self, name: str, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        grid = np.stack(np.meshgrid(*[np.arange(14, n - 10, 26) for n in self.shape[:0:-1]]), axis=-1).reshape(-1, 2)
        centres = np.column_stack([grid + rng.uniform(-3, 3, grid.shape), rng.uniform(8, 15, len(grid))])
        z, y, x = np.mgrid[tuple(slice(n) for n in self.shape)]
        data = rng.normal(0, 1, self.shape)
        for cx, cy, cz in centres:
            data -= 4 * (np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) < 7)
        write_mrc(self.path(name), data.astype(np.float32), voxel_size=self.voxel_size)
        return rng.permutation(centres)


def noise_and_models(folder: Path, names: Sequence[str], *, diameter: float, models: Sequence[str]) -> Path:
    """Write tomograms of noise, and networks that were not trained: these score all places nearly alike."""
    for seed, name in enumerate(names):
        data = np.random.default_rng(seed).normal(size=(20, 48, 52)).astype(np.float32)
        write_mrc(folder / f"{name}.mrc", data, voxel_size=10.0)
    settings = ModelSettings(classes=(ParticleClass(diameter=diameter),), voxel_size=(20, 10, 10), threshold=0.5)
    for seed, name in enumerate(models):
        save_model(folder / f"{name}.safetensors", build_network(settings, seed=seed), settings)
    return folder


def read_page(path: Path) -> tuple[str, dict[str, Any]]:
    """A report, and what its script reads."""
    text = path.read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    return text, json.loads(match[1])


def read_picture(uri: str) -> Image.Image:
    """The picture of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    return TinySet(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cetpick(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cetpick", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(params=["in memory", "in files"])
def in_memory_and_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large lies in files: everything, or nothing."""
    if request.param == "in files":
        monkeypatch.setattr(scratch, "LARGE", 1)
        monkeypatch.setattr(scratch, "SLAB", 1)
