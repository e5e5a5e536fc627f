"""Semaphores that get back what the dead had of them (G4).

A permit that was taken by `with` comes back when its holder is killed. One of a plain `acquire()`
does so only where `reclaim=True` says that acquiring and releasing belong together: it may as well
count signals, which one process takes and another one gives.
"""

from __future__ import annotations

import operator
from functools import partial
from multiprocessing import synchronize as _standard
from typing import Any

from procession import _identity, _native
from procession._shared.memory import Region
from procession._sync.deaths import check_mode, tell_of_holder
from procession._sync.shared import SharedObject, watch_end
from procession._wire.messages import SLOTS

SEM_VALUE_MAX = 2**31 - 1
_HEAD, _ENTRY = 192, 24  # bytes; src/semaphore.h
_FIRST = 128  # entries of a new ledger; more when a process in a later slot of the table comes
_SPAN = -(-(_HEAD + SLOTS * _ENTRY) // 64) * 64  # bytes of addresses for each; memory as needed
_ROOM = 32  # semaphores of one region

_begun: Region | None = None


class _Semaphore(SharedObject, _native.Semaphore):
    """What both have in common.

    Attributes:
        recovered: How many permits came back from processes that had died.
        maxvalue: How many there may be.
    """

    kind = 1

    def _make_new(self, value: int, bound: int | None, reclaim: bool, mode: str) -> None:
        check_mode(mode)
        value = operator.index(value)
        if value < 0:
            raise ValueError(f"a semaphore begins with 0 permits or more, got {value}")
        if value > SEM_VALUE_MAX:
            raise OverflowError(f"a semaphore has {SEM_VALUE_MAX} permits at most, got {value}")
        self._settle(*_allocate(), mode)
        self._room(_FIRST)
        self._make(value, SEM_VALUE_MAX if bound is None else value, reclaim)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        told = partial(tell_of_holder, type(self).__name__, region.table, *rest)
        self._attach(region.memory, offset, region.table, told)
        watch_end(self)

    def _grow(self, index: int) -> None:
        """Make room in the ledger for the process in a slot of the table."""
        region, offset = self._place[:2]
        before = self._capacity
        entries = min(SLOTS, max(2 * before, index + 1))
        begin = offset + _HEAD + before * _ENTRY
        region.memory.reserve(begin, (entries - before) * _ENTRY)
        self._room(entries)

    @property
    def _semlock(self) -> Any:
        """The part that others use though it is private: here it is the semaphore itself."""
        return self


class Semaphore(_Semaphore, _standard.Semaphore):
    """A number of permits that processes share.

    Args:
        value: How many there are in the beginning.
        reclaim: Whether permits of a plain `acquire()` come back, too, when their holder dies.
        on_owner_death: What acquiring one that the dead gave back does: ``"warn"`` acquires it and
            warns, ``"raise"`` leaves it there and raises OwnerDied.
        ctx: Accepted as by the standard one, and of no effect.

    Raises:
        ValueError: ``value`` is negative, or ``on_owner_death`` neither of both.
        OverflowError: ``value`` is more than SEM_VALUE_MAX.
        OSError: There is no memory for it.
    """

    def __init__(
        self,
        value: int = 1,
        *,
        reclaim: bool = False,
        on_owner_death: str = "warn",
        ctx: Any = None,
    ) -> None:
        self._make_new(value, None, reclaim, on_owner_death)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(_Semaphore, _standard.BoundedSemaphore):
    """A semaphore that never has more permits than in the beginning.

    Args:
        value: How many there are.
        reclaim: As for Semaphore.
        on_owner_death: As for Semaphore.
        ctx: As for Semaphore.

    Raises:
        ValueError: As Semaphore.
        OverflowError: As Semaphore.
        OSError: As Semaphore.
    """

    def __init__(
        self,
        value: int = 1,
        *,
        reclaim: bool = False,
        on_owner_death: str = "warn",
        ctx: Any = None,
    ) -> None:
        self._make_new(value, value, reclaim, on_owner_death)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={self.maxvalue})>"


def _allocate() -> tuple[Region, int]:
    """Zeroed bytes for a semaphore, whose first ledger is there for certain."""
    global _begun
    region = _begun
    offset = 0
    if region is not None and region.table is _identity.home():
        offset = region.memory.take(_SPAN)
    if region is None or not offset:
        region = Region.create(64 + _ROOM * _SPAN, "procession-semaphores", 64)
        offset = region.memory.take(_SPAN)
    region.memory.reserve(offset, _HEAD + _FIRST * _ENTRY)
    _begun = region
    return region, offset
