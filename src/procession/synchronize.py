"""Lock and RLock that survive the death of whoever holds them; the rest is `multiprocessing`'s.

A process that is killed while it holds one gives it back: the next to acquire it has it within a
few milliseconds and is told by an OwnerDiedWarning, or by OwnerDied where that was asked for. One
that came to Python's own end (it returned, raised or exited) leaves its locks held, as ever, for
anybody to release; those who wait are told once who left them (G4).
"""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from functools import partial
from multiprocessing import synchronize as _standard
from multiprocessing.synchronize import Barrier, BoundedSemaphore, Condition, Event, Semaphore
from typing import Any

from procession import _identity, _native
from procession._shared.memory import Region, allocate
from procession.ending import Ending, How, from_status
from procession.errors import OwnerDied, OwnerDiedWarning

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

_SIZE = 64  # bytes of a lock: one cache line
_MODES = ("warn", "raise")
_REAPING_NS = 5_000_000  # what a reaper gets to say how a process ended, for the words of a warning
_HOWS = {
    _native.RETURNED: How.RETURNED,
    _native.RAISED: How.RAISED,
    _native.EXITED: How.EXITED,
}

_living: weakref.WeakSet[_Lock] = weakref.WeakSet()


class _Lock(_native.Lock):
    """What Lock and RLock share.

    Attributes:
        recovered: How often it was taken over from a process that had died, by all processes.
    """

    _recursive = False

    def __init__(self, *, on_owner_death: str = "warn", ctx: Any = None) -> None:
        if on_owner_death not in _MODES:
            raise ValueError(f"on_owner_death must be 'warn' or 'raise', got {on_owner_death!r}")
        self._settle(*allocate(_SIZE), on_owner_death)

    def _settle(self, region: Region, offset: int, mode: str) -> None:
        told = partial(_tell, type(self).__name__, region.table, mode)
        self._attach(region.memory, offset, region.table, self._recursive, told)
        self._place = (region, offset, mode)
        _register()
        _living.add(self)

    @property
    def _semlock(self) -> Any:
        """The part that others use though it is private: here it is the lock itself."""
        return self

    @property
    def kind(self) -> int:
        """As `_multiprocessing.SemLock.kind`: 0 is recursive, 1 is not."""
        return int(not self._recursive)

    maxvalue = 1

    def __reduce__(self) -> tuple[Any, ...]:
        extra = {name: value for name, value in self.__dict__.items() if name != "_place"}
        return _rebuild, (type(self), *self._place), extra or None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # what a subclass added; the lock itself came by _rebuild

    def _owner_in_words(self) -> str:
        """The holder as `multiprocessing` describes it."""
        import threading
        from multiprocessing import process

        if self._is_mine():
            name = process.current_process().name
            if threading.current_thread() is not threading.main_thread():
                name += "|" + threading.current_thread().name
            return name
        if not self.locked():
            return "None"
        return "SomeOtherThread" if self._count() else "SomeOtherProcess"


class Lock(_Lock, _standard.Lock):
    """A lock between processes, which any of them may release.

    Args:
        on_owner_death: What acquiring it does after its owner was killed: ``"warn"`` acquires it
            and warns, ``"raise"`` gives it back and raises OwnerDied.
        ctx: Accepted as by the standard one, and of no effect.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={self._owner_in_words()})>"


class RLock(_Lock, _standard.RLock):
    """A lock that its owner, one thread of one process, may acquire again.

    Args:
        on_owner_death: As for Lock.
        ctx: Accepted as by the standard one, and of no effect.
    """

    _recursive = True

    def __repr__(self) -> str:
        owner = self._owner_in_words()
        count = self._count() if self._is_mine() else 0 if owner == "None" else "nonzero"
        return f"<{type(self).__name__}({owner}, {count})>"


def _rebuild(kind: type[_Lock], region: Region, offset: int, mode: str) -> _Lock:
    lock = kind.__new__(kind)
    lock._settle(region, offset, mode)
    return lock


# --- deaths ---------------------------------------------------------------------------------------


def _tell(
    what: str, table: _native.Table, mode: str, left: bool, index: int, generation: int
) -> None:
    """Say whose death gave a lock back, or who ended and left it held."""
    name, pid, ending = _who(table, index, generation)
    person = f"process {name!r} (pid {pid})" if pid else "a process that is long gone"
    if left:
        warnings.warn(
            f"this {what} was left held by {person}, which {ending}: it stays held until somebody "
            "releases it",
            OwnerDiedWarning,
            stacklevel=2,
        )
        return
    if mode == "raise":
        raise OwnerDied(what, name, pid, ending)
    warnings.warn(
        f"this {what} was held by {person}, which {_past(ending)}: it is yours now, and what it "
        "guards may be half done",
        OwnerDiedWarning,
        stacklevel=2,
    )


def _past(ending: Ending) -> str:
    return "died" if ending.how is How.LOST else f"{ending}"


def _who(table: _native.Table, index: int, generation: int) -> tuple[str, int, Ending]:
    """Name, pid and ending of a process that is dead; what nobody knows any more is empty."""
    row = table.read(index)
    if row[1] == generation and row[0] != _native.ENDED and row[5] != _native.FORK:
        table.wait(index, generation, _REAPING_NS)  # a forked one is reaped when its parent likes
        row = table.read(index)
    if row[1] != generation:
        return "", 0, Ending(How.LOST, 255)
    flags, how, code, status = row[6:10]
    ended = row[0] == _native.ENDED and not flags & _native.FLAG_LOST
    if not ended and how != _native.HOW_NONE:
        status, ended = code << 8, True
    ending = from_status(
        status,
        _HOWS.get(how),
        row[20].decode("utf-8", "replace"),
        lost=not ended,
        oom=bool(flags & _native.FLAG_OOM),
        killer=0,
    )
    return row[18].decode("utf-8", "replace"), row[2], ending


# --- Python's own end -----------------------------------------------------------------------------


_registered_in = 0


def _register() -> None:
    """See to it that this process's own end is told from its death."""
    global _registered_in
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        atexit.register(_at_exit)


def _at_exit() -> None:
    """This interpreter ends as Python ends: what it holds stays held."""
    leave_held()
    table = _identity.home()
    index, _ = table.me()
    if table.read(index)[7] == _native.HOW_NONE:
        table.finish(index, _native.EXITED, 0, b"")


def leave_held() -> None:
    """Mark every lock that this process holds as left by it."""
    for lock in list(_living):
        lock._leave()


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
