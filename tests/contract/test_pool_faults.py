"""Pool and executor: memory of large arguments and results, and what may go wrong on the way."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dis
import errno
import gc
import itertools
import logging
import os
import resource
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import procession
from procession import ProcessPoolExecutor
from procession._crew.jobs import describe
from procession._launch import stopping
from procession._launch.own_thread import OwnThread
from procession.pool import Pool
from tests.contract import calls
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    run_text,
    running,
    wait_until,
    write,
)
from tests.contract.test_pool import Crowd, each_kind, outcome

pytestmark = fork_beside_pytests_threads

LIMIT = 60.0  # seconds; nothing here takes that long unless it hangs
SIZE = 4 << 20
OURS = Path(procession.__file__).parent


@pytest.fixture
def pool() -> Iterator[Any]:
    pool = procession.get_context("forkserver").Pool(1)
    try:
        yield pool
    finally:
        pool.terminate()
        pool.join()


def memory_of(pid: int) -> int:
    """Bytes of the memory that a worker shares with its pool, as the kernel counts them."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        if "procession-slate" in os.readlink(f"{folder}/{name}"):
            return os.stat(f"{folder}/{name}").st_blocks * 512
    raise AssertionError("it has none")


def test_memory_of_arrays_is_used_again_and_given_back(pool: Any) -> None:
    numpy = pytest.importorskip("numpy")
    (worker,) = pool._pool
    array = numpy.ones(SIZE, dtype="uint8")
    for _ in range(12):
        assert pool.apply(calls.plus_one, (array,)).sum() == 2 * SIZE
    assert memory_of(worker.pid) < 6 * SIZE  # the last ones may be held still
    kept = pool.apply(calls.plus_one, (array,))
    others = pool.map(calls.plus_one, [array] * 4)
    assert kept.sum() == 2 * SIZE  # while somebody has it, nothing else comes there
    del others
    gc.collect()
    assert wait_until(lambda: memory_of(worker.pid) < 2 * SIZE)
    assert kept.sum() == 2 * SIZE
    del kept
    gc.collect()
    assert wait_until(lambda: memory_of(worker.pid) < SIZE)


def test_a_killed_worker_leaves_no_memory_but_what_somebody_has(pool: Any) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(SIZE, dtype="uint8")
    kept = pool.apply(calls.plus_one, (array,))
    (worker,) = pool._pool
    ours = f"/proc/self/fd/{pool._crew.hands[0].slate.fd}"
    inode = os.stat(ours).st_ino
    dying = pool.apply_async(calls.kill_holding, (array,))
    with pytest.raises(procession.WorkerDied):
        dying.get(LIMIT)
    assert kept.sum() == 2 * SIZE  # it outlives who made it
    assert pool.apply(calls.plus_one, (array,)).sum() == 2 * SIZE
    del kept, dying
    gc.collect()
    assert inode not in open_files()
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert f" {inode} " not in maps.read()
    assert worker.exitcode == -signal.SIGKILL


