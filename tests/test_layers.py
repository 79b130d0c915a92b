import os
import subprocess
import sys
from pathlib import Path

import pytest

from cetpick.cli import main

ROOT = Path(__file__).parent.parent


def test_lower_layers_never_import_higher_ones() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 kept, 0 broken" in run.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "1000")),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", "")),
    ],
)
def test_the_command_line_says_how_threads_wait_unless_told(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str, str]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # to be put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["cetpick", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert tuple(os.environ.get(name, "") for name in names) == expected
