"""Tomograms are shared out: among processes of this machine, and among the workers of a Dask cluster."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cetpick.workflows.batch as batch
import cetpick.workflows.pick as workflow
from cetpick.cluster import Cluster
from cetpick.devices import resolve_devices
from cetpick.errors import InputError
from cetpick.io.mrc import write_mrc
from cetpick.processes import in_processes
from tests.conftest import Run, noise_and_models

NAMES = ("a", "b", "c")
FAILURE = "failed: empty.mrc: all voxels are equal"
OS = "__import__('os')"
SLEEP = "__import__('time').sleep(60)"
Outcomes = Iterator[tuple[Any, Any]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tomograms of noise, one that opens but holds nothing, and a model."""
    folder = noise_and_models(tmp_path_factory.mktemp("source"), NAMES, diameter=60.0, models=("m",))
    write_mrc(folder / "empty.mrc", np.zeros((20, 48, 52), np.float32), voxel_size=10.0)
    return folder


@pytest.fixture
def pick(source: Path, cetpick: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Pick the four into a folder; the paths are relative to the current one, and workers have to find them."""
    shutil.copytree(source, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    files = [f"{name}.mrc" for name in ("a", "empty", "b", "c")]
    words = ["pick", *files, "-m", "m.safetensors", "--threads", 1, "--threshold", 0]
    return lambda output, *more, report=["--no-report"]: cetpick(*words, *report, "-o", output, *more)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Let a function be the processes of two devices; the works that these are given."""
    given: list[Any] = []

    def install(act: Callable[[Callable[[Any], Any], Any], Any]) -> list[Any]:
        def in_this_process(works: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> Outcomes:
            given.extend(works)
            for number, item in enumerate(items):
                yield item, act(*pickle.loads(pickle.dumps((works[number % len(works)], item))))

        monkeypatch.setattr(batch, "in_processes", in_this_process)
        return given

    return install


def contents(output: str) -> dict[str, bytes]:
    """What files hold, but those that tell times."""
    paths = [path for path in Path(output).rglob("*") if path.is_file() and path.suffix not in (".json", ".html")]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("where", [("--cluster", "local:2"), ("--device", "cpu,cpu")])
def test_picks_are_those_of_one_process(pick: Run, where: Sequence[str]) -> None:
    code, _, alone = pick("alone", report=[])
    assert (code, FAILURE in alone) == (1, True)
    code, _, err = pick("shared", *where, report=[])
    assert (code, FAILURE in err) == (1, True)
    assert ("dashboard of Dask: http://" in err) == ("--cluster" in where)
    assert [err.count(f" picked {name}: ") for name in (*NAMES, "empty")] == [1, 1, 1, 0]
    assert contents("shared") == contents("alone")
    values, expected = (json.loads(Path(output, "run.json").read_text()) for output in ("shared", "alone"))
    assert values["failures"] == expected["failures"]
    assert list(values["tomograms"]) == list(NAMES)
    assert values["seconds"].keys() == expected["seconds"].keys()


def test_stored_candidates_are_cut_here_and_the_rest_is_picked_elsewhere(
    pick: Run, hands: Callable[..., list[Any]]
) -> None:
    pick("out", "--threshold", 1)
    Path("out/candidates/b.csv").unlink()
    picked = []

    def act(work: Callable[[Any], Any], job: Any) -> Any:
        picked.append(job.info.name)
        return work(job)

    works = hands(act)
    code, out, _ = pick("out", "--device", "cpu,cpu")
    assert (code, picked, len(works)) == (1, ["empty", "b"], 2)
    assert "2 cut again, 1 picked, 1 failed" in out
    pick("alone")
    assert contents("out") == contents("alone")


def test_what_a_lost_worker_has_done_is_not_done_again(pick: Run, hands: Callable[..., list[Any]]) -> None:
    def act(work: Callable[[Any], Any], job: Any) -> Any:
        first = work(job)
        record, left = Path("out/records", f"{job.info.name}.json"), Path("out/candidates")
        if record.exists():
            before = record.stat().st_mtime_ns
            assert work(job) == {}
            assert record.stat().st_mtime_ns == before
            (left / f".0123abcd-{job.info.name}.csv").touch()  # of a third one that was killed
            (left / ".0123abcd-notes.csv").touch()
        return first

    hands(act)
    pick("out", "--device", "cpu,cpu")
    pick("alone")
    assert contents("out").keys() - contents("alone").keys() == {"candidates/.0123abcd-notes.csv"}


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda work, job: {}, "was picked, but the results are not to be seen here"),
        (lambda work, job: replace(work, folder=Path("/nowhere"))(job), "No such file or directory: '/nowhere'"),
        (lambda work, job: ChildProcessError("died"), "a.mrc: ChildProcessError: died"),
    ],
)
def test_what_goes_wrong_elsewhere_is_said(
    pick: Run,
    hands: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Any, Any], Any],
    problem: str,
) -> None:
    def some(work: Callable[[Any], Any], job: Any) -> Any:
        if job.info.name != "a":
            return work(job)
        try:
            return act(work, job)
        except OSError as error:
            return error

    monkeypatch.setattr(batch, "SEEN_WITHIN", 0)
    hands(some)
    code, _, err = pick("out", "--device", "cpu,cpu")
    assert (code, problem in err) == (1, True)
    assert sorted(path.name for path in Path("out/records").iterdir()) == ["b.json", "c.json"]


