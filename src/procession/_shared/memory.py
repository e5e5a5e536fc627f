"""Regions: sealed memfds, mapped, whose words name processes of one table.

Small objects (a lock, a value) take a few cache lines of a region that the process has begun; a
region is freed as a whole, when nobody in any process has an object in it: the kernel counts, and
no death can make it err. Objects refer to their region and pickle as it does.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from typing import Any

from procession import _identity, _native
from procession._launch.keeper import Keeper
from procession._shared import parcels
from procession.errors import SharedObjectLost

SMALL = 64 * 1024
"""Bytes of a region for small objects; larger objects get regions of their own."""
ROOM = 4 * 1024 * 1024
"""Bytes of a region whose objects grow: holes, until somebody needs them."""

_present: weakref.WeakValueDictionary[bytes, Region] = weakref.WeakValueDictionary()
_begun: Region | None = None
_begun_growing: Region | None = None


class Region:
    """A piece of shared memory as this process maps it.

    Pickles as the same memory, whatever takes the pickle to whichever process of the program.

    Attributes:
        memory: The mapping; its first 64 bytes are its header (src/memory.h).
        table: The table whose processes are named in it.
    """

    def __init__(self, memory: _native.Memory, table: _native.Table) -> None:
        self.memory = memory
        self.table = table
        self._keeper: Keeper | None = None
        _present[memory.id()] = self

    @classmethod
    def create(
        cls, size: int, name: str = "procession-memory", reserved: int | None = None
    ) -> Region:
        """New memory, all zero.

        Args:
            size: Bytes, header included.
            name: What /proc/pid/maps calls it.
            reserved: How many of them are there for certain; ``None``: all. The others are as
                `memory.reserve` makes them.

        Raises:
            OSError: There is not so much memory, or no descriptor; nothing is left half-made.
        """
        table = _identity.home()
        if reserved is None:
            reserved = size
        return cls(_native.Memory.create(name, size, table.id(), reserved), table)

    def fileno(self) -> int:
        """The memory's descriptor.

        Raises:
            OSError: This program closed it, as code that daemonises does.
        """
        return _open(self.memory.fileno())

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced()

    def reduced(self, carrier: parcels.Carrier | None = None) -> tuple[Any, ...]:
        """What a pickle has of it; in an item of ``carrier``, if it is one."""
        popen: Any = get_spawning_popen()
        token, home = self.memory.id(), self.table.id()
        if popen is not None:
            keeper = getattr(popen, "_keeper", None)
            table = None
            if keeper is None or keeper.table is not self.table:
                table = parcels.for_child(popen, home, _open(self.table.fileno()))
            return _from_start, (token, parcels.for_child(popen, token, self.fileno()), home, table)
        # the guard of our own program keeps the table of another
        foreign = self.table is not _identity.home()
        if foreign:
            parcels.deposit(home, _open(self.table.fileno()), carrier=carrier)
        self._keeper = parcels.deposit(token, self.fileno(), self._keeper, carrier)
        return _from_guard, (token, home, foreign, carrier and carrier.item())

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # at the interpreter's end our modules are gone, and all that was held with the process
        if self._keeper is not None and not _is_finalizing():
            parcels.let_go(self.memory.id(), self._keeper)


def allocate(size: int) -> tuple[Region, int]:
    """Zeroed bytes for an object: its region, and its offset there, a multiple of 64.

    Raises:
        OSError: There is no memory for it.
    """
    global _begun
    if size > SMALL // 4:
        region = Region.create(64 + -(-size // 64) * 64)
        return region, region.memory.take(size)
    region_now = _begun
    if region_now is not None and region_now.table is _identity.home():
        offset = region_now.memory.take(size)
        if offset:
            return region_now, offset
    region = Region.create(SMALL)
    offset = region.memory.take(size)
    _begun = region
    return region, offset


def allocate_growing(size: int) -> tuple[Region, int]:
    """The same for a small object that may grow: what it takes later from its region's memory it
    has to reserve there itself.

    Raises:
        OSError: There is no memory for it.
    """
    global _begun_growing
    region = _begun_growing
    if region is not None and region.table is _identity.home():
        offset = region.memory.take(size)
        if 0 < offset < SMALL:  # what comes behind is for those that grow
            region.memory.reserve(offset, size)
            return region, offset
    region = Region.create(ROOM, reserved=0)
    offset = region.memory.take(size)
    region.memory.reserve(offset, size)
    _begun_growing = region
    return region, offset


# --- arriving ---------------------------------------------------------------------------------


def _from_start(token: bytes, parcel: Any, home: bytes, table: Any) -> Region:
    if table is not None and _identity.known(home) is None:
        _identity.attach(table.detach())
    region = _present.get(token)
    if region is not None:
        return region
    return _take(_native.Memory.attach(parcel.detach()), home)


def _from_guard(token: bytes, home: bytes, foreign: bool, item: bytes | None) -> Region:
    if foreign:
        if _identity.known(home) is None:
            _identity.attach(parcels.claim(home, item))
        else:
            parcels.arrived(home, item)
    region = _present.get(token)
    if region is not None:
        parcels.arrived(token, item)
        return region
    return _take(_native.Memory.attach(parcels.claim(token, item)), home)


def _take(memory: _native.Memory, home: bytes) -> Region:
    table = _identity.known(home)
    if table is None:
        raise SharedObjectLost("a shared object came without the table of processes it refers to")
    return Region(memory, table)


def _open(fd: int) -> int:
    if fd < 0:
        raise OSError(
            9,
            "this program closed the descriptor of its shared memory (as code that daemonises "
            "does): the object cannot be passed on any more",
        )
    return fd
