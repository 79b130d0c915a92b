"""What the slow tests share: they run the real programs that take over from cetpick."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

Run = Callable[..., str]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of the slow tests in which none ran: skipped is not passed."""
    stats = session.config.pluginmanager.getplugin("terminalreporter").stats
    if session.config.option.markexpr == "slow" and not any(map(stats.get, ("passed", "failed", "error"))):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def missing(what: str) -> NoReturn:
    """Skip a test for want of a program; where CI is set that is a failure."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what}; tests/slow/install.sh installs it")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command line in the test's folder; its output, stderr included, when it succeeds."""

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture
def cetpick(run: Run) -> Run:
    """Run cetpick in the test's folder."""
    return lambda *arguments: run(sys.executable, "-c", "from cetpick.cli import main; main()", *arguments)


@pytest.fixture
def relion(run: Run) -> Run:
    """Run a program of RELION 3.1 in the test's folder."""
    if not shutil.which("relion_preprocess"):
        missing("RELION is not installed")
    if "version: 3.1" not in (version := run("relion_preprocess", "--version")):
        missing(f"RELION 3.1 is wanted, found {version.strip()}")
    return run
