"""Pickling for other processes of the program: as `ForkingPickler` does it, and faster.

Connections and sockets go by the guard, which keeps their descriptor until they have arrived: so
they do also when whoever sent them has ended, and no thread has to hand them out. In a process that
has no guard (a copy by `os.fork()`, a program without a start so far) they go as they ever did.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing import connection, reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

from procession._launch import keeper_client
from procession._shared import parcels

FAR = 128 * 1024
"""Bytes from which a buffer is not copied into the pickle of its item (src/module_items.c)."""
_MOST_APART = 150

_ForkingPickler = reduction.ForkingPickler


# --- connections and sockets ------------------------------------------------------------------


def _deposited(fd: int) -> bytes | None:
    """The token under which the guard keeps a descriptor for one claim, if it can."""
    if get_spawning_popen() is not None or keeper_client.present() is None:
        return None
    token = os.urandom(16)
    parcels.let_go(token, parcels.deposit(token, fd))
    return token


def reduce_connection(conn: connection.Connection[Any, Any]) -> tuple[Any, ...]:
    """A connection as a pickle has it."""
    token = _deposited(conn.fileno())
    end = conn.readable, conn.writable
    if token is None:
        return _inherited_connection, (type(conn), reduction.DupFd(conn.fileno()), *end)
    return _claimed_connection, (type(conn), token, *end)


def _inherited_connection(kind: Any, passed: Any, readable: bool, writable: bool) -> Any:
    return kind(passed.detach(), readable, writable)


def _claimed_connection(kind: Any, token: bytes, readable: bool, writable: bool) -> Any:
    return kind(parcels.claim(token), readable, writable)


def _reduce_socket(sock: socket.socket) -> tuple[Any, ...]:
    token = _deposited(sock.fileno())
    if token is None:
        standard: tuple[Any, ...] = _STANDARD[socket.socket](sock)
        return standard
    return _claimed_socket, (token, sock.family, sock.type, sock.proto)


def _claimed_socket(token: bytes, family: int, kind: int, protocol: int) -> socket.socket:
    return socket.socket(family, kind, protocol, fileno=parcels.claim(token))


_STANDARD: dict[Any, Callable[[Any], Any]] = {
    connection.Connection: connection.reduce_connection,  # type: ignore[attr-defined]
    socket.socket: reduction._reduce_socket,  # type: ignore[attr-defined]
}
_OURS: dict[Any, Callable[[Any], Any]] = {
    connection.Connection: reduce_connection,
    socket.socket: _reduce_socket,
}


def travelling() -> dict[Any, Callable[[Any], Any]]:
    """What a pickler does otherwise if its pickles stay in the program."""
    known = _ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    # where it is not the standard library's any more, it is the program's own
    return {kind: _OURS[kind] for kind, theirs in _STANDARD.items() if known.get(kind) is theirs}


# --- the pickler ------------------------------------------------------------------------------


class _Reducers:
    """What was registered with multiprocessing's pickler and with copyreg, as one plain dict.

    A C pickler looks into a dict much faster than into the chain that `ForkingPickler` makes.
    """

    def __init__(self) -> None:
        self._sources: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
        self._merged: dict[Any, Any] = {}

    def merged(self) -> dict[Any, Any]:
        """The dict, made anew when somebody has registered something since."""
        extra = _ForkingPickler._extra_reducers  # type: ignore[attr-defined]
        sources = (copyreg.dispatch_table, extra)
        if sources != self._sources:
            self._sources = (dict(copyreg.dispatch_table), dict(extra))
            self._merged = {**copyreg.dispatch_table, **extra}
            self._merged.update(travelling())
        return self._merged


_reducers = _Reducers()


def dumps(value: object, large_apart: bool = False) -> bytes | tuple[Any, ...]:
    """Pickle as `ForkingPickler.dumps` does.

    Args:
        value: What is pickled.
        large_apart: Leave large buffers (of arrays and the like) where they are.

    Returns:
        The pickle; where large buffers are apart, a tuple of it and of them.

    Raises:
        Exception: What pickle raised: the value is its caller's, and so is the error.
    """
    if reduction.ForkingPickler is not _ForkingPickler:  # the program has put in its own
        return bytes(reduction.ForkingPickler.dumps(value))
    file = io.BytesIO()
    if not large_apart:
        plain = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
        plain.dispatch_table = _reducers.merged()
        plain.dump(value)
        return file.getvalue()
    apart: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not in one piece
            return True
        if raw.nbytes < FAR or len(apart) == _MOST_APART:
            return True
        apart.append(raw)
        return False

    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL, buffer_callback=in_band)
    pickler.dispatch_table = _reducers.merged()
    pickler.dump(value)
    return (file.getbuffer(), *apart) if apart else file.getvalue()