def open_files() -> set[int]:
    """The inodes of what this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the list, or of another thread
            found.add(os.stat(f"/proc/self/fd/{name}").st_ino)
    return found


def test_a_worker_without_a_free_descriptor_takes_and_gives_large_things(pool: Any) -> None:
    pid = pool.apply(calls.use_up_descriptors)
    assert pool.apply(len, (bytes(SIZE),)) == SIZE
    assert len(pool.apply(calls.big, (SIZE,))) == SIZE
    assert pool.apply(calls.pid) == pid


def test_a_large_result_that_cannot_be_sent_fails_its_call_alone() -> None:
    """No room in the shared memory, and no descriptor for memory of its own."""
    first = procession.get_context("forkserver").Process(target=int)
    first.start()  # the keeper needs more than what follows
    first.join()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        pool = procession.get_context("forkserver").Pool(1)
        pool.apply(calls.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    try:
        assert len(pool.apply(calls.big, (SIZE // 8,))) == SIZE // 8
        results = [pool.apply_async(calls.big, (size,)) for size in (8, SIZE, 9)]
        assert [len(result.get(LIMIT)) for result in results[::2]] == [8, 9]
        with pytest.raises(OSError, match="its result could not be sent: File too large"):
            results[1].get(LIMIT)
        pid = pool.apply(calls.use_up_descriptors)
        with pytest.raises(OSError, match="its result could not be sent") as caught:
            pool.apply(calls.big, (SIZE // 8,))
        assert caught.value.errno == errno.EMFILE
        with pytest.raises(OSError, match="its arguments could not be received") as caught:
            pool.apply(len, (bytes(SIZE // 8),))
        assert caught.value.errno == errno.EMFILE
        assert pool.apply(calls.pid) == pid
    finally:
        pool.terminate()
        pool.join()


def test_an_argument_that_cannot_be_sent_fails_its_call_alone(pool: Any) -> None:
    (hand,) = pool._crew.hands
    hand.channel.room._size = 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        results = pool.imap(len, [b"1", bytes(SIZE), b"2"], chunksize=3)
        assert results.next(LIMIT) == 1
        with pytest.raises(OSError, match=r"len\(.*could not be sent: File too large"):
            results.next(LIMIT)
        assert results.next(LIMIT) == 1
        with pytest.raises(OSError, match="could not be sent: File too large"):
            pool.apply(len, (bytes(SIZE),))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert pool.apply(len, (bytes(SIZE),)) == SIZE


# --- interrupts and starts that fail -------------------------------------------------------------


@pytest.mark.parametrize("method", ["apply", "apply_async"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_a_call_is_given_leaves_no_worker_unused(
    pool: Any, when: str, method: str
) -> None:
    (hand,) = pool._crew.hands
    give: Callable[..., None] = hand.channel.send

    def interrupted(*args: Any) -> None:
        if when == "after":
            give(*args)
        raise KeyboardInterrupt

    assert pool.apply(calls.square, (2,)) == 4
    hand.channel.send = interrupted
    with pytest.raises(KeyboardInterrupt):
        getattr(pool, method)(calls.square, (3,))
    hand.channel.send = give
    assert pool.apply_async(calls.square, (4,)).get(LIMIT) == 16
    assert pool.apply(calls.square, (5,)) == 25
    assert all(hand.borrowed is None for hand in pool._crew.hands)


# --- a call whose caller waits for its worker itself ---------------------------------------------


@pytest.fixture(params=["pool", "executor"])
def ask(request: pytest.FixtureRequest, pool: Any) -> Iterator[Callable[..., Any]]:
    """Calls a function in the one worker, and waits for it without a limit."""
    if request.param == "pool":
        yield lambda fn, *args: pool.apply(fn, args)
        return
    with procession.ProcessPoolExecutor(1, procession.get_context("forkserver")) as executor:
        yield lambda fn, *args: executor.submit(fn, *args).result()


def test_a_call_that_is_waited_for_goes_wrong_alone(ask: Callable[..., Any]) -> None:
    died = procession.WorkerDied
    expected: dict[str, type[BaseException]] = {
        "SIGKILL": died,
        "os._exit": died,
        "sys.exit": procession.CallExited,
        "segfault": died,
        "exception that cannot be unpickled": calls.Unloadable,
        "result that cannot be pickled": TypeError,
    }
    for row, error in expected.items():
        assert ask(calls.square, 7) == 49  # by now the worker is there, and at rest
        with pytest.raises((error, procession.ResultNotPicklable)):
            ask(calls.third, row, 3)
    assert ask(calls.plus_one, 1.5) == 2.5


def test_workers_killed_at_any_moment_take_one_call_along(ask: Callable[..., Any]) -> None:
    done = 0
    for n in range(6):  # a little later each time
        pid = ask(calls.pid)
        killer = threading.Timer(n * 0.0002, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with contextlib.suppress(procession.WorkerDied):
            for number in range(20):
                assert ask(calls.square, number) == number**2
                done += 1
        killer.join()
    assert ask(calls.square, 3) == 9
    assert done


def test_large_results_that_are_waited_for_use_memory_again(ask: Callable[..., Any]) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(SIZE, dtype="uint8")
    for _ in range(3):
        assert ask(calls.plus_one, array).sum() == 2 * SIZE


def test_a_pool_that_is_closed_while_a_call_is_waited_for_ends_with_it(pool: Any) -> None:
    begun = procession.get_context("forkserver").Event()
    found: list[Any] = []
    assert pool.apply(calls.square, (2,)) == 4
    thread = threading.Thread(target=lambda: found.append(pool.apply(calls.set_and_wait, (begun,))))
    thread.start()
    assert begun.wait(LIMIT)
    pool.close()
    begun.clear()
    assert pool.join(LIMIT)
    thread.join()
    assert found == ["done"]


def test_a_future_that_somebody_waits_for_can_be_cancelled_and_has_its_callbacks() -> None:
    context = procession.get_context("forkserver")
    with procession.ProcessPoolExecutor(1, context) as executor:
        assert executor.submit(calls.square, 2).result() == 4
        begun, told, ended = context.Event(), threading.Event(), []

        def wait() -> None:
            try:
                ended.append(future.result())
            except concurrent.futures.CancelledError as error:
                ended.append(error)

        for cancelled in (True, False):
            future = executor.submit(calls.set_and_wait, begun)
            thread = threading.Thread(target=wait)
            thread.start()
            assert begun.wait(LIMIT)
            future.add_done_callback(lambda _: told.set())
            if cancelled:
                assert future.cancel()
            begun.clear()
            thread.join(LIMIT)
            assert told.wait(LIMIT)
            told.clear()
            assert future.cancelled() is cancelled
            assert (ended.pop() == "done") is not cancelled


def test_an_executor_that_lives_as_long_as_the_interpreter_ends_in_silence(tmp_path: Path) -> None:
    program = """
