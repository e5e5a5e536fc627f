"""What /proc says of processes. A pid may be recycled between two reads: callers hold a pidfd.

A /proc of another PID namespace has other processes under our numbers. Nothing here believes it:
what cannot be seen is alive, has no children that are known, and is nobody to be signalled.
"""

from __future__ import annotations

import errno
import os

PF_EXITING = 0x4  # include/linux/sched.h; field 9 of /proc/pid/stat
SIGKILL_BIT = 1 << 8  # in SigPnd/ShdPnd: signal 9


_checked_in = 0
"""The process that has seen itself in /proc, under one number only."""


def is_ours() -> bool:
    """Whether there is a /proc, and it is that of this process's own PID namespace.

    Source: pid_namespaces(7), "/proc and PID namespaces".
    """
    global _checked_in
    me = os.getpid()
    try:
        if os.readlink("/proc/self") != str(me):
            return False
        if _checked_in != me:
            with open("/proc/self/status", "rb") as file:
                numbers = [line.split()[1:] for line in file if line.startswith(b"NStgid:")]
            if numbers and len(numbers[0]) > 1:
                return False  # that it has the same number there is chance
            _checked_in = me
    except OSError:
        return False
    return True


class Stat:
    """The fields of /proc/pid/stat that are needed here (proc_pid_stat(5))."""

    __slots__ = ("comm", "flags", "parent", "pid", "start_time", "state")

    def __init__(self, pid: int, text: bytes) -> None:
        opening, closing = text.index(b"("), text.rindex(b")")
        fields = text[closing + 2 :].split()
        self.pid = pid
        self.comm = text[opening + 1 : closing].decode("utf-8", "replace")
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.flags = int(fields[6])
        self.start_time = int(fields[19])


def stat(pid: int, task: int | None = None) -> Stat | None:
    """The state of a process or of one of its threads; ``None`` when it is gone or unseen."""
    if not is_ours():
        return None
    path = f"/proc/{pid}/stat" if task is None else f"/proc/{pid}/task/{task}/stat"
    try:
        with open(path, "rb") as file:
            return Stat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def tasks(pid: int) -> list[int]:
    """Thread ids of a process; empty when it is gone.

    Raises:
        OSError: There is no /proc of this process's own namespace to ask.
    """
    if not is_ours():
        raise FileNotFoundError(errno.ENOENT, "no /proc of this PID namespace")
    try:
        return [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """Pids whose parent is this process, as far as they can be seen.

    The list can miss some for a moment while the kernel moves orphans: nothing but waitpid(2)
    saying ECHILD proves that a process has no child left.
    """
    found: list[int] = []
    if not is_ours():
        return found
    for task in tasks(pid):
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
        except (ProcessLookupError, PermissionError):
            continue
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):  # built without CONFIG_PROC_CHILDREN
                return _children_by_scan(pid)
    return found


def _children_by_scan(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            status = stat(int(entry))
            if status is not None and status.parent == pid:
                found.append(int(entry))
    return found


def is_ending(pid: int) -> bool:
    """Whether every thread of the process is on its way out of the kernel, or none is left.

    The kernel releases a dead owner's robust mutex before the other threads have stopped, so this
    is asked before anything of a dead process is taken over.

    Raises:
        OSError: It cannot be seen.
    """
    for task in tasks(pid):
        status = stat(pid, task)
        if status is not None and status.state not in "ZX" and not status.flags & PF_EXITING:
            return False
    return True


def maps_file(pid: int, name: str) -> bool:
    """Whether the process has a file of this name mapped; false for one that executed another
    program since.

    Raises:
        OSError: It cannot be seen (another user's, or no /proc of ours).
    """
    if not is_ours():
        raise FileNotFoundError(errno.ENOENT, "no /proc of this PID namespace")
    with open(f"/proc/{pid}/maps", "rb") as file:
        return name.encode() in file.read()


def name_of(pid: int) -> str:
    """The process's comm, or ``?``."""
    status = stat(pid)
    return status.comm if status else "?"
