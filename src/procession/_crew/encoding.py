"""Calls and outcomes as they cross a worker's channel.

A message is a marshalled tuple in one packet, whole or not there at all; what is too big for one
goes through a memfd. In it an entry (an argument or an outcome) is

    int, float, str, bool, None          itself
    bytes                                a pickle
    (OUT_OF_BAND, pickle, sizes)         a pickle whose large buffers follow the message, in a memfd
    (RAISED, outcome)                    an exception, as `_wire.outcome` writes it
    (EXITED, outcome)                    a SystemExit
    (UNSENDABLE, text, outcome)          a value that cannot be pickled, in words, and why
"""

from __future__ import annotations

import _socket
import io
import marshal
import mmap
import os
import pickle
import struct
from collections import ChainMap
from multiprocessing.reduction import ForkingPickler
from typing import Any

from procession._shared.pickling import travelling
from procession._wire import channel

OUT_OF_BAND, RAISED, EXITED, UNSENDABLE = range(4)

CALLS, END = b"calls", b"end"  # owner → worker
READY, OUTCOMES, INITIALIZER_FAILED = b"ready", b"outcomes", b"failed"  # worker → owner

PLAIN = frozenset((int, float, str, bool, type(None)))
INLINE = 48 * 1024  # bytes of a packet; a channel holds four of them before a send would wait
LARGE = 64 * 1024  # bytes of a buffer that is worth a mapping of its own
_ALIGNED = 64
_LONGEST = 1024  # characters of a string that goes as it is
_HEAVY = struct.Struct("<cQ")
_ROOM = _socket.CMSG_SPACE(4)


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
        table: Any = ChainMap(travelling(), ForkingPickler(file).dispatch_table)
        self.dispatch_table = table


class Mapping:
    """The buffers that came with a message, taken in the order in which they were packed."""

    def __init__(self, memory: mmap.mmap | None = None, start: int = 0) -> None:
        self._view = memoryview(memory) if memory is not None else None
        self._at = start

    def take(self, sizes: list[int]) -> list[memoryview]:
        """The next buffers."""
        assert self._view is not None
        taken = []
        for size in sizes:
            taken.append(self._view[self._at : self._at + size])
            self._at += _aligned(size)
        return taken


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
        patience: Seconds after which `receive` gives up with BlockingIOError; 0: never.
    """

    def __init__(self, sock: channel.Socket, patience: int = 0) -> None:
        self._sock = sock
        if patience:
            limit = struct.pack("@ll", patience, 0)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
        self._buffer = bytearray(INLINE + 4096)
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def send(self, message: tuple[Any, ...], buffers: list[memoryview] | None = None) -> None:
        """Send a message and the buffers that belong to it.

        Raises:
            OSError: The other end is gone, or there is no memory.
        """
        data = marshal.dumps(message)
        if not buffers and len(data) <= INLINE:
            self._sock.send(data, _socket.MSG_NOSIGNAL)
            return
        memfd = os.memfd_create("procession-call", os.MFD_CLOEXEC)
        try:
            at = 0
            for part in (data, *(buffers or ())):
                _write(memfd, part, at)
                at += _aligned(len(part))
            os.ftruncate(memfd, at)
            channel_message = [_HEAVY.pack(b"\0", len(data))]
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", memfd))]
            self._sock.sendmsg(channel_message, rights, _socket.MSG_NOSIGNAL)
        finally:
            os.close(memfd)

    def receive(self, flags: int = 0) -> tuple[Any, Mapping] | None:
        """A message and its buffers; ``None`` when the other end is gone.

        Raises:
            BlockingIOError: There is none: at once where ``MSG_DONTWAIT`` was given.
        """
        try:
            size, ancillary, _, _ = self._sock.recvmsg_into(
                [self._buffer], _ROOM, flags | _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None
        if not size:
            return None
        if self._buffer[0]:
            return marshal.loads(self._view[:size]), Mapping()
        fds = channel._descriptors(ancillary)
        if not fds:
            raise channel.TooManyDescriptors(
                24, "no free descriptor for a large argument or result (ulimit -n)"
            )
        _, length = _HEAVY.unpack(self._view[:size])
        try:
            whole = os.fstat(fds[0]).st_size
            # private: what the receiver writes into an array is its own
            memory = mmap.mmap(fds[0], whole, mmap.MAP_PRIVATE)
        finally:
            channel.close_all(fds)
        return marshal.loads(memoryview(memory)[:length]), Mapping(memory, _aligned(length))

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def pair() -> tuple[channel.Socket, channel.Socket]:
    """The two sockets of a channel."""
    return channel.message_pair()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _write(fd: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view[: 1 << 30], at)
        view = view[written:]
        at += written
