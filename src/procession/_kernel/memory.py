"""The memory that this process may have, and what the out-of-memory killer did in its cgroup."""

from __future__ import annotations

import functools
import os

_V2 = "/sys/fs/cgroup{path}/memory.events"
_V1 = "/sys/fs/cgroup/memory{path}/memory.oom_control"
_LIMITS = {"memory.events": "memory.max", "memory.oom_control": "memory.limit_in_bytes"}


@functools.cache
def limit() -> int:
    """Bytes of memory that the machine has, or this process's cgroup where that has less.

    Source: sysconf(3); cgroups(7).
    """
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _counters():
        folder, _, name = path.rpartition("/")
        try:
            with open(f"{folder}/{_LIMITS[name]}", encoding="ascii", errors="replace") as file:
                found = min(found, int(file.read()))
        except (OSError, ValueError):  # "max": none
            continue
    return found


def oom_kills() -> int:
    """Processes that the out-of-memory killer has ended in this process's cgroup so far.

    Returns:
        The count of cgroup v2 (``memory.events``) or v1 (``memory.oom_control``); 0 where
        neither can be read, so that nothing is ever taken for an out-of-memory kill.

    Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst, "memory.events".
    """
    return _count() or 0


def oom_kills_are_counted() -> bool:
    """Whether this process's cgroup can be asked."""
    return _count() is not None


def _count() -> int | None:
    for path in _counters():
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                for line in file:
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        except OSError:
            continue
    return None


def _counters() -> list[str]:
    paths = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                path = "" if path == "/" else path
                if controllers == "":
                    paths.append(_V2.format(path=path))
                elif "memory" in controllers.split(","):
                    # a container sees its own group as the root of the mount
                    paths += [_V1.format(path=path), _V1.format(path="")]
    except OSError:
        return []
    return paths
