"""Lock and RLock: the standard behaviour, and what a death means for them (G4)."""

from __future__ import annotations

import contextlib
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
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import How, OwnerDied, OwnerDiedWarning, _identity, _native, synchronize
from tests.contract.people import PATIENCE, Speaker, in_copy
from tests.contract.programs import each_method, fork_beside_pytests_threads, wait_until

pytestmark = fork_beside_pytests_threads
each_kind = pytest.mark.parametrize("kind", ["Lock", "RLock"])


# --- people who hold locks ------------------------------------------------------------------------


def hold(told: Any, lock: Any, how: str) -> None:
    """Take a lock, say so, and do something else with it."""
    lock.acquire()
    told.send("taken")
    if how == "return":
        return
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - nobody wants its traceback
        raise ValueError("with a lock in its hands")
    if how == "os._exit":
        os._exit(4)
    if how == "exec":
        os.execv("/bin/sleep", ["sleep", "100"])
    if how == "first thread ends":
        threading.Thread(target=time.sleep, args=(100,)).start()
        end_this_thread()
    if how == "threads and memory":
        ballast = bytearray(300 << 20)
        for _ in range(20):
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        told.send(len(ballast))
    signal.pause()


def end_this_thread() -> None:
    """End the first thread alone; the process goes on."""
    import ctypes

    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)


@pytest.fixture
def holder(people: list[Speaker]) -> Callable[..., Any]:
    """Starts processes that hold a lock."""

    def start(method: str, lock: Any, how: str = "wait") -> Any:
        people.append(Speaker(method, hold, lock, how, name="holder"))
        assert people[-1].said() == "taken"
        if how == "threads and memory":
            people[-1].said()
        return people[-1].process

    return start


# --- as the standard ones -------------------------------------------------------------------------


@each_kind
def test_they_are_standard_locks_by_type_and_by_look(kind: str) -> None:
    ours, theirs = getattr(procession, kind)(), getattr(standard, kind)
    assert isinstance(ours, theirs)
    other = theirs(ctx=procession.get_context("spawn"))
    for one in (ours, other):
        assert one.acquire()
    assert repr(ours) == repr(other)
    for name in ("_count", "_get_value", "_is_mine", "_is_zero"):
        assert getattr(ours._semlock, name)() == getattr(other._semlock, name)()
    assert (ours._semlock.kind, ours._semlock.maxvalue) == (
        other._semlock.kind,
        other._semlock.maxvalue,
    )
    for one in (ours, other):
        one.release()
    assert repr(ours) == repr(other)


def test_releasing_what_is_not_held_is_refused_in_the_same_words() -> None:
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        procession.Lock().release()
    with pytest.raises(AssertionError, match="attempt to release recursive lock not owned by thr"):
        procession.RLock().release()


def test_a_recursive_lock_belongs_to_a_thread() -> None:
    lock = procession.RLock()
    assert lock.acquire()
    assert lock.acquire()
    said: list[object] = []

    def other() -> None:
        said.append(lock.acquire(timeout=0.01))
        said.append(lock._is_mine())
        try:
            lock.release()
        except AssertionError as error:
            said.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(PATIENCE)
    assert said == [False, False, "attempt to release recursive lock not owned by thread"]
    lock.release()
    assert lock.locked()
    lock.release()
    assert not lock.locked()


def test_a_lock_is_released_by_anybody() -> None:
    lock = procession.Lock()
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join(PATIENCE)
    assert lock.acquire(False)
    assert in_copy(lock.release) == 0
    assert not lock.locked()


