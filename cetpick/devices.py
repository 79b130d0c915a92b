"""Where to compute: one path for CPU and GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from cetpick.errors import InputError


def resolve_device(name: str = "auto", *, threads: int | None = None) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

    Args:
        name: as given by the user.
        threads: CPU threads, None for as many as torch finds cores.

    Raises:
        InputError: no such device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
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
