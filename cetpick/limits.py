"""What this process may use of the machine, as containers and schedulers limit it with control groups of Linux.

Source: the kernel's documentation of both versions (cgroup-v2.rst: cpu.max, memory.max, memory.current, memory.stat;
cgroup-v1/memory.rst, sched-bwc.rst). A group is limited by all that it lies in, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")


def cores() -> int:
    """How many CPU cores this process may use: those it may run on, no more than it gets the time of."""
    allowed = len(os.sched_getaffinity(0))
    shares = [quota / period for quota, period in _quotas() if quota > 0 and period > 0]
    return max(1, min([allowed, *map(math.ceil, shares)]))


def free_memory() -> float:
    """Bytes of memory that are free, and that this process may take."""
    # not SC_AVPHYS_PAGES: on a server that has read tomograms all day hardly a page is without a copy of a file
    room = [1024 * _of(MEMORY, "MemAvailable:") or 1.0 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _folders("memory"):
        for most, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, taken = _number(folder / most), _number(folder / used)
            if limit is not None and taken is not None:
                # what was read from files and is not in use makes room when it is wanted
                room.append(limit - taken + _of(folder / "memory.stat", cached))
    return max(0.0, min(room))


def _quotas() -> Iterator[tuple[float, float]]:
    """CPU time in so much time, microseconds, of the groups that limit it."""
    for folder in _folders("cpu"):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
            yield float(words[0]), float(words[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is not None and period is not None:
            yield quota, period


def _folders(controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, and of those that these lie in."""
    for line in _read(GROUPS).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            mounted = [MOUNTED, MOUNTED / "unified"]
        elif controller in controllers.split(","):
            mounted = [MOUNTED / controllers, MOUNTED / controller]
        else:
            continue
        # in a container the group may be named as the host sees it, while its folder is what is mounted
        within = Path(group.lstrip("/"))
        for top in dict.fromkeys(mounted):
            yield from (top / part for part in (within, *within.parents) if (top / part).is_dir())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    """What a file holds, None when it is no number: "max", or no such file."""
    text = _read(path).strip()
    return float(text) if text.removeprefix("-").isdecimal() else None


def _of(path: Path, name: str) -> float:
    """A line of a file of names and numbers, without its unit; 0 when it is not there."""
    lines = (line.split() for line in _read(path).splitlines())
    return next((float(words[1]) for words in lines if len(words) > 1 and words[0] == name), 0.0)
