"""Barrier: who waits at it has a place there under its own name (G4, G6).

A process that ends while it waits, or carries out the action, will never go on with the others:
that breaks the barrier, and those who wait, or come later, are told who it was. One that ends when
all have met, before it has left, breaks it for those who come next; those who met go on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing import synchronize as _standard
from threading import BrokenBarrierError
from typing import Any

from procession import _native
from procession._shared.memory import Region, allocate
from procession._sync.deaths import past, person, who
from procession._sync.shared import SharedObject

_HEAD, _PLACE = 128, 16  # bytes
_MOST = 1_000_000


class Barrier(SharedObject, _native.Barrier, _standard.Barrier):
    """Where a number of processes or threads meet, again and again.

    A BrokenBarrierError that came of a death says whose, and has it as ``name``, ``pid`` and
    ``ending``.

    Args:
        parties: How many meet.
        action: What one of them calls when all are there, before they go on.
        timeout: What `wait` takes where it is given none, seconds.
        ctx: Accepted as by the standard one, and of no effect.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: Any = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        if parties > _MOST:
            raise ValueError(f"parties must be at most {_MOST}, got {parties}")
        size = _HEAD + _PLACE * parties
        self._settle(*allocate(size), parties, action, timeout)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        parties, self._action, self._timeout = rest
        table = region.table
        self._attach(region.memory, offset, table, parties, partial(_broken, table))

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all are there: how many were there before, 0 to parties - 1.

        Raises:
            BrokenBarrierError: It is broken, was reset, or the time is over, which breaks it.
        """
        return self._wait(self._timeout if timeout is None else timeout, self._action)


def _broken(
    table: _native.Table, died: bool, index: int, generation: int, pid: int
) -> BrokenBarrierError:
    """The exception of a barrier that is broken, of a death or otherwise."""
    if not died:
        return BrokenBarrierError()
    name, known_pid, ending = who(table, index, generation)
    text = f"{person(name, known_pid or pid)} was at this barrier and {past(ending)}"
    error = BrokenBarrierError(text)
    vars(error).update(name=name, pid=known_pid or pid, ending=ending)
    return error
