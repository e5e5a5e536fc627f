"""Pipes and connections: what is sent through them arrives, and only to who knows the key."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import connection as standard
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import connection
from tests.contract import connection_targets as targets
from tests.contract import programs
from tests.contract.programs import each_method, fork_beside_pytests_threads

pytestmark = fork_beside_pytests_threads

LIMIT = programs.LIMIT
KEY = b"a key"


def hear(conn: Any) -> Any:
    assert conn.poll(LIMIT), "nothing comes"
    return conn.recv()


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    ends = procession.Pipe()
    yield ends
    for end in ends:
        end.close()


# --- as ever ------------------------------------------------------------------------------------


def test_pipes_are_what_multiprocessing_has() -> None:
    for ctx in (procession, procession.get_context("spawn")):
        reading, writing = ctx.Pipe(False)
        assert isinstance(reading, standard.Connection)
        assert (reading.readable, reading.writable) == (True, False)
        assert (writing.readable, writing.writable) == (False, True)
        with pytest.raises(OSError, match="read-only"):
            reading.send(1)
        writing.send({"a": [1, 2]})
        assert reading.recv() == {"a": [1, 2]}
        writing.close()
        with pytest.raises(EOFError):
            reading.recv()
        reading.close()
        with pytest.raises(OSError, match="closed"):
            reading.send(1)


def test_bytes_with_offsets_and_limits(pipe: tuple[Any, Any]) -> None:
    one, other = pipe
    one.send_bytes(b"0123456789", 3, 4)
    one.send_bytes(memoryview(b"0123456789"), 8)
    one.send_bytes(b"")
    assert [other.recv_bytes() for _ in range(3)] == [b"3456", b"89", b""]
    for wrong in ((11,), (3, 8), (-1,), (0, -1)):
        with pytest.raises(ValueError, match=r"offset|size"):
            one.send_bytes(b"0123456789", *wrong)
    room = bytearray(b"..........")
    one.send_bytes(b"abc")
    assert other.recv_bytes_into(room, 5) == 3
    assert room == b".....abc.."
    one.send_bytes(b"longer than its room")
    with pytest.raises(procession.BufferTooShort) as caught:
        other.recv_bytes_into(room)
    assert caught.value.args == (b"longer than its room",)
    one.send_bytes(b"too long")
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(7)


def test_an_object_that_cannot_be_pickled_sends_nothing(pipe: tuple[Any, Any]) -> None:
    one, other = pipe
    with pytest.raises((AttributeError, TypeError)):
        one.send([threading.Lock()])
    one.send("after")
    assert other.recv() == "after"


def test_wait_with_many_objects() -> None:
    pipes = [procession.Pipe(False) for _ in range(200)]
    queue = procession.Queue()
    waited = [reading for reading, _ in pipes] + [queue._reader]
    assert connection.wait(waited, 0) == []
    for _, writing in pipes[::20]:
        writing.send(1)
    queue.put(1)
    ready = connection.wait(waited, LIMIT)
    assert set(ready) == {reading for reading, _ in pipes[::20]} | {queue._reader}
    for ends in pipes:
        for end in ends:
            end.close()


# --- connections and sockets on their way -------------------------------------------------------


@each_method
@pytest.mark.parametrize("way", ["queue", "pipe"])
def test_connections_and_sockets_arrive_after_their_sender_has_ended(method: str, way: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    ours, theirs = ctx.Pipe()
    sender = programs.start(method, targets.send_ends, queue if way == "queue" else theirs)
    sender.join(LIMIT)
    assert sender.exitcode == 0
    end, sock = queue.get(timeout=LIMIT) if way == "queue" else hear(ours)
    assert isinstance(end, connection.Connection)
    assert hear(end) == "to a pipe that came"
    assert sock.recv(100) == b"to a socket that came"
    for each in (end, sock, ours, theirs, sender):
        each.close()


def test_connections_are_arguments_of_pool_calls(pipe: tuple[Any, Any]) -> None:
    one, other = pipe
    near, far = socket.socketpair()
    with procession.Pool(1) as pool:
        assert pool.apply_async(targets.answer, (other, far)).get(LIMIT) == "said"
    assert hear(one) == "by the worker"
    assert near.recv(100) == b"by the worker"
    near.close()
    far.close()


def test_a_standard_pipe_goes_through_a_queue() -> None:
    queue = procession.Queue()
    one, other = standard.Pipe()
    queue.put(other)
    other.close()
    came = queue.get(timeout=LIMIT)
    came.send("standard")
    assert one.recv() == "standard"
    one.close()
    came.close()


def test_a_raw_copy_gets_what_it_could_ever_get(tmp_path: Path) -> None:
    done = programs.run_text(
        tmp_path,
        """
        import os, sys, procession
        ours, theirs = procession.Pipe()
        if os.fork() == 0:
            one, other = procession.Pipe()
            theirs.send(other)
            one.send("from a copy")
            theirs.recv()
            sys.exit()
        came = ours.recv()
        print(came.recv())
        ours.send("end")
        os.wait()
        """,
    )
    assert done.out == "from a copy\n", done.err


# --- who knows the key --------------------------------------------------------------------------


def meet(listener: Any, client: Any, key: bytes) -> tuple[Any, Any]:
    """What becomes of a listener and of a client in its own thread: connections or exceptions."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(client(listener.address, authkey=key))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        accepted = listener.accept()
    except Exception as error:
        accepted = error
    thread.join(LIMIT)
    return accepted, found[0]


