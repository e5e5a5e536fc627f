"""Which process serves an address, and what became of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from procession import _identity, _native
from procession._launch.handle import Handle
from procession._sync import deaths
from procession.ending import Ending, How, from_status
from procession.errors import ManagerDied

_REAPING = 2.0  # seconds that a reaper gets to say how a server ended


class Server(NamedTuple):
    """A server process, as those that have its proxies know it."""

    name: str
    pid: int
    slot: int
    """Its slot in the program's table; -1: it was started without us."""
    generation: int


_known: dict[Any, Server] = {}
_started_here: dict[Any, BaseProcess] = {}


def started(address: Any, process: Any) -> None:
    """Remember who serves an address: a process that this one has started."""
    popen = process._popen
    place = (popen._index, popen._generation) if isinstance(popen, Handle) else (-1, 0)
    _known[address] = Server(process.name, process.pid, *place)
    _started_here[address] = process


def ended(address: Any) -> None:
    """Let go of the process; who it was is remembered for the proxies that are left."""
    _started_here.pop(address, None)


def known(address: Any) -> Server | None:
    """Who serves an address."""
    return _known.get(address)


def learn(address: Any, server: Server | None) -> None:
    """Remember who serves an address, as whoever sent a proxy says."""
    if server is not None:
        _known.setdefault(address, server)


@contextlib.contextmanager
def telling(address: Any) -> Iterator[None]:
    """Where a server does not answer because it is dead, say so, and how it ended.

    Raises:
        ManagerDied: It is, provably.
    """
    try:
        yield
    except (EOFError, ConnectionError, FileNotFoundError) as error:
        died = obituary(address)
        if died is None:
            raise
        died.errno = getattr(error, "errno", None)
        raise died from error


def obituary(address: Any) -> ManagerDied | None:
    """The error that tells of a server's end, or ``None`` where nobody knows that it has ended."""
    server = _known.get(address)
    if server is None:
        return None
    ending = _ending_of_own(address) or _ending_in_table(server)
    return None if ending is None else ManagerDied(server.name, server.pid, ending)


def _ending_of_own(address: Any) -> Ending | None:
    process: Any = _started_here.get(address)
    if process is None or process._popen is None or process._parent_pid != os.getpid():
        return None
    code = process._popen.wait(_REAPING)
    if code is None:
        return None
    ending: Ending | None = getattr(process._popen, "ending", None)
    status = -code if code < 0 else code << 8
    return ending or from_status(status, None, "", lost=False, oom=False, killer=0)


def _ending_in_table(server: Server) -> Ending | None:
    if server.slot < 0:
        return None
    table = _identity.home()
    row = table.read(server.slot)
    if row[1] == server.generation and row[0] != _native.ENDED:
        if table.fate(server.slot, server.generation) != _native.DEAD:
            return None
        if row[5] != _native.FORK:  # that is reaped when its parent likes
            table.wait(server.slot, server.generation, round(_REAPING * 1e9))
    _, pid, ending = deaths.who(table, server.slot, server.generation)
    return ending if pid == server.pid else Ending(How.LOST, 255)
