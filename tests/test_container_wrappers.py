"""Wrappers with a stand-in for what they call, docker, apptainer or sbatch, that writes down its arguments."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cetpick.workflows.record import write_json

ROOT = Path(__file__).parent.parent
WRAPPERS = ROOT / "wrappers"
ENGINES = {"docker": "Docker version 28.2.2", "podman": "podman version 4.3.1", "apptainer": "apptainer version 1.4.5"}

Call = Callable[..., list[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run a wrapper in the folder `work`; returns the arguments that the engine got."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    for name, version in ENGINES.items():
        engine = tmp_path / "bin" / name
        engine.write_text(
            f'#!/bin/sh\n[ "$1" != --version ] || exec echo "{version}"\n[ "$1" != info ] || exec echo "$INFO"\n'
            'printf "%s\\n" "$@"\nexit 7\n'
        )
        engine.chmod(0o755)

    def call(
        *arguments: object, script: str = "docker/cetpick", engine: str = "", cwd: Path | None = None, **more: str
    ) -> list[str]:
        engine = engine or script.split("/")[0]
        environment = {
            **os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CETPICK_IMAGE": "image:1",
            "CETPICK_ENGINE": engine, "INFO": "", **more,
        }  # fmt: skip
        run = subprocess.run(
            [WRAPPERS / script, *map(str, arguments)],
            cwd=cwd or tmp_path / "work", env=environment, text=True, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert run.returncode == 7  # the engine's exit code is the wrapper's
        return run.stdout.splitlines()

    return call


def shown(words: list[str]) -> dict[str, str]:
    """Folders that are shown, each at its own path: ro or rw."""
    binds = [after.split(":") for word, after in itertools.pairwise(words) if word in ("--volume", "--bind")]
    assert all(source == target for source, target, _ in binds)
    return {source: mode for source, _, mode in binds}


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_arguments_user_and_working_folder(call: Call, tmp_path: Path) -> None:
    words = call("pick", "a b.mrc", "-o", "out")
    assert words[-6:] == [f"{umask():04o}", "cetpick", "pick", "a b.mrc", "-o", "out"]
    assert words[words.index("--entrypoint") + 2] == "image:1"
    assert shown(words) == {str(tmp_path / "work"): "rw"}
    assert words[words.index("--workdir") + 1] == str(tmp_path / "work")
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert {words[i + 1] for i, word in enumerate(words) if word == "--group-add"} >= {str(os.getgid())}
    assert "--tty" not in words
    assert call(script="docker/cetpick-relion")[-1] == "cetpick-relion"


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_apptainer(call: Call, tmp_path: Path) -> None:
    make(tmp_path / "data/a.mrc")
    words = call("pick", "../data/a.mrc", script="apptainer/cetpick", CUDA_VISIBLE_DEVICES="1")
    assert words[0] == "exec"
    assert words[-4:] == ["image:1", "cetpick", "pick", "../data/a.mrc"]
    assert shown(words) == {str(tmp_path / "work"): "rw", str(tmp_path / "data"): "ro"}
    assert words[words.index("--pwd") + 1] == str(tmp_path / "work")
    assert words[words.index("--env") + 1] == "CUDA_VISIBLE_DEVICES=1"
    assert call(script="apptainer/cetpick-relion")[-1] == "cetpick-relion"


def test_the_container_stops_when_its_client_is_killed(call: Call, tmp_path: Path) -> None:
    """Scipion stops a job with SIGKILL, which no engine's client can pass on."""
    (tmp_path / "bin/docker").write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || exec echo docker\necho "$@" >> {tmp_path}/$1\n'
        '[ "$1" != run ] || exec sleep 60\n'
    )
    run = subprocess.Popen(
        [WRAPPERS / "docker/cetpick", "doctor"], cwd=tmp_path / "work",
        env={**os.environ, "CETPICK_ENGINE": str(tmp_path / "bin/docker")},
    )  # fmt: skip
    wait_for(tmp_path / "run")
    time.sleep(0.2)
    assert not (tmp_path / "stop").exists()
    run.kill()
    run.wait()
    wait_for(tmp_path / "stop")
    words = (tmp_path / "run").read_text().split()
    assert (tmp_path / "stop").read_text().split() == ["stop", "--time", "30", words[words.index("--name") + 1]]


