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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import procession
from procession._launch import stopping
from procession.pool import Pool
from tests.contract import calls
from tests.contract.programs import run_text, wait_until

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


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_a_call_is_given_leaves_no_worker_unused(pool: Any, when: str) -> None:
    (hand,) = pool._crew.hands
    give: Callable[..., None] = hand.channel.send

    def interrupted(*args: Any) -> None:
        if when == "after":
            give(*args)
        raise KeyboardInterrupt

    assert pool.apply(calls.square, (2,)) == 4
    hand.channel.send = interrupted
    with pytest.raises(KeyboardInterrupt):
        pool.apply(calls.square, (3,))
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
