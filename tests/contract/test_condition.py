"""Condition: the standard behaviour, and what a death means for it (G4)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing import synchronize as standard
from typing import Any

import pytest

import procession
from procession import OwnerDied, OwnerDiedWarning, synchronize
from tests.contract.people import PATIENCE, Speaker, in_copy
from tests.contract.programs import each_method, fork_beside_pytests_threads, wait_until

LONG = 30.0  # a wait that ends earlier was ended by something
pytestmark = fork_beside_pytests_threads
each_lock = pytest.mark.parametrize("kind", ["Lock", "RLock"])


# --- people who wait ------------------------------------------------------------------------------


def stay(sender: Any, condition: Any, timeout: float | None) -> None:
    """Wait, and say what came of it."""
    with condition:
        sender.send(condition.wait(timeout))
    sender.send("out")


class Waiter(Speaker):
    """A process that waits for a condition."""

    def __init__(self, method: str, condition: Any, timeout: float | None = None) -> None:
        before = waiting(condition)
        super().__init__(method, stay, condition, timeout, name="w")
        assert wait_until(lambda: waiting(condition) == before + 1, PATIENCE)
        with condition:  # it has let go of the lock
            pass


def waiting(condition: Any) -> int:
    """How many wait, by the standard one's private names."""
    return int(condition._sleeping_count.get_value() - condition._woken_count.get_value())


@pytest.fixture
def waiter(people: list[Speaker]) -> Callable[..., Waiter]:
    def start(*args: Any) -> Waiter:
        one = Waiter(*args)
        people.append(one)
        return one

    return start


# --- as the standard one --------------------------------------------------------------------------


def test_it_is_a_standard_condition_by_type_and_by_look() -> None:
    ours = procession.Condition()
    theirs = standard.Condition(ctx=procession.get_context("spawn"))
    assert isinstance(ours, standard.Condition)
    assert isinstance(ours._lock, synchronize.RLock)
    assert repr(ours) == repr(theirs)
    with ours, theirs:
        assert repr(ours) == repr(theirs)
    assert ours.acquire(timeout=1) is True
    assert ours.release() is None
    assert ours._wait_semaphore.get_value() == 0