@pytest.mark.parametrize("wrapper", ["docker", "apptainer"])
@pytest.mark.parametrize("how", ["no engine", "refused folder", "no image", "killed", "succeeded"])
def test_relion_hears_of_a_container_that_does_not_begin(tmp_path: Path, call: Call, wrapper: str, how: str) -> None:
    """It takes a job without a marker to be running, for ever."""
    job = tmp_path / "work/External/job 1"
    job.mkdir(parents=True)
    (job / "RELION_JOB_EXIT_SUCCESS").touch()  # of a run before
    engine = tmp_path / "bin" / wrapper
    # what the engine does after its own questions
    body = {"killed": "kill -KILL $$", "succeeded": f"touch '{job}/RELION_JOB_EXIT_SUCCESS'"}.get(how, "exit 125")
    engine.write_text(f"#!/bin/sh\ncase $1 in run | exec) {body} ;; stop) exit 1 ;; esac\n")
    run = subprocess.run(
        [WRAPPERS / wrapper / "cetpick-relion", "--in_mics", "/usr" if how == "refused folder" else "t.star",
         "--o", "External/job 1/", "--j", "1"],
        cwd=tmp_path / "work", check=False, stderr=subprocess.DEVNULL,
        env={**os.environ, "CETPICK_ENGINE": "nothing" if how == "no engine" else str(engine)},
    )  # fmt: skip
    assert (run.returncode == 0) == (how == "succeeded")
    deadline = time.monotonic() + 30
    while not (markers := list(job.iterdir())):
        assert time.monotonic() < deadline, "no marker"
        time.sleep(0.05)
    if how == "succeeded":
        time.sleep(1.5)  # as it stays
        markers = list(job.iterdir())
    assert [path.name for path in markers] == [f"RELION_JOB_EXIT_{'SUCCESS' if how == 'succeeded' else 'FAILURE'}"]


def test_a_terminal_belongs_to_what_stands_in_front(tmp_path: Path, call: Call) -> None:
    """An engine's client that sets a terminal that is not its own is stopped, without a word."""
    script = f"set -m; {WRAPPERS}/docker/cetpick in-front; {WRAPPERS}/docker/cetpick behind & wait"
    (tmp_path / "bin/docker").write_text(f'#!/bin/sh\n[ "$1" != run ] || echo "$@" >>{tmp_path}/log\n')
    parent, child = os.openpty()
    subprocess.run(
        ["setsid", "--ctty", "bash", "-c", script], stdin=child, stdout=child, stderr=child, check=True, timeout=60,
        cwd=tmp_path / "work", env={**os.environ, "CETPICK_ENGINE": str(tmp_path / "bin/docker")},
    )  # fmt: skip
    os.close(parent)
    os.close(child)
    front, behind = (tmp_path / "log").read_text().splitlines()
    assert front.endswith("in-front")
    assert ("--tty" in front, "--tty" in behind) == (True, False)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.05)


def test_gpus(call: Call) -> None:
    def given(engine: str, gpu: str) -> str:
        words = call("doctor", engine=engine, CETPICK_GPU=gpu)
        return " ".join(words[words.index(next(w for w in words if w in ("--gpus", "--device"))) :][:2])

    assert given("docker", "all") == "--gpus all"
    assert given("docker", "1") == "--gpus device=1"
    assert given("docker", "0,2") == '--gpus "device=0,2"'
    words = call("doctor", engine="podman", CETPICK_GPU="0,2")
    assert [word for word in words if word.startswith("nvidia.com")] == ["nvidia.com/gpu=0", "nvidia.com/gpu=2"]
    assert given("podman", "all") == "--device nvidia.com/gpu=all"
    assert not {"--gpus", "--device"} & set(call("doctor", CETPICK_GPU="none"))
    # of one GPU that was chosen the container has no other: what hides others on the host would hide it
    for gpu in ("all", "1"):
        assert ("CUDA_VISIBLE_DEVICES" in call("doctor", CETPICK_GPU=gpu, CUDA_VISIBLE_DEVICES="1")) == (gpu == "all")
    for gpu in ("all", "none", "1"):
        words = call("doctor", script="apptainer/cetpick", CETPICK_GPU=gpu)
        assert ("CUDA_VISIBLE_DEVICES=1" in words, "CUDA_DEVICE_ORDER=PCI_BUS_ID" in words) == (gpu == "1", gpu == "1")