@each_kind
def test_bad_arguments_are_refused_and_change_nothing(kind: str) -> None:
    lock = getattr(procession, kind)()
    for wrong in ({"timeout": "soon"}, {"blocking": True}, {"timeout": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            lock.acquire(**wrong)
    with pytest.raises(TypeError):
        lock.acquire(True, 1, 2)
    with pytest.raises(ValueError, match="on_owner_death must be 'warn' or 'raise'"):
        getattr(procession, kind)(on_owner_death="explode")
    assert not lock.locked()
    assert lock.acquire(timeout=-1)
    assert lock.acquire(block=False) is (kind == "RLock")


@each_kind
def test_a_timeout_is_kept(kind: str, holder: Callable[..., Any]) -> None:
    lock = getattr(procession, kind)()
    holder("forkserver", lock)
    begun = time.monotonic()
    assert lock.acquire(timeout=0.2) is False
    assert time.monotonic() - begun >= 0.2
    assert lock.acquire(False) is False
    assert lock.acquire(True, 0) is False


def test_a_signal_handler_runs_while_one_waits_and_may_end_the_wait(
    holder: Callable[..., Any],
) -> None:
    lock = procession.Lock()
    holder("forkserver", lock)
    seen = []

    def handler(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise InterruptedError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(InterruptedError, match="enough"):
            lock.acquire()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 2


def count_up(lock: Any, counter: Any, rounds: int) -> None:
    for _ in range(rounds):
        with lock:
            counter.value += 1


@each_method
@each_kind
def test_one_at_a_time(method: str, kind: str) -> None:
    context = procession.get_context(method)
    lock, counter = getattr(context, kind)(), context.Value("i", 0, lock=False)
    people = [context.Process(target=count_up, args=(lock, counter, 3000)) for _ in range(4)]
    for process in people:
        process.start()
    threads = [threading.Thread(target=count_up, args=(lock, counter, 3000)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for process in people:
        process.join(PATIENCE)
    assert counter.value == 6 * 3000


def send_back(lock: Any, receiver: Any, sender: Any) -> None:
    same = receiver.recv()
    assert not lock.acquire(False), "main has it"
    assert not same.acquire(False), "it is the same"
    mine = procession.Lock()
    mine.acquire()
    sender.send(mine)
    sender.close()


@each_method
def test_they_can_be_sent_through_pipes(method: str) -> None:
    context = procession.get_context(method)
    lock = context.Lock()
    lock.acquire()
    here, there = context.Pipe()
    process = context.Process(target=send_back, args=(lock, there, there))
    process.start()
    here.send(lock)
    assert here.poll(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OwnerDiedWarning)
        theirs = here.recv()
        process.join(PATIENCE)
        assert process.exitcode == 0
        assert theirs.acquire(timeout=0.05) is False, "left held by its maker"
    theirs.release()
    assert theirs.acquire(False)
    for end in (here, there):
        end.close()


def test_what_a_subclass_adds_goes_along() -> None:
    lock = pickle.loads(pickle.dumps(Named("first")))
    assert (type(lock), lock.name, lock.acquire()) == (Named, "first", True)


class Named(synchronize.Lock):
    """A lock with a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


# --- deaths ---------------------------------------------------------------------------------------


@each_kind
@each_method
@pytest.mark.parametrize("how", ["wait", "threads and memory"])
def test_a_killed_holder_gives_it_back(
    method: str, kind: str, how: str, holder: Callable[..., Any]
) -> None:
    lock = getattr(procession.get_context(method), kind)()
    process = holder(method, lock, how)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.warns(OwnerDiedWarning, match=rf"process 'holder' \(pid {process.pid}\)"):
        assert lock.acquire(timeout=PATIENCE)
    assert lock.recovered == 1
    assert lock._is_mine()
    lock.release()
    assert lock.acquire(timeout=0)
    assert lock.recovered == 1


@pytest.mark.parametrize("how", ["os._exit", "exec"])
def test_so_does_one_that_went_without_pythons_end(how: str, holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    holder("forkserver", lock, how)
    with pytest.warns(OwnerDiedWarning):
        assert lock.acquire(timeout=PATIENCE)


@each_method
@pytest.mark.parametrize("how", ["return", "exit", "raise"])
def test_one_that_came_to_its_end_leaves_it_held_and_who_waits_is_told(
    method: str, how: str, holder: Callable[..., Any]
) -> None:
    lock = procession.get_context(method).Lock()
    process = holder(method, lock, how)
    process.join(PATIENCE)
    assert lock.acquire(False) is False, "who does not wait is not told"
    with pytest.warns(OwnerDiedWarning, match="left held by process 'holder'") as said:
        assert lock.acquire(timeout=0.1) is False
    assert len(said) == 1, "once"
    lock.release()
    assert lock.acquire(False)
    assert lock.recovered == 0


def test_polling_recovers_it_too(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    process = holder("forkserver", lock)
    process.kill()
    process.join(PATIENCE)
    with pytest.warns(OwnerDiedWarning, match="was killed by SIGKILL"):
        assert lock.acquire(False)


def test_it_is_recovered_long_after_the_dead_ones_slot_has_another(
    holder: Callable[..., Any],
) -> None:
    lock = procession.Lock()
    process = holder("forkserver", lock)
    process.kill()
    process.join(PATIENCE)
    slot, generation = process._popen._index, process._popen._generation
    table = _identity.home()
    table.free(slot, generation)
    assert table.state(slot, generation) == _native.FREE
    with pytest.warns(OwnerDiedWarning, match="held by"):
        assert lock.acquire(timeout=PATIENCE)


def test_an_error_can_be_asked_for(holder: Callable[..., Any]) -> None:
    lock = procession.Lock(on_owner_death="raise")
    process = holder("forkserver", lock)
    process.kill()
    process.join(PATIENCE)
    with pytest.raises(OwnerDied, match="held this Lock and was killed by SIGKILL") as caught:
        lock.acquire(timeout=PATIENCE)
    assert (caught.value.name, caught.value.pid) == ("holder", process.pid)
    assert caught.value.ending.how is How.SIGNALED
    assert not lock.locked(), "who gets an exception does not have it"
    assert lock.acquire(False)


def test_a_warning_made_an_error_leaves_nothing_held(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    process = holder("forkserver", lock)
    process.kill()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OwnerDiedWarning):
            lock.acquire(timeout=PATIENCE)
    assert lock.acquire(False)


def wait_and_say(lock: Any, sender: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sender.send("waits")
        with lock:
            sender.send(os.getpid())


def test_all_who_wait_get_it_in_the_end(holder: Callable[..., Any]) -> None:
    context = procession.get_context("forkserver")
    lock = context.Lock()
    process = holder("forkserver", lock)
    pairs = [context.Pipe(duplex=False) for _ in range(6)]
    waiters = [context.Process(target=wait_and_say, args=(lock, sender)) for _, sender in pairs]
    for waiter in waiters:
        waiter.start()
    for receiver, _ in pairs:
        assert receiver.poll(PATIENCE)
        receiver.recv()
    waiters[0].kill()  # a waiter, then the holder
    process.kill()
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert [waiter.exitcode for waiter in waiters] == [-9, 0, 0, 0, 0, 0]
    for ends in pairs:
        for end in ends:
            end.close()


# --- never from the living ------------------------------------------------------------------------


def assert_kept(lock: Any) -> None:
    """Nobody takes it from whoever has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lock.acquire(timeout=0.3) is False
        assert lock.acquire(False) is False
    assert lock.recovered == 0


def test_not_from_one_that_is_stopped(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    process = holder("forkserver", lock)
    os.kill(process.pid, signal.SIGSTOP)
    assert_kept(lock)
    os.kill(process.pid, signal.SIGCONT)


def test_not_from_one_that_is_traced(holder: Callable[..., Any]) -> None:
    import ctypes

    lock = procession.Lock()
    process = holder("forkserver", lock)
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    if ptrace(16, process.pid, None, None) != 0:  # PTRACE_ATTACH
        pytest.skip("no tracing here")
    os.waitpid(process.pid, 0x40000000)  # __WALL: it is stopped, and we are its tracer
    assert_kept(lock)
    assert ptrace(17, process.pid, None, None) == 0  # PTRACE_DETACH
    assert_kept(lock)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.warns(OwnerDiedWarning):
        assert lock.acquire(timeout=PATIENCE)


@each_method
def test_not_from_one_whose_first_thread_has_ended(method: str, holder: Callable[..., Any]) -> None:
    lock = procession.get_context(method).Lock()
    process = holder(method, lock, "first thread ends")
    table = _identity.home()
    slot = process._popen._index
    assert wait_until(lambda: table.life(slot) == _native.LIFE_DIED, PATIENCE)
    assert_kept(lock)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.warns(OwnerDiedWarning):
        assert lock.acquire(timeout=PATIENCE)


def test_not_by_one_without_a_descriptor_left(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    process = holder("forkserver", lock, "first thread ends")
    table = _identity.home()
    slot = process._popen._index
    assert wait_until(lambda: table.life(slot) == _native.LIFE_DIED, PATIENCE)

    def poor() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        with pytest.raises(OSError, match="Too many open files") as caught:
            os.open("/", os.O_RDONLY)
        assert caught.value.errno == errno.EMFILE
        assert_kept(lock)

    assert in_copy(poor) == 0


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another")


@needs_root
def test_not_by_one_without_proc(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    holder("forkserver", lock, "first thread ends")

    def blind() -> None:
        unshare(0x00020000)  # CLONE_NEWNS
        mount("none", "/", 1 << 18 | 1 << 14)  # MS_PRIVATE | MS_REC
        mount("tmpfs", "/proc", 0, "tmpfs")
        assert not Path("/proc/self").exists()
        assert_kept(lock)

    assert in_copy(blind) == 0


@needs_root
def test_not_by_one_in_another_pid_namespace(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    holder("forkserver", lock, "first thread ends")

    def elsewhere() -> None:
        unshare(0x20000000)  # CLONE_NEWPID: for its children
        assert in_copy(lambda: assert_kept(lock)) == 0

    assert in_copy(elsewhere) == 0


@needs_root
def test_not_by_another_user(holder: Callable[..., Any]) -> None:
    lock = procession.Lock()
    holder("forkserver", lock, "first thread ends")

    def nobody() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        assert_kept(lock)

    assert in_copy(nobody) == 0


def unshare(flags: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        pytest.skip("no namespaces here")


def mount(source: str, target: str, flags: int, kind: str | None = None) -> None:
    import ctypes

    result = ctypes.CDLL(None, use_errno=True).mount(
        source.encode(), target.encode(), kind.encode() if kind else None, flags, None
    )
    assert result == 0, os.strerror(ctypes.get_errno())


# --- bad times ------------------------------------------------------------------------------------


def test_what_the_kernel_refuses_is_an_error_and_leaves_nothing() -> None:
    def refused() -> None:
        from procession._shared import memory

        memory._begun = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="cannot make shared memory") as caught:
            procession.Lock()
        assert caught.value.errno == errno.EFBIG
        assert set(os.listdir("/proc/self/fd")) == before
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1, len(before) - 1))
        with contextlib.suppress(OSError):
            procession.Lock()

    assert in_copy(refused) == 0


def test_locks_cost_no_descriptor_each() -> None:
    before = len(os.listdir("/proc/self/fd"))
    locks = [procession.Lock() for _ in range(2000)]
    assert all(lock.acquire(False) for lock in locks)
    assert len(os.listdir("/proc/self/fd")) <= before + 4
