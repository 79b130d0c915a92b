"""The tutorial as it stands, but for fewer training steps, to RELION's extraction."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slow.conftest import Run
from tests.test_docs import TRAINING, run_blocks, tutorial

pytestmark = pytest.mark.slow


def test_tutorial_up_to_extracted_boxes(relion: Run, tmp_path: Path) -> None:
    done = run_blocks(tutorial({TRAINING: f"{TRAINING} --steps 100"}), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sim_000: fine: the labels sit on dark blobs" in done.stdout
    rows = [line for line in (tmp_path / "picks" / "sim_001.csv").read_text().splitlines()[1:] if line]
    assert 25 <= len(rows) <= 75  # of 49 particles
    assert len(list((tmp_path / "Extract").rglob("*.mrc"))) >= len(rows)  # of two tomograms, less those at the border
