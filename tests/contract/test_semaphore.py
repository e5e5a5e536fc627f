"""Semaphore and BoundedSemaphore: the standard behaviour, and what a death means for them (G4)."""

from __future__ import annotations

import errno
import os
import pickle
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
from procession import How, OwnerDied, OwnerDiedWarning, _identity, synchronize
from tests.contract.people import PATIENCE, Speaker, in_copy
from tests.contract.programs import each_method, fork_beside_pytests_threads

pytestmark = fork_beside_pytests_threads
each_kind = pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])


# --- people who hold permits ----------------------------------------------------------------------


def hold(told: Any, semaphore: Any, how: str, many: int) -> None:
    """Take permits, say so, and do something else with them."""
    for _ in range(many):
        if how.startswith("plain"):
            semaphore.acquire()
        else:
            semaphore.__enter__()
    told.send("taken")
    if how == "return":
        return
    if how == "exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(4)
    signal.pause()


@pytest.fixture
def holder(people: list[Speaker]) -> Callable[..., Any]:
    """Starts processes that hold permits."""

    def start(semaphore: Any, how: str = "wait", many: int = 1, method: str = "forkserver") -> Any:
        people.append(Speaker(method, hold, semaphore, how, many, name="holder"))
        assert people[-1].said() == "taken"
        return people[-1].process

    return start


# --- as the standard ones -------------------------------------------------------------------------


@each_kind
def test_they_are_standard_semaphores_by_type_and_by_look(kind: str) -> None:
    ours, theirs = getattr(procession, kind)(3), getattr(standard, kind)
    assert isinstance(ours, theirs)
    other = theirs(3, ctx=procession.get_context("spawn"))
    for steps in ("", "acquire", "acquire", "release"):
        for one in (ours, other):
            if steps:
                getattr(one, steps)()
        assert repr(ours) == repr(other)
        assert ours.get_value() == other.get_value()
        for name in ("_count", "_get_value", "_is_mine", "_is_zero"):
            assert getattr(ours._semlock, name)() == getattr(other._semlock, name)(), name
    assert (ours._semlock.kind, ours._semlock.maxvalue) == (
        other._semlock.kind,
        other._semlock.maxvalue,
    )


@each_kind
def test_permits_are_counted(kind: str) -> None:
    semaphore = getattr(procession, kind)(2)
    assert semaphore.acquire() is True
    assert not semaphore.locked()
    with semaphore as entered:
        assert entered is True
        assert semaphore.get_value() == 0
        assert semaphore.locked()
        assert semaphore.acquire(False) is False
        assert semaphore.acquire(timeout=0.01) is False
        assert semaphore.acquire(True, -1) is False
    assert semaphore.release() is None
    assert semaphore.get_value() == 2
    assert semaphore.recovered == 0


def test_only_a_bounded_one_is_bounded() -> None:
    semaphore = procession.Semaphore(0)
    for _ in range(3):
        semaphore.release()
    assert semaphore.get_value() == 3
    bounded = procession.BoundedSemaphore(1)
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        bounded.release()
    most = procession.Semaphore(2**31 - 1)
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        most.release()
    assert most.acquire()


