"""wrappers/docker/cetpick with a stand-in for docker that writes down its arguments."""

import os
import subprocess
from pathlib import Path

import pytest

WRAPPERS = Path(__file__).parent.parent / "wrappers" / "docker"


@pytest.fixture
def call(tmp_path):
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    docker.chmod(0o755)
    (tmp_path / "work").mkdir()

    def call(*arguments, name="cetpick"):
        path = f"{docker.parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CETPICK_IMAGE": "image:1"}
        run = subprocess.run(
            [WRAPPERS / name, *map(str, arguments)],
            cwd=tmp_path / "work", env=environment, text=True, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert run.returncode == 7  # the engine's exit code is the wrapper's
        return run.stdout.splitlines()

    return call


def test_arguments_user_and_working_folder(call, tmp_path):
    words = call("pick", "a b.mrc", "-o", "out")
    assert words[-5:] == ["image:1", "pick", "a b.mrc", "-o", "out"]
    work = (tmp_path / "work").resolve()
    assert f"{work}:{work}" in words
    assert words[words.index("--workdir") + 1] == str(work)
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert words[words.index("--entrypoint") + 1] == "cetpick"
    assert call(name="cetpick-relion")[-1] == "image:1"
    assert "cetpick-relion" in call(name="cetpick-relion")


def test_inputs_elsewhere_links_and_files_in_stars_are_shown_read_only(call, tmp_path):
    for folder in ("data", "store", "listed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "store/real.mrc").touch()
    (tmp_path / "data/link.mrc").symlink_to(tmp_path / "store/real.mrc")
    (tmp_path / "listed/t.mrc").touch()
    (tmp_path / "work/mics.star").write_text(f"data_\nloop_\n_rlnMicrographName\n{tmp_path}/listed/t.mrc 1\n")
    words = call("pick", "../data/link.mrc", "mics.star")
    for folder in ("data", "store", "listed"):
        assert f"{tmp_path / folder}:{tmp_path / folder}:ro" in words
    assert not any(word.startswith(f"{tmp_path}:") for word in words)
