"""How many CPUs a process may use, by affinity and by the quota of its cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procession._kernel import cpus


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "allowed", lambda: 16)


def make(tmp_path: Path, own_groups: str, files: dict[str, str]) -> int:
    """What is found in a tree of groups."""
    (tmp_path / "own").write_text(own_groups)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cpus.paid_for(str(tmp_path / "cgroup"), str(tmp_path / "own"))


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize(
    ("own_groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # in a container
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {}, 16),
        ("", {}, 16),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # a part of a CPU counts
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (
            "3:cpu,cpuacct:/a\n2:memory:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "400000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "3:cpu,cpuacct:/docker/x\n",  # the mount is the container's own group
            {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "25000\n"},
            2,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            16,
        ),
    ],
)
def test_the_least_of_affinity_and_quotas(
    tmp_path: Path, own_groups: str, files: dict[str, str], expected: int
) -> None:
    assert make(tmp_path, own_groups, files) == expected


def test_affinity_is_what_counts_without_a_quota(tmp_path: Path) -> None:
    assert cpus.allowed() == getattr(os, "process_cpu_count", lambda: 0)() or cpus.allowed() == len(
        os.sched_getaffinity(0)
    )
    assert cpus.paid_for(str(tmp_path), str(tmp_path / "none")) == cpus.allowed()
