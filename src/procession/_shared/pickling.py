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
from functools import partial
from multiprocessing import connection, reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

from procession._launch import keeper_client
from procession._shared import parcels
from procession._shared.descriptor import Descriptor
from procession._shared.memory import Region

FAR = 128 * 1024
"""Bytes from which a buffer is not copied into the pickle of its item (src/module_items.c)."""
_MOST_APART = 150

_ForkingPickler = reduction.ForkingPickler


# --- connections and sockets ------------------------------------------------------------------


def _deposited(fd: int, carrier: parcels.Carrier | None) -> bytes | None:
    """The token under which the guard keeps a descriptor for one claim, if it can."""
    if get_spawning_popen() is not None or keeper_client.present() is None:
        return None
    token = os.urandom(16)
    parcels.let_go(token, parcels.deposit(token, fd, carrier=carrier))
    return token


def reduce_connection(
    conn: connection.Connection[Any, Any], carrier: parcels.Carrier | None = None
) -> tuple[Any, ...]:
    """A connection as a pickle has it."""
    token = _deposited(conn.fileno(), carrier)
    end = conn.readable, conn.writable
    if token is None:
        return _inherited_connection, (type(conn), reduction.DupFd(conn.fileno()), *end)
    return _claimed_connection, (type(conn), token, *end, carrier and carrier.item())


def _inherited_connection(kind: Any, passed: Any, readable: bool, writable: bool) -> Any:
    return kind(passed.detach(), readable, writable)


def _claimed_connection(
    kind: Any, token: bytes, readable: bool, writable: bool, item: bytes | None
) -> Any:
    return kind(parcels.claim(token, item), readable, writable)


def _reduce_socket(sock: socket.socket, carrier: parcels.Carrier | None = None) -> tuple[Any, ...]:
    token = _deposited(sock.fileno(), carrier)
    if token is None:
        standard: tuple[Any, ...] = _STANDARD[socket.socket](sock)
        return standard
    end = sock.family, sock.type, sock.proto
    return _claimed_socket, (token, *end, carrier and carrier.item())


def _claimed_socket(
    token: bytes, family: int, kind: int, protocol: int, item: bytes | None
) -> socket.socket:
    return socket.socket(family, kind, protocol, fileno=parcels.claim(token, item))


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


class Registered:
    """A pickler's dispatch table that knows what is registered when it is asked, and not when it
    was made: libraries register their types when they are imported, which may be in a call.
    """

    def __getitem__(self, kind: Any) -> Any:
        reducer = _ForkingPickler._extra_reducers.get(kind)  # type: ignore[attr-defined]
        if reducer is None:
            return copyreg.dispatch_table[kind]
        return _OURS[kind] if reducer is _STANDARD.get(kind) else reducer


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

carried: set[Callable[..., Any]] = {reduce_connection, _reduce_socket}
"""Reducers that take `carrier`, too: registered by who has something that goes by the guard."""


class ItemReducers:
    """The reducers of one queue's items: what goes by the guard says in which item it goes.

    By them only, not by what a pickle inside the pickle does: that may be unpickled much later,
    when its queue is gone.
    """

    def __init__(self, carrier: parcels.Carrier) -> None:
        self.carrier = carrier
        self._all: dict[Any, Any] = {}
        self._own: dict[Any, Any] = {}

    def merged(self) -> dict[Any, Any]:
        """As `_Reducers` has it."""
        everywhere = _reducers.merged()
        if everywhere is not self._all:
            self._all = everywhere
            known = {Region: Region.reduced, Descriptor: Descriptor.reduced, **everywhere}
            ours = {*carried, Region.reduced, Descriptor.reduced}
            self._own = {
                kind: partial(reducer, carrier=self.carrier) if reducer in ours else reducer
                for kind, reducer in known.items()
            }
        return self._own


def dumps_item(
    value: object, large_apart: bool, reducers: ItemReducers
) -> bytes | tuple[Any, ...] | list[Any]:
    """Pickle an item of a queue.

    Args:
        value: The item.
        large_apart: As for `dumps`.
        reducers: Its queue's.

    Returns:
        As `dumps`; where the item takes something along, a list of that and of the item's name,
        of which the guard has to be told what became of it (`parcels.place`).

    Raises:
        Exception: What pickle raised.
    """
    carrier = reducers.carrier
    outer = carrier.take()  # an item that puts another one while it is pickled
    try:
        pickled = dumps(value, large_apart, reducers)
    except BaseException:
        item = carrier.take()
        if item is not None:
            parcels.place(item, 0)
        raise
    else:
        item = carrier.take()
    finally:
        if outer is not None:
            carrier.resume(outer)
    return pickled if item is None else [pickled, item]


def dumps(
    value: object, large_apart: bool = False, reducers: _Reducers | ItemReducers = _reducers
) -> bytes | tuple[Any, ...]:
    """Pickle as `ForkingPickler.dumps` does.

    Args:
        value: What is pickled.
        large_apart: Leave large buffers (of arrays and the like) where they are.
        reducers: By which.

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
        plain.dispatch_table = reducers.merged()
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
    pickler.dispatch_table = reducers.merged()
    pickler.dump(value)
    return (file.getbuffer(), *apart) if apart else file.getvalue()