import procession
executor = procession.ProcessPoolExecutor(1)
print(executor.submit(len, "abc").result())
"""
    finished = run_text(tmp_path, program)
    assert (finished.code, finished.out, finished.err) == (0, "3\n", "")


class Interrupt:
    """A tracer that raises KeyboardInterrupt at the n-th place of our own code where a signal's
    handler could have run: after a call, at the begin of a function, at the end of a loop's round.

    It counts from where an outcome is waited for.
    """

    AFTER = frozenset(("RESUME", "PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"))

    def __init__(self, n: int) -> None:
        self.left = n
        self._counts = False
        self._last: dict[FrameType, str] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(str(OURS)):
            return None
        frame.f_trace_opcodes = True
        self._counts = self._counts or frame.f_code.co_name == "_take_from"
        if event == "opcode" and self._counts:
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            last, self._last[frame] = self._last.get(frame), name
            if last in self.AFTER and (last, name) != ("PRECALL", "CALL"):
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
        return self


def interrupted_everywhere(wait: Callable[[], Any], after: Callable[[bool], None]) -> int:
    """Interrupt a wait at its first place, then at its second, ... until there are no more."""
    for n in itertools.count(1):
        interrupt = Interrupt(n)
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            wait()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        after(interrupt.left <= 0)
        if interrupt.left > 0:
            return n
    raise AssertionError


def test_an_interrupt_anywhere_in_a_direct_call_leaves_no_worker_unused(pool: Any) -> None:
    crew = pool._crew
    call = pool.apply

    def works(was_interrupted: bool) -> None:
        assert wait_until(lambda: not any(hand.batches for hand in crew.hands))
        assert pool.apply_async(calls.square, (4,)).get(LIMIT) == 16
        assert all(hand.borrowed is None for hand in crew.hands)

    assert call(calls.square, (2,)) == 4
    assert interrupted_everywhere(lambda: call(calls.square, (3,)), works) > 15
    assert crew._lock.acquire(blocking=False)
    crew._lock.release()


def test_an_interrupt_anywhere_in_a_wait_for_a_future_leaves_it_its_result() -> None:
    context = procession.get_context("forkserver")
    waited_for = context.Event()
    with procession.ProcessPoolExecutor(1, context) as executor:
        executor.submit(calls.square, 2).result()
        (hand,) = executor._running_crew().hands
        receive = hand.channel.receive

        def received(wait: bool = True) -> Any:
            if wait:
                waited_for.set()  # not before: else the dispatcher might have had it
            return receive(wait)

        def has_its_result(was_interrupted: bool) -> None:
            nonlocal future
            waited_for.set()
            assert future.result(LIMIT)
            assert wait_until(lambda: not hand.batches)  # so that it has the next one at once
            waited_for.clear()
            future = executor.submit(waited_for.wait, LIMIT)

        hand.channel.receive = received
        future = executor.submit(waited_for.wait, LIMIT)
        try:
            assert interrupted_everywhere(lambda: future.result(), has_its_result) > 15
        finally:
            waited_for.set()


def test_an_interrupt_while_the_last_call_is_given_does_not_keep_the_end(pool: Any) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    assert pool.apply(calls.square, (2,)) == 4
    pool._crew.hands[0].channel.send = interrupted
    with pytest.raises(KeyboardInterrupt):
        pool.apply_async(calls.square, (3,))
    del pool._crew.hands[0].channel.send
    pool.close()
    assert pool.join(LIMIT)


def told_where_no_interrupt_comes(pool: Any) -> bool:
    """Whether the dispatcher, and not this thread, tells what waits to be told."""
    told: list[int] = []
    crew = pool._crew
    with crew._lock:
        crew.later(lambda: told.append(threading.get_ident()))
        result = pool.apply_async(calls.square, (4,))
        assert not told
    assert result.get(LIMIT) == 16
    return told == [crew._thread.ident]


def test_what_waits_to_be_told_is_told_where_no_interrupt_comes(pool: Any) -> None:
    assert told_where_no_interrupt_comes(pool)


def _told_in_a_copy() -> bool:
    with procession.get_context("forkserver").Pool(1) as pool:
        return told_where_no_interrupt_comes(pool)


def test_so_it_is_in_a_copy_that_was_forked_beside_the_main_thread() -> None:
    """There the forking thread is the main one, and interrupts come to it."""
    process = procession.get_context("fork").Process(target=_told_in_a_copy)
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    assert process.result(LIMIT)


class Refusing(Pool):
    """A pool whose workers cannot be started at times."""

    refuses = 0

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        if Refusing.refuses:
            Refusing.refuses -= 1
            raise OSError(errno.EAGAIN, "no more processes")
        return ctx.Process(*args, **kwds)


@pytest.mark.parametrize("size", [1, 2])
def test_a_start_that_failed_is_tried_again(size: int) -> None:
    pool = Refusing(size, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        Refusing.refuses = 2
        with pytest.raises(procession.WorkerDied):
            pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
        assert pool.apply_async(calls.square, (3,)).get(LIMIT) == 9
        assert wait_until(lambda: len(pool._pool) == size)
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()


def test_why_no_worker_can_be_started_is_logged_once_while_others_are_there() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = procession.get_logger()
    logger.addHandler(handler)
    pool = Refusing(2, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        for times in (1, 2):
            Refusing.refuses = 3
            with pytest.raises(procession.WorkerDied):
                pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
            assert wait_until(lambda: len(pool._pool) == 2 and not Refusing.refuses)
            assert len(heard) == times  # not at each of the three
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()
        logger.removeHandler(handler)
    assert heard[0] == (
        "a worker cannot be started (BlockingIOError: [Errno 11] no more processes); "
        "1 of 2 are there, and it is tried again"
    )


def test_a_pool_that_can_start_no_worker_says_so() -> None:
    pool = Refusing(1, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        Refusing.refuses = 1000
        with pytest.raises(procession.WorkerDied):
            pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
        with pytest.raises(OSError, match="no more processes"):
            pool.apply_async(calls.square, (3,)).get(LIMIT)
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()


def stubborn(path: str) -> None:
    """An initializer that does not end by SIGTERM, nor by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).touch()
    time.sleep(600)


