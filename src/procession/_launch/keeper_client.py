"""This process's end of its program's keeper: one object, started at the first need of it.

main starts the keeper and is slot 0 of its table; a child inherits its seat and opens a link of
its own when it starts something itself. A raw `os.fork()` makes a program of its own.
"""

from __future__ import annotations

import _thread
import collections
import errno
import marshal
import os
import select
import struct
import sys
import threading
import time
import warnings

from procession import _identity, _native
from procession._launch import replacement
from procession._wire import channel, main_module, messages
from procession.errors import KeeperLost, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._child.bootstrap import Seat

SLICE_NS = 1_000_000_000  # a wait looks this often whether there is still a keeper to end it
_WARM = tuple(
    f"{library}.{name}"
    for library in ("multiprocessing", "procession")
    for name in (
        "connection",
        "heap",
        "managers",
        "pool",
        "queues",
        "resource_tracker",
        "shared_memory",
        "sharedctypes",
        "synchronize",
    )
)
"""What children have ready if their program's main had it when its keeper was started."""
_ROOM_LIMIT_MS = 1000
_SPARE = struct.Struct("=III")  # what the zygote says of a spare (module_reap.c)
PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

on_start: list[Any] = []
"""Called with each keeper that was started."""

_KEPT_X_OPTIONS = {
    "context_aware_warnings",
    "cpu_count",
    "int_max_str_digits",
    "no_debug_ranges",
    "pycache_prefix",
    "thread_inherit_context",
}

preload: list[str] = []
"""Modules that a keeper imports before its first spare (``set_forkserver_preload``)."""
preload_on_error = "ignore"


class Spare:
    """A process that waits for its start frame."""

    __slots__ = ("generation", "pid", "slot", "stream")

    def __init__(self, pid: int, slot: int, generation: int, stream: channel.Socket) -> None:
        self.pid = pid
        self.slot = slot
        self.generation = generation
        self.stream = stream