@each_lock
def test_what_needs_the_lock_is_refused_without_it_in_the_same_words(kind: str) -> None:
    condition = procession.Condition(getattr(procession, kind)())
    with pytest.raises(AssertionError, match=r"^must acquire\(\) condition before using wait\(\)$"):
        condition.wait()
    for act in (condition.notify, condition.notify_all):
        with pytest.raises(AssertionError, match=r"^lock is not owned$"):
            act()
    assert not condition._lock.locked()
    with condition:  # another thread's lock is no better
        refused: list[type] = []

        def other() -> None:
            try:
                condition.notify()
            except AssertionError as error:
                refused.append(type(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(PATIENCE)
        assert refused == [AssertionError]


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    condition = procession.Condition()
    with condition:
        for wrong in ("soon", float("nan")):
            with pytest.raises((TypeError, ValueError)):
                condition.wait(wrong)
        with pytest.raises(TypeError):
            condition.notify("one")
        for nobody in (0, -1, -(10**30), 10**30, 0.5, sys.maxsize):
            condition.notify(nobody)
        assert condition.wait(-1) is False
        assert condition.wait(timeout=0) is False
        assert condition._lock._count() == 1
    assert condition._waiters() == (0, 0)
    with pytest.raises(AttributeError):
        procession.Condition("no lock")


@each_method
@each_lock
def test_notify_wakes_those_who_wait_longest(
    method: str, kind: str, waiter: Callable[..., Waiter]
) -> None:
    condition = procession.get_context(method).Condition(getattr(procession, kind)())
    people = [waiter(method, condition) for _ in range(4)]
    with condition:
        condition.notify()
    assert [people[0].said(), people[0].said()] == [True, "out"]
    assert all(one.is_silent() for one in people[1:])
    with condition:
        condition.notify(2)
        assert people[1].is_silent(), "not before the lock is free"
    assert [people[1].said(), people[2].said()] == [True, True]
    assert people[3].is_silent()
    with condition:
        condition.notify_all()
    assert people[3].said() is True
    assert wait_until(lambda: condition._waiters() == (0, 0), PATIENCE)


@each_method
def test_a_timeout_is_kept(method: str, waiter: Callable[..., Waiter]) -> None:
    condition = procession.get_context(method).Condition()
    late = waiter(method, condition, 0.3)
    with condition:
        begun = time.monotonic()
        assert condition.wait(0.2) is False
        assert time.monotonic() - begun >= 0.2
    assert late.said() is False
    with condition:
        condition.notify()  # nobody waits, and nobody who comes later is woken by it
        assert condition.wait(0.05) is False


def test_wait_for_returns_what_the_predicate_said() -> None:
    condition = procession.Condition()
    answers = iter(["", 0, None, "yes"])
    with condition:
        assert condition.wait_for(lambda: "at once") == "at once"
        begun = time.monotonic()
        assert condition.wait_for(lambda: [], timeout=0.1) == []
        assert time.monotonic() - begun >= 0.1
        thread = threading.Thread(target=nudge, args=(condition, 3))
        thread.start()
        assert condition.wait_for(lambda: next(answers)) == "yes"
    thread.join(PATIENCE)


def nudge(condition: Any, times: int) -> None:
    """Notify again and again, each time when somebody waits."""
    for _ in range(times):
        assert wait_until(lambda: waiting(condition) == 1, PATIENCE)
        with condition:
            condition.notify()


def test_a_recursive_lock_is_let_go_and_taken_back_as_often_as_it_was_held() -> None:
    condition = procession.Condition()
    for _ in range(3):
        condition.acquire()
    thread = threading.Thread(target=nudge, args=(condition, 1))
    thread.start()
    assert condition.wait(PATIENCE) is True
    thread.join(PATIENCE)
    assert condition._lock._count() == 3
    assert condition.wait(0.01) is False
    assert condition._lock._count() == 3


def test_so_it_is_when_a_signal_ends_the_wait_and_its_wake_up_goes_to_another(
    waiter: Callable[..., Waiter],
) -> None:
    condition = procession.Condition()
    rounds = []

    def handler(number: int, _: object) -> None:
        rounds.append(number)
        if len(rounds) < 2:
            return  # and the wait goes on
        condition._lock.acquire()  # as whoever notifies
        condition.notify()
        condition._lock.release()
        raise KeyboardInterrupt

    for _ in range(2):
        condition.acquire()
    before = signal.signal(signal.SIGALRM, handler)
    people: list[Waiter] = []
    helper = threading.Thread(target=lambda: people.append(waiter("forkserver", condition)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5, 1.5)
        helper.start()  # waits behind us: it needs the lock that our wait lets go of
        with pytest.raises(KeyboardInterrupt):
            condition.wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(rounds) == 2
    assert condition._lock._count() == 2
    for _ in range(2):
        condition.release()
    helper.join(PATIENCE)
    [other] = people
    # it may have been notified in our stead, or come only after that
    assert wait_until(lambda: other.receiver.poll(0) or condition._waiters()[0] == 1, PATIENCE)
    if condition._waiters()[0] == 1:
        with condition:
            condition.notify()
    assert other.said() is True


class Plain:
    """What behaves like a lock: acquire, release, and a part that knows whose it is."""

    def __init__(self) -> None:
        self.inner = synchronize.Lock()
        self.calls: list[str] = []

    def acquire(self) -> bool:
        self.calls.append("acquire")
        return self.inner.acquire()

    def release(self) -> None:
        self.calls.append("release")
        self.inner.release()

    @property
    def _semlock(self) -> Any:
        return self.inner


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Plain"])
def test_it_works_with_locks_that_are_not_ours(kind: str) -> None:
    context = procession.get_context("fork")
    lock = Plain() if kind == "Plain" else getattr(standard, kind)(ctx=context)
    condition = procession.Condition(lock)
    assert condition._lock is lock
    thread = threading.Thread(target=nudge, args=(condition, 1))
    with condition:
        thread.start()
        assert condition.wait(PATIENCE) is True
        assert lock._semlock._is_mine()
    thread.join(PATIENCE)
    if isinstance(lock, Plain):
        assert lock.calls.count("acquire") == lock.calls.count("release")


def test_there_is_room_for_any_number_who_wait() -> None:
    condition = procession.Condition()
    woken = []

    def wait() -> None:
        with condition:
            woken.append(condition.wait(PATIENCE))

    threads = [threading.Thread(target=wait) for _ in range(100)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: waiting(condition) == 100, PATIENCE)
    with condition:
        condition.notify(99)
    assert wait_until(lambda: len(woken) == 99, PATIENCE)
    with condition:
        condition.notify_all()
    for thread in threads:
        thread.join(PATIENCE)
    assert woken == [True] * 100


def play(condition: Any, turn: Any, mine: int, rounds: int) -> None:
    for _ in range(rounds):
        with condition:
            assert condition.wait_for(lambda: turn.value == mine, PATIENCE)
            turn.value = 1 - mine
            condition.notify()


@each_method
def test_two_take_turns(method: str) -> None:
    context = procession.get_context(method)
    condition, turn = context.Condition(), context.Value("i", 0, lock=False)
    other = context.Process(target=play, args=(condition, turn, 1, 500))
    other.start()
    play(condition, turn, 0, 500)
    other.join(PATIENCE)
    assert other.exitcode == 0


def send_on(receiver: Any, sender: Any) -> None:
    condition = receiver.recv()
    with condition:
        condition.notify()
    sender.send(Named("new"))


class Named(synchronize.Condition):
    """A condition with a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


@each_method
def test_it_can_be_sent_through_pipes_with_what_a_subclass_added(method: str) -> None:
    context = procession.get_context(method)
    condition = Named("first")
    here, there = context.Pipe()
    process = context.Process(target=send_on, args=(there, there))
    process.start()
    with condition:
        here.send(condition)
        assert condition.wait(PATIENCE) is True
    assert here.poll(PATIENCE)
    theirs = here.recv()
    with theirs:
        theirs.notify()
    assert (type(theirs), theirs.name) == (Named, "new")
    process.join(PATIENCE)
    for end in (here, there):
        end.close()


def test_a_copy_of_this_process_is_somebody_else() -> None:
    condition = procession.Condition()

    def notify() -> None:
        with condition:
            condition.notify()

    with condition:
        said: list[int] = []
        thread = threading.Thread(target=lambda: said.append(in_copy(notify)))
        thread.start()
        assert condition.wait(PATIENCE) is True
    thread.join(PATIENCE)
    assert said == [0]


# --- deaths ---------------------------------------------------------------------------------------


@each_method
def test_who_was_killed_while_it_waited_is_passed_over(
    method: str, waiter: Callable[..., Waiter]
) -> None:
    condition = procession.get_context(method).Condition()
    people = [waiter(method, condition) for _ in range(3)]
    for dead in people[:2]:
        dead.process.kill()
        dead.process.join(PATIENCE)
    with condition:
        condition.notify()
    assert people[2].said() is True
    assert wait_until(lambda: condition._waiters() == (0, 0), PATIENCE)


@each_method
def test_who_is_killed_with_a_wake_up_in_its_hands_does_not_take_it_along(
    method: str, waiter: Callable[..., Waiter]
) -> None:
    condition = procession.get_context(method).Condition()
    people = [waiter(method, condition) for _ in range(3)]
    with condition:
        condition.notify()  # it cannot have the lock yet
        os.kill(people[0].process.pid, signal.SIGKILL)
        people[0].process.join(PATIENCE)
    assert people[1].said() is True
    assert people[2].is_silent(), "one wake-up wakes one"


def test_who_is_stopped_keeps_its_wake_up(waiter: Callable[..., Waiter]) -> None:
    condition = procession.Condition()
    people = [waiter("forkserver", condition) for _ in range(2)]
    os.kill(people[0].process.pid, signal.SIGSTOP)
    with condition:
        condition.notify()
    assert not people[1].receiver.poll(0.5), "it was taken from the living"
    os.kill(people[0].process.pid, signal.SIGCONT)
    assert people[0].said() is True
    with condition:
        condition.notify()
    assert people[1].said() is True


def die_holding(condition: Any) -> None:
    condition.acquire()
    condition.notify_all()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_a_notifier_that_dies_with_the_lock_is_named_to_whom_it_woke(mode: str) -> None:
    context = procession.get_context("forkserver")
    condition = context.Condition(context.RLock(on_owner_death=mode))
    process = context.Process(target=die_holding, args=(condition,), name="notifier")
    told = pytest.warns(OwnerDiedWarning, match="'notifier'")
    if mode == "raise":
        told = pytest.raises(OwnerDied, match="'notifier'")
    with condition:
        process.start()
        with told:
            assert condition.wait(LONG) is True
        assert condition._lock._is_mine(), "whatever ends a wait, the lock is held then"
    process.join(PATIENCE)
    assert not condition._lock.locked()


# --- bad times ------------------------------------------------------------------------------------


def test_where_it_cannot_grow_one_more_cannot_wait_and_the_others_go_on() -> None:
    def poor() -> None:
        condition = procession.Condition()
        os.closerange(3, 1000)  # as code that daemonises does
        woken = []

        def wait() -> None:
            with condition:
                woken.append(condition.wait(PATIENCE))

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: waiting(condition) == 8, PATIENCE)
        with condition:
            with pytest.raises(OSError, match="cannot reserve shared memory") as caught:
                condition.wait(LONG)
            assert caught.value.errno == errno.EBADF
            assert condition._lock._count() == 1
            condition.notify_all()
        for thread in threads:
            thread.join(PATIENCE)
        assert woken == [True] * 8

    assert in_copy(poor) == 0


def test_what_the_kernel_refuses_is_an_error_and_leaves_nothing() -> None:
    def refused() -> None:
        from procession._shared import memory

        lock = procession.Lock()
        memory._begun_growing = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="cannot make shared memory") as caught:
            procession.Condition(lock)
        assert caught.value.errno == errno.EFBIG
        assert set(os.listdir("/proc/self/fd")) == before

    assert in_copy(refused) == 0


def test_conditions_cost_no_descriptor_each() -> None:
    before = len(os.listdir("/proc/self/fd"))
    conditions = [procession.Condition() for _ in range(500)]
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        for condition in conditions:
            stack.enter_context(condition)
            assert condition.wait(0) is False
    assert len(os.listdir("/proc/self/fd")) <= before + 6
