"""Calls and outcomes as they cross a worker's channel.

A message is a marshalled tuple in one packet, whole or not there at all; what is too big for one,
and large buffers, go through memory: an extent of the worker's slate, or a memfd where there is no
room. In it an entry (an argument or an outcome) is

    int, float, str, bool, None          itself
    bytes                                a pickle
    (OUT_OF_BAND, pickle, sizes)         a pickle; its large buffers lie in memory
    (RAISED, outcome)                    an exception, as `_wire.outcome` writes it
    (EXITED, outcome)                    a SystemExit
    (UNSENDABLE, text, outcome)          a value that cannot be pickled, in words, and why
"""

from __future__ import annotations

import _socket
import errno
import io
import marshal
import mmap
import os
import pickle
import struct
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from procession import _native
from procession._crew.extents import Arrivals, Room, aligned
from procession._shared.pickling import Registered
from procession._wire import channel

OUT_OF_BAND, RAISED, EXITED, UNSENDABLE = range(4)

CALLS, END = b"calls", b"end"  # owner → worker
READY, OUTCOMES, INITIALIZER_FAILED = b"ready", b"outcomes", b"failed"  # worker → owner

PLAIN = frozenset((int, float, str, bool, type(None)))
INLINE = 48 * 1024  # bytes of a packet; a channel holds four of them before a send would wait
LARGE = 64 * 1024  # bytes of a buffer that is worth a mapping of its own
_LONGEST = 1024  # characters of a string that goes as it is
_HEAVY = struct.Struct("<cxxxIQQQQqI")
"""What a packet with memory begins with: `_MEMFD` or `_EXTENT`; extent, offset, bytes, and which of
the messages with an extent it is; bytes of the message in it, 0 where that follows; the first of
its calls and how many they are.
"""
_MEMFD, _EXTENT = b"\0", b"\1"  # marshalled tuples begin otherwise
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)


class Unsent(Exception):
    """A message could not be sent, though the other end is there: why is its cause."""

    def told(self, what: str) -> OSError:
        """As the error of a call."""
        return _told(self.__cause__, f"{what} could not be sent")


class Undelivered(Exception):
    """A message came, but not the memory that belongs to it: why is its cause.

    Args:
        first: The first of the calls that it was about.
        count: How many they are.
    """

    def __init__(self, first: int, count: int) -> None:
        super().__init__(first, count)
        self.first = first
        self.count = count

    def told(self, what: str) -> OSError:
        """As the error of a call."""
        return _told(self.__cause__, f"{what} could not be received")


def _told(error: BaseException | None, what: str) -> OSError:
    number = getattr(error, "errno", None) or errno.ENOMEM
    hint = " (ulimit -n)" if number == errno.EMFILE else ""
    return OSError(number, f"{what}: {os.strerror(number)}{hint}")


class Packer:
    """Pickles values one at a time, each for itself; not for two threads at once."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []
        """Large buffers of the values packed since they were last taken."""
        self._file = io.BytesIO()
        self._pickler = _BufferingPickler(self._file, self._keep)
        self._found: list[memoryview] = []

    def pack(self, value: Any) -> Any:
        """The entry for a value.

        Raises:
            Exception: What pickle, or the value's own code, raised.
        """
        kind = type(value)
        if kind in PLAIN and (kind is not str or len(value) < _LONGEST):
            return value
        file = self._file
        try:
            self._pickler.dump(value)
            data = file.getvalue()
            if not self._found:
                return data
            sizes = [len(buffer) for buffer in self._found]
            self.buffers += self._found
            return OUT_OF_BAND, data, sizes
        finally:
            self._pickler.clear_memo()
            self._found = []
            file.seek(0)
            file.truncate()

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer goes inside the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if len(raw) < LARGE:
            return True
        self._found.append(raw)
        return False

    def take_buffers(self) -> list[memoryview]:
        """The buffers kept, which are the caller's now."""
        buffers, self.buffers = self.buffers, []
        return buffers


class _BufferingPickler(ForkingPickler):
    """multiprocessing's pickler, which hides the argument that this is for."""

    def __init__(self, file: io.BytesIO, keep: Any) -> None:
        pickle.Pickler.__init__(self, file, 5, buffer_callback=keep)
        registered: Any = Registered()
        self.dispatch_table = registered


class Mapping:
    """The buffers that came with a message, taken in the order in which they were packed."""

    def __init__(self, view: memoryview | None = None, start: int = 0) -> None:
        self._view = view
        self._at = start

    def take(self, sizes: list[int]) -> list[memoryview]:
        """The next buffers."""
        assert self._view is not None
        taken = []
        for size in sizes:
            taken.append(self._view[self._at : self._at + size])
            self._at += aligned(size)
        return taken


NOTHING = Mapping()


