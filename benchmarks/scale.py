"""Memory and time of `cetpick pick` as the tomogram grows. See README.md.

    python benchmarks/scale.py OUT --tomogram val.mrc --model model.safetensors --sizes 1024x1024x512 2048x1024x1024

Each tomogram is made of the given one, tiled, with fresh noise, so that no two places are alike. RssAnon is summed over
the process tree, several times a second: memory that must be there, without the pages of files that can be dropped.
`--limit 3` runs the first size once more in a control group with so many GiB (as root, cgroup v1 or v2).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from cetpick.io.tomograms import read_info, read_tomogram

EVERY = 0.1
"""Seconds between two looks at the memory."""
NOISE = 0.5
"""Standard deviation of the fresh noise, in units of that of the tomogram."""
BASE = "import torch, numpy, time; time.sleep(2)"
GROUPS = (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")


def make(path: Path, source: Path, size: tuple[int, int, int]) -> None:
    """Write a tomogram of size x, y, z: `source` tiled, with fresh noise."""
    tomogram = read_tomogram(read_info(source))
    data, rng = np.asarray(tomogram.data, np.float32), np.random.default_rng(0)
    x, y, z = size
    across = tuple(-(-n // m) for n, m in zip((y, x), data.shape[1:], strict=True))
    noise = NOISE * float(data.std())
    with mrcfile.new_mmap(path, (z, y, x), mrc_mode=2, overwrite=True) as file:
        for i in range(z):
            plane = np.tile(data[i % len(data)], across)[:y, :x]
            file.data[i] = plane + noise * rng.standard_normal(plane.shape, np.float32)
        file.voxel_size = tomogram.info.grid.voxel_size


def anonymous(pid: int) -> int:
    """RssAnon in bytes of a process and all it started."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(anonymous(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return total


def watched(command: Sequence[str], *, group: Path | None = None) -> dict[str, Any]:
    """Run a command; its exit code, wall and CPU seconds, and the largest RssAnon of its process tree."""

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    before, start, most = os.times(), time.monotonic(), 0
    process = subprocess.Popen(command, preexec_fn=join)
    while process.poll() is None:
        most = max(most, anonymous(process.pid))
        time.sleep(EVERY)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"exit": process.returncode, "wall_s": time.monotonic() - start, "cpu_s": cpu, "anonymous_bytes": most}


def limited(gigabytes: float) -> Path:
    """A control group with so much memory, swap included where that is counted.

    Raises:
        SystemExit: this machine or user has none.
    """
    for root, name in GROUPS:
        group = root / f"cetpick-scale-{os.getpid()}"
        try:
            group.mkdir()
            (group / name).write_text(str(int(gigabytes * 2**30)))
        except OSError:
            continue
        return group
    raise SystemExit("no memory control group can be made here; run as root")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tomogram", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", required=True, help="x, y, z voxels, as 1024x1024x512")
    parser.add_argument("--limit", type=float, help="GiB, for the first size once more")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of `cetpick pick`; last")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    base = watched([sys.executable, "-c", BASE])["anonymous_bytes"]
    sizes = [tuple(int(n) for n in text.split("x")) for text in given.sizes]
    rows: list[dict[str, Any]] = []
    for number, (x, y, z) in enumerate(sizes):
        with tempfile.TemporaryDirectory(dir=given.output) as folder:
            tomogram = Path(folder, "tomogram.mrc")
            make(tomogram, given.tomogram, (x, y, z))
            for limit in [None, given.limit] if number == 0 and given.limit else [None]:
                command = [sys.executable, "-m", "cetpick", "pick", str(tomogram), "--model", str(given.model)]
                command += ["--output", str(Path(folder, "out")), "--overwrite", "--quiet", *given.options]
                group = None if limit is None else limited(limit)
                row = watched(command, group=group)
                if group is not None:
                    group.rmdir()
                row |= {"size": [x, y, z], "limit_gib": limit, "over_torch_bytes": row["anonymous_bytes"] - base}
                row["cpu_ns_a_voxel"] = row["cpu_s"] / (x * y * z) * 1e9
                rows.append(row)
                name = f"{x} x {y} x {z}" + (f", within {limit:g} GiB" if limit else "")
                print(
                    f"{name}: exit {row['exit']}, anonymous memory {row['over_torch_bytes'] / 2**30:.2f} GiB over "
                    f"torch alone, {row['wall_s']:.0f} s, CPU {row['cpu_ns_a_voxel']:.0f} ns a voxel",
                    flush=True,
                )
    (given.output / "scale.json").write_text(json.dumps({"torch_alone_bytes": base, "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
