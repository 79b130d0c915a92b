"""Where to compute: one path for CPU and GPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn import functional

from cetpick.errors import InputError
from cetpick.limits import cores


def resolve_device(name: str = "auto", *, threads: int | None = None) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

    Args:
        name: as given by the user.
        threads: CPU threads; None for what OMP_NUM_THREADS says, else for as many as torch finds cores and, by its
            control group, this process may use.

    Raises:
        InputError: no such device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ and cores() < torch.get_num_threads():
        # as in a container with --cpus, where waiting threads take the time of the others
        torch.set_num_threads(cores())
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    count = torch.cuda.device_count()
    good = device is not None and (device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count))
    if device is None or not good:
        raise InputError(
            "no such device",
            expected="auto, cpu, cuda or cuda:N; to pick, several with commas between",
            found=f"{name}; torch {torch.__version__} sees {count} GPUs",
            cure="use --device auto, or install a torch build and driver that see the GPU",
        )
    return device


def resolve_devices(names: str = "auto") -> list[str]:
    """What the devices are called that share the work: all GPUs for `auto`, else those named, with commas between.

    Raises:
        InputError: no such device.
    """
    if names == "auto":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    for name in names.split(","):
        resolve_device(name)
    return names.split(",")


def device_name(device: torch.device) -> str:
    """What to call a device in a record of a run."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda})"
    return f"cpu ({torch.get_num_threads()} threads)"


@contextmanager
def warming_up(device: torch.device) -> Iterator[None]:
    """Get ready to train while something else is done: seconds of waiting for a GPU's driver and for imports."""

    def get_ready() -> None:
        importlib.import_module("torch._dynamo")  # the first optimiser imports it, for 1.6 s
        if device.type == "cuda":
            image, kernel = (torch.zeros(1, 8, 8, 8, device=device) for _ in range(2))
            functional.conv2d(image, kernel[:, :, :3, :3])
            torch.cuda.synchronize(device)

    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(get_ready)
        yield
        ready.result()


def is_half(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 fast."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the hardware multiplies it fast, else float32."""
    return torch.autocast(device.type, torch.bfloat16) if is_half(device) else nullcontext()


def spare_memory(device: torch.device) -> float:
    """Bytes that a computation may take: a GiB on a CPU, where no more is gained, half of what is free on a GPU."""
    if device.type != "cuda":
        return float(1 << 30)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) / 2
