"""What the children of the connections' contract tests run."""

from __future__ import annotations

import socket
from typing import Any

import procession


def send_ends(to: Any) -> None:
    """Send the end of a pipe and a socket, in which there is something already, and end."""
    one, other = procession.Pipe()
    near, far = socket.socketpair()
    put = getattr(to, "put", None) or to.send
    other.send("to a pipe that came")
    far.send(b"to a socket that came")
    put((one, near))


def answer(conn: Any, sock: Any) -> str:
    conn.send("by the worker")
    sock.sendall(b"by the worker")
    return "said"
