"""Barrier: the standard behaviour, and what a death means for it (G4, G6)."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import synchronize as standard
from threading import BrokenBarrierError
from typing import Any

import pytest

import procession
from procession import How, synchronize
from tests.contract.people import PATIENCE, Speaker, in_copy
from tests.contract.programs import each_method, fork_beside_pytests_threads, wait_until

pytestmark = fork_beside_pytests_threads


def attend(sender: Any, barrier: Any, rounds: int, timeout: float | None) -> None:
    """Wait again and again, and say what came of it."""
    for _ in range(rounds):
        try:
            sender.send(barrier.wait(timeout))
        except BrokenBarrierError as error:
            sender.send(error)


class Party(Speaker):
    """A process that waits at a barrier."""

    def __init__(
        self, method: str, barrier: Any, rounds: int = 1, timeout: float | None = None
    ) -> None:
        super().__init__(method, attend, barrier, rounds, timeout, name="party")


@pytest.fixture
def party(people: list[Speaker]) -> Callable[..., Party]:
    def start(*args: Any) -> Party:
        one = Party(*args)
        people.append(one)
        return one

    return start


def wait_for_parties(barrier: Any, many: int) -> None:
    assert wait_until(lambda: barrier.n_waiting == many, PATIENCE)


# --- as the standard one --------------------------------------------------------------------------


def test_it_is_a_standard_barrier_by_type_and_by_look() -> None:
    barrier = procession.Barrier(2)
    assert isinstance(barrier, standard.Barrier)
    assert isinstance(barrier, threading.Barrier)
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (2, 0, False)
    assert repr(barrier).endswith("waiters=0/2>") or "Barrier" in repr(barrier)
    assert procession.Barrier(1).wait() == 0


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    for few in (0, -1):
        with pytest.raises(ValueError, match="parties must be > 0"):
            procession.Barrier(few)
    with pytest.raises(ValueError, match="parties must be at most"):
        procession.Barrier(10**9)
    with pytest.raises(TypeError):
        procession.Barrier("two")
    barrier = procession.Barrier(2)
    for wrong in ("soon", float("nan")):
        with pytest.raises((TypeError, ValueError)):
            barrier.wait(wrong)
    assert (barrier.n_waiting, barrier.broken) == (0, False)


@each_method
def test_all_go_on_together_again_and_again(method: str, party: Callable[..., Party]) -> None:
    context = procession.get_context(method)
    barrier, acted = context.Barrier(4, Count(context)), 0
    people = [party(method, barrier, 100) for _ in range(3)]
    for acted in range(1, 101):
        mine = barrier.wait(PATIENCE)
        assert sorted([mine, *(one.said() for one in people)]) == [0, 1, 2, 3]
        assert barrier._action.value.value == acted
    assert (barrier.n_waiting, barrier.broken) == (0, False)


class Count:
    """Counts how often it was called, by all."""

    def __init__(self, context: Any) -> None:
        self.value = context.Value("i", 0, lock=False)

    def __call__(self) -> None:
        self.value.value += 1


@each_method
def test_abort_breaks_it_until_it_is_reset(method: str, party: Callable[..., Party]) -> None:
    barrier = procession.get_context(method).Barrier(3)
    people = [party(method, barrier, 2) for _ in range(2)]
    wait_for_parties(barrier, 2)
    barrier.abort()
    assert [type(one.said()) for one in people * 2] == [BrokenBarrierError] * 4
    assert barrier.broken
    with pytest.raises(BrokenBarrierError) as caught:
        barrier.wait()
    assert vars(caught.value) == {}
    assert repr(barrier).endswith("broken>") or sys.version_info < (3, 10)
    barrier.reset()
    assert not barrier.broken
    people = [party(method, barrier) for _ in range(2)]
    assert sorted([barrier.wait(PATIENCE), *(one.said() for one in people)]) == [0, 1, 2]


@each_method
def test_reset_sends_away_who_waits(method: str, party: Callable[..., Party]) -> None:
    barrier = procession.get_context(method).Barrier(3)
    people = [party(method, barrier, 2) for _ in range(2)]
    wait_for_parties(barrier, 2)
    barrier.reset()
    assert [type(one.said()) for one in people] == [BrokenBarrierError] * 2
    assert sorted([barrier.wait(PATIENCE), *(one.said() for one in people)]) == [0, 1, 2]


def test_who_waits_too_long_breaks_it(party: Callable[..., Party]) -> None:
    barrier = procession.Barrier(3, timeout=0.2)
    begun = time.monotonic()
    one = party("forkserver", barrier, 1, PATIENCE)
    wait_for_parties(barrier, 1)
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    assert time.monotonic() - begun >= 0.2
    assert type(one.said()) is BrokenBarrierError
    barrier.reset()
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0)


def test_an_action_that_raises_breaks_it(party: Callable[..., Party]) -> None:
    def action() -> None:
        assert barrier.n_waiting == 2
        barrier.abort()  # of no effect while all are there, as ever
        raise ValueError("no")

    barrier = procession.Barrier(2, action)
    seen: list[object] = []

    def other() -> None:
        try:
            barrier.wait()
        except BrokenBarrierError as error:
            seen.append(type(error))

    thread = threading.Thread(target=other)
    thread.start()
    wait_for_parties(barrier, 1)
    with pytest.raises(ValueError, match="no"):
        barrier.wait()
    thread.join(PATIENCE)
    assert seen == [BrokenBarrierError]
    assert barrier.broken


def test_a_signal_handler_that_raises_ends_the_wait_alone() -> None:
    barrier = procession.Barrier(2)
    rounds: list[int] = []

    def handler(number: int, _: object) -> None:
        rounds.append(number)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            barrier.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (barrier.n_waiting, barrier.broken) == (0, False)


def echo(receiver: Any, sender: Any) -> None:
    barrier = receiver.recv()
    barrier.wait(PATIENCE)
    sender.send(Named("new"))


class Named(synchronize.Barrier):
    """A barrier with a name."""

    def __init__(self, name: str) -> None:
        super().__init__(1, timeout=3)
        self.name = name


@each_method
def test_it_can_be_sent_through_pipes_with_what_a_subclass_added(method: str) -> None:
    context = procession.get_context(method)
    barrier = context.Barrier(2)
    here, there = context.Pipe()
    process = context.Process(target=echo, args=(there, there))
    process.start()
    here.send(barrier)
    barrier.wait(PATIENCE)
    assert here.poll(PATIENCE)
    theirs = here.recv()
    assert (type(theirs), theirs.name, theirs.wait(), theirs._timeout) == (Named, "new", 0, 3)
    process.join(PATIENCE)
    for end in (here, there):
        end.close()


def test_a_copy_of_this_process_is_somebody_else() -> None:
    barrier = procession.Barrier(2)
    said: list[int] = []
    thread = threading.Thread(target=lambda: said.append(in_copy(barrier.wait)))
    thread.start()
    barrier.wait(PATIENCE)
    thread.join(PATIENCE)
    assert said == [0]


# --- deaths ---------------------------------------------------------------------------------------


@each_method
def test_a_party_that_is_killed_breaks_it_and_is_named(
    method: str, party: Callable[..., Party]
) -> None:
    barrier = procession.get_context(method).Barrier(4)
    people = [party(method, barrier) for _ in range(3)]
    wait_for_parties(barrier, 3)
    people[0].process.kill()
    pid = people[0].process.pid
    for one in people[1:]:
        error = one.said()
        assert type(error) is BrokenBarrierError
        assert f"process 'party' (pid {pid}) was at this barrier" in str(error)
        assert (error.name, error.pid) == ("party", pid)
    people[0].process.join(PATIENCE)
    with pytest.raises(BrokenBarrierError, match="was killed by SIGKILL") as caught:
        barrier.wait()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.pid, error.ending.how) == (pid, How.SIGNALED)
    barrier.reset()
    assert not barrier.broken
    people = [party(method, barrier) for _ in range(3)]
    assert sorted([barrier.wait(PATIENCE), *(one.said() for one in people)]) == [0, 1, 2, 3]


def test_so_does_one_that_is_killed_in_the_action(party: Callable[..., Party]) -> None:
    barrier = procession.Barrier(2, kill_oneself)
    people = [party("forkserver", barrier) for _ in range(2)]

    def killed() -> list[Party]:  # who lives may be told, and end, before this one is reaped
        return [one for one in people if one.process.exitcode == -signal.SIGKILL]

    assert wait_until(killed, PATIENCE)
    (dead,) = killed()
    (living,) = (one for one in people if one is not dead)
    assert living.said().pid == dead.process.pid
    assert barrier.broken


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_while_waiting(barrier: Any) -> None:
    threading.Thread(target=barrier.wait, daemon=True).start()
    wait_for_parties(barrier, 1)


@each_method
def test_so_does_one_that_came_to_pythons_end_while_it_waited(method: str) -> None:
    context = procession.get_context(method)
    barrier = context.Barrier(2)
    process = context.Process(target=end_while_waiting, args=(barrier,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    with pytest.raises(BrokenBarrierError, match=f"pid {process.pid}"):
        barrier.wait(PATIENCE)


def test_one_that_is_killed_after_all_have_met_breaks_it_for_the_next(
    party: Callable[..., Party],
) -> None:
    barrier = procession.Barrier(2)
    one = party("forkserver", barrier)
    wait_for_parties(barrier, 1)
    os.kill(one.process.pid, signal.SIGSTOP)  # it cannot leave
    assert barrier.wait(PATIENCE) == 1
    entered: list[object] = []

    def again() -> None:
        try:
            barrier.wait()
        except BrokenBarrierError as error:
            entered.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive(), "who is stopped is alive, and has not left"
    assert not barrier.broken
    os.kill(one.process.pid, signal.SIGKILL)
    thread.join(PATIENCE)
    assert [error.pid for error in entered] == [one.process.pid]


# --- bad times ------------------------------------------------------------------------------------


def test_what_the_kernel_refuses_is_an_error_and_leaves_nothing() -> None:
    def refused() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="cannot make shared memory") as caught:
            procession.Barrier(10_000)
        assert caught.value.errno == errno.EFBIG
        assert set(os.listdir("/proc/self/fd")) == before

    procession.Lock()
    assert in_copy(refused) == 0
