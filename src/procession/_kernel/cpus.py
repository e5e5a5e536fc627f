"""The CPUs that this process may use: by affinity, and by its cgroup's quota of their time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"


def allowed() -> int:
    """How many CPUs it may run on; what `os.process_cpu_count` says where there is one."""
    count = getattr(os, "process_cpu_count", None)  # Python 3.13, where a user can set it
    if count is not None:
        return count() or 1
    try:
        return len(os.sched_getaffinity(0)) or 1
    except OSError:
        return os.cpu_count() or 1


def paid_for(root: str = _ROOT, own_groups: str = "/proc/self/cgroup") -> int:
    """As `allowed`, or as many as its cgroups' quota of CPU time keeps busy where that is less.

    Args:
        root: Where the cgroups are mounted.
        own_groups: The file that says in which of them this process is.

    Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst, "cpu.max";
    Documentation/scheduler/sched-bwc.rst.
    """
    count = allowed()
    for folder in _folders(root, own_groups):
        quota = _quota(folder)
        if quota is not None:
            count = min(count, max(1, math.ceil(quota)))
    return count


def _quota(folder: str) -> float | None:
    """CPUs' worth of time that a group may use; ``None`` where nothing limits it."""
    try:
        try:
            quota, period = _words(f"{folder}/cpu.max")
        except FileNotFoundError:
            (quota,) = _words(f"{folder}/cpu.cfs_quota_us")
            (period,) = _words(f"{folder}/cpu.cfs_period_us")
        found = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return found if found > 0 else None  # the older files say -1 for none


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().split()


def _folders(root: str, own_groups: str) -> Iterator[str]:
    """Every group that this process is in, from its own up: each may have a quota."""
    try:
        with open(own_groups, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root
        elif "cpu" in controllers.split(","):
            mount = f"{root}/cpu"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for length in range(len(parts), -1, -1):  # a container sees its own as the root
            yield "/".join([mount, *parts[:length]])
