"""Lock and RLock that survive the death of whoever holds them.

A process that is killed while it holds one gives it back: the next to acquire it has it within a
few milliseconds and is told by an OwnerDiedWarning, or by OwnerDied where that was asked for. One
that came to Python's own end (it returned, raised or exited) leaves its locks held, as ever, for
anybody to release; those who wait are told once who left them (G4).
"""

from __future__ import annotations

from functools import partial
from multiprocessing import synchronize as _standard
from typing import Any

from procession import _native
from procession._shared.memory import Region, allocate
from procession._sync.deaths import check_mode, tell_of_owner
from procession._sync.shared import SharedObject, watch_end

_SIZE = 64  # bytes of a lock: one cache line


class _Lock(SharedObject, _native.Lock):
    """What Lock and RLock share.

    Attributes:
        recovered: How often it was taken over from a process that had died, by all processes.
    """

    _recursive = False

    def __init__(self, *, on_owner_death: str = "warn", ctx: Any = None) -> None:
        check_mode(on_owner_death)
        self._settle(*allocate(_SIZE), on_owner_death)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        told = partial(tell_of_owner, type(self).__name__, region.table, *rest)
        self._attach(region.memory, offset, region.table, self._recursive, told)
        watch_end(self)

    @property
    def _semlock(self) -> Any:
        """The part that others use though it is private: here it is the lock itself."""
        return self

    @property
    def kind(self) -> int:
        """As `_multiprocessing.SemLock.kind`: 0 is recursive, 1 is not."""
        return int(not self._recursive)

    maxvalue = 1

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
