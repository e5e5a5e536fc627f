"""A start frame arrives whole, whatever of it one system call takes."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from procession._wire import channel

HEADER = {"name": "x" * (1 << 18), "exec": None}


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Each ends a system call that waits for room, with what it has sent so far."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
@pytest.mark.parametrize("count", [0, 3, 250, 251, 501])
def test_a_frame_arrives_as_it_was_sent(count: int, size: int) -> None:
    ours, theirs = channel.stream_pair()
    payload = os.urandom(size)
    got: list[Any] = []
    with open(os.devnull, "rb") as file, ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least: 4608 bytes
        receiver = threading.Thread(target=lambda: got.append(channel.receive_frame(theirs)))
        receiver.start()
        try:
            channel.send_frame(ours.fileno(), HEADER, payload, [file.fileno()] * count)
        finally:
            ours.close()
            receiver.join()
        header, data, fds = got[0]
        try:
            assert (header, data) == (HEADER, payload)
            assert len(fds) == count
            assert all(os.path.samestat(os.fstat(fd), os.fstat(file.fileno())) for fd in fds)
        finally:
            channel.close_all(fds)
