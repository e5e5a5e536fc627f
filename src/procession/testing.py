"""For the tests of programs that start processes: what was left behind, and waiting for a fact.

With pytest: the fixture ``no_strays``, and ``wait_until`` as a fixture, too. Without it:

    with no_strays():
        ...
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import process
from typing import Any, NamedTuple, TypeVar

from procession._kernel import procfs
from procession._report.text import clean
from procession._wire import messages
from procession.errors import ProcessionError

__all__ = ["StraysLeft", "no_strays", "wait_until"]

PATIENCE = 3.0  # seconds in which what was ended must be gone; a hundred times what it takes
_LOOK_AGAIN = 0.005  # seconds between two looks at a fact that nobody announces
_SHARED = "/dev/shm"
_T = TypeVar("_T")


class StraysLeft(ProcessionError, AssertionError):
    """Something was left behind; the text is its picture.

    Attributes:
        processes: Pids of processes.
        threads: Names of threads.
        descriptors: Numbers of open descriptors.
        shared_memory: Paths of segments.
    """

    def __init__(self, strays: _Belongings) -> None:
        super().__init__(f"left behind:\n{strays.picture()}")
        self.processes = sorted(each.pid for each in strays.processes)
        self.threads = sorted(strays.threads.values())
        self.descriptors = sorted(strays.descriptors)
        self.shared_memory = sorted(strays.segments)


class _Process(NamedTuple):
    pid: int
    start_time: int


class _Belongings:
    """What this process has: processes below it, threads, descriptors, segments.

    Not the keeper, nor what procession and the standard library keep for this process's life.
    """

    def __init__(self) -> None:
        self.stats = _below(_roots())
        self.processes = {_Process(pid, stat.start_time) for pid, stat in self.stats.items()}
        kept = _kept_descriptors()
        self.descriptors = {
            number: what for number, what in _descriptors().items() if number not in kept
        }
        self.threads = _threads()
        self.segments = _segments()

    def __bool__(self) -> bool:
        return bool(self.processes or self.descriptors or self.threads or self.segments)

    def keep_what_is_new(self, before: _Belongings) -> None:
        """Forget what was there before, and what is another program's."""
        self.processes -= before.processes
        mine = {os.getpid(), *self.stats}
        for number, what in before.descriptors.items():
            if self.descriptors.get(number) == what:
                del self.descriptors[number]
        for thread in before.threads:
            self.threads.pop(thread, None)
        self.segments = {
            path for path in self.segments - before.segments if not _users(path) - mine
        }

    def picture(self) -> str:
        """A row for each: processes as a tree, then the rest."""
        new = {each.pid for each in self.processes}
        rows = [
            row for pid in sorted(new) if self._parent(pid) not in new for row in self._tree(pid)
        ]
        rows += [f"thread      {clean(name)}" for name in sorted(self.threads.values())]
        rows += [f"descriptor  {number} → {clean(to)}" for number, to in self.descriptors.items()]
        rows += [f"shared      {clean(path)}" for path in sorted(self.segments)]
        return "\n".join(rows)

    def _parent(self, pid: int) -> int:
        return self.stats[pid].parent

    def _tree(self, pid: int, depth: int = 0) -> Iterator[str]:
        stat = self.stats[pid]
        state = {"Z": "zombie", "T": "stopped", "t": "traced", "D": "waits in the kernel"}
        words = f"{clean(stat.comm)} ({state.get(stat.state, 'alive')})"
        branch = "  " * depth + "└ " if depth else ""
        yield f"process     {branch}{pid} {words} {clean(_command_line(pid))[:120]}".rstrip()
        new = {each.pid for each in self.processes}
        for child in sorted(new):
            if self._parent(child) == pid:
                yield from self._tree(child, depth + 1)

    def clean_up(self) -> None:
        """End the processes and remove the segments, for the next test's sake."""
        for each in self.processes:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(each.pid)
                try:
                    stat = procfs.stat(each.pid)
                    if stat is not None and stat.start_time == each.start_time:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        for path in self.segments:
            with contextlib.suppress(OSError):
                os.unlink(path)


@contextlib.contextmanager
def no_strays(patience: float = PATIENCE) -> Iterator[None]:
    """Fail where a block leaves processes, threads, descriptors or shared memory behind.

    What was there before is not looked at; processes that are left are ended afterwards. An
    exception of the block goes first.

    Args:
        patience: Seconds in which what was ended must be gone.

    Raises:
        StraysLeft: Something is left.
    """
    before = _Belongings()
    yield
    strays = _strays(before)
    if not strays:
        return
    gc.collect()  # what only waits for the collector has no owner to blame
    deadline = time.monotonic() + patience
    while strays := _strays(before):
        if time.monotonic() > deadline:
            error = StraysLeft(strays)
            strays.clean_up()
            raise error
        time.sleep(_LOOK_AGAIN)


