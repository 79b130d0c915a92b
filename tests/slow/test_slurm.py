"""A cluster of one node with two pretended GPUs: wrappers/slurm, whose jobs are preempted, requeued, out of time, and
`pick --cluster`, whose workers are killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cetpick.io.star import read_star
from cetpick.io.table import read_table
from cetpick.workflows.results import record_file, recorded
from tests.slow.conftest import Run, missing

pytestmark = pytest.mark.slow

WRAPPERS = Path(__file__).parents[2] / "wrappers" / "slurm"
TOMOGRAMS = [f"sim/sim_{number:03}.mrc" for number in range(8)]
TRAIN = "sim/sim_000.mrc --labels sim/labels/sim_000.mod --diameter 210 --count-hint 10 --device cpu"
MAIN = [sys.executable, "-c", "from cetpick.cli import main; main()"]
CONFIGURATION = """
ClusterName=cetpick
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=7200
MpiDefault=none
ReturnToService=2
KillWait=30
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A running Slurm, on which its commands act."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        missing("Slurm is not installed")
    if os.geteuid():
        missing("Slurm's daemons are run as root")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().split(".")[0]
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("", 0))
            ports.append(free.getsockname()[1])
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in (0, 1):  # a GPU is a character device to Slurm; these are /dev/null
        os.mknod(folder / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder))
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu Count=2 File={folder}/gpu[0-1]\n")
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("w") as log:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        daemons = [
            subprocess.Popen(words, stdout=log, stderr=log) for words in (["slurmctld", "-Dc"], ["slurmd", "-D"])
        ]
        try:
            wait_for(lambda: set(output("sinfo", "-h", "-o", "%t").split()) == {"idle"}, seconds=60)
            yield
        finally:
            subprocess.run(["scancel", "--user=root"], check=False)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(60)