def test_the_gpus_of_a_job_of_slurm(call: Call) -> None:
    """Which counts those of each job from 0 for CUDA, and tells their numbers apart; the container sees all."""
    words = call("doctor", SLURM_JOB_GPUS="3", CUDA_VISIBLE_DEVICES="0")
    assert words[words.index("--gpus") + 1] == "device=3"
    assert "CUDA_VISIBLE_DEVICES" not in words
    assert "--gpus" not in call("doctor", SLURM_JOB_GPUS="3", CETPICK_GPU="none")


def test_no_gpus_are_visible(call: Call) -> None:
    for script, said in (("docker/cetpick", "CUDA_VISIBLE_DEVICES"), ("apptainer/cetpick", "CUDA_VISIBLE_DEVICES=")):
        assert said in call("doctor", script=script, CUDA_VISIBLE_DEVICES="")


def test_rootless_engines_map_the_user(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = call("doctor", INFO="[name=seccomp,profile=builtin name=rootless]")
    assert words[words.index("--user") + 1] == "0:0"
    (tmp_path / "bin" / "id").write_text("#!/bin/sh\necho 1234\n")
    (tmp_path / "bin" / "id").chmod(0o755)
    words = call("doctor", engine="podman", INFO="crun")
    assert words[words.index("--userns") + 1] == "keep-id"
    assert words[words.index("--group-add") + 1] == "keep-groups"
    assert "--group-add" not in call("doctor", engine="podman", INFO="runc")


def test_podman_under_the_name_of_docker(call: Call, tmp_path: Path) -> None:
    """As Debian's package podman-docker has it, which tells so on standard error each time."""
    as_docker = (tmp_path / "bin/podman").read_text().replace("\n", "\necho Emulate Docker CLI using podman. >&2\n", 1)
    (tmp_path / "bin/docker").write_text(as_docker)
    words = call("doctor", CETPICK_GPU="all")
    assert words[words.index("--device") + 1] == "nvidia.com/gpu=all"


def test_links_are_followed_step_by_step(call: Call, tmp_path: Path) -> None:
    make(
        tmp_path / "store/real.mrc", tmp_path / "labels/readme", tmp_path / "clicked/one.mod", tmp_path / "vol/x/b.mrc"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "middle").mkdir()
    (tmp_path / "middle/link.mrc").symlink_to("../store/real.mrc")
    (tmp_path / "data/link.mrc").symlink_to(tmp_path / "middle/link.mrc")
    (tmp_path / "labels/one.mod").symlink_to(tmp_path / "clicked/one.mod")
    (tmp_path / "shelf").symlink_to(tmp_path / "vol")
    (tmp_path / "work/more").symlink_to(tmp_path / "shelf/x")
    words = call("pick", "../data/link.mrc", "more/b.mrc", "--labels=../labels", "-l", "nothing")
    expected = ("data", "middle", "store", "labels", "clicked", "shelf/x")
    assert shown(words) == {str(tmp_path / "work"): "rw", **{str(tmp_path / name): "ro" for name in expected}}


def test_files_that_star_files_name_are_shown(call: Call, tmp_path: Path) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    make(project / "Tomograms/t1.mrc", other / "t2.mrc", other / "t3.mrc", other / "image.mrc", other / "frames/f.mrc")
    (project / "Tomograms/t3.mrc").symlink_to(other / "t3.mrc")
    (project / "tomograms.star").write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoReconstructedTomogram #2\n_rlnTomoTiltSeriesStarFile #3\n"
        f"a Tomograms/t1.mrc {other}/frames/f.mrc\nb {other}/t2.mrc none\nc Tomograms/t3.mrc none\n"
    )
    (tmp_path / "work/particles.star").write_text(
        f"data_particles\nloop_\n_rlnImageName #1\n_rlnTomoName #2\n000001@{other}/image.mrc a\n"
    )
    (tmp_path / "work/set.star").write_text(
        f"data_\n_rlnTomoParticlesFile particles.star\n_rlnTomoTomogramsFile {project}/tomograms.star\n"
    )
    work = str(tmp_path / "work")
    for arguments in (["../project/tomograms.star"], ["--labels", "set.star"]):
        assert shown(call("pick", *arguments)) == {
            work: "rw", str(project): "ro", str(project / "Tomograms"): "ro", str(other): "ro",
        }  # fmt: skip