class Half(Pool):
    """A pool of which only the first worker can be started; by then it is in its initializer."""

    started: Path

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        if Half.started.parent.joinpath("asked").exists():
            wait_until(Half.started.exists)
            raise OSError(errno.EAGAIN, "no more processes")
        Half.started.parent.joinpath("asked").touch()
        return ctx.Process(*args, **kwds)


def test_a_pool_that_cannot_start_all_ends_those_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_strays: None
) -> None:
    monkeypatch.setattr(stopping, "GRACE", 0.2)
    Half.started = tmp_path / "started"
    context = procession.get_context("forkserver")
    with pytest.raises(OSError, match="no more processes"):
        Half(2, stubborn, (str(Half.started),), context=context)
    assert not procession.active_children()


@pytest.mark.parametrize("kind_of", [RuntimeError, KeyboardInterrupt])
def test_a_pool_whose_thread_does_not_start_ends_the_workers_that_it_has(
    kind_of: type[BaseException], monkeypatch: pytest.MonkeyPatch, no_strays: None
) -> None:
    start = OwnThread.start

    def fail(thread: OwnThread) -> None:
        if kind_of is KeyboardInterrupt:  # it comes to who waits for the thread's first word
            start(thread)
        raise kind_of("as told")

    context = procession.get_context("forkserver")
    with context.Pool(1) as pool:  # whatever the first one brings along is there
        pool.apply(calls.pid)
    before = open_files()
    monkeypatch.setattr(OwnThread, "start", fail)
    with pytest.raises(kind_of, match="as told"):
        context.Pool(2)
    assert not procession.active_children()
    gc.collect()
    assert wait_until(lambda: open_files() <= before)


