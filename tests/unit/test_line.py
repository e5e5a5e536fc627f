"""The two ends of a worker's channel: whole packets, and none lost to an interrupt."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from procession import _native

ONE, OTHER = 64, 72  # words of the page
ROOM = 4096


class Ends(NamedTuple):
    """Two lines, and the sockets that they use."""

    one: _native.Line
    other: _native.Line
    sockets: tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("line")
    os.ftruncate(memory, 4096)
    with sockets[0], sockets[1]:
        yield Ends(
            _native.Line(sockets[0].fileno(), memory, ONE, OTHER, ROOM),
            _native.Line(sockets[1].fileno(), memory, OTHER, ONE, ROOM),
            sockets,
        )
    os.close(memory)


def test_packets_come_whole_and_in_order(ends: Ends) -> None:
    for packet in (b"one", b"two" * 1000):
        ends.one.send(packet)
    for packet in (b"one", b"two" * 1000):
        assert ends.other.receive(True) == packet
        ends.other.taken()
    with pytest.raises(BlockingIOError):
        ends.other.receive(False)


def test_what_was_not_taken_over_comes_again(ends: Ends) -> None:
    ends.one.send(b"one")
    ends.one.send(b"two")
    assert not ends.other.is_left()
    assert [ends.other.receive(True) for _ in range(3)] == [b"one"] * 3
    assert ends.other.is_left()
    ends.other.taken()
    assert ends.other.receive(False) == b"two"


def test_a_descriptor_is_there_as_long_as_its_packet(ends: Ends) -> None:
    with open(os.devnull) as null:
        ends.one.send(b"with it", null.fileno())
        ends.one.send(b"without")
        assert ends.other.receive(True) == b"with it"
        passed = ends.other.descriptor()
        assert os.fstat(passed).st_rdev == os.fstat(null.fileno()).st_rdev
        assert not os.get_inheritable(passed)
    ends.other.taken()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)
    assert ends.other.receive(True) == b"without"
    assert ends.other.descriptor() == -1


def test_an_end_that_is_gone_says_so_for_ever_after_its_last_packet(ends: Ends) -> None:
    ends.one.send(b"the last one")
    ends.sockets[0].close()
    assert ends.other.receive(True) == b"the last one"
    ends.other.taken()
    assert [ends.other.receive(True) for _ in range(2)] == [b"", b""]
    with pytest.raises(BrokenPipeError):
        ends.other.send(b"to nobody")


def test_what_an_end_sent_before_it_went_comes_though_it_left_packets_unread(ends: Ends) -> None:
    ends.one.send(b"never read")
    ends.other.send(b"one")
    ends.other.send(b"two")
    ends.sockets[1].close()
    for packet in (b"one", b"two", b""):
        assert ends.one.receive(False) == packet
        ends.one.taken()


def test_a_packet_that_was_not_counted_is_received_all_the_same(ends: Ends) -> None:
    ends.sockets[0].send(b"its sender was killed before it counted")
    assert ends.other.receive(True) == b"its sender was killed before it counted"
    ends.other.taken()
    ends.one.send(b"and went on")
    assert ends.other.receive(True) == b"and went on"


def test_only_one_thread_waits(ends: Ends) -> None:
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(ends.other.receive(True)))
    thread.start()
    for _ in range(1000):
        with pytest.raises(BlockingIOError):
            ends.other.receive(False)
    ends.one.send(b"packet")
    thread.join()
    assert found == [b"packet"]


def test_a_wait_ends_with_a_signals_exception_and_loses_nothing(ends: Ends) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(20):  # while it looks, and while it sleeps
            with pytest.raises(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.00001 + n * 0.00005)
                ends.other.receive(True)
    finally:
        signal.signal(signal.SIGALRM, before)
    ends.one.send(b"packet")
    assert ends.other.receive(True) == b"packet"


@pytest.mark.parametrize(("sent", "arriving", "room"), [(-1, 0, 1), (0, 512, 1), (0, 1, 0)])
def test_words_outside_the_page_are_refused(sent: int, arriving: int, room: int) -> None:
    with pytest.raises(ValueError, match="no words"):
        _native.Line(0, 0, sent, arriving, room)