def unpack(entry: Any, mapping: Mapping) -> Any:
    """The value of an entry that is a value.

    Raises:
        BaseException: What unpickling it raised.
    """
    if type(entry) is bytes:
        return pickle.loads(entry)
    if type(entry) is tuple:
        _, data, sizes = entry
        return pickle.loads(data, buffers=mapping.take(sizes))
    return entry


def is_value(entry: Any) -> bool:
    """Whether an entry is a value, and no exception."""
    return type(entry) is not tuple or entry[0] == OUT_OF_BAND


class Channel:
    """One end of a worker's private channel.

    Args:
        sock: A socket that keeps message boundaries; it belongs to the channel.
        memory: Descriptor of the slate.
        counts: The words of the slate that count what this end, and what the other one has sent.
        room: Where our large buffers go.
        arrivals: Where those of the other end are.
        patience: Seconds after which `receive` gives up with BlockingIOError; 0: never.
    """

    def __init__(
        self,
        sock: channel.Socket,
        memory: int,
        counts: tuple[int, int],
        room: Room,
        arrivals: Arrivals,
        patience: int = 0,
    ) -> None:
        self._sock = sock
        self.room = room
        self._arrivals = arrivals
        if patience:
            limit = struct.pack("@ll", patience, 0)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
        self._line = _native.Line(sock.fileno(), memory, *counts, INLINE + 4096)
        self.taken = self._line.taken
        """Call it when what `receive` returned was taken over; until then that returns it again."""
        self.is_left = self._line.is_left
        """Whether somebody received something, and did not take it over."""

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def send(self, message: tuple[Any, ...], buffers: list[memoryview] | None = None) -> None:
        """Send a message and the buffers that belong to it.

        Raises:
            OSError: The other end is gone.
            Unsent: There is no memory, or no descriptor.
        """
        data = marshal.dumps(message)
        if not buffers and len(data) <= INLINE:
            self._line.send(data)
            return
        parts: list[bytes | memoryview] = [*buffers] if buffers else []
        inline = data if len(data) <= INLINE else b""
        if not inline:
            parts.insert(0, data)
        length = 0 if inline else len(data)
        first, count = _about(message)
        place = self.room.put(parts)
        try:
            if place is None:
                self._send_memfd(parts, inline, (length, first, count))
            else:
                head = _HEAVY.pack(_EXTENT, *place, length, first, count)
                self._line.send(head + inline)
        except (OSError, MemoryError) as error:
            if place is not None:
                self.room.take_back()
            if getattr(error, "errno", None) in _GONE:
                raise
            raise Unsent from error

    def _send_memfd(
        self, parts: Sequence[bytes | memoryview], inline: bytes, about: tuple[int, int, int]
    ) -> None:
        memfd = os.memfd_create("procession-call", os.MFD_CLOEXEC)
        try:
            at = 0
            for part in parts:
                _write(memfd, part, at)
                at += aligned(len(part))
            os.ftruncate(memfd, at)
            self._line.send(_HEAVY.pack(_MEMFD, 0, 0, at, 0, *about) + inline, memfd)
        finally:
            os.close(memfd)

    def receive(self, wait: bool = True) -> tuple[Any, Mapping] | None:
        """A message and its buffers; ``None`` when the other end is gone.

        Raises:
            BlockingIOError: There is none.
            Undelivered: There is one, but no descriptor or memory for it.
        """
        packet = self._line.receive(wait)
        if not packet:
            return None
        if packet[0] > 1:
            return marshal.loads(packet), NOTHING
        head = _HEAVY.unpack_from(packet)
        kind, number, offset, total, message, length, first, count = head
        try:
            if kind == _EXTENT:
                memory = self._arrivals.take((number, offset, total, message))
            else:
                memory = _mapped(self._line.descriptor(), total)
        except (OSError, MemoryError) as error:
            raise Undelivered(first, count) from error
        if length:
            return marshal.loads(memory[:length]), Mapping(memory, aligned(length))
        return marshal.loads(memoryview(packet)[_HEAVY.size :]), Mapping(memory)

    def close(self) -> None:
        """Close this end."""
        self._line.closed()
        self._sock.close()


def pair() -> tuple[channel.Socket, channel.Socket]:
    """The two sockets of a channel."""
    return channel.message_pair()


def _about(message: tuple[Any, ...]) -> tuple[int, int]:
    """The first of the calls that a message is about, and how many they are."""
    if message[0] == CALLS:
        return message[1], len(message[5])
    return (message[1], len(message[2])) if message[0] == OUTCOMES else (0, 0)


def _mapped(fd: int, size: int) -> memoryview:
    if fd < 0:
        raise channel.TooManyDescriptors(errno.EMFILE, os.strerror(errno.EMFILE))
    # private: what the receiver writes into an array is its own
    return memoryview(mmap.mmap(fd, size, mmap.MAP_PRIVATE))


def _write(fd: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view[: 1 << 30], at)
        view = view[written:]
        at += written
