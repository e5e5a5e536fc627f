"""Extents: where the large buffers of calls and outcomes lie, in memory that is used again.

Each worker's memory (`slate`) has two rooms behind its notes, one that the owner writes and one
that the worker writes. Who writes a room is the only one who divides it, so that there is nothing
to lock and nothing that a death could leave half done: all of it goes with the memory.

A message names the extent that its buffers lie in. Who receives it maps the extent privately, so
that nothing is copied and an array is its own to write to, and holds it as long as it is mapped:
by a lock that the kernel takes back with the process (`Holds`, in src/extents.h). The extent is
used for another message once this one was taken, which a word of the slate says, and no hold is on
it. Fresh memory costs three times the copy into memory that is warm: hence all this.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any

from procession import _native

MOST = _native.EXTENTS // 2  # extents of a room: two rooms have what one file can have holds on
UNIT = 64 * 1024
WASTE = 4  # an extent is not used for less than a quarter of it
ALIGNED = 64  # buffers begin where numpy likes it
COPIED = 1024 * 1024  # bytes that are copied with the interpreter's lock held

_FLOCK = struct.Struct("hhqqi4x")
_POPULATE_WRITE = 23  # Linux 5.14; older Pythons do not name it

Place = tuple[int, int, int, int]
"""Number of an extent, its offset, how many bytes of it are used, and the number of its message."""


class _Extent:
    """A part of a room; `message`: the count of the last message that it was for."""

    __slots__ = ("message", "number", "offset", "size")

    def __init__(self, number: int, offset: int, size: int) -> None:
        self.number = number
        self.offset = offset
        self.size = size
        self.message = 0


class Room:
    """A room as its writer has it.

    Args:
        fd: The memory's descriptor, which the caller keeps open.
        start: Where the room begins.
        size: Bytes that it may take.
        first: The number of its first extent.
        words: The slate's words.
        taken: Which of them the reader counts in the messages that it took.
    """

    def __init__(
        self, fd: int, start: int, size: int, first: int, words: memoryview, taken: int
    ) -> None:
        self._fd = fd
        self._start = start
        self._size = size
        self._first = first
        self._words = words
        self._taken = taken
        self._messages = 0
        self._extents: list[_Extent] = []
        self._memory: mmap.mmap | None = None

    def put(self, parts: Sequence[bytes | memoryview]) -> Place | None:
        """Write what the next message refers to.

        Returns:
            ``None`` where there is no room for it, or no memory.
        """
        total = sum(aligned(len(part)) for part in parts)
        try:
            extent = self._find(-(-total // UNIT) * UNIT)
            if extent is None:
                return None
            at = extent.offset
            for part in parts:
                self._write(part, at)
                at += aligned(len(part))
        except (OSError, ValueError, MemoryError):
            return None
        self._messages += 1
        extent.message = self._messages
        return extent.number, extent.offset, total, self._messages

    def take_back(self) -> None:
        """The message could not be sent."""
        for extent in self._extents:
            if extent.message == self._messages:
                extent.message = 0
        self._messages -= 1

    def trim(self) -> bool:
        """Give back the memory that nobody uses; whether there is some that somebody does."""
        for extent in [one for one in self._extents if self._is_free(one)]:
            self._give_back(extent)
        return bool(self._extents)

    def is_empty(self) -> bool:
        """Whether it has no memory."""
        return not self._extents

    def close(self) -> None:
        """Use it no more."""
        self._extents.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _is_free(self, extent: _Extent) -> bool:
        return extent.message <= self._words[self._taken] and not self._is_held(extent.number)

    def _is_held(self, number: int) -> bool:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
        found = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, wanted)
        held: bool = _FLOCK.unpack(found)[0] != fcntl.F_UNLCK
        return held

    def _find(self, size: int) -> _Extent | None:
        fitting = [one for one in self._extents if size <= one.size <= WASTE * size]
        for extent in sorted(fitting, key=lambda one: one.size):
            if self._is_free(extent):
                return extent
        made = self._make(size)
        if made is None and size <= self._size and self._extents:
            self.trim()
            made = self._make(size)
        return made

    def _make(self, size: int) -> _Extent | None:
        used = sorted((one.offset, one.offset + one.size) for one in self._extents)
        if len(used) == MOST or sum(end - begin for begin, end in used) + size > self._size:
            return None
        at = self._start
        for begin, end in used:
            if at + size <= begin:
                break
            at = end
        if at + size > self._start + self._size:
            return None
        numbers = {one.number for one in self._extents}
        number = next(
            (
                n
                for n in range(self._first, self._first + MOST)
                if n not in numbers and not self._is_held(n)
            ),
            None,
        )
        if number is None:
            return None
        self._have(at, size)
        extent = _Extent(number, at, size)
        self._extents.append(extent)
        return extent

    def _have(self, at: int, size: int) -> None:
        """Memory for an extent, so that a write is no SIGBUS where there is none.

        Raises:
            OSError: There is none.
        """
        if self._memory is None:
            with contextlib.suppress(OSError):  # no descriptor, or no address space, for this
                self._memory = mmap.mmap(self._fd, self._size, offset=self._start)
                self._memory.madvise(mmap.MADV_DONTDUMP)
        if self._memory is not None:
            with contextlib.suppress(OSError):
                self._memory.madvise(_POPULATE_WRITE, at - self._start, size)
                return
        os.posix_fallocate(self._fd, at, size)

    def _write(self, part: bytes | memoryview, at: int) -> None:
        view = memoryview(part).cast("B")
        for begin in range(0, len(view), COPIED):
            piece = view[begin : begin + COPIED]
            if self._memory is None:
                os.pwrite(self._fd, piece, at + begin)
            else:
                to = at + begin - self._start
                self._memory[to : to + len(piece)] = piece

    def _give_back(self, extent: _Extent) -> None:
        if self._memory is None:
            return  # it is used again; there is nothing to give it back by
        with contextlib.suppress(OSError):
            self._memory.madvise(mmap.MADV_REMOVE, extent.offset - self._start, extent.size)
            self._extents.remove(extent)


class Arrivals:
    """The other room as its reader has it.

    Args:
        fd: The memory's descriptor, which the caller keeps open.
        words: The slate's words.
        taken: Which of them counts the messages that were taken.
    """

    def __init__(self, fd: int, words: memoryview, taken: int) -> None:
        self._fd = fd
        self._words = words
        self._taken = taken
        self._holds: Any = None

    def take(self, place: Place) -> memoryview:
        """What a message refers to; it stays as it is as long as somebody uses it.

        Taken twice, after an interrupt, it is the same.

        Raises:
            MemoryError: There is no memory left to have it in.
        """
        number, offset, size, message = place
        try:
            if self._holds is None:
                self._holds = _native.Holds(self._fd)
            found = memoryview(self._holds.map(number, offset, size))
        except (OSError, MemoryError):  # no descriptor for a hold, no more mappings: a copy
            found = memoryview(self._copy(offset, size))
        finally:
            self._words[self._taken] = message
        return found

    def _copy(self, offset: int, size: int) -> bytearray:
        copy = bytearray(size)
        view = memoryview(copy)
        at = 0
        while at < size:
            got = os.preadv(self._fd, [view[at : at + (1 << 30)]], offset + at)
            if not got:
                break
            at += got
        return copy


def aligned(size: int) -> int:
    """How much room a buffer of so many bytes takes."""
    return -(-size // ALIGNED) * ALIGNED