@pytest.mark.parametrize("theirs", [standard, connection])
@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_who_knows_the_key_is_let_in(tmp_path: Path, family: str, theirs: Any) -> None:
    address = ("127.0.0.1", 0) if family == "AF_INET" else str(tmp_path / "socket")
    for host, guest in ((connection, theirs), (theirs, connection)):
        with host.Listener(address, authkey=KEY) as listener:
            accepted, connected = meet(listener, guest.Client, KEY)
            accepted.send("in")
            assert hear(connected) == "in"
            accepted.close()
            connected.close()
            accepted, connected = meet(listener, guest.Client, b"another")
            assert isinstance(accepted, procession.AuthenticationError)
            assert isinstance(connected, (procession.AuthenticationError, EOFError, OSError))


def test_what_is_no_answer_is_refused() -> None:
    for answer in (b"", b"x" * 16, b"{sha256}short", b"{crc32}x", b"{sha256", b"x" * 200):
        ours, theirs = procession.Pipe()
        theirs.send_bytes(answer)
        with pytest.raises(procession.AuthenticationError):
            connection.deliver_challenge(ours, KEY)
        assert theirs.recv_bytes().startswith(b"#CHALLENGE#")
        assert theirs.recv_bytes() == b"#FAILURE#"
        ours.close()
        theirs.close()
    with pytest.raises(ValueError, match="must be bytes"):
        connection.deliver_challenge(None, "text")


def others() -> list[str]:
    """Interpreters of other versions: on PATH, or named by PROCESSION_TEST_PYTHONS, likewise."""
    named = os.environ.get("PROCESSION_TEST_PYTHONS", "").split(os.pathsep)
    found = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13)]
    asked = "import sys; print(*sys.version_info[:2], sep='.')"
    versions = {"{}.{}".format(*sys.version_info): sys.executable}
    for python in filter(None, [*named, *found]):
        # what a version manager puts on the path may be a signpost to nothing
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            versions.setdefault(done.stdout.strip(), python)
    return list(versions.values())[1:]


STANDARD_PEER = """
import sys
from multiprocessing.connection import Client, Listener
address, key = ("127.0.0.1", int(sys.argv[2])), b"a key"
if sys.argv[1] == "listens":
    with Listener(("127.0.0.1", 0), authkey=key) as listener:
        print(listener.address[1], flush=True)
        with listener.accept() as one:
            one.send(one.recv() + " and back")
else:
    with Client(address, authkey=key) as one:
        one.send(one.recv() + " and back")
"""


@pytest.mark.parametrize("python", others(), ids=os.path.basename)
def test_other_pythons_are_spoken_with_both_ways(python: str) -> None:
    command = [python, "-c", STANDARD_PEER]
    with connection.Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        port = str(listener.address[1])
        with subprocess.Popen([*command, "calls", port]) as peer, listener.accept() as one:
            one.send("there")
            assert hear(one) == "there and back"
        assert peer.returncode == 0
    with subprocess.Popen([*command, "listens", "0"], stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        address = ("127.0.0.1", int(peer.stdout.readline()))
        with connection.Client(address, authkey=KEY) as one:
            one.send("there")
            assert hear(one) == "there and back"
    assert peer.returncode == 0


def test_a_refused_peer_leaves_no_descriptor() -> None:
    with connection.Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        before = len(os.listdir("/proc/self/fd"))
        meet(listener, connection.Client, b"another")
        assert len(os.listdir("/proc/self/fd")) == before