@each_kind
def test_bad_arguments_are_refused(kind: str) -> None:
    make = getattr(procession, kind)
    with pytest.raises(ValueError, match="begins with 0 permits or more, got -1"):
        make(-1)
    with pytest.raises(OverflowError):
        make(2**31)
    for wrong in ("1", 1.5, None):
        with pytest.raises(TypeError):
            make(wrong)
    with pytest.raises(ValueError, match="on_owner_death must be 'warn' or 'raise'"):
        make(on_owner_death="explode")
    semaphore = make(1)
    for arguments in ({"timeout": "soon"}, {"blocking": True}, {"timeout": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            semaphore.acquire(**arguments)
    with pytest.raises(TypeError):
        semaphore.release(2)
    assert semaphore.get_value() == 1
    with pytest.raises(RuntimeError, match="__init__"):
        getattr(synchronize, kind).__new__(getattr(synchronize, kind)).acquire()


def take_turns(semaphore: Any, inside: Any, rounds: int) -> None:
    for _ in range(rounds):
        with semaphore:
            with inside.get_lock():
                inside[0] += 1
                inside[1] = max(inside[1], inside[0])
            with inside.get_lock():
                inside[0] -= 1
                inside[2] += 1


@each_method
def test_never_more_inside_than_permits(method: str) -> None:
    context = procession.get_context(method)
    semaphore, inside = context.Semaphore(2), context.Array("i", 3)
    people = [context.Process(target=take_turns, args=(semaphore, inside, 300)) for _ in range(4)]
    for process in people:
        process.start()
    threads = [threading.Thread(target=take_turns, args=(semaphore, inside, 300)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for one in (*threads, *people):
        one.join(PATIENCE)
    assert inside[0] == 0
    assert 1 <= inside[1] <= 2
    assert inside[2] == 6 * 300
    assert semaphore.get_value() == 2


def give(semaphore: Any, many: int) -> None:
    for _ in range(many):
        semaphore.release()


@each_method
def test_signals_are_counted_between_processes(method: str) -> None:
    context = procession.get_context(method)
    semaphore = context.Semaphore(0)
    process = context.Process(target=give, args=(semaphore, 500))
    process.start()
    for _ in range(500):
        assert semaphore.acquire(timeout=PATIENCE)
    process.join(PATIENCE)
    assert semaphore.acquire(False) is False


def test_a_signal_handler_runs_while_one_waits_and_may_end_the_wait() -> None:
    semaphore, seen = procession.Semaphore(0), []

    def handler(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise InterruptedError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5):
            seen.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            with pytest.raises(InterruptedError, match="enough"):
                semaphore.acquire()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert semaphore.get_value() == 0


def test_a_handler_that_releases_ends_the_wait() -> None:
    semaphore = procession.Semaphore(0)
    before = signal.signal(signal.SIGALRM, lambda *_: semaphore.release())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert semaphore.acquire(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)


def send_back(end: Any) -> None:
    semaphore = end.recv()
    semaphore.release()
    mine = procession.BoundedSemaphore(2)
    end.send(mine)
    end.recv()


@each_method
def test_they_can_be_sent_through_pipes(method: str) -> None:
    context = procession.get_context(method)
    semaphore = context.Semaphore(0)
    here, there = context.Pipe()
    process = context.Process(target=send_back, args=(there,))
    process.start()
    here.send(semaphore)
    assert semaphore.acquire(timeout=PATIENCE)
    assert here.poll(PATIENCE)
    theirs = here.recv()
    here.send("have it")
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert repr(theirs) == "<BoundedSemaphore(value=2, maxvalue=2)>"
    for end in (here, there):
        end.close()


class Named(synchronize.BoundedSemaphore):
    """A semaphore with a name."""

    def __init__(self, name: str) -> None:
        super().__init__(4)
        self.name = name


def test_what_a_subclass_adds_goes_along() -> None:
    first = Named("first")
    copy = pickle.loads(pickle.dumps(first))
    assert copy.acquire()
    assert (type(copy), copy.name, first.get_value(), copy.maxvalue) == (Named, "first", 3, 4)


# --- deaths ---------------------------------------------------------------------------------------


@each_kind
@each_method
def test_permits_of_a_with_block_come_back(
    method: str, kind: str, holder: Callable[..., Any]
) -> None:
    semaphore = getattr(procession.get_context(method), kind)(3)
    process = holder(semaphore, many=3, method=method)
    assert semaphore.get_value() == 0
    os.kill(process.pid, signal.SIGKILL)
    with pytest.warns(OwnerDiedWarning, match=rf"process 'holder' \(pid {process.pid}\)") as said:
        assert [semaphore.acquire(timeout=PATIENCE) for _ in range(3)] == [True] * 3
    assert len(said) == 1, "one death is told once"
    assert semaphore.recovered == 3
    assert semaphore.acquire(False) is False


def test_polling_gets_them_back_too(holder: Callable[..., Any]) -> None:
    semaphore = procession.Semaphore()
    process = holder(semaphore)
    process.kill()
    process.join(PATIENCE)
    with pytest.warns(OwnerDiedWarning, match="was killed by SIGKILL"):
        assert semaphore.acquire(False)


def test_plain_permits_come_back_only_where_that_was_asked_for(holder: Callable[..., Any]) -> None:
    counter, throttle = procession.Semaphore(1), procession.Semaphore(1, reclaim=True)
    for semaphore in (counter, throttle):
        process = holder(semaphore, "plain")
        process.kill()
        process.join(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counter.acquire(timeout=0.2) is False
    counter.release()  # whoever knows better may still say so
    assert counter.acquire(False)
    with pytest.warns(OwnerDiedWarning):
        assert throttle.acquire(timeout=PATIENCE)
    assert (counter.recovered, throttle.recovered) == (0, 1)


@each_method
@pytest.mark.parametrize("how", ["return", "exit"])
def test_pythons_own_end_leaves_them_taken(
    method: str, how: str, holder: Callable[..., Any]
) -> None:
    semaphore = procession.get_context(method).Semaphore(2, reclaim=True)
    holder(semaphore, how, 2, method).join(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert semaphore.acquire(timeout=0.1) is False
    semaphore.release()
    assert semaphore.acquire(False)
    assert semaphore.recovered == 0


def test_an_end_without_pythons_gives_them_back(holder: Callable[..., Any]) -> None:
    semaphore = procession.Semaphore()
    holder(semaphore, "os._exit").join(PATIENCE)
    with pytest.warns(OwnerDiedWarning):
        assert semaphore.acquire(timeout=PATIENCE)


@each_kind
def test_a_release_for_somebody_else_is_on_his_account(
    kind: str, holder: Callable[..., Any]
) -> None:
    semaphore = getattr(procession, kind)(2, reclaim=True)
    first = holder(semaphore, "plain")
    second = holder(semaphore, "plain")
    semaphore.release()  # for the one who has it longest
    for process in (first, second):
        process.kill()
        process.join(PATIENCE)
    assert semaphore.get_value() == 1
    assert semaphore.acquire(False)
    with pytest.warns(OwnerDiedWarning, match=rf"pid {second.pid}\)"):
        assert semaphore.acquire(timeout=PATIENCE)
    assert semaphore.recovered == 1
    assert semaphore.acquire(False) is False, "no more than there ever were"


def test_it_comes_back_long_after_the_dead_ones_slot_has_another(
    holder: Callable[..., Any],
) -> None:
    semaphore = procession.Semaphore()
    process = holder(semaphore)
    process.kill()
    process.join(PATIENCE)
    _identity.home().free(process._popen._index, process._popen._generation)
    with pytest.warns(OwnerDiedWarning, match="held by"):
        assert semaphore.acquire(timeout=PATIENCE)


def test_an_error_can_be_asked_for(holder: Callable[..., Any]) -> None:
    semaphore = procession.BoundedSemaphore(1, on_owner_death="raise")
    process = holder(semaphore)
    process.kill()
    process.join(PATIENCE)
    with pytest.raises(OwnerDied, match="was killed by SIGKILL") as caught:
        semaphore.acquire(timeout=PATIENCE)
    assert (caught.value.name, caught.value.pid) == ("holder", process.pid)
    assert caught.value.ending.how is How.SIGNALED
    assert semaphore.get_value() == 1, "who gets an exception does not have it"
    assert semaphore.acquire(False)


def test_a_warning_made_an_error_leaves_nothing_taken(holder: Callable[..., Any]) -> None:
    semaphore = procession.Semaphore()
    process = holder(semaphore)
    process.kill()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OwnerDiedWarning), semaphore:
            pass
    assert semaphore.get_value() == 1


def wait_and_say(semaphore: Any, sender: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sender.send("waits")
        with semaphore:
            pass


def test_all_who_wait_get_one_in_the_end(holder: Callable[..., Any]) -> None:
    context = procession.get_context("forkserver")
    semaphore = context.Semaphore(2)
    process = holder(semaphore, many=2)
    pairs = [context.Pipe(duplex=False) for _ in range(5)]
    waiters = [context.Process(target=wait_and_say, args=(semaphore, end)) for _, end in pairs]
    for waiter in waiters:
        waiter.start()
    for receiver, _ in pairs:
        assert receiver.poll(PATIENCE)
        receiver.recv()
    waiters[0].kill()  # a waiter, then the holder
    process.kill()
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert [waiter.exitcode for waiter in waiters] == [-9, 0, 0, 0, 0]
    for ends in pairs:
        for end in ends:
            end.close()


def test_never_from_one_that_is_stopped(holder: Callable[..., Any]) -> None:
    semaphore = procession.Semaphore(reclaim=True)
    process = holder(semaphore)
    os.kill(process.pid, signal.SIGSTOP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert semaphore.acquire(timeout=0.3) is False
        assert semaphore.acquire(False) is False
    assert semaphore.recovered == 0
    os.kill(process.pid, signal.SIGCONT)


# --- bad times ------------------------------------------------------------------------------------


def test_what_the_kernel_refuses_is_an_error_and_leaves_nothing() -> None:
    def refused() -> None:
        from procession._sync import semaphore

        semaphore._begun = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="cannot make shared memory") as caught:
            procession.Semaphore()
        assert caught.value.errno == errno.EFBIG
        assert set(os.listdir("/proc/self/fd")) == before

    assert in_copy(refused) == 0


def test_no_address_space_is_an_error_and_leaves_nothing() -> None:
    def refused() -> None:
        from procession._sync import semaphore

        semaphore._begun = None
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="memory") as caught:
            procession.Semaphore()
        assert caught.value.errno == errno.ENOMEM
        assert set(os.listdir("/proc/self/fd")) == before

    assert in_copy(refused) == 0


def test_the_ledger_grows_with_the_processes() -> None:
    semaphore = procession.Semaphore(3)
    table = _identity.home()
    claimed = [table.claim() for _ in range(200)]  # the next one sits behind them

    def far() -> None:
        place = table.me()[0]
        assert place >= 128
        assert semaphore._capacity == 32
        with semaphore:
            assert semaphore.get_value() == 2
            assert semaphore._capacity == 32 + (1 << place.bit_length() - 1)  # that block alone
        semaphore.__enter__()

    try:
        assert in_copy(far) == 0
        assert [semaphore.acquire(False) for _ in range(2)] == [True] * 2
        with pytest.warns(OwnerDiedWarning):
            assert semaphore.acquire(timeout=PATIENCE)
    finally:
        for index, generation in claimed:
            table.end(index, 0, 0, 0, 0)
            table.free(index, generation)


def test_they_cost_few_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    semaphores = [procession.Semaphore() for _ in range(1000)]
    assert all(semaphore.acquire(False) for semaphore in semaphores)
    assert len(os.listdir("/proc/self/fd")) <= before + 4 + 3
    regions = {semaphore._place[0] for semaphore in semaphores}
    files = [os.stat(region.fileno()) for region in regions]
    assert sum(file.st_size for file in files) < 1000 * 400_000, "bytes of addresses"
    assert sum(file.st_blocks * 512 for file in files) < 1000 * 1200, "bytes of memory"


def test_a_timeout_is_kept() -> None:
    semaphore = procession.Semaphore(0)
    begun = time.monotonic()
    assert semaphore.acquire(timeout=0.2) is False
    assert time.monotonic() - begun >= 0.2
