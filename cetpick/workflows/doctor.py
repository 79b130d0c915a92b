"""`doctor`: whether cetpick can compute and write here, tried, not looked up."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cetpick.limits import cores, free_memory
from cetpick.networks.default import DefaultNetwork

NO_KERNELS = ("no kernel image", "not compatible", "invalid device function")
"""What CUDA says of a GPU that torch was not built for."""
MEMORY = 4.0
"""GiB of GPU memory that should be free: training takes less, tiles of a large tomogram about as much."""
CUDA12_DRIVER, CUDA13_DRIVER = 525, 580
"""Major versions of the NVIDIA driver from which on programs built for CUDA 12 and 13 run."""
VOLTA, TURING = (7, 0), (7, 5)
"""Compute capabilities from which on the images for CUDA 12 and 13 have kernels (docs/docker.md)."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was examined.

    Attributes:
        what: the thing.
        good: whether it works.
        found: what was seen.
        cure: what to do when it does not work.
    """

    what: str
    good: bool
    found: str
    cure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def run_doctor(folder: Path = Path()) -> list[Finding]:
    """Examine versions, the container image that fits, CPU, every GPU that torch lists, and the folder to work in."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices = [examine(device) for device in (torch.device("cpu"), *gpus)]
    return [versions(), fitting_image(driver_version(), gpus), *devices, writing(folder)]


def versions() -> Finding:
    """The torch that is used, and whether it sees a GPU that the machine seems to have."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    found = f"torch {torch.__version__} ({built})"
    driver = driver_version()
    if driver is not None:
        found += f", driver {driver}"
    if torch.cuda.is_available():
        return Finding(what="torch", good=True, found=f"{found}, {torch.cuda.device_count()} GPUs")
    if driver is None and shutil.which("nvidia-smi") is None:
        return Finding(what="torch", good=True, found=f"{found}, no NVIDIA driver: it will compute on the CPU")
    cure = "install a torch built for CUDA, or take the image for GPUs"
    if torch.version.cuda:
        cure = (
            "check that nvidia-smi lists the GPU (in a container: --gpus all, or --nv), and that the driver is new "
            "enough for that CUDA: 580 or later for CUDA 13; with an older driver install a torch for CUDA 12, such as "
            "torch==2.10.0"
        )
    return Finding(what="torch", good=False, found=f"{found}, a driver is installed but no GPU is seen", cure=cure)


def fitting_image(driver: str | None, gpus: Sequence[torch.device] = ()) -> Finding:
    """The container images, by their names in docs/docker.md, that fit a driver and the GPUs that torch sees."""
    what = "image"
    if driver is None:
        found = "for a container: cetpick:cpu" if not gpus else "for a container: the one of the torch that is here"
        return Finding(what=what, good=True, found=found)
    major = int(driver.split(".")[0])
    if major < CUDA12_DRIVER:
        return Finding(
            what=what,
            good=False,
            found=f"driver {driver} is too old for all of them but cetpick:cpu",
            cure=f"update the driver to {CUDA12_DRIVER} or later, better {CUDA13_DRIVER}",
        )
    cards = [torch.cuda.get_device_capability(gpu) for gpu in gpus]
    newer = major >= CUDA13_DRIVER and all(card >= TURING for card in cards)
    fitting = ["cetpick"] * all(card >= VOLTA for card in cards) + ["cetpick:cuda13"] * newer
    if not cards:
        fitting[-1] += " (cetpick:pascal for GPUs older than Volta)"
    return Finding(what=what, good=True, found=f"{' or '.join(fitting or ['cetpick:pascal'])} fits driver {driver}")


def driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of the NVIDIA driver that is loaded, None when there is none."""
    try:
        numbers = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.read_text())
    except OSError:
        return None
    return numbers[0] if numbers else None


def examine(device: torch.device) -> Finding:
    """Run the network forward and backward on a device."""
    try:
        told = _told(device)
        convolve(device)
    except RuntimeError as error:  # all that torch and CUDA raise, out of memory too
        return _failed(device, str(error))
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] / 2**30
        if free < MEMORY:
            cure = "end what else runs on this GPU (nvidia-smi lists it), or choose another with --device"
            return Finding(what=str(device), good=False, found=f"{told}; only {free:.1f} GiB are free", cure=cure)
    return Finding(what=str(device), good=True, found=told)


def convolve(device: torch.device) -> None:
    """One forward and backward pass of the network that is trained, on a small volume.

    Raises:
        RuntimeError: the device cannot do it, or the gradients are no numbers.
    """
    network = DefaultNetwork().to(device)
    network(torch.ones(1, 1, 8, 32, 32, device=device)).heatmap.sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not gradients or not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        raise RuntimeError("the gradients of a convolution are no finite numbers")


def writing(folder: Path) -> Finding:
    """Write a file in the folder to work in."""
    what = f"folder {folder.resolve()}"
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"cetpick")
            file.flush()
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        cure = "work in a folder of your own; in a container bind it for writing and run as its owner (--user)"
        return Finding(what=what, good=False, found=f"cannot be written to: {error}", cure=cure)
    return Finding(what=what, good=True, found=f"can be written to, {free:.1f} GiB free")


def _told(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads, {cores()} cores, {free_memory() / 2**30:.1f} GiB memory free"
    major, minor = torch.cuda.get_device_capability(device)
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor}), {free:.1f} of {total:.1f} GiB free"


def _failed(device: torch.device, message: str) -> Finding:
    first = (message.splitlines() or ["no message"])[0]
    if device.type == "cuda" and any(sign in message for sign in NO_KERNELS):
        built = ", ".join(torch.cuda.get_arch_list())
        return Finding(
            what=str(device),
            good=False,
            found=f"is listed, but torch {torch.__version__} has no kernels for it, only for {built}: {first}",
            cure="for a GPU older than these install a torch of CUDA 12.6, for a newer one the latest torch; "
            "or --device cpu",
        )
    cure = "look at it with nvidia-smi, or use --device cpu" if device.type == "cuda" else "install torch again"
    return Finding(what=str(device), good=False, found=f"does not compute: {first}", cure=cure)
