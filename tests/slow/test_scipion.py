"""Scipion runs its plugin: its own tests, and a project without a window that finds what cetpick finds alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pytest

import cetpick
from tests.slow.conftest import Run, missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCIPION = ROOT / ".venv-scipion/bin/scipion"
SIZE, VOXEL_SIZE, DIAMETER = (64, 80, 48), 13.0, 210.0  # x, y, z; angstrom
TRAINING = ("--steps", "6", "--count-hint", "6")

ENGINE = """\
#!{python}
# In the place of docker: runs what a container would, if the container saw the files.
import os, sys
words = sys.argv[1:]
if words[0] in ("--version", "info"):
    sys.exit(print("Docker version 28.2.2" if words[0] == "--version" else ""))
volumes = [words[i + 1].split(":")[0] for i, word in enumerate(words) if word == "--volume"]
arguments = words[words.index("cetpick", words.index("an-image")) + 1:]
for word in filter(os.path.exists, arguments):
    for path in (os.path.abspath(word), os.path.realpath(word)):
        if not any(path.startswith(volume + "/") for volume in volumes):
            sys.exit(f"{{path}} is in none of {{volumes}}")
os.environ["PYTHONPATH"] = "{package}"
os.execv("{python}", ["{python}", "-m", "cetpick", *arguments])
"""

DUMP = """
import json, pathlib, sys
from pyworkflow.project import Manager
from tomo.constants import BOTTOM_LEFT_CORNER
runs = Manager().loadProject(sys.argv[1]).getRuns()
picks = next(run for run in runs if run.getClassName() == "ProtCetpickTrainPick").output3DCoordinates
rows = [[c.getTomoId(), *c.getPosition(BOTTOM_LEFT_CORNER), c.getScore()] for c in picks.iterCoordinates()]
found = {"rows": rows, "box": picks.getBoxSize(), "rate": picks.getSamplingRate()}
pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
"""


class Scipion(Protocol):
    def __call__(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def scipion(tmp_path: Path) -> Scipion:
    """Run Scipion with a home of its own; `local.conf` there is the user's configuration."""
    if not SCIPION.exists():
        missing("Scipion is not installed")
    home = tmp_path / "scipion"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SCIPION"))}
    environment |= {
        "PATH": f"{SCIPION.parent}{os.pathsep}{os.environ['PATH']}",
        "SCIPION_HOME": str(home),
        "SCIPION_USER_DATA": str(home / "data"),
        "SCIPION_LOCAL_CONFIG": str(home / "local.conf"),
    }

    def scipion(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [SCIPION, *map(str, arguments)],
            cwd=tmp_path, env=environment | variables, text=True, capture_output=True, check=False,
        )  # fmt: skip
        print(done.stdout, done.stderr, sep="\n")  # shown when the test fails
        return done

    scipion("config", "--unattended")
    return scipion


def configure(tmp_path: Path, command: str) -> None:
    """Tell Scipion how to run cetpick, as docs/scipion.md has it."""
    (tmp_path / "scipion/local.conf").write_text(f"[PLUGINS]\nCETPICK_CMD = {command}\n")


def test_the_plugins_own_tests(scipion: Scipion) -> None:
    done = scipion("python", "-m", "unittest", "scipion_cetpick.tests.test_protocols")
    assert done.returncode == 0
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) >= 10
    assert "skipped" not in done.stderr


def test_train_and_pick_finds_what_cetpick_finds(scipion: Scipion, cetpick_alone: Run, tmp_path: Path) -> None:
    clicks = pd.read_csv(tmp_path / "sim/truth/sim_000.csv")[["x", "y", "z"]].round(2)
    (tmp_path / "clicks").mkdir()
    # at half the sampling rate, and with the name of their tomogram
    np.savetxt(tmp_path / "clicks/sim_000.txt", clicks * 2, fmt="%.2f")
    clicks.to_csv(tmp_path / "clicks.csv", index=False)
    engine = tmp_path / "docker"
    engine.write_text(ENGINE.format(python=sys.executable, package=Path(cetpick.__file__).parents[1]))
    engine.chmod(0o755)
    configure(tmp_path, str(ROOT / "wrappers/docker/cetpick"))

    done = scipion(
        "python", ROOT / "wrappers/scipion/headless.py", "demo", "--tomograms", "sim", "--sampling-rate", VOXEL_SIZE,
        "--coordinates", "clicks", "--coordinates-sampling-rate", VOXEL_SIZE / 2, "--diameter", DIAMETER, "--cpu",
        "--threads", 2, f"--train-options={' '.join(TRAINING)}",
        CETPICK_ENGINE=str(engine), CETPICK_IMAGE="an-image",
    )  # fmt: skip
    assert done.returncode == 0
    (tmp_path / "dump.py").write_text(DUMP)
    assert scipion("python", "dump.py", "demo", tmp_path / "found.json").returncode == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rate"] == VOXEL_SIZE
    assert found["box"] == 26  # voxels: 1.5 x 210 angstrom

    cetpick_alone(
        "pick", "sim/sim_000.mrc", "sim/sim_001.mrc", "--train", "sim/sim_000.mrc", "--labels", "clicks.csv",
        "--diameter", DIAMETER, *TRAINING, "--device", "cpu", "--threads", 2, "--output", "alone",
    )  # fmt: skip
    for name in ("sim_000", "sim_001"):
        alone = pd.read_csv(tmp_path / f"alone/{name}.csv")[["x", "y", "z", "score"]].to_numpy()
        rows = np.array([row[1:] for row in found["rows"] if row[0] == name])
        assert len(rows) > 0
        np.testing.assert_allclose(rows, alone, atol=1e-3)


@pytest.fixture
def cetpick_alone(cetpick: Run) -> Run:
    """Run cetpick beside two simulated tomograms."""
    cetpick(
        "simulate", "-o", "sim", "-n", 2, "--shape", *SIZE, "--voxel-size", VOXEL_SIZE, "--diameter", DIAMETER,
        "--difficulty", "easy", "--labels", 0,
    )  # fmt: skip
    return cetpick


def test_a_failing_command_is_a_failed_protocol(scipion: Scipion, cetpick_alone: Run, tmp_path: Path) -> None:
    (tmp_path / "clicks").mkdir()
    np.savetxt(tmp_path / "clicks/sim_000.txt", [[10, 10, 10], [20, 20, 20]], fmt="%g")
    configure(tmp_path, f"env PYTHONPATH={Path(cetpick.__file__).parents[1]} {sys.executable} -m cetpick")
    done = scipion(
        "python", ROOT / "wrappers/scipion/headless.py", "demo", "--tomograms", "sim", "--sampling-rate", VOXEL_SIZE,
        "--coordinates", "clicks", "--diameter", DIAMETER, "--cpu", "--train-options=--nonsense",
    )  # fmt: skip
    assert done.returncode != 0
    assert "train and pick: failed" in done.stdout
    (log,) = (tmp_path / "scipion/data").glob("projects/demo/Runs/*_ProtCetpickTrainPick/logs/run.stderr")
    assert "No such option: --nonsense" in log.read_text()
