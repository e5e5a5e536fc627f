"""Event: the standard behaviour, and what a death means for it (G4)."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from multiprocessing import synchronize as standard
from typing import Any

import pytest

import procession
from procession import synchronize
from tests.contract.programs import each_method, fork_beside_pytests_threads, wait_until

PATIENCE = 60.0
pytestmark = fork_beside_pytests_threads


def wait_and_say(event: Any, sender: Any, timeout: float | None = None) -> None:
    sender.send("waits")
    sender.send(event.wait(timeout))
    signal.pause()


FUTEX = ("202" if os.uname().machine == "x86_64" else "98", "449")  # and futex_waitv


def is_waiting(pid: int) -> bool:
    """Whether a process sleeps in a futex, by the kernel's word."""
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[0] in FUTEX


class Waiters:
    """Processes that wait for an event."""

    def __init__(self, method: str, event: Any, count: int) -> None:
        context = procession.get_context(method)
        self.pairs = [context.Pipe(duplex=False) for _ in range(count)]
        self.processes = [
            context.Process(target=wait_and_say, args=(event, sender)) for _, sender in self.pairs
        ]
        for process in self.processes:
            process.start()
        for receiver, _ in self.pairs:
            assert receiver.poll(PATIENCE)
            assert receiver.recv() == "waits"
        for process in self.processes:
            assert wait_until(lambda pid=process.pid: is_waiting(pid), PATIENCE)

    def answer(self, which: int) -> Any:
        receiver = self.pairs[which][0]
        assert receiver.poll(PATIENCE), "it waits for ever"
        return receiver.recv()

    def __enter__(self) -> Waiters:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join(PATIENCE)
            process.close()
        for pair in self.pairs:
            for end in pair:
                end.close()


# --- as the standard one --------------------------------------------------------------------------


def test_it_is_a_standard_event_by_type_and_by_look() -> None:
    ours = procession.Event()
    assert isinstance(ours, standard.Event)
    assert type(ours) is synchronize.Event
    assert repr(ours) == f"<Event at {id(ours):#x} unset>"
    ours.set()
    assert repr(ours) == f"<Event at {id(ours):#x} set>"


def test_set_clear_and_set_again() -> None:
    event = procession.Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    assert event.wait(-1) is False
    assert event.set() is None
    assert event.is_set() is True
    assert event.wait() is True
    assert event.wait(timeout=0) is True
    event.set()
    assert event.clear() is None
    event.clear()
    assert event.is_set() is False
    assert event.wait(0.01) is False
    event.set()
    assert event.wait(0.01) is True


def test_a_timeout_is_kept() -> None:
    event = procession.Event()
    begun = time.monotonic()
    assert event.wait(0.2) is False
    assert time.monotonic() - begun >= 0.2


@each_method
def test_setting_it_wakes_all(method: str) -> None:
    event = procession.get_context(method).Event()
    with Waiters(method, event, 4) as waiters:
        event.set()
        assert [waiters.answer(n) for n in range(4)] == [True] * 4


def set_it(event: Any) -> None:
    event.set()


@each_method
def test_it_is_set_from_a_child(method: str) -> None:
    context = procession.get_context(method)
    event = context.Event()
    process = context.Process(target=set_it, args=(event,))
    process.start()
    assert event.wait(PATIENCE) is True
    process.join(PATIENCE)


def test_threads_wait_as_processes_do() -> None:
    event = procession.Event()
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(event.wait(PATIENCE))) for _ in "123"]
    for thread in threads:
        thread.start()
    event.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [True] * 3


def test_a_raw_fork_has_the_same_event() -> None:
    event, back = procession.Event(), procession.Event()
    pid = os.fork()
    if pid == 0:
        try:
            if event.wait(PATIENCE):
                back.set()
        finally:
            os._exit(0)
    event.set()
    assert back.wait(PATIENCE) is True
    assert os.waitpid(pid, 0)[1] == 0


def test_who_waits_when_it_is_set_goes_on_even_if_it_is_cleared_at_once() -> None:
    event = procession.Event()
    with Waiters("forkserver", event, 3) as waiters:
        for process in waiters.processes:  # they see nothing before it is unset again
            os.kill(process.pid, signal.SIGSTOP)
        event.set()
        event.clear()
        for process in waiters.processes:
            os.kill(process.pid, signal.SIGCONT)
        assert [waiters.answer(n) for n in range(3)] == [True] * 3
    assert event.wait(0) is False


def test_a_signal_handler_runs_while_one_waits_and_may_end_the_wait() -> None:
    event, seen = procession.Event(), []

    def handler(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise InterruptedError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(InterruptedError, match="enough"):
            event.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 2


def test_a_handler_that_sets_it_and_clears_it_ends_the_wait() -> None:
    event = procession.Event()

    def handler(*_: object) -> None:
        event.set()
        event.clear()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert event.wait(PATIENCE) is True
    finally:
        signal.signal(signal.SIGALRM, before)


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    event = procession.Event()
    for wrong in ("soon", float("nan"), b""):
        with pytest.raises((TypeError, ValueError)):
            event.wait(wrong)
    with pytest.raises(TypeError):
        event.wait(1, 2)
    with pytest.raises(TypeError):
        event.wait(patience=1)
    assert not event.is_set()
    with pytest.raises(RuntimeError, match="__init__"):
        synchronize.Event.__new__(synchronize.Event).wait()


def send_back(end: Any) -> None:
    event = end.recv()
    event.set()
    mine = procession.Event()
    end.send(mine)
    if mine.wait(PATIENCE):
        end.send("set")


@each_method
def test_it_can_be_sent_through_a_pipe(method: str) -> None:
    context = procession.get_context(method)
    event = context.Event()
    here, there = context.Pipe()
    process = context.Process(target=send_back, args=(there,))
    process.start()
    here.send(event)
    assert event.wait(PATIENCE)
    assert here.poll(PATIENCE)
    here.recv().set()
    assert here.poll(PATIENCE)
    assert here.recv() == "set"
    process.join(PATIENCE)
    for end in (here, there):
        end.close()


class Named(synchronize.Event):
    """An event with a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def test_what_a_subclass_adds_goes_along() -> None:
    first = Named("first")
    copy = pickle.loads(pickle.dumps(first))
    copy.set()
    assert (type(copy), copy.name, first.is_set()) == (Named, "first", True)


# --- deaths ---------------------------------------------------------------------------------------


def test_a_waiter_that_is_killed_takes_no_wake_along() -> None:
    event = procession.Event()
    with Waiters("forkserver", event, 4) as waiters:
        for process in waiters.processes[:2]:
            os.kill(process.pid, signal.SIGSTOP)
        event.set()  # two are woken and cannot go on
        for process in waiters.processes[:2]:
            os.kill(process.pid, signal.SIGKILL)
        assert [waiters.answer(n) for n in (2, 3)] == [True] * 2


def test_events_cost_no_descriptor_each() -> None:
    before = len(os.listdir("/proc/self/fd"))
    events = [procession.Event() for _ in range(2000)]
    events[7].set()
    assert [event.is_set() for event in events].count(True) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 4
