"""This process's end of its program's keeper: one object, started at the first need of it.

main starts the keeper and is slot 0 of its table; a child inherits its seat and opens a link of
its own when it starts something itself. A raw `os.fork()` makes a program of its own.
"""

from __future__ import annotations

import _thread
import errno
import os
import sys
import threading

from procession import _identity, _native
from procession._launch import replacement
from procession._launch.keeper import Keeper, inode_of
from procession._wire import channel, main_module, messages
from procession.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procession._child.bootstrap import Seat

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
preload_main = True
"""Whether main's file may be run in the keeper, once for all children (`heirs`)."""


# --- the one keeper of this process -----------------------------------------------------------

_keeper: Keeper | None = None
_retired: list[Keeper] = []
_starting = _thread.allocate_lock()


def ensure(*, zygote: bool, credentials: bytes | None = None) -> Keeper:
    """This process's keeper, started or renewed where that is needed.

    Args:
        zygote: Whether processes will be forked by it (not by this process itself).
        credentials: This thread's, where the caller has just looked at them.

    Raises:
        StartError: It cannot be started.
    """
    try:
        if credentials is None:
            credentials = _native.credentials()
        keeper = _keeper
        if keeper is not None and not keeper.closed and keeper.credentials == credentials:
            return keeper
        return _renewed(keeper, zygote, credentials)
    except StartError:
        raise
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> StartError:
    """What a start says where the kernel refused this process something that it needs."""
    advice = {
        errno.EMFILE: "; this process has no free descriptor (RLIMIT_NOFILE, ulimit -n)",
        errno.ENOMEM: "; there is no memory for it (RLIMIT_AS, ulimit -v, or the memory cgroup)",
    }.get(error.errno or 0, "")
    return StartError(
        error.errno, f"the kernel refused what a start needs: {error.strerror or error}{advice}"
    )


def _renewed(keeper: Keeper | None, zygote: bool, credentials: bytes) -> Keeper:
    global _keeper
    with _starting:
        if _keeper is not None and keeper is not _keeper:
            return _keeper
        if _keeper is not None:
            _retired.append(_keeper)  # its children live on under it; new ones need our new rights
            _keeper = None
        elif not _retired:
            _keeper = _inherited()
        if _keeper is None or _keeper.credentials != credentials:
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
    if getattr(bootstrap, "is_heir", False):
        os._exit(1)  # main's top level needs a keeper: it is run in children, which have one
    seat: Seat | None = getattr(bootstrap, "seat", None)
    if seat is None:
        return None
    keeper = Keeper(
        seat.table, seat.door, seat.index, seat.generation, seat.guard_generation, forget
    )
    keeper.credentials = seat.credentials
    # what the zygote has is not known here: this process may have had another, and changed it
    keeper.environ, keeper.directory, keeper.warning_filters = {}, b"", []
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
    keeper = Keeper(table, writer, messages.MAIN_SLOT, generation, guard_generation, forget)
    keeper.preloads_main = preload_main
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
        "pgid": os.getpgrp(),
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
        fds += [fd for fd in (1, 2) if inode_of(fd) is not None]
    try:
        channel.send(writer, (messages.BEGIN, config), fds)
    except OSError as error:
        raise keeper.lost() from error
    finally:
        os.close(pidfd)
    for tell in on_start:
        tell(keeper)
    if zygote:
        keeper.open_link(link)  # the first spare is made while we pickle what it is for
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
    elif not any(old.table is table and old.guard_generation == row[1] for old in _retired):
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


def interpreter_flags() -> list[bytes]:
    """Arguments by which a fresh interpreter has our flags; the standard function drops some."""
    from multiprocessing import util

    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        if name in _KEPT_X_OPTIONS:
            flags += ["-X", name if value is True else f"{name}={value}"]
    return list(map(os.fsencode, flags))
