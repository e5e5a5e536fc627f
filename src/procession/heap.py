"""Shared memory for values and arrays, cut from a few memfds without names.

Allocation is private to a process: who frees, and what is free, is in its own memory, so that no
death of another process can spoil it. What is shared is the memory alone, and it goes with its last
user (G5). A block that may be known to another process, because it was passed on or this process
was forked since, is never handed out again: its memory goes back when all of its arena is free.
"""

from __future__ import annotations

import collections
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import context, reduction
from typing import Any

from procession._kernel import memfd
from procession._shared import parcels, pickling

__all__ = ["Arena", "BufferWrapper", "Heap"]

_ALIGNMENT = 16  # what any C type wants (long double)
_LARGE = 1 << 20  # bytes; beyond it a block has an arena of its own
_FIRST_ARENA = 64 * 1024
_LARGEST_ARENA = 4 << 20
_STEP = 64 * 1024  # bytes reserved at a time


class Arena:
    """One mapped memfd.

    `ForkingPickler` pickles it as the same memory, at a start and anywhere else in the program.

    Args:
        size: Its size in bytes.
        fd: A descriptor of it, which belongs to the arena from now on; -1 makes a new memfd.
        token: What the processes of the program know it by; ``None`` makes one.

    Raises:
        OSError: The kernel refuses; nothing is left behind.
    """

    def __init__(self, size: int, fd: int = -1, token: bytes | None = None) -> None:
        self.size = size
        self.keeper: Any = None  # the one that keeps it for those to whom it was sent
        self.fd = -1  # where the next line raises, there is nothing to close
        self.fd = memfd.create("procession-arena", size) if fd < 0 else fd
        self.key = _identity(self.fd)
        self.token = token or os.urandom(16)
        self.buffer = memfd.map_shared(self.fd, size)
        _known[self.token] = self

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if _is_finalizing():  # our modules are gone, and all that was held goes with the process
            return
        # the number may be somebody else's by now: daemonising code closes what it knows not
        if self.fd >= 0 and self.key is not None and _identity(self.fd) == self.key:
            os.close(self.fd)
        if self.keeper is not None:
            parcels.let_go(self.token, self.keeper)


_known: weakref.WeakValueDictionary[bytes, Arena] = weakref.WeakValueDictionary()
"""Token → arena that this process has mapped, so that each is mapped once."""


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _reduce_arena(arena: Arena, carrier: parcels.Carrier | None = None) -> tuple[Any, ...]:
    if _identity(arena.fd) != arena.key:
        raise ValueError(
            "this process closed the descriptor of its shared memory (as code that daemonises "
            "does), so that it cannot be passed on any more"
        )
    popen = context.get_spawning_popen()
    if popen is not None:
        return _from_start, (
            arena.size,
            arena.token,
            parcels.for_child(popen, arena.token, arena.fd),
        )
    arena.keeper = parcels.deposit(arena.token, arena.fd, arena.keeper, carrier)
    return _from_guard, (arena.size, arena.token, carrier and carrier.item())


def _from_start(size: int, token: bytes, parcel: Any) -> Arena:
    return _known.get(token) or Arena(size, parcel.detach(), token)


def _from_guard(size: int, token: bytes, item: bytes | None) -> Arena:
    arena = _known.get(token)
    if arena is None:
        return Arena(size, parcels.claim(token, item), token)
    parcels.arrived(token, item)
    return arena


reduction.register(Arena, _reduce_arena)
pickling.carried.add(_reduce_arena)


class _Block:
    """A piece of an arena that is in use."""

    __slots__ = ("arena", "forks", "passed_on", "size", "space", "start")

    def __init__(self, arena: Arena, start: int, size: int, space: _Space | None, forks: int):
        self.arena = arena
        self.start = start
        self.size = size
        self.space = space
        self.forks = forks
        self.passed_on = False