def test_warnings_of_other_processes_are_told_and_kept(pick: Run, hands: Callable[..., list[Any]]) -> None:
    settings = ("--voxel-size", 2)
    _, _, expected = pick("alone", *settings)
    warned = [line for line in expected.splitlines() if line.startswith("warning: ") and "empty.mrc" not in line]
    assert len(warned) == len(NAMES)
    hands(lambda work, job: work(job))
    _, _, err = pick("out", "--device", "cpu,cpu", *settings)
    assert [line for line in err.splitlines() if line.startswith("warning: ")] == warned
    assert [f"warning: {text}" for text in json.loads(Path("out/run.json").read_text())["warnings"]] == warned


def test_work_of_another_version_is_refused(pick: Run, hands: Callable[..., list[Any]]) -> None:
    def act(work: Any, job: Any) -> Any:
        plan = replace(work.plan, maker=replace(work.plan.maker, cetpick="0.0"))
        with pytest.raises(Exception, match=r"cetpick 0\.0 gave work to cetpick") as refused:
            replace(work, plan=plan)(job)
        return refused.value

    hands(act)
    code, _, err = pick("out", "--device", "cpu,cpu")
    assert (code, err.count("let the workers use the same installation")) == (2, 4)


def test_items_of_a_process_that_dies_are_tried_again_and_fail_alone(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    dies_once = f"{OS}.path.exists({once!r}) or {OS}.mkdir({once!r}) or {OS}._exit(3)"
    dies, fails = f"{OS}.kill({OS}.getpid(), 9)", "1 / 0"
    done = dict(in_processes([eval, eval], ["6 * 7", dies_once, dies, fails, f"{OS}.getppid()"]))
    assert done["6 * 7"] == 42
    assert done[dies_once] is True
    assert str(done[dies]) == "2 processes died of it, the last one by SIGKILL"
    assert isinstance(done[fails], ZeroDivisionError)
    assert done[f"{OS}.getppid()"] == os.getpid()


def test_processes_end_with_their_parent() -> None:
    items = [f"{OS}.getpid()", SLEEP]
    loop = f"for _, pid in in_processes([eval], {items}): print(pid, flush=True)"
    code = f"from cetpick.processes import in_processes\n{loop}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 30
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.05)

    outcomes = in_processes([eval], items)
    _, child = next(outcomes)
    assert is_alive(child)
    outcomes.close()
    assert not is_alive(child)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_devices_that_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_devices("cpu,cpu") == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, names, devices in (
        (0, "auto", ["cpu"]),
        (1, "auto", ["cuda:0"]),
        (3, "auto", ["cuda:0", "cuda:1", "cuda:2"]),
        (3, "cuda:0,cuda:2", ["cuda:0", "cuda:2"]),
        (3, "cuda", ["cuda"]),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert resolve_devices(names) == devices
    for names in ("cuda:0,cuda:3", "cuda:0,", "cpu,auto,gpu"):
        with pytest.raises(InputError, match="no such device"):
            resolve_devices(names)


def test_every_device_has_its_process(
    pick: Run, hands: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "resolve_devices", lambda names: [f"cuda:{number}" for number in range(9)])
    monkeypatch.setattr(batch, "cores", lambda: 8)
    works = hands(lambda work, job: replace(work, device="cpu")(job))
    pick("out")
    assert [work.device for work in works] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]  # as many as tomograms
    assert [work.threads for work in works] == [1] * 4  # as the user said


