"""`doctor`, with fakes in the place of GPUs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cetpick.workflows import doctor
from tests.conftest import Run

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A faked GPU; `error` is what computing on it raises, `free` its GiB."""
    fake: dict[str, Any] = {"error": None, "free": 70}

    def convolve(device: torch.device) -> None:
        if device.type == "cuda" and fake["error"]:
            raise RuntimeError(fake["error"])

    monkeypatch.setattr(doctor, "convolve", convolve)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (fake["free"] * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    return fake


def test_a_healthy_machine(cetpick: Run, tmp_path: Path, gpu: dict[str, Any]) -> None:
    code, out, _ = cetpick("doctor", tmp_path, "--json")
    findings = json.loads(out)
    assert code == 0
    assert [f["what"] for f in findings] == ["torch", "image", "cpu", "cuda:0", f"folder {tmp_path}"]
    assert "Tesla V100 (sm_70), 70.0 of 80.0 GiB free" in findings[3]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_without_kernels_is_said_to_be_that(cetpick: Run, tmp_path: Path, gpu: dict[str, Any]) -> None:
    gpu["error"] = "CUDA error: no kernel image is available for execution on the device\nCompile with ..."
    code, out, _ = cetpick("doctor", tmp_path)
    assert code == 1
    assert "FAILED  cuda:0: is listed, but torch" in out
    assert "no kernels for it, only for sm_75, sm_90" in out
    assert "cure: for a GPU older than these install a torch of CUDA 12.6" in out


def test_a_broken_or_full_gpu(gpu: dict[str, Any]) -> None:
    gpu["free"] = 1
    assert "only 1.0 GiB are free" in doctor.examine(GPU).found
    gpu["error"] = "CUDA error: uncorrectable ECC error"
    assert doctor.examine(GPU).found.endswith("does not compute: CUDA error: uncorrectable ECC error")


def test_a_driver_without_a_gpu_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert str(doctor.versions().cure).startswith("install a torch built for CUDA")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "580 or later" in str(doctor.versions().cure)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert doctor.versions().good
    monkeypatch.setattr(doctor, "driver_version", lambda: "570.86")  # a container that was given no GPU
    finding = doctor.versions()
    assert not finding.good
    assert "--gpus all" in str(finding.cure)


@pytest.mark.parametrize(
    ("driver", "card", "fits"),
    [
        (None, None, "for a container: cetpick:cpu"),
        ("535.104.05", None, "cetpick (cetpick:pascal for GPUs older than Volta) fits"),
        ("580.65", None, "cetpick or cetpick:cuda13 (cetpick:pascal"),
        ("535.104.05", (9, 0), "cetpick fits driver 535.104.05"),
        ("580.65", (7, 5), "cetpick or cetpick:cuda13 fits"),
        ("580.65", (7, 0), "cetpick fits"),
        ("580.65", (6, 1), "cetpick:pascal fits"),
    ],
)
def test_the_image_that_fits(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, card: tuple[int, int] | None, fits: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card)
    finding = doctor.fitting_image(driver, [GPU] if card else [])
    assert finding.good
    assert finding.found.startswith(fits)


def test_no_image_fits_an_old_driver() -> None:
    finding = doctor.fitting_image("470.82.01")
    assert not finding.good
    assert "525 or later" in str(finding.cure)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    finding = doctor.writing(tmp_path / "nowhere")
    assert not finding.good
    assert "cannot be written to" in finding.found


def test_the_cpu_really_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.examine(torch.device("cpu"))
    assert finding.good, finding.found
    assert f"{torch.get_num_threads()} threads" in finding.found
    monkeypatch.setattr(torch, "isfinite", lambda tensor: torch.zeros(1, dtype=torch.bool))
    assert "no finite numbers" in doctor.examine(torch.device("cpu")).found


def test_the_driver_tells_its_version(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert doctor.driver_version(file) is None
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    assert doctor.driver_version(file) == "535.104.05"