# --- what users of the standard library and its relatives met ----------------------------------


@each_kind
def test_what_is_registered_with_the_pickler_later_counts(kind: str) -> None:
    """As libraries do when they are imported, which may be in a call."""
    try:
        with Crowd(kind, "forkserver", 1) as crowd:
            assert crowd.call(calls.square, 3)() == 9
            assert isinstance(outcome(crowd.call(calls.give, calls.Late())), TypeError)
            assert isinstance(crowd.call(calls.give_late)(), calls.Late)
            calls.say_how()
            assert isinstance(crowd.call(calls.give, calls.Late())(), calls.Late)
    finally:
        ForkingPickler._extra_reducers.pop(calls.Late, None)  # type: ignore[attr-defined]


@each_method
def test_what_a_worker_shares_outlives_it(method: str) -> None:
    with Crowd("pool", method, 1, maxtasksperchild=1) as crowd:
        kinds = ("pipe", "queue", "value", "array")
        answers = [crowd.call(calls.give_shared, kind) for kind in kinds]
        crowd.it.close()
        crowd.it.join()
        pipe, queue, value, array = (answer() for answer in answers)
        assert (pipe.recv(), queue.get(timeout=LIMIT), value.value, array[:]) == (7, 7, 7, [7])
        pipe.close()


@pytest.mark.parametrize("how", ["initializer", "killed"])
def test_each_future_of_a_broken_executor_has_an_exception_of_its_own(how: str) -> None:
    """One that all share grows with each raise, and shows one caller the frames of another."""
    options = {"initializer": calls.failing_initializer, "initargs": ("raise",)}
    with Crowd("executor", "forkserver", 1, **(options if how == "initializer" else {})) as crowd:
        futures = []
        with contextlib.suppress(BrokenProcessPool):  # it may have failed already
            futures += [crowd.it.submit(calls.sleep, 60) for _ in range(2)]
        if how == "killed":
            crowd.it.kill_workers()
        errors = [future.exception(LIMIT) for future in futures]
        if how == "initializer":
            errors += [outcome(lambda: crowd.it.submit(calls.pid)) for _ in range(2)]
    assert all(isinstance(error, BrokenProcessPool) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)
    if how == "initializer":
        assert {str(error.__cause__) for error in errors} == {"no database"}


@each_kind
@pytest.mark.parametrize("kind_of", [KeyboardInterrupt, GeneratorExit, calls.Mine])
def test_what_is_no_exception_comes_back_and_ends_nobody(
    kind: str, kind_of: type[BaseException]
) -> None:
    with Crowd(kind, "forkserver", 1) as crowd:
        pid = crowd.call(calls.pid)()
        error = outcome(crowd.call(calls.raise_mine, kind_of))
        assert (type(error), error.args) == (kind_of, ("mine",))
        assert crowd.call(calls.pid)() == pid


@each_kind
@pytest.mark.parametrize("timeout", [3e6, float("inf")])
def test_the_limit_of_a_call_may_be_far_away(kind: str, timeout: float) -> None:
    with Crowd(kind, "forkserver", 1) as crowd:
        assert crowd.call(calls.square, 3, timeout=timeout)() == 9
        assert crowd.call(calls.square, 4)() == 16


@each_kind
def test_all_workers_may_die_at_once(kind: str) -> None:
    with Crowd(kind, "forkserver", 3) as crowd:
        answers = [crowd.call(calls.kill) for _ in range(6)]
        assert all(isinstance(outcome(one), procession.WorkerDied) for one in answers)
        assert crowd.call(calls.square, 3)() == 9


@each_kind
def test_an_argument_that_ends_its_worker_when_it_is_dropped_fails_its_call(kind: str) -> None:
    with Crowd(kind, "forkserver", 1) as crowd:
        bad = outcome(crowd.call(calls.pid, calls.EndsWhenDropped()))
        assert isinstance(bad, procession.WorkerDied)
        assert crowd.call(calls.square, 3)() == 9


