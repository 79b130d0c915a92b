"""Limits of control groups, as a kernel with version 1, 2, or both shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cetpick import devices, limits

GIB = 2**30
VERSION_1 = "4:memory:/a/b\n3:cpuset:/\n1:cpu,cpuacct:/a/b\n0::/\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores and 64 GiB of free memory; where its groups are mounted."""
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MOUNTED", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(limits, "MEMORY", tmp_path / "meminfo")
    limits.MEMORY.write_text(
        f"MemTotal: {128 * GIB // 1024} kB\nMemFree: 1024 kB\nMemAvailable: {64 * GIB // 1024} kB\n"
    )
    return tmp_path / "fs"


def put(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.parametrize(("quota", "count"), [("max 100000", 16), ("250000 100000", 3), ("50000 100000", 1)])
def test_version_2_as_a_container_sees_it(groups: Path, quota: str, count: int) -> None:
    limits.GROUPS.write_text("0::/\n")
    stat = f"anon 5\ninactive_file {GIB}\nslab 1"
    put(groups, cpu__max=quota, memory__max=8 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert limits.cores() == count
    assert limits.free_memory() == 6 * GIB  # what is cached makes room


def test_a_group_is_limited_by_those_it_lies_in(groups: Path) -> None:
    limits.GROUPS.write_text("0::/slurm/job_1/step_0\n")
    put(groups / "slurm/job_1/step_0", cpu__max="max 100000", memory__max="max", memory__current=GIB)
    put(groups / "slurm/job_1", cpu__max="400000 100000", memory__max=2 * GIB, memory__current=GIB // 2)
    assert limits.cores() == 4
    assert limits.free_memory() == 1.5 * GIB


@pytest.mark.parametrize("inside", ["a/b", ""])  # the group's folder, or that is what is mounted
def test_version_1(groups: Path, inside: str) -> None:
    limits.GROUPS.write_text(VERSION_1)
    put(groups / "cpu,cpuacct" / inside, cpu__cfs_quota_us=200_000, cpu__cfs_period_us=100_000)
    put(groups / "memory" / inside, memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=5 * GIB)
    assert limits.cores() == 2
    assert limits.free_memory() == 0
    put(groups / "cpu,cpuacct" / inside, cpu__cfs_quota_us=-1)
    put(groups / "memory" / inside, memory__limit_in_bytes=2**63 - 4096)
    assert limits.cores() == 16
    assert limits.free_memory() == 64 * GIB


def test_without_control_groups(groups: Path) -> None:
    assert limits.cores() == 16
    assert limits.free_memory() == 64 * GIB


def test_no_more_threads_than_there_is_time_for(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits.GROUPS.write_bytes(b"0::/caf\xe9\n0::/\n")  # names are bytes
    put(groups, cpu__max="200000 100000")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        devices.resolve_device("cpu")
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        devices.resolve_device("cpu")
        assert torch.get_num_threads() == 1
        devices.resolve_device("cpu", threads=3)  # as asked for
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        devices.resolve_device("cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
