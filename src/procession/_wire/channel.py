"""Messages and descriptors over inherited socket pairs: the only thing that sockets do here.

Messages are marshalled tuples: marshal is built in (importing pickle would double the keeper's
start) and every peer is a process of our own tree (G12). The C module `_socket` is used directly,
since `socket` costs 12 ms to import in a keeper that must start in fifty.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import struct

from procession import _native

TYPE_CHECKING = False  # `typing` costs milliseconds that a keeper's start does not have
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

DONT_WAIT = _socket.MSG_DONTWAIT

_RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
_MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253 for one message (unix(7))
_ROOM = _socket.CMSG_SPACE(4 * 253)
_MAX_MESSAGE = 128 * 1024


class Socket(_socket.socket):
    """A socket that `with` closes, and the end of the interpreter without a word about it."""

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # the base class warns first, and a door stays open until the very end


class TooManyDescriptors(OSError):
    """Descriptors arrived and this process had no room for them; they are lost for good."""


def message_pair() -> tuple[Socket, Socket]:
    """Two ends of a channel that keeps message boundaries, close-on-exec."""
    return _pair(_socket.SOCK_SEQPACKET)


def stream_pair() -> tuple[Socket, Socket]:
    """Two ends of a byte stream, close-on-exec."""
    return _pair(_socket.SOCK_STREAM)


def _pair(kind: int) -> tuple[Socket, Socket]:
    one, other = _socket.socketpair(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    return adopt(one.detach()), adopt(other.detach())


def adopt(fd: int) -> Socket:
    """The socket that a received or inherited descriptor is; it belongs to the object now.

    Where one of 0-2 is closed it stays closed: a program may open its next log file there.
    """
    if fd < 3:
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(low)
    sock = Socket(fileno=fd)
    if sock.gettimeout() is not None:  # socket.setdefaulttimeout() is for the user's sockets
        sock.settimeout(None)
    return sock


def send(sock: Socket, message: tuple[Any, ...], fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message with descriptors (at most 250).

    Raises:
        BrokenPipeError, ConnectionResetError: The other end is gone.
        BlockingIOError: ``MSG_DONTWAIT`` was given and there is no room.
    """
    sock.sendmsg([marshal.dumps(message)], _ancillary(fds), flags | _socket.MSG_NOSIGNAL)


def receive(sock: Socket, flags: int = 0, room: int = _MAX_MESSAGE) -> tuple[Any, list[int]] | None:
    """One message and its descriptors, or ``None`` when the other end is gone.

    Args:
        sock: A channel.
        flags: As of recvmsg(2).
        room: Bytes that the longest message can have; much room takes long to get.

    Raises:
        TooManyDescriptors: The descriptor table is full; the message's descriptors are lost.
    """
    received = receive_bytes(sock, flags, room)
    return None if received is None else (marshal.loads(received[0]), received[1])


def receive_now(sock: Socket, on_loss: Callable[[], object] = bool) -> tuple[Any, list[int]] | None:
    """A message that is there already, or ``None``.

    Args:
        sock: A channel.
        on_loss: Called when one was lost for want of descriptors.
    """
    while True:
        try:
            return receive(sock, DONT_WAIT)
        except BlockingIOError:
            return None
        except TooManyDescriptors:
            on_loss()  # whoever sent them is told when it asks for an answer


def receive_bytes(sock: Socket, flags: int, room: int) -> tuple[bytes, list[int]] | None:
    """The same, as it came: what C has sent is not marshalled."""
    try:
        data, ancillary, got, _ = sock.recvmsg(room, _ROOM, flags | _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    fds = _descriptors(ancillary)
    if got & _socket.MSG_CTRUNC:
        close_all(fds)
        raise TooManyDescriptors(
            errno.EMFILE, "no free descriptor to receive one from the keeper (ulimit -n)"
        )
    if not data:
        close_all(fds)
        return None
    return data, fds


# --- the start frame: one message over a spare's byte stream ----------------------------------

_HEAD = struct.Struct("<IIQ")  # descriptors, bytes of the marshalled header, bytes of the payload


def send_frame(fd: int, header: dict[str, Any], payload: bytes, fds: list[int]) -> None:
    """Send a header, a payload of any size, and any number of descriptors.

    One system call where all of it is small: this is the whole of a start.

    Args:
        fd: A byte stream's descriptor; no object is made of what is used once.
        header: Of what can be marshalled.
        payload: What follows it.
        fds: What goes with it.

    Raises:
        BrokenPipeError, ConnectionResetError: The spare is gone; how much it got is unknown.
    """
    marshalled = marshal.dumps(header)
    first = _HEAD.pack(len(fds), len(marshalled), len(payload)) + marshalled
    if len(fds) <= _MAX_FDS:
        sent = _native.send_start(fd, first, payload, fds)
        if sent < len(first) + len(payload):
            _send_rest(fd, first, payload, sent)
        return
    sent = _native.send_start(fd, first, b"", fds[:_MAX_FDS])
    for start in range(_MAX_FDS, len(fds), _MAX_FDS):
        _send_rest(fd, first, b"", sent)
        sent = len(first)
        _native.send_start(fd, b"+", b"", fds[start : start + _MAX_FDS])
    _send_rest(fd, b"", payload, 0)


def receive_frame(sock: Socket) -> tuple[dict[str, Any], bytearray, list[int]] | None:
    """The frame that `send_frame` sent, or ``None`` when the sender went without sending one."""
    fds: list[int] = []
    data = _receive_at_least(sock, _HEAD.size, bytearray(), fds)
    if data is None:
        return None
    count, header_size, payload_size = _HEAD.unpack_from(data)
    end = _HEAD.size + header_size
    if _receive_at_least(sock, end, data, fds) is None:
        return None
    header = marshal.loads(bytes(data[_HEAD.size : end]))
    extra = max(0, -(-count // _MAX_FDS) - 1)  # one byte came with each further load of descriptors
    if _receive_at_least(sock, end + extra + payload_size, data, fds) is None:
        return None
    return header, data[end + extra :], fds


def _receive_at_least(sock: Socket, size: int, data: bytearray, fds: list[int]) -> bytearray | None:
    while len(data) < size:
        chunk, ancillary, got, _ = sock.recvmsg(
            max(16384, min(size - len(data), 1 << 20)), _ROOM, _socket.MSG_CMSG_CLOEXEC
        )
        fds += _descriptors(ancillary)
        if got & _socket.MSG_CTRUNC:
            raise TooManyDescriptors(
                errno.EMFILE, "no free descriptor for what start() passed on (ulimit -n)"
            )
        if not chunk:
            return None
        data += chunk
    return data


def _send_rest(fd: int, first: bytes, second: bytes, sent: int) -> None:
    one, other = memoryview(first), memoryview(second)
    while sent < len(first) + len(second):
        sent += _native.send_start(fd, one[sent:], other[max(0, sent - len(first)) :], [])


def _ancillary(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    return [(*_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            fds += struct.unpack(f"{len(data) // 4}i", data[: len(data) & ~3])
    return fds


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
