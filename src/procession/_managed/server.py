"""The server of a manager: a process that has the objects, and a thread for each who asks."""

from __future__ import annotations

import os
import secrets
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection as _connection
from multiprocessing import managers as _standard
from multiprocessing import process
from typing import Any

_private: Any = _standard
_LOOK_AGAIN = 1.0  # seconds; as long as the standard server sleeps
_FULL = 0.05  # seconds; until a descriptor may be free again
_ABSTRACT = "\0procession-manager-"


def new_address() -> str:
    """An address that no file stands for, so that none is left when the server is killed (G5)."""
    return _ABSTRACT + secrets.token_hex(16)


class Server(_private.Server):  # type: ignore[misc]
    """Serves what a manager's proxies ask for.

    It ends with whoever started it: nobody else could shut it down.
    """

    owner: Any = None
    """The process that started it; ``None`` where a program serves by itself."""

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        self.stop_event = threading.Event()
        self._is_open_to_all = address is None
        where = new_address() if address is None else address
        super().__init__(registry, where, authkey, serializer)
        if self._is_open_to_all:
            self.address = where  # text, as ever

    def serve_forever(self) -> None:
        """Serve until somebody asks for the end, then exit."""
        me: Any = process.current_process()
        me._manager_server = self
        threading.Thread(target=self.accepter, daemon=True).start()
        try:
            while not self.stop_event.wait(_LOOK_AGAIN) and not self._is_orphaned():
                pass
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        sys.exit(0)

    def _is_orphaned(self) -> bool:
        if self.owner is None:
            return False
        poll = select.poll()
        poll.register(self.owner._sentinel, select.POLLIN)
        return bool(poll.poll(0))

    def accepter(self) -> None:
        """Take whoever connects, and give each a thread."""
        while not self.stop_event.is_set():
            try:
                taken = self.listener.accept()
            except OSError:  # it went away again, or there is no descriptor free
                self.stop_event.wait(_FULL)
                continue
            if self._is_stranger(taken):
                taken.close()
                continue
            threading.Thread(target=self.handle_request, args=(taken,), daemon=True).start()

    def _is_stranger(self, taken: Any) -> bool:
        """Whether another user knocks at an address that no folder protects (G12)."""
        if not self._is_open_to_all:
            return False
        size = struct.calcsize("3i")
        with socket.socket(fileno=os.dup(taken.fileno())) as peer:
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, user, _ = struct.unpack("3i", credentials)
        return user not in (0, os.geteuid())


def run(
    kind: Any,
    registry: Any,
    address: Any,
    authkey: bytes,
    serializer: str,
    writer: Any,
    initializer: Callable[..., object] | None,
    initargs: Any,
) -> None:
    """Be a manager's server; the address goes back through the writer."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who use it
    if initializer is not None:
        initializer(*initargs)
    server = kind(registry, address, authkey, serializer)
    server.owner = process.parent_process()
    writer.send(server.address)
    writer.close()
    server.serve_forever()


def ask_to_end(address: Any, authkey: bytes, serializer: str, limit: float) -> None:
    """Ask a server to shut down; one that does not answer is waited for no longer than that.

    Args:
        limit: Seconds for each step.

    Raises:
        OSError, EOFError: It does not answer, or is gone.
    """
    family = getattr(socket, _connection.address_type(address))  # type: ignore[attr-defined]
    with socket.socket(family) as way:
        time = struct.pack("ll", int(limit), int(limit % 1 * 1e6) or 1)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            way.setsockopt(socket.SOL_SOCKET, option, time)
        way.connect(address)
        plain: Any = _connection.Connection(way.detach())
    with plain:
        _connection.answer_challenge(plain, authkey)
        _connection.deliver_challenge(plain, authkey)
        wrapped: Any = plain
        if serializer == "xmlrpclib":
            import xmlrpc.client

            private: Any = _connection
            private.xmlrpclib = xmlrpc.client
            wrapped = private.ConnectionWrapper(plain, private._xml_dumps, private._xml_loads)
        _private.dispatch(wrapped, None, "shutdown")
