"""What this process has on the machine, seen from outside: `/proc` alone, none of our own code.

`no_strays` (conftest.py) looks before and after every test.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SESSION_MARK = "PROCESSION_TEST_SESSION"
"""Environment variable that every program started by a test run carries."""

_PF_KTHREAD = 0x200000  # include/linux/sched.h
_EXEC_LIMIT = 2.0  # seconds; an execve(2) takes a millisecond, unless the machine is loaded

KEEPER_NAMES = {"pn-guard", "pn-zygote", "pn-spare", "pn-heir", "pn-retired", "pn-anchor"}


class Being(NamedTuple):
    """A living (or unreaped) process."""

    pid: int
    start: int
    parent: int
    session: int
    state: str
    name: str
    is_kernels: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Being) and self[:2] == other[:2]  # the rest of it may change

    def __hash__(self) -> int:
        return hash(self[:2])

    def __str__(self) -> str:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ")
            where = Path(f"/proc/{self.pid}/wchan").read_text()
            words = line.decode(errors="replace").strip()[:160]
            return f"{self.pid} {self.name} ({self.state}, in {where}) of {self.parent}: {words}"
        return f"{self.pid} {self.name} ({self.state}) of {self.parent}"


def beings() -> dict[int, Being]:
    """All processes that this one may see."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (being := _being(int(entry))):
            found[being.pid] = being
    return found


def _being(pid: int) -> Being | None:
    head, _, rest = _read(pid, "stat").rpartition(b")")
    if not head:
        return None
    fields = rest.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    # field numbers of proc_pid_stat(5), which begin with 1; `fields` begins with the third
    kernels = bool(int(fields[6]) & _PF_KTHREAD)
    return Being(
        pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0].decode(), name, kernels
    )


def ours(mark: str) -> set[Being]:
    """Processes of this test run: below this one, or marked by it, or a copy of it let go."""
    everyone = beings()
    me = everyone[os.getpid()]
    words = f"{SESSION_MARK}={mark}".encode()
    return {
        being
        for being in everyone.values()
        if being.pid != me.pid
        and being.start >= me.start  # the mark is no older than this process
        and not being.is_kernels
        and (
            _is_below(being, me.pid, everyone)
            or words in _environ(being).split(b"\0")
            # a forked copy has the environment that this process was executed with, without mark
            or (being.session == me.session and _is_copy(being, mark))
        )
    }


def _environ(being: Being) -> bytes:
    """A process's environment.

    In the middle of an execve(2) it reads empty, as the arguments do: the new image has none yet.
    A zombie has neither, and will never have.
    """
    text = b""

    def is_known() -> bool:
        nonlocal text
        text = _read(being.pid, "environ")
        if text or _read(being.pid, "cmdline"):
            return True
        now = _being(being.pid)
        return now is None or now.state in "ZX"

    wait_until(is_known, _EXEC_LIMIT)
    return text


def _is_below(being: Being, root: int, everyone: dict[int, Being]) -> bool:
    seen = set()
    while being.parent in everyone and being.parent not in seen:
        if being.parent == root:
            return True
        seen.add(being.parent)
        being = everyone[being.parent]
    return False


def mark_memory(mark: str) -> mmap.mmap:
    """Memory by whose name a forked copy of this process is known, as long as this is held.

    Another worker of pytest-xdist has the same command line.
    """
    fd = os.memfd_create(f"pn-test-{mark}")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        return mmap.mmap(fd, mmap.PAGESIZE)
    finally:
        os.close(fd)


def _is_copy(being: Being, mark: str) -> bool:
    return f"memfd:pn-test-{mark}".encode() in _read(being.pid, "maps")


def _read(pid: int, name: str) -> bytes:
    text = b""
    # this is called for every process around every test: no file object
    with contextlib.suppress(OSError):
        number = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while piece := os.read(number, 1 << 16):
                text += piece
        finally:
            os.close(number)
    return text


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they are."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def threads() -> dict[int, str]:
    """This process's threads, those that Python does not know of too."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for entry in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            comm = Path(f"/proc/self/task/{entry}/comm").read_text().strip()
            found[int(entry)] = names.get(int(entry)) or f"{comm} (no Python thread)"
    return found


def files(folder: str) -> set[str]:
    """The entries of a folder, with their paths."""
    try:
        return {os.path.join(folder, name) for name in os.listdir(folder)}
    except OSError:
        return set()


def users(path: str) -> set[int]:
    """Processes that have a file open or mapped.

    By device and inode: glibc makes a named semaphore under another name and links it afterwards.
    """
    try:
        file = os.stat(path)
    except OSError:
        return set()
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _uses(entry, file)}


def _uses(pid: str, file: os.stat_result) -> bool:
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    words = [device.encode(), str(file.st_ino).encode()]
    for line in _read(int(pid), "maps").splitlines():
        if b"/dev/shm/" in line and line.split()[3:5] == words:
            return True
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{entry}"), file):
                    return True
    return False


def kept_descriptors() -> set[int]:
    """What the standard library and our keeper hold for as long as this process lives."""
    held = set()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and tracker._resource_tracker._fd is not None:
        held.add(tracker._resource_tracker._fd)
    client = sys.modules.get("procession._launch.keeper_client")
    keeper = client and client.existing()
    if keeper:
        held.update(keeper.descriptors())
    identity = sys.modules.get("procession._identity")
    for table in identity._tables.values() if identity else ():
        held.add(table.fileno())
    memory = sys.modules.get("procession._shared.memory")
    for region in (memory._begun, memory._begun_growing) if memory else ():
        if region is not None:  # the next small object goes there
            held.add(region.memory.fileno())
    semaphore = sys.modules.get("procession._sync.semaphore")
    if semaphore is not None and semaphore._begun is not None:
        held.add(semaphore._begun.memory.fileno())
    heap = sys.modules.get("procession.heap")
    if heap is not None and heap._heap._spaces:  # the arena that the next value comes from
        arena = heap._heap._spaces[-1].arena
        for number in descriptors():
            with contextlib.suppress(OSError):
                if os.path.sameopenfile(number, arena.fd):  # mmap has a copy of it up to 3.12
                    held.add(number)
    return held


def is_helper(being: Being) -> bool:
    """Whether it is a helper of this very process that stays until its end.

    That is the standard library's resource tracker, and our keeper, known by the table of
    processes that it shares with us: whoever its parent is, and no other program's keeper.
    """
    if being.name in KEEPER_NAMES:
        return bool(_tables(being.pid) & _tables(os.getpid()))
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return tracker is not None and being.pid == tracker._resource_tracker._pid


def _tables(pid: int) -> set[bytes]:
    lines = _read(pid, "maps").splitlines()
    return {line.split()[4] for line in lines if b"memfd:procession-table" in line}  # the inode


def kill(being: Being) -> None:
    """End a stray, if it still is the one that was seen, and reap it if it is a child."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(being.pid)
        try:
            now = _being(being.pid)
            if now is not None and now.start == being.start:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if being.parent == os.getpid():
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)


def wait_until(fact: Callable[[], object], limit: float) -> bool:
    """Whether a fact that nobody announces has come true within a limit, in seconds."""
    deadline = time.monotonic() + limit
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