def _strays(before: _Belongings) -> _Belongings:
    now = _Belongings()
    now.keep_what_is_new(before)
    return now


def wait_until(predicate: Callable[[], _T], timeout: float = 30.0) -> _T:
    """Wait for a fact that nobody announces.

    Args:
        predicate: Says whether it has come true.
        timeout: Longest wait in seconds.

    Returns:
        What the predicate returned, which is true.

    Raises:
        TimeoutError: It has not come true.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise TimeoutError(f"{name} has not come true within {timeout} s; it said {answer!r}")
        time.sleep(_LOOK_AGAIN)
    return answer


# --- looking --------------------------------------------------------------------------------------


def _roots() -> list[int]:
    """Whose descendants are this process's: its own, its guard's, and those that it has started.

    The guard is nobody's child where start method fork came first; what a process that is no main
    has started is below its main's zygote.
    """
    roots = [os.getpid(), *_started()]
    client: Any = sys.modules.get("procession._launch.keeper_client")
    if client and (keeper := client.existing()) and keeper.index == messages.MAIN_SLOT:
        guard = procfs.stat(keeper.table.read(messages.GUARD_SLOT)[2])
        if guard is not None and guard.comm == messages.COMM_GUARD:
            roots.append(guard.pid)
    return roots


def _started() -> set[int]:
    """Pids of the processes that this one has started and not joined."""
    found = set()
    for child in list(process._children):  # type: ignore[attr-defined]
        with contextlib.suppress(ValueError):  # closed meanwhile
            if child.pid is not None:
                found.add(child.pid)
    return found


def _below(roots: list[int]) -> dict[int, procfs.Stat]:
    """What is below some processes, and those that were started; without the keeper."""
    started = _started()
    stats = [procfs.stat(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    by_parent: dict[int, list[procfs.Stat]] = {}
    found: dict[int, procfs.Stat] = {}
    for stat in stats:
        if stat is not None:
            by_parent.setdefault(stat.parent, []).append(stat)
            if stat.pid in started:
                found[stat.pid] = stat
    to_see, seen = list(roots), {os.getpid()}
    while to_see:
        for stat in by_parent.get(to_see.pop(), ()):
            if stat.pid in seen:
                continue
            seen.add(stat.pid)
            to_see.append(stat.pid)
            # a child has a spare's name until it is itself
            if stat.pid in started or not _is_helper(stat):
                found[stat.pid] = stat
    return found


def _is_helper(stat: procfs.Stat) -> bool:
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and stat.pid == tracker._resource_tracker._pid:
        return True
    return stat.comm in messages.COMMS


def _threads() -> dict[int, str]:
    names = {each.native_id: each.name for each in threading.enumerate()}
    found = {}
    for task in procfs.tasks(os.getpid()):
        stat = procfs.stat(os.getpid(), task)
        if stat is not None:
            found[task] = names.get(task) or f"{stat.comm} (no Python thread)"
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def _kept_descriptors() -> set[int]:
    """What procession and the standard library hold as long as this process lives."""
    modules: Any = sys.modules
    held: set[int] = set()
    if tracker := modules.get("multiprocessing.resource_tracker"):
        held.add(tracker._resource_tracker._fd)
    if (client := modules.get("procession._launch.keeper_client")) and (
        keeper := client.existing()
    ):
        held.update(keeper.descriptors())
    if identity := modules.get("procession._identity"):
        held.update(table.fileno() for table in identity._tables.values())
    regions = []  # the next small objects go there
    if memory := modules.get("procession._shared.memory"):
        regions += [memory._begun, memory._begun_growing]
    if semaphore := modules.get("procession._sync.semaphore"):
        regions.append(semaphore._begun)
    held.update(region.memory.fileno() for region in regions if region is not None)
    if (heap := modules.get("procession.heap")) and heap._heap._spaces:
        arena = heap._heap._spaces[-1].arena  # the next value comes from there
        held.update(number for number in _descriptors() if _is_same(number, arena.fd))
    return held


def _is_same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _segments() -> set[str]:
    """This user's segments; who has them is looked at only where there are new ones."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(_SHARED):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    found.add(entry.path)
    return found


def _users(path: str) -> set[int]:
    """Processes that have a segment open or mapped."""
    try:
        file = os.stat(path)
    except OSError:
        return set()
    return {int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _uses(pid, file)}


def _uses(pid: str, file: os.stat_result) -> bool:
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    wanted = [device.encode(), str(file.st_ino).encode()]
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/maps", "rb") as lines:
            if any(line.split()[3:5] == wanted for line in lines):
                return True
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{entry}"), file):
                    return True
    return False


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""
