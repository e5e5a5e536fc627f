"""The living programs of this user, found through /proc: there is no socket and no file to ask."""

from __future__ import annotations

import os

from procession import _native
from procession._kernel import procfs


def guards(comm: str) -> list[int]:
    """Pids of this user's guards.

    Args:
        comm: Their name in ps.
    """
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.stat(f"/proc/{entry}").st_uid != os.geteuid():
                continue
        except OSError:
            continue
        status = procfs.stat(int(entry))
        if status is not None and status.comm == comm and status.state not in "ZX":
            found.append(int(entry))
    return sorted(found)


def table_of(guard: int) -> _native.Table | None:
    """The table of processes that a guard holds, mapped; ``None`` when it has gone or has none."""
    folder = f"/proc/{guard}/fd"
    wanted = f"/memfd:{_native.TABLE_NAME}"
    try:
        for number in os.listdir(folder):
            path = f"{folder}/{number}"
            if os.readlink(path).startswith(wanted):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    return _native.Table.attach(fd)
                finally:
                    os.close(fd)
    except (OSError, ValueError):
        pass  # gone meanwhile, not ours to see, or of another version of procession
    return None