@pytest.mark.parametrize(("where", "count"), [("local", 3), ("local:2", 2), ("local:9", 4)])
def test_a_local_cluster_has_a_process_for_each_core(
    pick: Run, monkeypatch: pytest.MonkeyPatch, where: str, count: int
) -> None:
    given: list[Any] = []

    def share_out(cluster: Cluster, works: Sequence[Any], items: Sequence[Any], *, say: Any) -> Outcomes:
        given.extend(works)
        for item in items:
            yield item, works[0](item)

    monkeypatch.setattr(batch, "cores", lambda: 3)
    monkeypatch.setattr(Cluster, "share_out", share_out)
    pick("out", "--cluster", where)
    assert [work.device for work in given] == ["cpu"] * count  # at most as many as tomograms


def test_one_device_that_is_needed_takes_no_other_process(pick: Run, hands: Callable[..., list[Any]]) -> None:
    works = hands(lambda work, job: work(job))
    code = pick("out", "--device", "cpu,cpu")[0]
    assert (code, len(works)) == (1, 2)
    Path("empty.mrc").write_bytes(Path("a.mrc").read_bytes())
    code = pick("out", "--device", "cpu,cpu")[0]
    assert (code, len(works)) == (0, 2)


@pytest.mark.parametrize("where", ["", "slurm:0", "local:-1", "local:two", "pbs:", "nowhere", "no/such/file.json"])
def test_a_cluster_must_be_one(where: str) -> None:
    with pytest.raises(InputError, match="unusable --cluster"):
        Cluster.parse(where)


def test_what_a_cluster_needs_is_said_before_anything_is_done(
    pick: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for where, command in (("slurm", "sbatch"), ("pbs:3", "qsub"), ("lsf", "bsub"), ("sge", "qsub")):
        code, _, err = pick("out", "--cluster", where)
        assert (code, f"submits jobs with {command}, which is not there" in err) == (2, True)
    (tmp_path / "sbatch").touch(0o755)
    code, _, err = pick("out", "--cluster", "slurm:4")
    assert (code, "no cores and no memory" in err, "`jobqueue`, `slurm`" in err) == (2, True, True)
    Path("scheduler.json").write_text('{"address": 1}')
    code, _, err = pick("out", "--cluster", "scheduler.json")
    assert (code, "scheduler.json: no Dask scheduler answers" in err) == (2, True)
    code, _, err = pick("out", "--cluster", "local", "--shard", "1/2")
    assert (code, "give one of them" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = pick("out", "--cluster", "local:2")
    assert (code, "pip install 'cetpick[cluster]'" in err) == (2, True)
    assert not Path("out").exists()


def test_threads_of_a_queues_jobs_wait_as_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    dask, _ = (pytest.importorskip(name, reason="of the extra `cluster`") for name in ("dask", "dask_jobqueue"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    settings = {"cores": 1, "memory": "1GB", "job-script-prologue": ["module load cuda"]}
    of_pbs = {f"jobqueue.pbs.{name}": value for name, value in settings.items()}
    # most queues keep the environment from their jobs
    with dask.config.set(of_pbs), Cluster(kind="pbs").queue() as jobs:
        script = jobs.job_script()
    assert "export OMP_WAIT_POLICY=PASSIVE\nmodule load cuda\n" in script
    assert "--nthreads 1 --memory-limit 0" in script
    assert "GOMP_SPINCOUNT" not in script
