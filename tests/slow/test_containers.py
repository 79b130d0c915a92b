"""The Dockerfile built with podman on a base made from Debian's archive, and run as strictly as facilities do.

The image's torch is the one that runs the tests. What pip is configured with here (an index, certificates, folders of
wheels) is given to the build; the Dockerfile knows nothing of it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.conftest import TinySet
from tests.slow.conftest import missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WRAPPER = ROOT / "wrappers" / "docker" / "cetpick"
IMAGE = "localhost/cetpick"
USER = 1234
STRICT = ("--user", f"{USER}:{USER}", "--read-only", "--network", "none", "--cap-drop", "all")

# Where the tests themselves run in a container: limits that need no CAP_SYS_RESOURCE, and runc, which is content with
# control groups of both versions at once
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:8192"]
[engine]
runtime = "runc"
"""


@dataclass(frozen=True)
class Podman:
    """podman with images of its own.

    Attributes:
        command: the script that calls it.
        docker: another that says it is docker, whose options podman takes too.
    """

    command: Path
    docker: Path

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run it; its output and errors together, when it ends with `code`."""
        done = subprocess.run(
            [self.command, *map(str, arguments)],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-5000:]
        return done.stdout

    def cetpick(self, folder: Path, *arguments: object, options: Sequence[str] = (), code: int = 0) -> str:
        """Run the image as strictly as can be, with a folder at /data."""
        return self("run", "--rm", *STRICT, *options, "--volume", f"{folder}:/data", IMAGE, *arguments, code=code)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    for program in ("podman", "runc", "debootstrap"):
        if not shutil.which(program):
            missing(f"{program} is not installed")
    if os.geteuid() != 0:
        missing("debootstrap takes root")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(CONFIGURATION)
    start = (
        f"export CONTAINERS_CONF={folder}/containers.conf\n"
        f'exec {shutil.which("podman")} --root {folder}/storage --runroot {folder}/run "$@"\n'
    )
    for name, first in {"podman": "", "docker": '[ "$1" != --version ] || exec echo Docker version 28\n'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{first}{start}")
        (folder / name).chmod(0o755)
    yield Podman(command=folder / "podman", docker=folder / "docker")
    subprocess.run(["umount", "--recursive", folder / "storage" / "overlay"], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def base(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Stands in for docker.io/library/python."""
    root = tmp_path_factory.mktemp("base") / "root"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for name in ("python", "pip"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}3")
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    shutil.rmtree(root / "var/cache/apt/archives")
    with subprocess.Popen(["tar", "-C", root, "--exclude=./dev/*", "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([podman.command, "import", "-", "localhost/base"], check=True, stdin=tar.stdout)
    shutil.rmtree(root)
    return "localhost/base"


@pytest.fixture(scope="module")
def image(podman: Podman, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = importlib.metadata.version("torch")
    podman(
        "build", "--network", "host", "--pull=never", "--layers=false", *pip_as_here(tmp_path_factory.mktemp("pip")),
        "--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", f"TORCH_SPEC=torch=={torch}", "--tag", IMAGE, ROOT,
    )  # fmt: skip
    return IMAGE


def pip_as_here(folder: Path) -> list[str]:
    """Options of the build that give pip the settings that it has here, and the files that those name."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], text=True, capture_output=True, check=True)
    settings = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    shown = [f"{folder}/pip.conf:/etc/pip.conf:ro"]
    for word in " ".join(settings.values()).split():
        # the pages of an index lie beside its packages
        path = Path(urlparse(word).path).parent if word.startswith("file:") else Path(word)
        if path.is_absolute() and path.exists():
            shown.append(f"{path}:{path}:ro")
    return [option for bind in dict.fromkeys(shown) for option in ("--volume", bind)]


@pytest.fixture(scope="module")
def folder(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's with a small demo in it and, beside others, two small tomograms."""
    folder = tmp_path_factory.mktemp("data")
    TinySet(folder)
    (folder / "broken.mrc").write_bytes(b"no tomogram")
    for path in (folder, *folder.iterdir()):
        os.chown(path, USER, USER)
    return folder


@pytest.fixture(scope="module")
def model(podman: Podman, folder: Path) -> str:
    """Of a demo with fewer steps than it takes for good picks."""
    script = (
        "import pathlib, cetpick.workflows.demo as demo\n"
        "assert demo.run_demo(pathlib.Path('demo'), steps=100).cetpick.average_precision > 0.8\n"
    )
    podman.cetpick(folder, "-c", script, options=("--entrypoint", "python"))
    return "demo/picks/model.safetensors"


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


def test_help_and_labels(podman: Podman, image: str) -> None:
    assert "Usage: cetpick" in podman("run", "--rm", "--network", "none", image)
    labels = json.loads(podman("image", "inspect", "--format", "{{json .Labels}}", image))
    assert labels["org.opencontainers.image.version"] == importlib.metadata.version("cetpick")


def test_doctor(podman: Podman, folder: Path) -> None:
    told = podman.cetpick(folder, "doctor", options=("--gpus", "all"))
    assert f"torch {importlib.metadata.version('torch').split('+')[0]}" in told
    assert "folder /data: can be written to" in told
    assert "FAILED  folder /opt" in podman.cetpick(folder, "doctor", "/opt", code=1)


def test_it_works_without_a_folder_for_temporary_files(podman: Podman, folder: Path) -> None:
    """docker gives none with --read-only; drawing wants one."""
    arguments = ("check", "one.mrc", "--labels", "one.mod", "--diameter", TinySet.diameter, "-o", "pictures")
    told = podman.cetpick(folder, *arguments, options=("--read-only-tmpfs=false",))
    assert "fine" in told
    assert "Matplotlib" not in told
    assert {path.suffix for path in (folder / "pictures").iterdir()} == {".png", ".json"}


def test_pick_and_its_exit_codes(podman: Podman, folder: Path, model: str) -> None:
    podman.cetpick(folder, "pick", "demo/test.mrc", "--model", model, "-o", "picks")
    assert (folder / "picks/particles.star").exists()
    told = podman.cetpick(folder, "pick", "one.mrc", "broken.mrc", "--model", model, "-o", "half", code=1)
    assert "broken.mrc" in told
    assert (folder / "half/one.csv").exists()
    assert "nothere.mrc" in podman.cetpick(folder, "pick", "nothere.mrc", "--model", model, "-o", "none", code=2)
    assert not (folder / "none").exists()
    assert owners(folder) == {USER}


def wrapped(engine: Path, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "CETPICK_ENGINE": str(engine), "CETPICK_IMAGE": IMAGE}
    if engine.name == "docker":
        environment["CETPICK_GPU"] = "all"
    command = [str(WRAPPER), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_the_wrapper_shows_what_links_and_star_files_lead_to(
    podman: Podman, folder: Path, model: str, tmp_path: Path
) -> None:
    work, store = tmp_path / "work", tmp_path / "store"
    for path in (work, store / "deep", tmp_path / "listed"):
        path.mkdir(parents=True)
    shutil.copy(folder / "one.mrc", store / "deep/real.mrc")
    shutil.copy(folder / "two.mrc", tmp_path / "listed/two.mrc")
    (store / "middle.mrc").symlink_to("deep/real.mrc")
    (work / "link.mrc").symlink_to("../store/middle.mrc")
    (work / "tomograms.star").write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoReconstructedTomogram #2\n_rlnTomoTiltSeriesPixelSize #3\n"
        "_rlnTomoTomogramBinning #4\n_rlnTomoSizeX #5\n_rlnTomoSizeY #6\n_rlnTomoSizeZ #7\n"
        f"listed {tmp_path}/listed/two.mrc 10 1 104 96 24\n"
    )
    output = tmp_path / "results"
    arguments = ("link.mrc", "tomograms.star", "--model", folder / model, "-o", output, "--star", "relion31")
    run = wrapped(podman.docker, "pick", *arguments, cwd=work)
    told, _ = run.communicate()
    assert run.returncode == 0, told
    assert {path.name for path in output.glob("*.csv")} == {"link.csv", "listed.csv", "expected_precision.csv"}
    record = json.loads((output / "run.json").read_text())
    assert all((work / path).exists() for path in record["inputs"])
    assert "/data" not in (output / "particles.star").read_text()

    run = wrapped(podman.command, "info", "nothere.mrc", cwd=work)
    told, _ = run.communicate()
    assert (run.returncode, "nothere.mrc" in told) == (2, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_to_the_wrapper_stops_the_container(
    podman: Podman, folder: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("train", folder / "one.mrc", "--labels", folder / "one.mod", "-d", TinySet.diameter, "--steps", 100000)
    run = wrapped(podman.command, *arguments, "-o", "model.safetensors", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        time.sleep(3)
        if podman("ps", "--quiet"):
            run.send_signal(number)  # again, when Python had not yet started
    run.kill()
    told, _ = run.communicate()
    assert run.returncode == code, told
    # the engine's client cannot pass on SIGKILL; the container is stopped a little later
    while number == signal.SIGKILL and podman("ps", "--quiet") and time.monotonic() < deadline:
        time.sleep(1)
    assert podman("ps", "--quiet") == ""