@pytest.fixture
def work(cluster: None, cetpick: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with eight tomograms in sim."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from cetpick.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("CETPICK", str(program))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cetpick("simulate", "-o", "sim", "-n", 8, "--shape", 160, 160, 48, "--difficulty", "easy")
    return tmp_path


def output(*command: object) -> str:
    return subprocess.run(list(map(str, command)), text=True, stdout=subprocess.PIPE, check=False).stdout


def wait_for(done: Callable[[], object], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s:\n{output('squeue', '-r')}"
        time.sleep(0.05)


def job(number: str) -> dict[str, str]:
    """What Slurm tells of a job or a task of an array."""
    words = output("scontrol", "show", "job", "-o", number).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def back_soon(number: str) -> None:
    """A job that is in the queue again waits for two minutes; have it start soon, but not as soon as it was killed."""
    wait_for(lambda: job(number)["JobState"] == "PENDING", seconds=120)
    output("scontrol", "update", f"JobId={number}", "StartTime=now+10")


def test_an_array_is_complete_and_nothing_is_there_twice(work: Path, run: Run, cetpick: Run) -> None:
    said = run(WRAPPERS / "submit", "-n", 4, "-t", f"{TRAIN} --steps 6", "picks", *TOMOGRAMS, "--top", 40)
    training, array, collecting = (line.split("job ")[1].split(",")[0] for line in said.splitlines())
    log = {task: Path(f"cetpick_{array}_{task}.log") for task in "1234"}
    records = {task: [Path(f"picks/records/sim_{n:03}.json") for n in (int(task) - 1, int(task) + 3)] for task in "14"}

    def done_before(task: str) -> dict[Path, str]:
        """The records of a task that waits to start again: one, or both if it was quicker than Slurm."""
        return {path: path.read_text() for path in records[task] if path.exists()}

    wait_for(lambda: job(training)["JobState"] not in ("PENDING", "RUNNING"), seconds=1200)
    assert job(training)["ExitCode"] == "0:0"

    # task 1 is put back into the queue after the first of its two tomograms
    wait_for(records["1"][0].exists, seconds=600)
    output("scontrol", "requeue", f"{array}_1")
    back_soon(f"{array}_1")
    done = {"1": done_before("1")}
    # whatever runs next gives way to something urgent
    wait_for(lambda: job(f"{array}_4")["JobState"] == "RUNNING", seconds=600)
    wait_for(records["4"][0].exists, seconds=600)
    urgent = output(
        "sbatch", "--parsable", "-p", "urgent", "--gres=gpu:2", "-o", "urgent.log", "--wrap", "true"
    ).strip()
    back_soon(f"{array}_4")
    done["4"] = done_before("4")
    wait_for(lambda: job(urgent)["JobState"] == "COMPLETED", seconds=120)
    for task in "123":
        if job(f"{array}_{task}")["JobState"] == "PENDING":
            back_soon(f"{array}_{task}")
    assert job(collecting)["JobState"] == "PENDING"

    wait_for(lambda: job(collecting)["JobState"] not in ("PENDING", "RUNNING"), seconds=1200)
    assert job(collecting)["ExitCode"] == "0:0", Path(f"cetpick-collect_{collecting}.log").read_text()
    for task in "14":
        assert int(job(f"{array}_{task}")["Restarts"]) >= 1  # task 1 may have given way, too
        assert done[task]
        assert f"{len(done[task])} of 2 tomograms done before" in log[task].read_text()
    told = [line.split()[2] for f in log.values() for line in f.read_text().splitlines() if " picked " in line]
    assert len(told) == len(set(told))
    assert all(path.read_text() == text for before in done.values() for path, text in before.items())

    cetpick("pick", *TOMOGRAMS, "--model", "picks/model.safetensors", "--device", "cpu", "-o", "whole", "--top", 40)
    for path in Path("whole").rglob("*"):
        if path.is_file() and path.suffix not in (".json", ".html"):  # these tell times
            assert path.read_bytes() == (Path("picks") / path.relative_to("whole")).read_bytes()
    named = list(read_star("picks/particles.star")[""]["rlnMicrographName"])
    counts = [len(read_table(Path("picks", f"{Path(name).stem}.csv"))) for name in TOMOGRAMS]
    assert named == [name for name, count in zip(TOMOGRAMS, counts, strict=True) for _ in range(count)]
    values = json.loads(Path("picks/run.json").read_text())
    assert list(values["tomograms"]) == [Path(name).stem for name in TOMOGRAMS]
    assert values["missing"] == {}
    assert [shard["finished"] for shard in values["shards"]] == [True] * 4


def test_a_training_that_runs_out_of_time_goes_on_and_a_cancelled_one_does_not(work: Path) -> None:
    command = ["sbatch", "--parsable", "--time=60", "--signal=B:USR1@100", WRAPPERS / "pick.sbatch", "train"]
    number = output(*command, *TRAIN.split(), "--steps", 20000, "--resume", "-o", "m.safetensors").strip()
    checkpoint, log = Path("m.checkpoint"), Path(f"cetpick_{number}.log")

    def losses() -> list[float]:
        state = torch.load(checkpoint, weights_only=True)["parts"]["scout 1 of 2"]
        return [entry["loss"] for entry in state["log"]]

    wait_for(checkpoint.exists, seconds=600)  # after a minute of training
    hours, minutes, _ = map(int, job(number)["RunTime"].split(":"))
    output("scontrol", "update", f"JobId={number}", f"TimeLimit={60 * hours + minutes + 2}")
    wait_for(lambda: job(number)["Restarts"] == "1", seconds=240)
    output("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    assert "the same command with --resume goes on with it" in log.read_text()
    assert "out of time: back into the queue" in log.read_text()
    first, saved = losses(), checkpoint.stat().st_mtime_ns
    assert first
    back_soon(number)
    wait_for(lambda: checkpoint.stat().st_mtime_ns > saved, seconds=600)  # after a minute
    output("scancel", number)
    wait_for(lambda: job(number)["JobState"] == "CANCELLED", seconds=60)
    assert log.read_text().count("out of time") == 1
    assert len(losses()) > len(first)
    assert losses()[: len(first)] == first


@pytest.fixture
def dask(work: Path, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What picks the tomograms as jobs of Dask, the fifth of them broken; it was trained for a few steps."""
    pytest.importorskip("dask_jobqueue", reason="of the extra `cluster`")
    (work / "dask").mkdir()
    (work / "dask" / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    cores: 1\n    memory: 2 GB\n    interface: lo\n    walltime: '01:00:00'\n"
        "    log-directory: logs\n    job-extra-directives: ['--gres=gpu:1']\n"
        "    job-script-prologue: ['echo $CUDA_VISIBLE_DEVICES >> gpus']\n"
    )
    monkeypatch.setenv("DASK_CONFIG", str(work / "dask"))
    cetpick("train", *TRAIN.split(), "--steps", 6, "-o", "m.safetensors")
    broken = Path(TOMOGRAMS[4])
    broken.write_bytes(broken.read_bytes()[:1024] + bytes(broken.stat().st_size - 1024))
    return ["pick", *TOMOGRAMS, "--model", "m.safetensors", "--device", "cpu", "--top", 40]


def jobs_of_dask() -> list[str]:
    """Numbers of the jobs that run."""
    return output("squeue", "-h", "--name=dask-worker", "--states=RUNNING", "-o", "%A").split()


def results(folder: str) -> dict[str, bytes]:
    """What files hold, but those that tell times."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix not in (".json", ".html")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_jobs_of_dask_that_are_killed_leave_all_done_once(dask: list[object]) -> None:
    serial = subprocess.run([*MAIN, *map(str, dask), "-o", "serial"], check=False)
    assert serial.returncode == 1  # the broken one
    with Path("log").open("w") as log:
        client = subprocess.Popen(
            [*MAIN, *map(str, dask), "-o", "picks", "--cluster", "slurm:2"], stdout=log, stderr=log
        )
    try:
        records = Path("picks/records")
        wait_for(lambda: records.is_dir() and any(records.iterdir()), seconds=300)
        first = set(jobs_of_dask())
        assert first
        output("scancel", "--signal=KILL", "--full", sorted(first)[0])
        wait_for(lambda: client.poll() is not None or set(jobs_of_dask()) - first, seconds=300)
        assert client.wait(600) == 1
    finally:
        client.kill()
    said = Path("log").read_text()
    names = [Path(name).stem for name in TOMOGRAMS]
    assert "dashboard of Dask: http://" in said
    assert [said.count(f" picked {name}: ") for name in names] == [1, 1, 1, 1, 0, 1, 1, 1]
    assert f"failed: {TOMOGRAMS[4]}: all voxels are equal" in said
    assert results("picks") == results("serial")
    assert sorted(path.stem for path in records.iterdir()) == [name for name in names if name != names[4]]
    assert set(Path("gpus").read_text().split()) == {"0", "1"}
    wait_for(lambda: not output("squeue", "-h"), seconds=60)


def test_a_client_that_is_stopped_takes_its_jobs_with_it_and_goes_on(dask: list[object]) -> None:
    words = [*MAIN, *map(str, dask), "-o", "picks", "--cluster", "slurm:1"]
    client = subprocess.Popen(words)
    try:
        wait_for(lambda: recorded(Path("picks")), seconds=300)
        client.terminate()
        assert client.wait(60) == 143
    finally:
        client.kill()
    wait_for(lambda: not output("squeue", "-h"), seconds=60)
    picks = Path("picks")
    done = {path: path.read_bytes() for path in (record_file(picks, name) for name in recorded(picks))}
    assert 0 < len(done) < len(TOMOGRAMS) - 1
    again = subprocess.run(words, text=True, stderr=subprocess.PIPE, check=False)
    assert again.returncode == 1
    told = [line for line in again.stderr.splitlines() if line.endswith("tomograms done before")]
    finished = int(told[0].split()[0]) if told else 0
    assert finished >= len(done) - 1  # the last of these may have been on the way
    assert sum(path.read_bytes() == content for path, content in done.items()) >= finished
    assert len(recorded(picks)) == len(TOMOGRAMS) - 1