@pytest.mark.parametrize("how", ["without waiting", "dropped"])
def test_calls_of_an_executor_that_is_given_up_are_done(how: str) -> None:
    context = procession.get_context("forkserver")
    executor: Any = ProcessPoolExecutor(2, context, max_tasks_per_child=1)
    futures = [executor.submit(calls.square, n) for n in range(5)]
    futures.insert(2, executor.submit(calls.kill))
    if how == "dropped":
        del executor
        gc.collect()
    else:
        executor.shutdown(wait=False)
    assert isinstance(futures.pop(2).exception(LIMIT), procession.WorkerDied)
    assert [future.result(LIMIT) for future in futures] == [0, 1, 4, 9, 16]
    assert wait_until(lambda: not procession.active_children())


def test_a_call_that_comes_with_the_shutdown_is_refused_or_done() -> None:
    executor = ProcessPoolExecutor(1, procession.get_context("forkserver"))
    futures = [executor.submit(calls.square, 2)]
    refused = threading.Event()

    def submit() -> None:
        try:
            while True:
                futures.append(executor.submit(calls.square, 2))
        except RuntimeError:
            refused.set()

    thread = threading.Thread(target=submit)
    thread.start()
    assert futures[0].result(LIMIT) == 4
    executor.shutdown()
    assert refused.wait(LIMIT)
    thread.join()
    assert {outcome(lambda: future.result(LIMIT)).__class__ for future in futures} <= {  # noqa: B023
        int,
        RuntimeError,
    }


