"""Pipes, listeners and clients: `multiprocessing.connection`'s, with three things of our own.

Connections and sockets sent through a `Pipe` arrive also when whoever sent them has ended
(`_shared.pickling`). Listeners and clients prove that they know the key by a modern digest on every
Python, as CPython does from 3.12 on, and with older peers as these do it. A peer that fails to is
not left connected.
"""

from __future__ import annotations

import os
import socket
import sys
from multiprocessing import connection as _standard
from multiprocessing import reduction
from multiprocessing.context import AuthenticationError
from typing import Any

from procession._shared.pickling import dumps, reduce_connection

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]

wait = _standard.wait


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class Connection(_standard.Connection):
    """One end of a pipe between processes of one program."""

    def send(self, obj: Any) -> None:
        """Send a picklable object; connections and sockets in it arrive whatever becomes of us."""
        self._check_closed()  # type: ignore[attr-defined]
        self._check_writable()  # type: ignore[attr-defined]
        self._send_bytes(dumps(obj))  # type: ignore[attr-defined]


reduction.register(Connection, reduce_connection)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connections that are each other's ends.

    Args:
        duplex: Whether both can send; else the first one receives and the second one sends.
    """
    if duplex:
        one, other = socket.socketpair()
        one.setblocking(True)  # socket.setdefaulttimeout() is for the program's own
        other.setblocking(True)
        return Connection(one.detach()), Connection(other.detach())
    reading, writing = os.pipe()
    return Connection(reading, writable=False), Connection(writing, readable=False)


# --- who knows the key --------------------------------------------------------------------------
#
# A challenge is `#CHALLENGE#` and a message, the answer a digest (HMAC) of the message under the
# key. A modern message begins with a digest's name in braces, and so does the answer; one that is
# as short as older Pythons' is answered as they do it, by a bare MD5. An older Python answers a
# modern message in the same way, since it does not look at what is in it.

_CHALLENGE, _WELCOME, _FAILURE = b"#CHALLENGE#", b"#WELCOME#", b"#FAILURE#"
_ROOM = 256  # bytes; a longer message is no part of this
_RANDOM = 40
_OLD_MESSAGE = 20
_OLD_ANSWER = 16
_DIGESTS = ("md5", "sha256", "sha384", "sha3_256", "sha3_384")


def _split(message: bytes, bare: int) -> str:
    """The digest that a message or an answer names; "" for one that is as old ones are."""
    if len(message) == bare:
        return ""
    name, end, _ = message[1:].partition(b"}")
    digest = name.decode("ascii", "replace")
    if message[:1] != b"{" or not end or digest not in _DIGESTS:
        raise AuthenticationError(
            f"the peer speaks another protocol, or wants a digest other than {', '.join(_DIGESTS)}"
        )
    return digest


def _digest(authkey: bytes, message: bytes, digest: str) -> bytes:
    import hmac

    try:
        return hmac.new(authkey, message, digest or "md5").digest()
    except ValueError as error:  # not on this system (FIPS)
        raise AuthenticationError(f"no digest {digest or 'md5'} here: {error}") from error


def _deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
    import hmac

    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
    message = b"{%s}" % digest_name.encode("ascii") + os.urandom(_RANDOM)
    connection.send_bytes(_CHALLENGE + message)
    answer = connection.recv_bytes(_ROOM)
    try:
        digest = _split(answer, _OLD_ANSWER)
        bare = answer[len(digest) + 2 :] if digest else answer
        right = hmac.compare_digest(bare, _digest(authkey, message, digest))
    except AuthenticationError:
        connection.send_bytes(_FAILURE)
        raise
    if not right:
        connection.send_bytes(_FAILURE)
        raise AuthenticationError("digest received was wrong")
    connection.send_bytes(_WELCOME)


def _answer_challenge(connection: Any, authkey: bytes) -> None:
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
    message = connection.recv_bytes(_ROOM)
    if not message.startswith(_CHALLENGE):
        raise AuthenticationError(f"no challenge but {message!r}")
    message = message[len(_CHALLENGE) :]
    if len(message) < _OLD_MESSAGE:
        raise AuthenticationError(f"a challenge of {len(message)} bytes is too short")
    digest = _split(message, _OLD_MESSAGE)
    prefix = b"{%s}" % digest.encode("ascii") if digest else b""
    connection.send_bytes(prefix + _digest(authkey, message, digest))
    if connection.recv_bytes(_ROOM) != _WELCOME:
        raise AuthenticationError("digest sent was rejected")


if sys.version_info >= (3, 12):
    deliver_challenge: Any = _standard.deliver_challenge
    answer_challenge: Any = _standard.answer_challenge
else:
    deliver_challenge = _deliver_challenge
    answer_challenge = _answer_challenge


class Listener(_standard.Listener):
    """What is bound to an address and accepts connections."""

    def accept(self) -> Any:
        """The next connection.

        Raises:
            AuthenticationError: Its other end does not know the key; it is closed again.
            OSError: The listener is closed.
        """
        key = self._authkey  # type: ignore[attr-defined]
        if not key or self._listener is None:  # type: ignore[attr-defined]
            return super().accept()
        connection = self._listener.accept()  # type: ignore[attr-defined]
        return _prove(connection, key, deliver_challenge, answer_challenge)


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Any:
    """A connection to a listener.

    Raises:
        AuthenticationError: It does not know the key, or says that we do not.
    """
    if not authkey or not isinstance(authkey, bytes):
        return _standard.Client(address, family, authkey)
    connection = _standard.Client(address, family)
    return _prove(connection, authkey, answer_challenge, deliver_challenge)


def _prove(connection: Any, key: bytes, *steps: Any) -> Any:
    """A connection whose ends have shown each other that they know the key; or it is closed."""
    try:
        for step in steps:
            step(connection, key)
    except BaseException:
        connection.close()
        raise
    return connection
