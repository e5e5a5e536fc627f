"""Managers: the server lives and dies with its program, and its death is told (G2, G5, G6, G7)."""

from __future__ import annotations

import contextlib
import multiprocessing.managers
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import procession
from procession import managers
from procession.ending import Ending, How
from procession.errors import ManagerDied
from tests.contract import targets
from tests.contract.programs import (
    each_method,
    has_ended,
    run_text,
    running,
    state_of,
    wait_until,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore:fork copies this process")


@contextlib.contextmanager
def started(method: str, kind: Any = managers.SyncManager) -> Iterator[Any]:
    """A manager; its server may be dead at the end."""
    manager = kind(ctx=procession.get_context(method))
    manager.start()
    try:
        yield manager
    finally:
        manager.shutdown()
        psutil_gone(manager)


def psutil_gone(manager: Any) -> None:
    pid = manager._process.pid
    wait_until(lambda: has_ended(pid))


def kill(manager: Any) -> None:
    os.kill(manager._process.pid, signal.SIGKILL)


# --- what it is for ------------------------------------------------------------------------------


@each_method
def test_a_child_uses_all_kinds_of_proxies(method: str) -> None:
    with started(method) as manager:
        words = manager.dict(a=1)
        numbers, names, queue = manager.list([3]), manager.set("ab"), manager.Queue()
        space, value = manager.Namespace(x=1), manager.Value("i", 2)
        lock, event = manager.Lock(), manager.Event()
        process = procession.get_context(method).Process(
            target=targets.use_proxies,
            args=(words, numbers, names, queue, space, value, lock, event),
        )
        process.start()
        assert process.result(60) == ["a", "b"]
        assert dict(words) == {"a": 1, "b": 2}
        assert numbers.copy() == [3, 4]
        assert set(names) == {"a", "b", "c"}
        assert (queue.get(timeout=30), space.x, value.value) == ("sent", 5, 6)
        assert event.is_set()
        process.close()


def test_the_methods_that_newer_pythons_brought() -> None:
    with started("forkserver") as manager:
        words, numbers = manager.dict(a=1), manager.list([1, 2])
        assert words | {"b": 2} == {"a": 1, "b": 2}
        assert {"b": 2} | words == {"a": 1, "b": 2}
        assert words | manager.dict(c=3) == {"a": 1, "c": 3}
        before = words
        words |= {"d": 4}
        assert words is before
        assert list(reversed(words)) == ["d", "a"]
        assert words.fromkeys("xy", 0) == {"x": 0, "y": 0}
        assert numbers.copy() == [1, 2]
        numbers.clear()
        assert len(numbers) == 0
        some = manager.set({1, 2})
        assert (some | {3}, some & {1}, some - {1}, some ^ {1}) == ({1, 2, 3}, {1}, {2}, {2})
        assert {3} | some == {1, 2, 3}
        assert some < {1, 2, 3}
        assert some >= manager.set({1})
        some |= {7}
        some.discard(1)
        assert 7 in some
        assert sorted(some) == [2, 7]


@each_method
def test_proxies_are_the_standard_ones_for_who_asks(method: str) -> None:
    with started(method) as manager:
        assert isinstance(manager, multiprocessing.managers.SyncManager)
        for kind, proxy in (
            ("DictProxy", manager.dict()),
            ("ListProxy", manager.list()),
            ("AcquirerProxy", manager.Lock()),
            ("BaseProxy", manager.Queue()),
        ):
            assert isinstance(proxy, getattr(multiprocessing.managers, kind))


class Counter:
    """A type of the user's."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        """Count."""
        self.count += number
        return self.count


class Own(managers.BaseManager):
    """A manager of the user's types."""


Own.register("Counter", Counter)
Own.register("words", dict, multiprocessing.managers.DictProxy)


@each_method
def test_types_of_ones_own(method: str) -> None:
    with started(method, Own) as manager:
        counter = manager.Counter()
        counter.add(2)
        assert counter.add(3) == 5
        assert isinstance(manager.words(a=1), managers.DictProxy)
        kill(manager)
        with pytest.raises(ManagerDied):
            counter.add(1)


class Remote(managers.BaseManager):
    """Connects to an Own, which may be anywhere."""


Remote.register("Counter")


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_a_manager_elsewhere_is_reached_by_address_and_key(family: str, tmp_path: Path) -> None:
    address: Any = ("127.0.0.1", 0) if family == "AF_INET" else str(tmp_path / "socket")
    server = Own(address, b"secret", ctx=procession.get_context("spawn"))
    server.start()
    try:
        remote: Any = Remote(server.address, b"secret")
        remote.connect()
        assert remote.Counter().add(4) == 4
        stranger = Remote(server.address, b"guessed")
        with pytest.raises(procession.AuthenticationError):
            stranger.connect()
    finally:
        server.shutdown()


def test_a_program_may_serve_by_itself(tmp_path: Path) -> None:
    text = """
        from procession.managers import BaseManager, DictProxy
        class Served(BaseManager):
            pass
        words = {"a": 1}
        Served.register("words", lambda: words, DictProxy)
        server = Served(("127.0.0.1", 0), b"secret").get_server()
        print(server.address[1], flush=True)
        server.serve_forever()
    """

    class Client(managers.BaseManager):
        pass

    Client.register("words", proxytype=managers.DictProxy)
    with running(write(tmp_path, text)) as program:
        client: Any = Client(("127.0.0.1", int(program.line())), b"secret")
        client.connect()
        words = client.words()
        assert words["a"] == 1
        program.process.kill()
        with pytest.raises((EOFError, ConnectionError)):  # who it was, nobody here knows
            words["a"]


# --- its death ------------------------------------------------------------------------------------


@each_method
def test_a_dead_server_is_named_at_the_next_call_in_every_process(method: str) -> None:
    with started(method) as manager:
        words = manager.dict(a=1)
        ready, go = procession.get_context(method).Event(), procession.get_context(method).Event()
        process = procession.get_context(method).Process(
            target=targets.ask_proxy_after, args=(words, ready, go)
        )
        process.start()
        assert ready.wait(60)
        name, pid = manager._process.name, manager._process.pid
        kill(manager)
        for call in (
            lambda: words["a"],
            lambda: words["a"],
            manager.list,
            lambda: pickle.loads(pickle.dumps(words)),
        ):
            with pytest.raises(ManagerDied) as caught:
                call()
            assert (caught.value.name, caught.value.pid) == (name, pid)
            assert caught.value.ending.how is How.SIGNALED
            assert f"{name!r} (pid {pid}) was killed by SIGKILL" in str(caught.value)
            assert isinstance(caught.value, EOFError)
            assert isinstance(caught.value, ConnectionError)
        go.set()
        told_name, told_pid = process.result(60)
        assert (told_name, told_pid) == (name, pid)
        process.close()


@each_method
def test_a_call_that_waits_in_a_dying_server_ends(method: str) -> None:
    with started(method) as manager:
        queue, caught = manager.Queue(), []

        def wait() -> None:
            try:
                queue.get()
            except ManagerDied as died:
                caught.append(died.pid)

        pid = manager._process.pid
        waiter = threading.Thread(target=wait)
        waiter.start()
        asks = psutil.Process(pid)
        wait_until(lambda: asks.num_threads() >= 3)  # main, the accepter, and one for the waiter
        kill(manager)
        waiter.join(60)
        assert caught == [pid]


def test_an_error_of_a_method_is_no_death_of_the_server() -> None:
    with started("forkserver") as manager:
        with pytest.raises(IndexError):
            manager.list()[0]
        iterator = Own(ctx=procession.get_context("forkserver"))
        with iterator, pytest.raises(multiprocessing.managers.RemoteError):
            iterator.Counter(1, 2)


def test_the_error_goes_to_another_process_whole() -> None:
    died = ManagerDied("SyncManager-1", 7, Ending(How.SIGNALED, -9))
    again = pickle.loads(pickle.dumps(died))
    assert (type(again), again.args, str(again)) == (ManagerDied, died.args, str(died))


@each_method
def test_an_initializer_that_fails_is_told(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    manager = managers.SyncManager(ctx=procession.get_context(method))
    with pytest.raises(ManagerDied) as caught:
        manager.start(targets.fail)
    assert caught.value.ending.how is How.RAISED
    assert isinstance(caught.value.__cause__, ValueError)


# --- its end --------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("state", ["stopped", "busy", "dead"])
def test_shutdown_is_bounded(method: str, state: str) -> None:
    manager = managers.SyncManager(ctx=procession.get_context(method), shutdown_timeout=0.2)
    manager.start()
    pid = manager._process.pid
    numbers = manager.list([1])
    try:
        if state == "stopped":
            os.kill(pid, signal.SIGSTOP)
        elif state == "dead":
            os.kill(pid, signal.SIGKILL)
    finally:
        began = time.monotonic()
        manager.shutdown()
    assert time.monotonic() - began < 30  # each step 0.2 s; much for a loaded machine
    assert has_ended(pid)
    with pytest.raises((EOFError, OSError)):
        numbers.append(1)


FORKS = """
import os, signal, sys, time
import procession
from procession import managers

class Forker:
    def fork(self):
        process = procession.get_context("fork").Process(target=time.sleep, args=(3600,))
        process.start()
        return process.pid

class Own(managers.BaseManager):
    pass

Own.register("Forker", Forker)

if __name__ == "__main__":
    manager = Own(ctx=procession.get_context(sys.argv[1]))
    manager.start()
    pid = manager.Forker().fork()
    print(manager._process.pid, pid, flush=True)
    sys.stdin.readline()
    os.kill(pid, 0)  # main still runs: it is not its business
    print("main ends", flush=True)
"""


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_a_fork_child_of_a_killed_server_goes_with_the_program(method: str, tmp_path: Path) -> None:
    with running(write(tmp_path, FORKS), method, stdin=-1) as program:
        server, child = map(psutil.Process, map(int, program.line().split()))
        server.kill()
        wait_until(lambda: state_of(server) == psutil.STATUS_ZOMBIE)
        assert child.is_running()
        program.tell("end")
        assert program.line() == "main ends"
        assert program.finish().code == 0
        wait_until(lambda: not child.is_running())


ORPHAN = """
import os, signal, sys, time
import procession
def own(method):
    manager = procession.get_context(method).Manager()
    print(manager._process.pid, flush=True)
    time.sleep(3600)
if __name__ == "__main__":
    if sys.argv[2] == "main":
        own(sys.argv[1])
    process = procession.get_context(sys.argv[1]).Process(target=own, args=sys.argv[1:2])
    process.start()
    print(process.pid, flush=True)
    process.join()
    print("joined", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("who", ["main", "child"])
@each_method
def test_the_server_goes_with_a_killed_owner_and_leaves_nothing(
    method: str, who: str, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    environ = {"TMPDIR": str(tmp_path / "tmp")}
    with running(write(tmp_path, ORPHAN), method, who, env=environ) as program:
        owner = int(program.line()) if who == "child" else program.pid
        server = psutil.Process(int(program.line()))
        os.kill(owner, signal.SIGKILL)
        if who == "child":
            program.wait_for("joined")
        wait_until(lambda: state_of(server) == psutil.STATUS_ZOMBIE)
        if who == "main":
            program.process.wait(30)
            program.leaves_nothing()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_program_that_has_proxies_yet_ends_without_a_word(tmp_path: Path) -> None:
    text = """
        import procession, time

        def use(things):
            things.append(1)
            time.sleep(60)

        if __name__ == "__main__":
            manager = procession.Manager()
            things, lock = manager.list(), manager.Lock()
            procession.Process(target=use, args=(things,), daemon=True).start()
            while not len(things):
                time.sleep(0.01)
            lock.acquire()
            print("done")
    """
    done = run_text(tmp_path, text)
    assert (done.code, done.lines, done.err) == (0, ["done"], "")


def test_no_other_user_is_let_in() -> None:
    with started("forkserver") as manager:
        with socket.socket(socket.AF_UNIX) as way:
            assert manager.address[0] == "\0"
            way.connect(manager.address)
            assert way.recv(4)  # this user is asked for the key
        if os.geteuid() != 0:
            return
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setresuid(65534, 65534, 65534)
                with socket.socket(socket.AF_UNIX) as way:
                    way.connect(manager.address)
                    way.settimeout(30)
                    code = len(way.recv(4))  # nothing, and the end
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
