"""How fast: training step and inference of `default` and of the paper's network, against the machine's limit.

    python benchmarks/speed.py                      # 384 x 384 x 96 voxels of 10 A, a diameter of 250 A
    python benchmarks/speed.py --size 192 192 48 --steps 3 --repeats 2
    python benchmarks/speed.py --device cuda --json speed.json
    python benchmarks/speed.py --end-to-end train.mrc train_labels.mod

Both networks see the same noise, each as `cetpick pick` gives it to them: on its own working grid, in its own number of
views, in the device's usual arithmetic. Rates are per voxel as stored. The floor is the larger of two times: operations
over the measured rate of matrix products in that arithmetic, and bytes (input, output, each layer's activations once)
over the measured rate of copies. Reading, normalising and resampling are timed apart.

--end-to-end times the program as a user does, from its start to its end: train on a tomogram and pick it, and pick it
with the model that this has made; --steps are then those of the training.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import measured
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cetpick import __version__
from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.devices import device_name, is_half, resolve_device
from cetpick.modes.default import DefaultRecipe
from cetpick.modes.paper import PaperRecipe, PaperSettings
from cetpick.networks.fold import folded
from cetpick.preprocess import prepare
from cetpick.records import Grid, Tomogram, TomogramInfo
from cetpick.tiling import heatmap
from cetpick.training import model_settings

MODES = ("default", "paper")
LABELS = 12


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the device can do.

    Attributes:
        operations: in a second, in matrix products of the arithmetic that autocast chooses.
        bytes: read and written in a second by a copy.
    """

    operations: float
    bytes: float

    def floor(self, operations: float, moved: float) -> float:
        """Seconds that operations and bytes take at least."""
        return max(operations / self.operations, moved / self.bytes)


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median time of `work`, after one that does not count."""
    times = []
    for number in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        if number:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_limits(device: torch.device) -> Limits:
    """Rates of matrix products and copies."""
    large = device.type == "cuda"
    n = 8192 if large else 2048
    dtype = torch.bfloat16 if is_half(device) else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    source = torch.randn((1 << 28) if large else (1 << 26), device=device)
    target = torch.empty_like(source)
    return Limits(
        operations=2 * n**3 / seconds(lambda: a @ b, 7, device),
        bytes=2 * source.nbytes / seconds(lambda: target.copy_(source), 7, device),
    )


@contextmanager
def counted(network: nn.Module) -> Iterator[dict[str, float]]:
    """Operations, and bytes of each layer's output once, of what the network computes within."""
    told = {"operations": 0.0, "bytes": 0.0}

    def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            told["bytes"] += output.nbytes

    hooks = [m.register_forward_hook(note) for m in network.modules() if not [*m.children()]]
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            yield told
    finally:
        told["operations"] = float(counter.get_total_flops())
        for hook in hooks:
            hook.remove()


def noise(size: Sequence[int], voxel_size: float) -> tuple[Tomogram, np.ndarray]:
    """A tomogram of x, y, z voxels without anything in it, and places for labels."""
    rng = np.random.default_rng(0)
    shape = (size[2], size[1], size[0])
    info = TomogramInfo(name="noise", path=Path("noise.mrc"), grid=Grid(shape=shape, voxel_size=voxel_size))
    data = rng.standard_normal(shape, np.float32)
    return Tomogram(info=info, data=data), rng.uniform(0, np.array(size) - 1, (LABELS, 3))