class Keeper:
    """A keeper as its user sees it.

    Args:
        table: The program's table of processes.
        door: The door's writing end.
        index: This process's own slot.
        generation: The generation of that slot.
        guard_generation: The generation of the guard's slot.
    """

    def __init__(
        self,
        table: _native.Table,
        door: channel.Socket,
        index: int,
        generation: int,
        guard_generation: int,
    ) -> None:
        self.table = table
        self.door = door
        self.index = index
        self.generation = generation
        self._guard_generation = guard_generation
        self.keeper_pid = 0
        """The keeper's pid where it is a child of this process."""
        self.owner_pid = os.getpid()
        self.owner_id = generation << 32 | index
        self.credentials = _native.credentials()
        self.environ = dict(environ())
        self.directory = _directory()
        self.warning_filters = _filters_key()
        self.closed = False
        self._link: channel.Socket | None = None
        self._spares: collections.deque[Spare] = collections.deque()
        self._lock = threading.Lock()
        self._inodes = {door.fileno(): _inode(door.fileno())}

    # --- spares ----------------------------------------------------------------------------

    def take_spare(self) -> Spare:
        """A process to become the next child.

        Raises:
            StartError: The keeper could not fork one; the kernel's errno is in it.
            KeeperLost: The keeper was killed.
        """
        with self._lock:
            self._check()
            if self._link is None:
                self._open_link()
            link = self._link
            assert link is not None
            while not self._spares:
                try:
                    if not self._receive(link, channel.DONT_WAIT):
                        break
                except StartError:
                    continue  # of an earlier time, when nobody waited for it: asked again below
            while not self._spares:
                self._say(link, messages.WAIT)
                self._wait_for_spare(link)
            return self._spares.popleft()

    def _open_link(self, pair: tuple[channel.Socket, channel.Socket] | None = None) -> None:
        ours, theirs = pair or channel.message_pair()
        try:
            channel.send(self.door, (messages.HELLO, self.owner_id), [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise self._lost() from error
        finally:
            theirs.close()
        self._link = ours
        self._inodes[ours.fileno()] = _inode(ours.fileno())

    def _say(self, link: channel.Socket, word: bytes) -> None:
        try:
            link.send(word)
        except OSError as error:
            raise self._lost() from error

    def _receive(self, link: channel.Socket, flags: int = 0) -> bool:
        """One message of the zygote's; false when there is none."""
        try:
            received = channel.receive_bytes(link, flags, messages.LINK_ROOM)
        except BlockingIOError:
            return False
        if received is None:
            raise self._lost()
        data, fds = received
        if len(data) != _SPARE.size:  # a refusal: its text alone is longer
            _, *rest = marshal.loads(data)
            raise StartError(*_refusal(*rest))
        pid, index, generation = _SPARE.unpack(data)
        self._spares.append(Spare(pid, index, generation, channel.adopt(fds[0])))
        return True

    def _wait_for_spare(self, link: channel.Socket) -> None:
        poll = select.poll()
        poll.register(link.fileno(), select.POLLIN)
        while not poll.poll(SLICE_NS // 1_000_000):
            self._check()
        self._receive(link)

    # --- is it there? ----------------------------------------------------------------------

    def guard_is_dead(self) -> bool:
        """Whether the guard's life word says that it died; false while it is only starting."""
        slot = messages.GUARD_SLOT
        return (
            self.table.life(slot) == _native.LIFE_DIED
            or self.table.state(slot, self._guard_generation) == _native.FREE  # there is a new one
        )

    def require(self) -> None:
        """Raise the one error of a keeper that is of no use any more; nothing where it is."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        for fd, inode in self._inodes.items():
            if _inode(fd) != inode:
                raise self._lost(
                    "this program closed the descriptors that led to its keeper (as code that "
                    "daemonises does)"
                )
        if self.guard_is_dead():
            raise self._lost()

    def _lost(self, why: str = "") -> KeeperLost | StartError:
        """Give the keeper up; the exception that says so, once."""
        forget(self)
        if (
            not why
            and self.keeper_pid
            and self.table.life(messages.GUARD_SLOT) == _native.LIFE_FREE
        ):
            status = _reap(self.keeper_pid)
            return StartError(
                None,
                f"the keeper could not be started: {sys.executable!r} ended with status {status}. "
                "Set PROCESSION_DEBUG to a file's name to see what it says.",
            )
        return KeeperLost(
            f"{why or 'the keeper of this program was killed'}; the processes that it held have "
            "been ended, as nobody could contain them any more. The next start() gets a new keeper."
        )

    def close(self, *, keep_door: bool = False) -> None:
        """Let go of what this process holds; the keeper goes on for others."""
        self.closed = True
        sockets = [spare.stream for spare in self._spares]
        self._spares.clear()
        if self._link is not None:
            sockets.append(self._link)
            self._link = None
        if not keep_door:
            sockets.append(self.door)
        for sock in sockets:
            fd = sock.fileno()
            if self._inodes.get(fd, _inode(fd)) == _inode(fd):
                sock.close()
            else:
                sock.detach()  # the number belongs to somebody else by now

    # --- what is asked of the guard ---------------------------------------------------------

    def tell(self, *message: Any, fds: Sequence[int] = ()) -> bool:
        """Tell the guard something that it need not answer; false when it could not be told.

        What the guard is too busy to hear for a second, or no longer there to hear, is dropped: no
        program waits for its recording.
        """
        door = self.door.fileno()
        if self.closed or door < 0 or _inode(door) != self._inodes[door]:
            return False  # the program closed it, and somebody else has the number by now
        for last in (False, True):
            try:
                channel.send(self.door, message, fds, channel.DONT_WAIT)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.door.fileno(), select.POLLOUT)
                if last or not poll.poll(_ROOM_LIMIT_MS):
                    return False
            except OSError:
                return False
            else:
                return True
        return False

    def fetch_outcome(self, index: int, generation: int) -> bytes | None:
        """What a process returned or raised, as it pickled it; ``None`` for nothing.

        Raises:
            KeeperLost: There is no guard left that could know.
        """
        (_, outcome), fds = self.ask((messages.FETCH, index, generation))
        if not fds:
            return None if outcome is None else bytes(outcome)
        with open(fds[0], "rb") as file:
            file.seek(0)
            return file.read()

    def ask(self, question: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[int]]:
        """Say something to the guard that it answers.

        Raises:
            KeeperLost: There is no guard left that could know.
            OSError: It has no descriptor left to answer by; it may have one later.
        """
        ours, theirs = channel.message_pair()
        with ours:
            try:
                with theirs:
                    channel.send(self.door, question, [theirs.fileno()])
                answer = channel.receive(ours)
            except OSError as error:
                raise KeeperLost("the keeper that held what was asked for was killed") from error
        if answer is None:
            if not self.guard_is_dead():
                raise OSError(
                    errno.EMFILE,
                    "the keeper of this program has no free descriptor to answer by (its limit is "
                    "the hard one, ulimit -Hn); ask again when it holds less",
                )
            raise KeeperLost("the keeper that held what was asked for was killed")
        return answer

    def hand(self, message: tuple[Any, ...], fds: Sequence[int]) -> None:
        """Give the guard something that must not be lost.

        Raises:
            KeeperLost: It is gone; the next call gets a new keeper.
        """
        self._check()
        try:
            channel.send(self.door, message, fds)
        except OSError as error:
            raise self._lost() from error

    def say_goodbye(self, limit: float, how: str) -> None:
        """Tell the guard that this program came to Python's own end, and wait for it to finish.

        Args:
            limit: Longest wait in seconds; the guard needs milliseconds.
            how: "normal", or "interrupted": then nothing below is let go.
        """
        try:
            self._check()
            ours, theirs = channel.message_pair()
            with ours:
                with theirs:
                    channel.send(self.door, (messages.GOODBYE, how), [theirs.fileno()])
                self._release()
                poll = select.poll()
                poll.register(ours.fileno(), select.POLLIN)
                poll.poll(limit * 1000)
        except (OSError, KeeperLost, StartError):
            pass  # it is gone already, and with it all that it held
        self.close()
        if self.keeper_pid:
            _reap(self.keeper_pid, limit)

    def _release(self) -> None:
        while self._spares:
            self._spares.popleft().stream.close()


# --- the one keeper of this process -----------------------------------------------------------

_keeper: Keeper | None = None
_retired: list[Keeper] = []
_starting = _thread.allocate_lock()


def ensure(*, zygote: bool) -> Keeper:
    """This process's keeper, started or renewed where that is needed.

    Args:
        zygote: Whether processes will be forked by it (not by this process itself).

    Raises:
        StartError: It cannot be started.
    """
    try:
        return _ensure(zygote)
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> StartError:
    """What a start says where the kernel refused this process something that it needs."""
    if isinstance(error, StartError):
        return error
    advice = {
        errno.EMFILE: "; this process has no free descriptor (RLIMIT_NOFILE, ulimit -n)",
        errno.ENOMEM: "; there is no memory for it (RLIMIT_AS, ulimit -v, or the memory cgroup)",
    }.get(error.errno or 0, "")
    return StartError(
        error.errno, f"the kernel refused what a start needs: {error.strerror or error}{advice}"
    )


def _ensure(zygote: bool) -> Keeper:
    global _keeper
    keeper = _keeper
    if keeper is not None and not keeper.closed and keeper.credentials == _native.credentials():
        return keeper
    with _starting:
        if _keeper is not None and keeper is not _keeper:
            return _keeper
        if _keeper is not None:
            _retired.append(_keeper)  # its children live on under it; new ones need our new rights
            _keeper = None
        elif not _retired:
            _keeper = _inherited()
        if _keeper is None or _keeper.credentials != _native.credentials():
            _keeper = _start(zygote)
        return _keeper


def existing() -> Keeper | None:
    """This process's keeper if it has one already."""
    return _keeper


def has_seat() -> bool:
    """Whether this process has a place in a program of ours, as a child in it."""
    bootstrap = sys.modules.get("procession._child.bootstrap")
    return getattr(bootstrap, "seat", None) is not None


def present() -> Keeper | None:
    """The keeper of this process's program, if there is one; none is started."""
    global _keeper
    if _keeper is None and not _retired:
        _keeper = _inherited()
    return None if _keeper is None or _keeper.closed else _keeper


def _inherited() -> Keeper | None:
    """The keeper of the program that this process is a child of."""
    bootstrap = sys.modules.get("procession._child.bootstrap")
    seat: Seat | None = getattr(bootstrap, "seat", None)
    if seat is None:
        return None
    keeper = Keeper(seat.table, seat.door, seat.index, seat.generation, seat.guard_generation)
    keeper.credentials = seat.credentials
    return None if keeper.guard_is_dead() else keeper


def _modules() -> list[str]:
    """What children are to find imported, going by what this process has."""
    names = [name for name in _WARM if name in sys.modules]
    if "procession._crew" in sys.modules:
        names.append("procession._crew.worker")
    return names


def _start(zygote: bool) -> Keeper:
    from multiprocessing import spawn

    executable = spawn.get_executable()
    if not executable:
        raise StartError(
            None,
            "there is no interpreter to start a keeper with (sys.executable is not set): "
            "set_executable()",
        )
    program = os.fsencode(executable)
    table, guard_generation = _table_to_serve()
    table.set_recorded(replacement.recording >= 0)
    # all descriptors that it takes, before there is a keeper: none is to be left half-made
    door, writer = channel.message_pair()
    generation = table.read(messages.MAIN_SLOT)[1]
    keeper = Keeper(table, writer, messages.MAIN_SLOT, generation, guard_generation)
    link = channel.message_pair() if zygote else None
    pidfd = os.pidfd_open(os.getpid())
    descriptors = [table.fileno(), door.fileno(), writer.fileno()]
    arguments = [
        program,
        *interpreter_flags(),
        b"-c",
        messages.KEEPER_BOOT.encode(),
        os.fsencode(PACKAGE_FOLDER),
        *(str(fd).encode() for fd in descriptors),
    ]
    start = _native.spawn if zygote else _native.spawn_detached
    try:
        pid = start(program, arguments, descriptors)
    except OSError as error:
        os.close(pidfd)
        raise StartError(
            error.errno, f"cannot start the keeper with {executable!r}: {error.strerror}"
        ) from error
    door.close()
    keeper.keeper_pid = pid if zygote else 0
    config = {
        "pid": os.getpid(),
        "name": os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python",
        "life": table.life(messages.MAIN_SLOT) == _native.LIFE_HELD,
        "zygote": zygote,
        "sys_path": list(sys.path),
        "main_path": main_module.path(),
        "modules": _modules(),
        "preload": list(preload),
        "on_error": preload_on_error,
        "replaced": replacement.installed,
        "recording": replacement.recording >= 0,
    }
    fds = [pidfd]
    if replacement.recording >= 0:
        fds.append(replacement.recording)
    if preload:
        fds += [fd for fd in (1, 2) if _inode(fd) is not None]
    try:
        channel.send(writer, (messages.BEGIN, config), fds)
    except OSError as error:
        raise keeper._lost() from error
    finally:
        os.close(pidfd)
    for tell in on_start:
        tell(keeper)
    if zygote:
        keeper._open_link(link)  # the first spare is made while we pickle what it is for
    return keeper


def _table_to_serve() -> tuple[_native.Table, int]:
    """The table for a new keeper, and the generation of the guard's slot in it."""
    table = _identity.main_table()
    if threading.current_thread() is threading.main_thread():
        table.enter(messages.MAIN_SLOT, _native.RUNNING)  # takes the life word if nobody has it
    row = table.read(messages.GUARD_SLOT)
    if row[0] != _native.CLAIMED:
        try:
            return table, table.renew(messages.GUARD_SLOT)
        except OSError:
            pass  # its old guard lives on, with what it holds
    elif not any(old.table is table and old._guard_generation == row[1] for old in _retired):
        return table, row[1]
    # else a guard that we have parted from has not even sat down there yet
    table = _identity.new_main_table()
    return table, table.read(messages.GUARD_SLOT)[1]


def forget(keeper: Keeper) -> None:
    """A keeper is of no use any more."""
    global _keeper
    keeper.close()
    if _keeper is keeper:
        _keeper = None
    if keeper not in _retired:  # its guard may still sit down where the next one would
        _retired.append(keeper)


def say_goodbye(limit: float, how: str) -> None:
    """Part from all keepers that this process started (G2: Python's own end of a program)."""
    global _keeper
    keepers = [*_retired, *([_keeper] if _keeper else [])]
    _retired.clear()
    _keeper = None
    for keeper in keepers:
        if keeper.owner_pid != os.getpid() or keeper.closed:
            continue
        if keeper.index == messages.MAIN_SLOT:
            keeper.say_goodbye(limit, how)
        else:
            keeper._release()


def in_forked_copy(seat: Seat | None) -> None:
    """After a fork: nothing of the keeper's belongs to the copy, but a seat made for it."""
    global _keeper, _starting
    _starting = _thread.allocate_lock()
    keepers = [*_retired, *([_keeper] if _keeper else [])]
    _retired.clear()
    _keeper = None
    for keeper in keepers:
        if not keeper.closed:
            keeper.close(keep_door=seat is not None and seat.door is keeper.door)
    bootstrap = sys.modules.get("procession._child.bootstrap")
    if bootstrap is not None:
        bootstrap.seat = seat  # type: ignore[attr-defined]


# --- small facts ------------------------------------------------------------------------------


def interpreter_flags() -> list[bytes]:
    """Arguments by which a fresh interpreter has our flags; the standard function drops some."""
    from multiprocessing import util

    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        if name in _KEPT_X_OPTIONS:
            flags += ["-X", name if value is True else f"{name}={value}"]
    return list(map(os.fsencode, flags))


def _inode(fd: int) -> int | None:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def _directory() -> tuple[int, int] | None:
    try:
        status = os.stat(".")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def environ() -> dict[bytes, bytes]:
    """The environment as os.environ holds it: comparing the mapping itself takes 40 µs."""
    data: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
    return data


def _filters_key() -> list[Any]:
    return list(warnings.filters)


def _refusal(number: int | None, text: str) -> tuple[int | None, str]:
    advice = {
        errno.EAGAIN: "; the limit of processes (ulimit -u, or the pids cgroup) is reached",
        errno.ENOMEM: "; there is no memory for another process",
        errno.EMFILE: "; the keeper has no free descriptor",
    }.get(number or 0, "")
    return number or None, f"the keeper could not start a process: {text}{advice}"


def _reap(pid: int, limit: float = 1.0) -> int | None:
    """The exit status of the keeper, a child of ours that has ended or is about to."""
    deadline = time.monotonic() + limit
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        done, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None
    except ChildProcessError:
        return None
    finally:
        os.close(pidfd)