def test_star_files_as_others_write_them(call: Call, tmp_path: Path) -> None:
    """With lines that end as Windows has them, quotes, a name that begins as a block does, and the ending .STAR."""
    make(tmp_path / "a b/t.mrc", tmp_path / "it's/t.mrc", tmp_path / "c/t.mrc", tmp_path / "d/t.mrc")
    rows = [f"1 '{tmp_path}/a b/t.mrc'", f'2 "{tmp_path}/it\'s/t.mrc"', f"3 {tmp_path}/c/t.mrc"]
    (tmp_path / "work/t.STAR").write_text("\r\n".join(["data_", "loop_", "_rlnA #1", "_rlnB #2", *rows, ""]))
    (tmp_path / "work/set.star").write_text(
        f'data_\nloop_\n_rlnImageName\n_rlnB\ndata_01 {tmp_path}/d/t.mrc\ndata_x\n_rlnTomoTomogramsFile "t.STAR"\r\n'
    )
    folders = [str(tmp_path / name) for name in ("a b", "it's", "c", "d")]
    for arguments, names in ((["t.STAR"], folders[:3]), (["--labels", "set.star"], folders)):
        assert shown(call("pick", *arguments)) == {str(tmp_path / "work"): "rw", **dict.fromkeys(names, "ro")}