def measure(
    mode: str, tomogram: Tomogram, labels: np.ndarray, given: argparse.Namespace, device: torch.device, limits: Limits
) -> dict[str, Any]:
    """Times, floors and memory of one mode."""
    settings = TrainSettings(mode=mode, diameter=given.diameter)
    model = model_settings(settings, [tomogram])
    preparing = seconds(lambda: prepare(tomogram, model), 1, torch.device("cpu"))
    example = Example(tomogram=tomogram, labels=labels, prepared=prepare(tomogram, model))

    def prepared(**more: bool) -> Any:
        if mode == "default":
            return DefaultRecipe([example], settings=settings, model=model, count=100.0, device=device, **more)
        return PaperRecipe(
            [example.prepared.volume], [example.on_working_grid(labels)], diameter=given.diameter / model.voxel_size[2],
            settings=PaperSettings(), generator=torch.Generator().manual_seed(0), device=device,
        )  # fmt: skip

    counting = prepared(record=False)  # what is replayed cannot be counted
    counting.network.train()
    with counted(counting.network) as training:
        counting.loss(0)[0].backward()
    del counting
    recipe = prepared()
    optimizer, _ = recipe.optimizer()
    steps = iter(range(10**6))

    def step() -> None:
        loss, _ = recipe.loss(next(steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    recipe.network.train()
    training_s = seconds(step, given.steps, device)
    network = folded(recipe.network.eval())
    volume, both_ways = example.prepared.volume, mode == "default"
    with counted(network) as inference:
        heatmap(network, volume, device=device, both_ways=both_ways)
    inference["bytes"] += 4 * volume.size * (2 if both_ways else 1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    inference_s = seconds(lambda: heatmap(network, volume, device=device, both_ways=both_ways), given.repeats, device)
    voxels = tomogram.data.size
    return {
        "mode": mode,
        "training_step_s": training_s,
        "training_floor_s": limits.floor(training["operations"], training["bytes"]),
        "inference_s": inference_s,
        "inference_voxels_per_s": voxels / inference_s,
        "inference_floor_s": limits.floor(inference["operations"], inference["bytes"]),
        "operations_per_voxel": inference["operations"] / voxels,
        "prepare_s": preparing,
        "device_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def end_to_end(tomogram: Path, labels: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Times of whole runs of `cetpick pick`: with training, and with a model."""
    common = ["--quiet", "--device", given.device, *(["--threads", str(given.threads)] if given.threads else [])]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        first, second = (Path(folder) / name for name in ("trained", "picked"))
        learn = ["--train", tomogram, "--labels", labels, "--diameter", given.diameter]
        learn += ["--steps", given.steps] if given.steps else []
        for what, output, source in (
            ("train and pick", first, learn),
            ("pick with a model", second, ["--model", first / "model.safetensors"]),
        ):
            command = [sys.executable, "-m", "cetpick", "pick", tomogram, *source, *common, "--output", output]
            cost = measured([str(word) for word in command], Path(folder) / "log.txt", given.threads)
            rows.append({"what": what, **cost, "parts": json.loads((output / "run.json").read_text())["seconds"]})
    return rows


def print_end_to_end(rows: Sequence[dict[str, Any]]) -> None:
    """A Markdown table of end_to_end."""
    print("| what | from start to end | of it | CPU time | peak memory of the host |")
    print("|---|---|---|---|---|")
    for row in rows:
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row["parts"].items() if name != "total")
        memory, cpu = row["peak_mib"] / 1024, row["cpu_seconds"]
        print(f"| {row['what']} | {row['seconds']:.1f} s | {parts} | {cpu:.0f} s | {memory:.1f} GiB |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(384, 384, 96), help="x, y, z voxels")
    parser.add_argument("--voxel-size", type=float, default=10.0, help="angstrom")
    parser.add_argument("--diameter", type=float, default=250.0, help="angstrom")
    parser.add_argument("--steps", type=int, help="training steps that are timed, 10 by default")
    parser.add_argument("--repeats", type=int, default=3, help="of the inference")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--end-to-end", type=Path, nargs=2, metavar=("TOMOGRAM", "LABELS"))
    given = parser.parse_args()
    device = resolve_device(given.device, threads=given.threads)
    told = {"cetpick": __version__, "torch": torch.__version__, "device": device_name(device)}
    if given.end_to_end:
        whole = end_to_end(*given.end_to_end, given)
        print_end_to_end(whole)
        if given.json:
            given.json.write_text(json.dumps(told | {"end_to_end": whole}, indent=1))
        return
    given.steps = given.steps or 10
    limits = measure_limits(device)
    tomogram, labels = noise(given.size, given.voxel_size)
    rows = [measure(mode, tomogram, labels, given, device, limits) for mode in MODES]
    print(
        f"cetpick {__version__}, torch {torch.__version__}, {device_name(device)}, {platform.machine()}, "
        f"{'bfloat16' if is_half(device) else 'float32'}: {limits.operations / 1e12:.3g} T operations/s, "
        f"{limits.bytes / 1e9:.3g} GB/s; {' x '.join(map(str, given.size))} voxels\n"
    )
    print("| mode | training step | of the floor | inference | M voxels/s | of the floor | normalise, resample |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['mode']} | {row['training_step_s'] * 1e3:.0f} ms | "
            f"{row['training_floor_s'] / row['training_step_s']:.0%} | {row['inference_s']:.2f} s | "
            f"{row['inference_voxels_per_s'] / 1e6:.2f} | {row['inference_floor_s'] / row['inference_s']:.0%} | "
            f"{row['prepare_s']:.2f} s |"
        )
    default, paper = rows
    print(
        f"\n`default` infers {paper['inference_s'] / default['inference_s']:.1f} times as many voxels a second; peak "
        f"resident memory of all this {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    )
    if given.json:
        told |= {"size": given.size, "limits": asdict(limits), "modes": rows}
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
