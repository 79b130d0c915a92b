"""What the demo shows, with a third of its steps."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cetpick.io.mrc import write_mrc
from cetpick.simulate import demo_settings, preset, simulate
from cetpick.workflows.demo import DemoResult, run_demo
from cetpick.workflows.pick import run_pick


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo"), steps=100)


def test_demo_picks_what_blob_finders_and_chance_do_not(demo: DemoResult) -> None:
    own = demo.cetpick.at_threshold
    assert own is not None
    assert own.f1 >= 0.8
    assert demo.cetpick.average_precision >= 0.9
    assert demo.blobs.best.f1 <= 0.75
    assert demo.untrained.best.f1 <= 0.3


def test_demo_learns_from_the_labels_of_another_tomogram(demo: DemoResult) -> None:
    record = json.loads((demo.picks.output / "run.json").read_text())
    assert record["training"]["labels"] == {"train": 24}
    assert set(record["tomograms"]) == {"test"}
    assert str(demo.scenes[1].truth) not in record["inputs"]
    assert demo_settings(0) != demo_settings(1)


def test_picks_do_not_depend_on_the_voxel_size(demo: DemoResult, tmp_path: Path) -> None:
    """One scene at 5, 10 and 13.48 angstrom: the same places within half a working voxel."""
    scene = preset("normal", seed=77, shape=(48, 96, 96))
    for voxel_size in (5.0, 10.0, 13.48):
        made = simulate(dataclasses.replace(scene, voxel_size=voxel_size))
        write_mrc(tmp_path / f"at{voxel_size:g}.mrc", made.data, voxel_size=voxel_size)
    run_pick(
        [tmp_path / f"at{voxel_size:g}.mrc" for voxel_size in (5.0, 10.0, 13.48)],
        output=tmp_path / "out",
        model=demo.picks.model,
    )
    places = {}
    for voxel_size in (5.0, 10.0, 13.48):
        table = pd.read_csv(tmp_path / "out" / f"at{voxel_size:g}.csv")
        places[voxel_size] = (table[["x", "y", "z"]].to_numpy() + 0.5) * voxel_size
    assert len(places[10.0]) >= 10
    half = np.array([0.5, 0.5, 1.0]) * scene.diameter / 16
    for voxel_size in (5.0, 13.48):
        offsets = np.abs(places[10.0][:, None] - places[voxel_size][None])
        close = (offsets <= half).all(axis=2)
        # a pick or two may lie on the threshold
        assert close.any(axis=1).mean() >= 0.8
        assert close.any(axis=0).mean() >= 0.8
        assert np.median(np.linalg.norm(offsets, axis=2).min(axis=1)) < 3
