"""What all objects between processes have in common: a place in shared memory, and an end.

What a process holds when it comes to Python's own end stays held, as ever; what it held when it
was killed comes back (G4). So each process says at its end that it was Python's own.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any, Protocol

from procession import _identity, _native
from procession._shared.memory import Region


class SharedObject:
    """An object whose state lies in a region; a subclass says in `_open` what it makes of it.

    Pickles as the same object, with what a subclass of the user's added.
    """

    def _settle(self, region: Region, offset: int, *rest: Any) -> None:
        """Be the object at a place; ``rest`` is what else a copy of it must know."""
        self._open(region, offset, *rest)
        self._place = (region, offset, *rest)

    def _open(self, region: Region, offset: int, *rest: Any) -> None:
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        extra = {name: value for name, value in self.__dict__.items() if name != "_place"}
        return _rebuild, (type(self), *self._place), extra or None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # what a subclass added; the object itself came by _rebuild


def _rebuild(kind: type[SharedObject], region: Region, offset: int, *rest: Any) -> SharedObject:
    it = kind.__new__(kind)
    it._settle(region, offset, *rest)
    return it


# --- Python's own end -----------------------------------------------------------------------------


class Holdable(Protocol):
    """What a process may hold when it ends."""

    def _leave(self) -> object:
        """Say that this process, which comes to Python's own end, leaves it as it is."""


_living: weakref.WeakSet[Holdable] = weakref.WeakSet()
_registered_in = 0


def watch_end(it: Holdable) -> None:
    """See to it that this process's own end is told from its death."""
    global _registered_in
    _living.add(it)
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
    """Mark whatever this process holds as left by it."""
    for it in list(_living):
        it._leave()
