"""Condition: who waits for it sits in shared memory under its own name (G4).

Whoever is killed while it waits is passed over; whoever is killed with a wake-up in its hands,
before its `wait` has returned, does not take it along: the next one in turn gets it. Whoever is
killed in the middle of notifying has notified all that it meant to, or nobody. What its death means
for the lock, that lock says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import synchronize as _standard
from typing import Any

from procession import _native
from procession._shared.memory import Region, allocate_growing
from procession._sync.lock import RLock
from procession._sync.shared import SharedObject

_SIZE = 320  # bytes to begin with: eight who wait


class Condition(SharedObject, _native.Condition, _standard.Condition):
    """A condition between processes; whoever waits longest is notified first.

    Args:
        lock: A lock of ours, of `multiprocessing`, or whatever behaves like one; ``None``: a new
            RLock.
        ctx: The context whose RLock that is; ``None``: ours.
    """

    def __init__(self, lock: Any = None, *, ctx: Any = None) -> None:
        if not lock:
            lock = RLock() if ctx is None else ctx.RLock()
        self._settle(*allocate_growing(_SIZE), lock)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        self._attach(region.memory, offset, region.table, *rest)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until a predicate is true: what it said last, also when the time is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        said = predicate()
        while not said:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            said = predicate()
        return said

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {self._waiters()[0]})>"

    # as of the three semaphores that the standard one is made of, for those who look at them

    @property
    def _sleeping_count(self) -> Any:
        return _Number(sum(self._waiters()))

    @property
    def _woken_count(self) -> Any:
        return _Number(self._waiters()[1])

    @property
    def _wait_semaphore(self) -> Any:
        return _Number(0)


class _Number:
    """A semaphore's value, as it was."""

    def __init__(self, value: int) -> None:
        self._value = value

    def get_value(self) -> int:
        return self._value