class _Space:
    """What an allocator knows of one arena."""

    __slots__ = ("arena", "free", "live", "reserved", "used")

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.used = 0  # everything from here on was never handed out
        self.reserved = 0  # everything up to here has its memory
        self.live = 0  # blocks in use
        self.free: dict[int, list[int]] = {}  # size of a block → where there are free ones

    def take(self, size: int) -> int | None:
        """Where a new block begins; ``None`` where there is no room."""
        starts = self.free.get(size)
        if starts:
            start = starts.pop()
            self.arena.buffer[start : start + size] = bytes(size)
            return start
        end = self.used + size
        if end > self.arena.size:
            return None
        if end > self.reserved:
            goal = min(-(-end // _STEP) * _STEP, self.arena.size)
            memfd.reserve(self.arena.fd, self.reserved, goal - self.reserved)
            self.reserved = goal
        start, self.used = self.used, end
        return start


class Heap:
    """Cuts blocks out of arenas. Any thread may use it, and the collector inside any call."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._returned: collections.deque[_Block] = collections.deque()
        self._spaces: list[_Space] = []  # the last one is being filled
        self._next_arena = _FIRST_ARENA
        self._forks = 0
        self._busy = False  # somebody holds the lock and is not done: the collector's must wait

    def malloc(self, size: int) -> _Block:
        """A block of at least ``size`` bytes, all zero.

        Raises:
            OSError: There is no memory for it.
        """
        size = _rounded(size)
        if size > _LARGE:
            arena = Arena(size)
            memfd.reserve(arena.fd, 0, size)
            return _Block(arena, 0, size, None, 0)
        with self._lock:
            self._busy = True
            try:
                self._take_back()
                return self._cut(size)
            finally:
                self._busy = False

    def free(self, block: _Block) -> None:
        """Give a block back, from any thread, also in the middle of `malloc` by the collector."""
        if block.space is None:
            return
        self._returned.append(block)
        if self._lock.acquire(False):  # else whoever has it, or comes next, takes it back
            try:
                if not self._busy:
                    self._busy = True
                    try:
                        self._take_back()
                    finally:
                        self._busy = False
            finally:
                self._lock.release()

    def _cut(self, size: int) -> _Block:
        for space in reversed(self._spaces):  # most of what is asked for has room in the newest
            start = space.take(size)
            if start is not None:
                break
        else:
            space = self._new_space(size)
            start = space.take(size)
            assert start is not None
        space.live += 1
        return _Block(space.arena, start, size, space, self._forks)

    def _new_space(self, size: int) -> _Space:
        try:
            arena = Arena(max(self._next_arena, _pages(size)))
        except OSError:
            if _pages(size) >= self._next_arena:
                raise
            arena = Arena(_pages(size))  # a limit leaves no room for more than is needed
        else:
            self._next_arena = min(2 * self._next_arena, _LARGEST_ARENA)
        space = _Space(arena)
        self._spaces.append(space)
        for full in self._spaces[:-1]:
            self._let_go_if_free(full)
        return space

    def _take_back(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            space = block.space
            if space is None or space not in self._spaces:
                continue  # a block of the process that this one is a forked copy of
            space.live -= 1
            if not block.passed_on and block.forks == self._forks:
                space.free.setdefault(block.size, []).append(block.start)
            self._let_go_if_free(space)

    def _let_go_if_free(self, space: _Space) -> None:
        if space.live == 0 and space is not self._spaces[-1]:
            self._spaces.remove(space)

    # --- around a fork: a child allocates for itself --------------------------------------------

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._forks += 1  # whatever is in use now is known to the child, too

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        # only the wrappers that the child has a copy of keep their arenas now
        Heap.__init__(self)


def _rounded(size: int) -> int:
    """The size of the block that is handed out: few sizes, so that freed ones fit again."""
    if size > _LARGE:
        return _pages(size)
    grain = max(_ALIGNMENT, (1 << max(size - 1, 0).bit_length()) >> 3)
    return max(_ALIGNMENT, -(-size // grain) * grain)


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class BufferWrapper:
    """A block of shared memory, all zero at first, which belongs to whoever has the object.

    Raises:
        ValueError: The size is negative.
        OverflowError: No memory is as large.
        OSError: There is no memory for it.
    """

    _heap = Heap()

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size must be at least 0 bytes, got {size}")
        if size >= sys.maxsize:
            raise OverflowError(f"size must be less than {sys.maxsize} bytes, got {size}")
        self._block = self._heap.malloc(size)
        self._size = size

    def create_memoryview(self) -> memoryview:
        """The block's memory; it must not be used longer than this object is kept."""
        start = self._block.start
        return memoryview(self._block.arena.buffer)[start : start + self._size]

    def __reduce__(self) -> tuple[Any, ...]:
        block = self._block
        block.passed_on = True
        return _rebuild_wrapper, (block.arena, block.start, self._size)

    def __del__(self) -> None:
        block = getattr(self, "_block", None)  # not there where __init__ raised
        if block is not None:
            self._heap.free(block)


def _rebuild_wrapper(arena: Arena, start: int, size: int) -> BufferWrapper:
    wrapper = BufferWrapper.__new__(BufferWrapper)
    wrapper._block = _Block(arena, start, size, None, 0)  # no space: it is another's to free
    wrapper._size = size
    return wrapper


_heap = BufferWrapper._heap
os.register_at_fork(
    before=_heap._before_fork,
    after_in_parent=_heap._after_fork_in_parent,
    after_in_child=_heap._after_fork_in_child,
)


def __getattr__(name: str) -> Any:
    from multiprocessing import heap as _standard

    return getattr(_standard, name)
