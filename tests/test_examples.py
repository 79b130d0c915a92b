"""The scripts of examples/ do what their comments say."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cetpick.io.coordinates import read_coordinates
from cetpick.io.relion import read_particles, write_particles
from cetpick.io.star import write_star
from cetpick.io.tomograms import open_inputs, read_info
from cetpick.simulate import preset
from cetpick.workflows.simulate import run_simulate

TRAINING = "--steps 6 --count-hint 10 --quiet --threshold 0"
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    scenes = [(name, preset("easy", seed=seed, shape=(40, 96, 96))) for seed, name in enumerate(("train", "test"))]
    run_simulate(scenes, output=folder, labels=5)
    return folder


def run(*command: str | Path, options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script with this environment's cetpick on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CETPICK_OPTIONS": options}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_labels_to_picks_then_a_batch_with_its_model(data: Path, tmp_path: Path) -> None:
    done = run("bash", EXAMPLES / "labels_to_picks.sh", data, "210", options=TRAINING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test: " in done.stdout

    for name in ("train", "test"):
        (tmp_path / f"{name}.mrc").symlink_to(data / f"{name}.mrc")
    (tmp_path / "broken.mrc").write_bytes(b"not a tomogram")
    model = data / "picks" / "model.safetensors"
    for _ in range(2):  # the second time without anything left to do
        done = run("bash", EXAMPLES / "folder_batch.sh", tmp_path, model, options="--quiet --threshold 0", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "broken.mrc" in done.stderr
    for name in ("train", "test"):
        rows = (tmp_path / "picks" / f"{name}.csv").read_text().splitlines()[1:]
        coords = (tmp_path / "coords" / f"{name}.coords").read_text().splitlines()
        assert len(coords) == len(rows) > 0
        assert [float(v) for v in coords[0].split()] == pytest.approx(
            [float(v) for v in rows[0].split(",")[:3]], abs=1e-3
        )


def test_relion5_project(data: Path, tmp_path: Path) -> None:
    tomograms = tmp_path / "Tomograms" / "job007" / "tomograms"
    tomograms.mkdir(parents=True)
    rows = []
    for name in ("train", "test"):
        (tomograms / f"rec_{name}.mrc").symlink_to(data / f"{name}.mrc")
        rows.append([name, 1.3, 10.0, 960, 960, 400, f"Tomograms/job007/tomograms/rec_{name}.mrc"])
    columns = ["Name", "TiltSeriesPixelSize", "TomogramBinning", "SizeX", "SizeY", "SizeZ", "ReconstructedTomogram"]
    table = pd.DataFrame(rows, columns=[f"rlnTomo{c}" for c in columns])
    star = tomograms.parent / "tomograms.star"
    write_star(star, {"global": table}, version="50001")
    labels = read_coordinates(data / "labels" / "train.mod", tomograms=[read_info(data / "train.mrc")])[0]
    infos, _ = open_inputs([star])
    write_particles(
        tmp_path / "particles.star", "relion5", [(next(i for i in infos if i.name == "train"), labels.table)]
    )

    command = ["bash", EXAMPLES / "relion5.sh", star.relative_to(tmp_path), "particles.star", "210"]
    done = run(*command, options=TRAINING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_particles(tmp_path / "Cetpick" / "particles.star", infos)
    assert {c.tomogram for c in found} <= {"train", "test"}
    for coordinates in found:
        picks = pd.read_csv(tmp_path / "Cetpick" / f"{coordinates.tomogram}.csv")
        np.testing.assert_allclose(coordinates.xyz, picks[["x", "y", "z"]].to_numpy(), atol=1e-3)
    pointers = (tmp_path / "Cetpick" / "optimisation_set.star").read_text()
    assert "Cetpick/particles.star" in pointers
    assert "Tomograms/job007/tomograms.star" in pointers


def test_notebook(data: Path, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / "notebook.py", data, "6", options="", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "picks above" in done.stdout
    assert "grey value at the best pick" in done.stdout
