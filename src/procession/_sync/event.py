"""Event: one word, which no death can leave between two states (G4)."""

from __future__ import annotations

from multiprocessing import synchronize as _standard
from typing import Any

from procession import _native
from procession._shared.memory import Region, allocate
from procession._sync.shared import SharedObject

_SIZE = 64  # bytes: one cache line


class Event(SharedObject, _native.Event, _standard.Event):
    """A flag between processes: who waits for it goes on once it is set.

    Whoever waits while it is set goes on and gets true, even where it is cleared again at once.

    Args:
        ctx: Accepted as by the standard one, and of no effect.
    """

    def __init__(self, *, ctx: Any = None) -> None:
        self._settle(*allocate(_SIZE))

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        self._attach(region.memory, offset, region.table)
