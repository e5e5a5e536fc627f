"""A descriptor that goes where its object goes: one in each process, however often it arrives."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from typing import Any

from procession._launch.keeper import Keeper
from procession._shared import parcels

_present: weakref.WeakValueDictionary[bytes, Descriptor] = weakref.WeakValueDictionary()


class Descriptor:
    """A descriptor of this process, closed with this object.

    Args:
        fd: Its number; it belongs to this object from now on.
        token: Its name in every process of the program; ``None``: it is new.
    """

    def __init__(self, fd: int, token: bytes | None = None) -> None:
        self.fd = fd
        self._token = os.urandom(16) if token is None else token
        self._keeper: Keeper | None = None
        self._identity = _identity(fd)
        _present[self._token] = self

    def check(self) -> int:
        """Its number.

        Raises:
            OSError: This program closed it, as code that daemonises does.
        """
        if _identity(self.fd) != self._identity:
            raise OSError(
                9,
                "this program closed a descriptor of the object (as code that daemonises does):"
                " it cannot be passed on any more",
            )
        return self.fd

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced()

    def reduced(self, carrier: parcels.Carrier | None = None) -> tuple[Any, ...]:
        """What a pickle has of it; in an item of ``carrier``, if it is one."""
        popen: Any = get_spawning_popen()
        if popen is not None:
            parcel = parcels.for_child(popen, self._token, self.check())
            return _from_start, (self._token, parcel)
        self._keeper = parcels.deposit(self._token, self.check(), self._keeper, carrier)
        return _from_guard, (self._token, carrier and carrier.item())

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if _is_finalizing():  # our modules are gone, and all that was held goes with the process
            return
        if self._keeper is not None:
            parcels.let_go(self._token, self._keeper)
        if _identity(self.fd) == self._identity:
            os.close(self.fd)


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _from_start(token: bytes, parcel: Any) -> Descriptor:
    return _present.get(token) or Descriptor(parcel.detach(), token)


def _from_guard(token: bytes, item: bytes | None) -> Descriptor:
    present = _present.get(token)
    if present is not None:
        parcels.arrived(token, item)
        return present
    return Descriptor(parcels.claim(token, item), token)
