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

SEM_VALUE_MAX = 2**31 - 1
_SIZE = 960  # bytes; src/semaphore.h
_SEMAPHORES = 256 * 1024  # bytes of a region in which new ones may begin
_ROOM = 64 * 1024 * 1024  # bytes of a region: the others are holes, for the ledgers that grow.
# All its semaphores together may have entries for 8,000 processes each.

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
        self._make(value, SEM_VALUE_MAX if bound is None else value, reclaim)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        told = partial(tell_of_holder, type(self).__name__, region.table, *rest)
        self._attach(region.memory, offset, region.table, told)
        watch_end(self)

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
    """Zeroed bytes for a semaphore."""
    global _begun
    region = _begun
    offset = 0
    if region is not None and region.table is _identity.home():
        offset = region.memory.take(_SIZE)
    if region is None or not 0 < offset < _SEMAPHORES:
        region = Region.create(_ROOM, "procession-semaphores", 64)
        offset = region.memory.take(_SIZE)
    region.memory.reserve(offset, _SIZE)
    _begun = region
    return region, offset
