"""A device that pretends to be a GPU: tensors on `cuda:0` whose numbers are a CPU's.

What runs on it takes the paths of a GPU, fails where tensors of a GPU and of the CPU meet, and tells how often a GPU
would have been waited for. Its speed, its memory, its half precision and its own kernels are for test_gpu.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo  # which optimisers import, and which does not bear another torch.Generator
from torch import Tensor
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
COPIES = {"aten::_to_copy", "aten::copy_", "aten::to"}
TELLING = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "allclose", "bincount", "equal", "is_nonzero", "masked_select", "nonzero",
        "repeat_interleave", "_unique2", "unique_consecutive", "unique_dim",
    )
}  # fmt: skip
"""What tells the CPU of numbers, or makes as many things as numbers say; so does an index of bools."""


class OnDevice(Tensor):
    """A tensor on DEVICE; `held` has its numbers."""

    held: Tensor
    # but to torch's own code, which knows no GPU unless it was built for one, it is of the CPU
    device = property(lambda _: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype
        )
        made.held = held
        return made

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        """Its numbers on the CPU, where torch's own code thinks that they are."""
        PretendedGPU.present.tells("Tensor.cpu")
        return self.held.clone(memory_format=memory_format)

    def tolist(self) -> Any:
        """Likewise."""
        return self.cpu().tolist()

    def to(self, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Somewhere else, or as another type."""
        target, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if target is None or target.type == DEVICE.type:
            return super().to(*args, **kwargs)
        return self.cpu().to(dtype or self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return PretendedGPU.present.do(func, args, kwargs or {})


class PretendedGPU(TorchDispatchMode):
    """The device, while it is there.

    Attributes:
        waits: how often it was waited for.
        recording: whether it records, so that only its own tasks may come.
        recorded: how many it has recorded.
    """

    present: PretendedGPU

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.recording, self.recorded = 0, False, 0
        PretendedGPU.present = self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.do(func, args, kwargs or {})

    @contextmanager
    def records(self) -> Iterator[None]:
        """Let nothing come that a GPU could not record."""
        self.recording = True
        try:
            yield
        finally:
            self.recording = False

    def tells(self, task: str) -> None:
        """The CPU waits until it knows."""
        assert not self.recording, f"{task} while a GPU records"
        self.waits += 1

    def do(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Let the CPU do a task, and hold what comes of it on the device if it would lie there.

        Raises:
            AssertionError: a GPU could not do it.
        """
        name, target = func._schema.name, kwargs.get("device")
        tensors = [of for of in tree_leaves((args, kwargs)) if isinstance(of, Tensor)]
        ours = [of for of in tensors if isinstance(of, OnDevice)]
        others = [of for of in tensors if not isinstance(of, OnDevice)]
        there = bool(ours) if target is None else target.type == DEVICE.type
        if name == "aten::copy_":
            there = isinstance(args[0], OnDevice)
        if not there and not ours:
            return func(*args, **kwargs)
        self.recorded += self.recording
        copied = name in COPIES and (not there or bool(others))
        assert not (self.recording and copied), f"{func} while a GPU records"
        shapes = [tuple(of.shape) for of in tensors]
        assert copied or not any(of.dim() for of in others), f"{func} of tensors here and there: {shapes}"
        # a copy from memory that is not pinned need not be waited for, if it was said so; drivers may wait all the same
        asynchronous = there and (kwargs.get("non_blocking") or (name == "aten::copy_" and args[2:] == (True,)))
        chosen = tree_leaves(args[1]) if name in INDEXING else []
        counts = any(of is not None and of.dtype == torch.bool for of in chosen)
        if name in TELLING or counts or (copied and not asynchronous):
            self.tells(str(func))

        known = {id(of.held): of for of in ours}
        args, kwargs = tree_map(lambda of: of.held if isinstance(of, OnDevice) else of, (list(args), dict(kwargs)))
        result = func(*args, **(kwargs if target is None else {**kwargs, "device": torch.device("cpu")}))
        if not there or name == "aten::_local_scalar_dense":
            return result

        def placed(of: Any) -> Any:
            if not isinstance(of, Tensor):
                return of
            return known[id(of)] if id(of) in known else OnDevice(of)  # what was changed in place stays what it is

        return tree_map(placed, result)


def _grouped(lists: Any, with_indices: bool = False) -> Any:
    """As torch groups tensors by device and type, with the device that they lie on."""
    groups = _group_tensors_by_device_and_dtype(lists, with_indices)
    return {(of[0][0].device, dtype): (of, indices) for (_, dtype), (of, indices) in groups.items()}


class _Generator(torch.Generator):
    """One of the CPU, whatever the device."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        return super().__new__(cls)


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
    """The device, while it is there."""
    monkeypatch.setattr("torch.Generator", _Generator)
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)  # which does not bear tensors that hold others
    monkeypatch.setattr("torch.cuda._lazy_init", lambda: None)
    monkeypatch.setattr("torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype", _grouped)
    monkeypatch.setattr("cetpick.devices.is_half", lambda device: False)
    monkeypatch.setattr("cetpick.tiling.is_half", lambda device: False)
    monkeypatch.setattr("cetpick.tiling.spare_memory", lambda device: 1e8)
    monkeypatch.setattr("cetpick.training.warming_up", nullcontext)
    lifted, replaced = torch._C._only_lift_cpu_tensors(), torch.__future__.get_overwrite_module_params_on_conversion()
    torch._C._set_only_lift_cpu_tensors(True)  # tensors of numbers are made here and sent there
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with PretendedGPU() as device:
            yield device
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)
        torch._C._set_only_lift_cpu_tensors(lifted)
