"""RELION 3.1.3 runs cetpick-relion as an External job, shows how it ended, and extracts at its picks."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import TinySet
from tests.slow.conftest import Run
from tests.slow.test_relion import MICROGRAPHS, TOMOGRAM

pytestmark = pytest.mark.slow

TRAIN = "param1_label == labels;param1_value == one.mod;param2_label == diameter;param2_value == 160"
STATUS = {"2": "finished", "3": "failed", "4": "aborted"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tiny = TinySet(tmp_path)
    rows = "".join(f"{tiny.path(name).name} 1\n" for name in ("one", "two"))
    (tmp_path / "mics.star").write_text(MICROGRAPHS.replace(f"{TOMOGRAM} 1\n", rows))
    (tmp_path / "default_pipeline.star").write_text("\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 1\n\n")
    script = tmp_path / "cetpick-job"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from cetpick.cli.relion import main; main()' \"$@\"\n")
    script.chmod(0o755)
    return tmp_path


def external(relion: Run, project: Path, number: int, options: str) -> str:
    """Run an External job; returns how RELION shows that it ended."""
    relion("relion_pipeliner", "--addJob", "External", "--addJobOptions",
           f"fn_exe == {project}/cetpick-job;in_mic == mics.star;nr_threads == 2;{options}")  # fmt: skip
    job = f"External/job{number:03}/"
    relion("relion_pipeliner", "--RunJobs", job, "--schedule", f"ci{number}", "--sec_wait_after", 1)
    lines = (project / "default_pipeline.star").read_text().splitlines()
    return STATUS[next(line.split()[3] for line in lines if line.startswith(f"{job} ") and len(line.split()) == 4)]


def test_trains_picks_and_extracts(relion: Run, project: Path) -> None:
    assert external(relion, project, 1, f"{TRAIN};param3_label == steps;param3_value == 60") == "finished"
    pipeline = (project / "default_pipeline.star").read_text()
    for output in ("particles.star", "coords_suffix_pick.star"):
        assert f"External/job001/ External/job001/{output}" in pipeline
    relion(
        "relion_preprocess", "--i", "mics.star", "--coord_dir", "External/job001/", "--coord_suffix", "_pick.star",
        "--part_dir", "Extract/", "--part_star", "Extract/particles.star", "--extract", "--extract_size", 16,
        "--bg_radius", 6, "--norm",
    )  # fmt: skip
    picks = sum(len((project / f"External/job001/{name}.csv").read_text().splitlines()) - 1 for name in ("one", "two"))
    assert 10 <= picks <= 40
    assert len(list((project / "Extract").rglob("*.mrc"))) >= picks / 2  # picks whose box leaves the volume are dropped


def test_a_failing_job_is_shown_as_failed(relion: Run, project: Path) -> None:
    assert external(relion, project, 1, "param1_label == model;param1_value == nothere.safetensors") == "failed"
    assert "nothere.safetensors: is not there" in (project / "External/job001/run.err").read_text()


def test_an_aborted_job_is_shown_as_aborted(relion: Run, project: Path) -> None:
    def abort_when_it_runs() -> None:
        job = project / "External/job001"
        while not (job / "run.err").exists():
            time.sleep(0.2)
        time.sleep(8)  # it trains by now
        (job / "RELION_JOB_ABORT_NOW").touch()

    threading.Thread(target=abort_when_it_runs, daemon=True).start()
    assert external(relion, project, 1, TRAIN) == "aborted"
