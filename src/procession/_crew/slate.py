"""A worker's slate: memory shared with its owner alone, where it notes what it has in hand.

The owner reads it only while the worker cannot run, dead or stopped: so it needs no lock, and what
a killed worker had finished is not lost.

    0     8 bytes each, the words below
    4096  outcomes that were not sent yet: marshalled, one after the other
    then  room for the stack that faulthandler writes when the worker crashes
    then  two rooms for large buffers (`extents`): the owner's to write, and the worker's
"""

from __future__ import annotations

import fcntl
import io
import marshal
import mmap
import os

from procession._crew import extents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEGUN = 0
"""Number of the call that was begun last."""
END = 1
"""Where the noted outcomes end; 0: there are none."""
FIRST = 2
"""Number of the call that the first of them belongs to."""
REVOKED_FROM = 3
REVOKED_TO = 4
"""Calls after the first and up to the second number are not to be begun; the owner writes these."""
RECEIVED = 6
"""How many messages with calls the worker has received."""
STAGE = 5
"""0 until the worker's own code runs; then `INITIALIZING`, then `WORKING`."""
INITIALIZING, WORKING = 1, 2
OWNER_TOOK, WORKER_TOOK = 7, 8
"""How many messages each side has taken out of the other's room."""
OWNER_SENT, WORKER_SENT = 64, 72
"""How many packets each side has sent; each in a cache line of its own, since the other looks at it
while it waits (`Line`, in src/line.h)."""

AREA = 4096
LIMIT = AREA + 128 * 1024
STACK = 16 * 1024
SIZE = LIMIT + STACK


class Slate:
    """The mapped slate.

    Args:
        fd: Its memfd; ``None`` makes a new one.
        room: Bytes of each of a new one's rooms; fewer where that is not allowed.
    """

    def __init__(self, fd: int | None = None, room: int = 0) -> None:
        if fd is None:
            fd = _make(room // extents.UNIT * extents.UNIT)
        self.fd = fd
        self.memory = mmap.mmap(fd, SIZE)
        self.words = memoryview(self.memory)[:AREA].cast("Q")
        self._room = (os.fstat(fd).st_size - SIZE) // 2
        self._rooms: list[extents.Room] = []

    def ends(self, *, owner: bool) -> tuple[int, tuple[int, int], extents.Room, extents.Arrivals]:
        """What a side's channel needs: the memory, where packets are counted, its room, and what
        comes out of the other's.
        """
        mine, others = (OWNER_TOOK, WORKER_TOOK) if owner else (WORKER_TOOK, OWNER_TOOK)
        start, first = (SIZE, 0) if owner else (SIZE + self._room, extents.MOST)
        room = extents.Room(self.fd, start, self._room, first, self.words, others)
        self._rooms.append(room)
        sent = (OWNER_SENT, WORKER_SENT) if owner else (WORKER_SENT, OWNER_SENT)
        return self.fd, sent, room, extents.Arrivals(self.fd, self.words, mine)

    # --- the owner's side ------------------------------------------------------------------

    def outcomes(self) -> tuple[int, list[Any]]:
        """Number of the first call whose outcome is noted, and the outcomes."""
        end, first = self.words[END], self.words[FIRST]
        if not end:
            return first, []
        file = io.BytesIO(self.memory[AREA:end])
        found = []
        while file.tell() < end - AREA:
            found.append(marshal.load(file))
        return first, found

    def stack(self) -> str:
        """What faulthandler wrote when the worker crashed; empty where it did not."""
        return self.memory[LIMIT:SIZE].rstrip(b"\0").decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Let go of it."""
        for room in self._rooms:
            room.close()
        self.words.release()
        self.memory.close()
        os.close(self.fd)


def _make(room: int) -> int:
    fd = os.memfd_create("procession-slate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        try:
            os.ftruncate(fd, SIZE + 2 * room)
        except OSError:  # RLIMIT_FSIZE
            os.ftruncate(fd, SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd
