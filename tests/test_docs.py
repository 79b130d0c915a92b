"""The documentation is what the code does: commands, tutorial, layers, versions; and no link in it is dead."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

import cetpick
from cetpick.io.relion import read_particles
from cetpick.io.tomograms import open_inputs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TRAINING = "--diameter 210 --output picks"
QUICK = {
    "--shape 160 160 56 --labels 15": "--shape 96 96 32 --labels 4",
    " 1600 1600 560 ": " 960 960 320 ",
    TRAINING: f"{TRAINING} --steps 2 --count-hint 10 --threshold 0",
    "--target-precision 0.9": "--threshold 0",
}
"""What is changed in the tutorial's commands, so that they take seconds."""


def test_commands_are_those_of_the_code() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import cli; print(cli.reference(), end='')"],
        cwd=DOCS, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert (DOCS / "cli.md").read_text() == made, "stale: make docs, or python docs/cli.py, makes it anew"
    assert "`--target-precision P`" in made


def test_no_link_is_dead(tmp_path: Path) -> None:
    words = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *words, "--doctree-dir", tmp_path / "trees", ".", tmp_path / "site"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    first = (tmp_path / "site" / "index.html").read_text()
    start = tmp_path / "site" / re.search(r'href="([^"]+)"', first)[1]  # type: ignore[index]
    assert "Tutorial" in start.read_text()


def test_architecture_names_every_layer() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [[name.strip() for name in layer.split(":")] for layer in contract["layers"]]
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    told = [[f"cetpick.{name}" for name in re.findall(r"`(\w+)`", row)] for row in rows]
    assert [row for row in told if row in layers] == layers


def test_citation_and_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {citation["version"], project["version"]} == {cetpick.__version__}
    assert (citation["cff-version"], citation["license"]) == ("1.2.0", project["license"])
    assert citation["references"][0]["authors"][0]["family-names"] == "Huang"


def tutorial(changes: Mapping[str, str]) -> list[str]:
    """Shell blocks of the tutorial, with these changes."""
    text = (DOCS / "tutorial.md").read_text()
    for shown, run in changes.items():
        assert shown in text, shown
        text = text.replace(shown, run)
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_blocks(blocks: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell blocks one after another, with the cetpick that is tested."""
    python, run = shlex.quote(sys.executable), "-c 'from {} import main; main()' \"$@\""
    commands = {"cetpick": "cetpick.cli", "cetpick-relion": "cetpick.cli.relion"}
    functions = [f"{name}() {{ {python} {run.format(module)}; }}" for name, module in commands.items()]
    script = "\n".join(["set -euo pipefail", *functions, *blocks])
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def test_tutorial(tmp_path: Path) -> None:
    blocks = [block for block in tutorial(QUICK) if not block.startswith("relion_")]
    assert len(blocks) == 7
    done = run_blocks(blocks, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "AP" in done.stdout
    for picture in ("check/sim_000_labels.png", "picks/report.html"):
        assert (tmp_path / picture).stat().st_size > 10_000
    infos, _ = open_inputs([tmp_path / "tomograms.star"])
    for picks in read_particles(tmp_path / "particles5.star", infos):
        table = pd.read_csv(tmp_path / "picks" / f"{picks.tomogram}.csv")
        assert abs(picks.xyz - table[["x", "y", "z"]].to_numpy()).max() < 1e-3
    assert (tmp_path / "External/job001/tomograms/sim_001_pick.star").is_file()
