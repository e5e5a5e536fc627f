"""`procession doctor`: five lines on what the kernel and the sandbox offer, and what degrades."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable

from procession import _native
from procession._kernel import memory
from procession._report.terminal import Look

_ENOUGH_DESCRIPTORS = 256
_ENOUGH_PROCESSES = 64

Answer = tuple[list[str], list[str]]
"""What is there, and what is missing with what degrades for want of it."""


def doctor() -> int:
    """Print the five lines on stdout; the exit code: 1 where something is missing."""
    look = Look.of(sys.stdout)
    worst = 0
    for name, probe in PROBES:
        try:
            offers, missing = probe()
        except Exception as error:
            offers, missing = [], [f"could not be tried ({error})"]
        worst |= bool(missing)
        mark = look.painted("no", "31") if missing else look.painted("ok", "32")
        print(f"{mark}  {name:<11}  {look.shown('; '.join(missing or [', '.join(offers)]))}")
    return worst


def deaths() -> Answer:
    """How an end is seen."""
    offers, missing = [], []
    try:
        _native.Table.create(4)
        offers.append("robust futexes in a sealed memfd")
    except OSError as error:
        missing.append(f"{error}: no process can be started")
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        os.waitpid(pid, 0)
        missing.append(
            f"no pidfd_open ({error.strerror}): no sentinel, and a signal may hit a stranger that "
            "has the number of an ended child by then"
        )
        return offers, missing
    offers.append("pidfds")
    os.waitpid(pid, 0)
    status = _native.pidfd_exit_status(pidfd)
    os.close(pidfd)
    if status is not None:
        offers.append("the exit status of what others reaped")
    elif not missing:
        offers.append(
            "without PIDFD_GET_INFO (Linux 6.15): a forked child that others reaped and that said "
            "nothing counts as lost"
        )
    return offers, missing


def containment() -> Answer:
    """How what was started is found again."""
    offers, missing = [], []
    before = _native.get_subreaper()
    try:
        _native.set_subreaper(True)
        _native.set_subreaper(before)
        offers.append("subreaper")
    except OSError as error:
        missing.append(f"no subreaper ({error.strerror}): what double-forks gets away")
    if not os.path.exists("/proc/self/stat"):
        missing.append("no /proc: trees cannot be found, so a stop ends the process alone")
    elif os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        offers.append("/proc with lists of children")
    else:
        offers.append("/proc without lists of children: finding a tree reads all of /proc")
    return offers, missing


def ends_for_memory() -> Answer:
    """How an out-of-memory kill is told from another, and its memory given back early."""
    offers, missing = [], []
    if memory.oom_kills_are_counted():
        offers.append("the cgroup counts out-of-memory kills")
    else:
        missing.append(
            "no memory.events of this cgroup: an out-of-memory kill is shown as SIGKILL only"
        )
    number = _native.mrelease(-1)
    if number == 38:  # ENOSYS
        offers.append("no process_mrelease (Linux 5.15): memory of the killed comes back later")
    else:
        offers.append("process_mrelease")
    return offers, missing


def shared_memory() -> Answer:
    """Where shared memory comes from."""
    if not os.access("/dev/shm", os.W_OK):
        return [], ["no writable /dev/shm: no named SharedMemory, and no standard locks"]
    free = shutil.disk_usage("/dev/shm").free
    text = f"/dev/shm with {free / 2**20:,.0f} MiB free"
    if free < 16 * 2**20:
        return [], [f"{text}: little shared memory fits (docker run --shm-size=1g …)"]
    return [text], []


def room() -> Answer:
    """What a program may have."""
    offers, missing = [], []
    executable = sys.executable
    if executable and os.access(executable, os.X_OK):
        offers.append(f"Python {sys.version.split()[0]}")
    else:
        missing.append(
            f"no interpreter to execute ({executable!r}): only start method fork works, uncontained"
        )
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    for limit, enough, what in (
        (descriptors, _ENOUGH_DESCRIPTORS, "descriptors"),
        (processes, _ENOUGH_PROCESSES, "processes"),
    ):
        text = f"{'unlimited' if limit == resource.RLIM_INFINITY else limit} {what}"
        if limit == resource.RLIM_INFINITY or limit >= enough:
            offers.append(text)
        else:
            missing.append(f"only {text} (ulimit -n, -u): starts may fail")
    return offers, missing


PROBES: list[tuple[str, Callable[[], Answer]]] = [
    ("ends", deaths),
    ("containment", containment),
    ("memory", ends_for_memory),
    ("sharing", shared_memory),
    ("room", room),
]