@pytest.mark.parametrize("way", ["map_async", "imap", "imap_unordered"])
def test_a_pool_is_terminated_while_its_input_waits(way: str) -> None:
    """From several threads at once, with large calls under way."""
    go = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        go.wait(LIMIT)
        yield 2

    pool = procession.get_context("forkserver").Pool(2)
    large = pool.map_async(len, [bytes(SIZE)] * 8)
    if way != "map_async":  # which takes its input first
        assert getattr(pool, way)(calls.square, items()).next(LIMIT) == 1
    threads = [threading.Thread(target=pool.terminate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert pool.join(LIMIT)
    assert large.ready()
    go.set()


@each_kind
def test_much_goes_both_ways_at_once(kind: str) -> None:
    """Neither side waits for the other to take what it sends."""
    with Crowd(kind, "forkserver") as crowd:
        answers = [crowd.call(calls.give, bytes(300_000)) for _ in range(60)]
        assert {len(answer()) for answer in answers} == {300_000}


def test_a_callback_may_end_what_calls_it(pool: Any) -> None:
    ended = threading.Event()

    def end(_: Any) -> None:
        pool.terminate()
        ended.set()

    pool.apply_async(calls.square, (2,), callback=end)
    assert ended.wait(LIMIT)
    executor = ProcessPoolExecutor(1, procession.get_context("forkserver"))
    ended.clear()

    def shut(_: Any) -> None:
        executor.shutdown()
        ended.set()

    executor.submit(calls.square, 2).add_done_callback(shut)
    assert ended.wait(LIMIT)


@pytest.mark.parametrize("kind_of", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_is_left_by_no_exception_ends_no_other_call(
    kind_of: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))

    def leave(_: Any) -> None:
        raise kind_of

    with ProcessPoolExecutor(1, procession.get_context("forkserver")) as executor:
        futures = [executor.submit(calls.sleep, 0.05), executor.submit(calls.square, 2)]
        futures[0].add_done_callback(leave)
        assert futures[1].result(LIMIT) == 4
        assert executor.submit(calls.square, 3).result(LIMIT) == 9
    assert told == [kind_of]


WAITS: dict[str, Callable[[Any], Any]] = {
    "get": lambda pool: pool.apply_async(calls.square, (3,)).get(),
    "apply": lambda pool: pool.apply(calls.square, (3,)),
    "wait": lambda pool: pool.apply_async(calls.square, (3,)).wait(),
    "map": lambda pool: pool.map(calls.square, [3]),
    "imap": lambda pool: next(pool.imap(calls.square, [3])),
    "result": lambda pool: pool.submit(calls.square, 3).result(),
    "executor's map": lambda pool: list(pool.map(calls.square, [3])),
}


@pytest.mark.parametrize("way", WAITS)
def test_a_callback_that_would_wait_for_itself_is_told(way: str) -> None:
    kind = "executor" if "result" in way or "executor" in way else "pool"
    found: list[Any] = []
    ended = threading.Event()
    with Crowd(kind, "forkserver", 1) as crowd:

        def wait(_: Any) -> None:
            crowd.call(calls.sleep, 0.1)  # that no worker is free to be asked directly
            found.append(outcome(lambda: WAITS[way](crowd.it)))
            ended.set()

        if kind == "pool":
            crowd.it.apply_async(calls.square, (2,), callback=wait)
        else:
            crowd.it.submit(calls.sleep, 0.1).add_done_callback(wait)
        assert ended.wait(LIMIT)
        assert isinstance(found[0], RuntimeError)
        assert "cannot wait for a call of its own pool" in str(found[0])
        assert crowd.call(calls.square, 4)() == 16


@each_kind
@pytest.mark.parametrize("inner", ["pool", "executor"])
def test_calls_may_have_workers_of_their_own(kind: str, inner: str) -> None:
    with Crowd(kind, "forkserver", 1) as crowd:
        assert crowd.call(calls.squares_of_its_own, inner)() == [0, 1, 4, 9]


@each_method
def test_an_executor_left_open_in_a_child_lets_it_end(method: str) -> None:
    with Crowd("executor", method, 1) as crowd:
        pids = crowd.call(calls.leave_executor_open, method)()
        crowd.it.shutdown()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    context = procession.get_context(method)
    process = context.Process(target=calls.leave_executor_open, args=(method,))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == 0


def test_a_call_is_told_in_short_without_laying_out_what_it_was_given() -> None:
    large = (bytes(SIZE), "x" * SIZE, bytearray(SIZE))
    tracemalloc.start()
    try:
        text = describe(len, large, {})
        assert tracemalloc.get_traced_memory()[1] < SIZE // 16
    finally:
        tracemalloc.stop()
    assert len(text) < 300


def test_a_handler_of_sigchld_that_reaps_all_harms_no_pool() -> None:
    def reap(*_: Any) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        with Crowd("pool", "fork", maxtasksperchild=3) as crowd:
            assert crowd.it.map(calls.square, range(12), 1) == [n * n for n in range(12)]
            assert isinstance(outcome(crowd.call(calls.kill)), procession.WorkerDied)
            assert crowd.call(calls.square, 3)() == 9
            crowd.it.close()
            crowd.it.join()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_calls_returned_goes_silently_with_the_interpreter(tmp_path: Path) -> None:
    text = """
        import procession

        def make(kind, *args):
            return getattr(procession, kind)(*args)

        if __name__ == "__main__":
            pool = procession.Pool(1)
            kinds = ("Pipe",), ("Queue",), ("Lock",), ("Value", "i", 7), ("Array", "i", [7])
            kept = [pool.apply_async(make, kind) for kind in kinds]
            [one.get() for one in kept]
            pool.close()
            pool.join()
    """
    done = run_text(tmp_path, text)
    assert (done.code, done.err) == (0, "")


def test_one_ctrl_c_ends_asyncio_with_its_calls(tmp_path: Path) -> None:
    text = """
        import asyncio, time
        import procession

        def work(n):
            print("up", flush=True)
            time.sleep(60)

        async def main():
            loop = asyncio.get_running_loop()
            with procession.ProcessPoolExecutor(2) as executor:
                await asyncio.gather(*(loop.run_in_executor(executor, work, n) for n in range(2)))

        if __name__ == "__main__":
            asyncio.run(main())
    """
    with running(write(tmp_path, text), start_new_session=True) as program:
        for _ in range(2):
            program.wait_for("up")
        os.killpg(program.pid, signal.SIGINT)
        done = program.finish()
        program.leaves_nothing()
    assert done.err.rstrip().endswith("KeyboardInterrupt"), done.err
    assert done.code == -signal.SIGINT


@pytest.mark.slow
@each_kind
def test_forty_thousand_calls_one_by_one_end_before_the_end(kind: str) -> None:
    with Crowd(kind, "forkserver") as crowd:
        answers = [crowd.call(calls.square, n) for n in range(40_000)]
        if kind == "pool":
            crowd.it.close()
            crowd.it.join()
        else:
            crowd.it.shutdown()
        assert sum(answer() for answer in answers) == sum(n * n for n in range(40_000))
