"""Objects between processes that survive the death of whoever uses them.

What else `multiprocessing.synchronize` has comes from there. The face of the room `_sync`: an
object a module there.
"""

from __future__ import annotations

from multiprocessing import synchronize as _standard
from typing import Any

from procession._sync.barrier import Barrier
from procession._sync.condition import Condition
from procession._sync.event import Event
from procession._sync.lock import Lock, RLock
from procession._sync.semaphore import BoundedSemaphore, Semaphore

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

for _kind in (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
):  # they pickle and present themselves by their public name
    _kind.__module__ = __name__


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
