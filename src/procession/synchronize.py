"""Locks, conditions and events that survive the death of whoever uses them; the rest is
`multiprocessing`'s. The face of the room `_sync`: an object a module there.
"""

from __future__ import annotations

from multiprocessing import synchronize as _standard
from multiprocessing.synchronize import BoundedSemaphore, Semaphore
from typing import Any

from procession._sync.barrier import Barrier
from procession._sync.condition import Condition
from procession._sync.event import Event
from procession._sync.lock import Lock, RLock

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

for _kind in (
    Barrier,
    Condition,
    Event,
    Lock,
    RLock,
):  # they pickle and show themselves by their public name
    _kind.__module__ = __name__


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