def test_a_large_star_file_takes_no_process_for_each_name(call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("dirname", "realpath"):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\necho >> {log}\nPATH=${{PATH#*:}} exec {name} "$@"\n')
        command.chmod(0o755)
    make(tmp_path / "project/TS/1")  # no file that this particle means
    rows = "".join(f"TS/{number} tomograms/{number}.mrc\n" for number in range(100))
    (tmp_path / "project/p.star").write_text(f"data_\nloop_\n_rlnTomoParticleName #1\n_rlnOther #2\n{rows}")
    assert shown(call("pick", "--labels", "../project/p.star")).keys() == {
        str(tmp_path / name) for name in ("work", "project")
    }
    assert len(log.read_text().splitlines()) < 10


def test_outputs_elsewhere_can_be_written(call: Call, tmp_path: Path) -> None:
    make(tmp_path / "data/a.csv", tmp_path / "here/old.mod")
    (tmp_path / "scratch").mkdir()
    work = {str(tmp_path / "work"): "rw"}
    scratch, data, old = (str(tmp_path / name) for name in ("scratch", "data", "here"))
    for option in (
        ["-o", f"{scratch}/new/out"], [f"--output={scratch}/out"], ["-o../scratch"], ["--o", scratch],
        ["-qo", scratch], [f"-qo{scratch}/out"],
    ):  # fmt: skip
        assert shown(call("pick", *option)) == {**work, scratch: "rw"}
    assert shown(call("convert", "../data/a.csv", f"{scratch}/a.mod")) == {**work, data: "ro", scratch: "rw"}
    assert shown(call("convert", "../data/a.csv", "../here/old.mod")) == {**work, data: "ro", old: "ro"}
    assert shown(call("convert", "../data/a.csv", "../here/old.mod", "--overwrite"))[old] == "rw"
    assert shown(call("convert", "../data", scratch, "--format", "imod")) == {**work, data: "ro", scratch: "rw"}


def test_folders_of_results_that_are_worked_on_can_be_written(call: Call, tmp_path: Path) -> None:
    make(tmp_path / "picks/run.json", tmp_path / "truth/a.mod", tmp_path / "model/m.safetensors")
    work, picks, truth = (str(tmp_path / name) for name in ("work", "picks", "truth"))
    for command in ("collect", "repick", "report", "suggest", "doctor", "evaluate"):
        assert shown(call(command, "--quiet", "../picks"))[picks] == "rw"
    arguments = ("../picks", "--truth", "../truth", "--report", f"{tmp_path}/new/e.html")
    assert shown(call("evaluate", *arguments)) == {work: "rw", str(tmp_path): "rw", picks: "rw", truth: "ro"}
    assert shown(call("suggest", "../picks", "--labels", "../truth")) == {work: "rw", picks: "rw", truth: "ro"}
    assert shown(call("curate", "../picks", "../truth", "-o", "next")) == {work: "rw", picks: "ro", truth: "ro"}
    assert shown(call("info", "../picks")) == {work: "rw", picks: "ro"}
    # curate finds the results that a file of suggest belongs to
    make(tmp_path / "picks/suggest/suggested.star", tmp_path / "parts/run.1of2.json", tmp_path / "parts/suggest/s.star")
    for file in ("picks/suggest/suggested.star", "parts/suggest/s.star"):
        folders = [str(path) for path in (tmp_path / file).parents[:2]]
        words = call("curate", f"../{file}", "../truth", "-o", "next")
        assert shown(words) == {work: "rw", truth: "ro", **dict.fromkeys(folders, "ro")}
    assert shown(call("info", "../picks/suggest/suggested.star")) == {work: "rw", f"{picks}/suggest": "ro"}
    # short options and their values may be one word
    assert shown(call("pick", "-m../model/m.safetensors", "-l../truth"))[str(tmp_path / "model")] == "ro"


def test_tomograms_of_results_are_shown_to_their_report(call: Call, tmp_path: Path) -> None:
    tomogram, record = tmp_path / "archive/day 1/t1.mrc", tmp_path / "picks/records/t1.json"
    make(tomogram, record)
    write_json(record, {"format": 1, "file": tomogram, "info": {"path": "t1.mrc"}})
    work, picks = str(tmp_path / "work"), str(tmp_path / "picks")
    assert shown(call("report", "../picks")) == {work: "rw", picks: "rw", str(tomogram.parent): "ro"}
    assert shown(call("repick", "../picks")) == {work: "rw", picks: "rw"}


def test_scratch_is_handed_on(call: Call, tmp_path: Path) -> None:
    for script, said in (("docker/cetpick", "CETPICK_SCRATCH"), ("apptainer/cetpick", f"CETPICK_SCRATCH={tmp_path}/s")):
        words = call("doctor", script=script, CETPICK_SCRATCH=f"{tmp_path}/s")
        assert said in words
        assert shown(words)[str(tmp_path)] == "rw"


def test_a_level_of_a_store_comes_with_its_store(call: Call, tmp_path: Path) -> None:
    make(tmp_path / "data/t.zarr/1/.zarray")
    assert shown(call("info", tmp_path / "data/t.zarr/1"))[str(tmp_path / "data/t.zarr")] == "ro"


def test_the_working_folder_is_shown_where_it_really_is(call: Call, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(tmp_path / "work")
    make(tmp_path / "work/a.mrc")
    words = call("pick", f"{tmp_path}/short/a.mrc", cwd=tmp_path / "short")
    assert shown(words) == {str(tmp_path / "work"): "rw", str(tmp_path / "short"): "ro"}


def test_more_folders_can_be_shown(call: Call, tmp_path: Path) -> None:
    make(tmp_path / "a b/x", tmp_path / "c/y")
    words = call("pick", CETPICK_MOUNTS=f"{tmp_path}/a b:{tmp_path}/c")
    assert set(shown(words)) == {str(tmp_path / name) for name in ("work", "a b", "c")}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/usr/lib", "/usr/lib is also a folder of the container"),
        ("../a:b/t.mrc", "colon, comma or line break"),
        ("../a\nb/t.mrc", "colon, comma or line break"),
    ],
)
def test_what_cannot_be_shown_is_said(tmp_path: Path, call: Call, path: str, message: str) -> None:
    make(tmp_path / "a:b/t.mrc", tmp_path / "a\nb/t.mrc")
    run = subprocess.run(
        [WRAPPERS / "docker/cetpick", "pick", path], cwd=tmp_path / "work", text=True, capture_output=True, check=False,
        env={**os.environ, "CETPICK_ENGINE": str(tmp_path / "bin/docker")},
    )  # fmt: skip
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("script", ["docker/cetpick", "apptainer/cetpick"])
@pytest.mark.parametrize("folder", ["/", "/opt", "/usr/lib"])
def test_a_working_folder_that_would_hide_the_container_is_refused(
    tmp_path: Path, call: Call, script: str, folder: str
) -> None:
    environment = {**os.environ, "CETPICK_ENGINE": str(tmp_path / "bin/docker")}
    run = subprocess.run([WRAPPERS / script, "doctor"], cwd=folder, env=environment, capture_output=True, check=False)
    assert (run.returncode, run.stdout) == (2, b"")
    assert f"cetpick: {folder} is also a folder of the container" in run.stderr.decode()


def test_folders_in_memory_are_shown(call: Call) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        make(Path(folder) / "work/labels/a.mod", Path(folder) / "a.mrc")
        words = call("pick", "../a.mrc", "-l", "labels", cwd=Path(folder) / "work")
        assert shown(words) == {f"{folder}/work": "rw", folder: "ro"}


def test_a_link_that_no_container_follows_is_said(
    tmp_path: Path, call: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "deep/store/t.mrc", tmp_path / "deep/data/readme")
    (tmp_path / "deep/data/t.mrc").symlink_to("../store/t.mrc")
    (tmp_path / "data").symlink_to(tmp_path / "deep/data")
    call("pick", "../data/t.mrc")
    assert f"name {tmp_path}/deep/store/t.mrc" in capfd.readouterr().err


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`submit` with an sbatch that writes a line for each job, words between tabs, and a `cetpick` like it."""
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\n(printf '%s\\t' \"$@\"; echo) >>{tmp_path}/jobs\necho '12;far'\n")
    (tmp_path / "ask").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho requeued\n")
    for name in ("sbatch", "ask", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C", "CETPICK": "ask -v"}

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, words)), env=environment | more, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_slurm_collects_in_a_folder_of_any_name(
    tmp_path: Path, slurm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """With what a facility has written at the head of pick.sbatch, as partition and account."""
    out = "pické & it's $x"
    assert slurm(WRAPPERS / "slurm/submit", out, "a.mrc", "--model", "m.safetensors").returncode == 0
    picking, collecting = ((line.split("\t")[:-1]) for line in (tmp_path / "jobs").read_text().splitlines())
    assert picking[-5:] == ["a.mrc", "--model", "m.safetensors", "--output", out]
    assert "--dependency=afterany:12" in collecting  # the cluster's name is no part of it
    job = collecting.index(str(WRAPPERS / "slurm/pick.sbatch"))
    assert slurm("bash", *collecting[job:]).stdout.splitlines() == ["-v", "collect", out]


def test_slurm_trains_on_what_patterns_stand_for(
    tmp_path: Path, slurm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    make(tmp_path / "labelled/a.rec", tmp_path / "labelled/b.rec")
    words = ("-t", "labelled/*.rec --labels l -d 250", "out", "c.rec")
    assert slurm(WRAPPERS / "slurm/submit", *words).returncode == 0
    training, picking, _ = (tmp_path / "jobs").read_text().splitlines()
    assert "train\tlabelled/a.rec\tlabelled/b.rec\t--labels\tl\t" in training
    assert "--dependency=afterok:12\t" in picking


def test_slurm_refuses_to_pick_without_a_model(
    tmp_path: Path, slurm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = slurm(WRAPPERS / "slurm/submit", "out", "a.mrc", "--memory", "4")
    assert (run.returncode, (tmp_path / "jobs").exists()) == (2, False)
    assert "--model" in run.stderr


@pytest.mark.parametrize(("script", "words"), [("pick", ()), ("pick_array", ("3",))])
def test_slurm_does_not_put_a_job_back_for_ever(
    tmp_path: Path, slurm: Callable[..., subprocess.CompletedProcess[str]], script: str, words: tuple[str, ...]
) -> None:
    """One whose tomogram takes longer than a job may last would never end."""
    (tmp_path / "ask").write_text("#!/bin/sh\nsleep 1\nkill -USR1 $PPID\nexec sleep 60\n")
    job = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "1"}
    for count, said in (("19", "requeued"), ("20", "it ends here")):
        run = slurm("bash", WRAPPERS / f"slurm/{script}.sbatch", *words, "x", SLURM_RESTART_COUNT=count, **job)
        assert run.returncode == 143
        assert said in run.stdout.splitlines()[-1]


def test_the_image_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"ARG VERSION={version[1]}\n" in (ROOT / "Dockerfile").read_text()
