"""Pool, executor and `map`: one bad call harms one call, and everything else is as ever (G4-G7)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.pool
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest

import procession
from procession import (
    CallExited,
    CallTimeout,
    How,
    PoolTerminated,
    ProcessPoolExecutor,
    WorkerDied,
)
from procession.pool import Pool, ThreadPool
from tests.contract import calls
from tests.contract.programs import (
    METHODS,
    each_method,
    fork_beside_pytests_threads,
    has_ended,
    run_command,
    run_text,
    running,
    wait_until,
    write,
)

pytestmark = fork_beside_pytests_threads
KINDS = ("pool", "executor")
each_kind = pytest.mark.parametrize("kind", KINDS)
LIMIT = 60.0  # seconds; nothing here takes that long unless it hangs


class Crowd:
    """A pool or an executor, by one face."""

    def __init__(self, kind: str, method: str, size: int = 2, **options: Any) -> None:
        context = procession.get_context(method)
        self.kind = kind
        if kind == "pool":
            self.it: Any = context.Pool(size, **options)
        else:
            self.it = ProcessPoolExecutor(size, context, **options)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        if self.kind == "pool":
            self.it.terminate()
            self.it.join()
        else:
            self.it.kill_workers()
            self.it.shutdown()

    def call(self, fn: Callable[..., Any], *args: Any, timeout: float | None = None) -> Any:
        """Start a call; what answers with its outcome."""
        if self.kind == "pool":
            result = self.it.apply_async(fn, args, timeout=timeout)
            return lambda: result.get(LIMIT)
        future = self.it.schedule(fn, args, timeout=timeout)
        return lambda: future.result(LIMIT)

    def pids(self) -> set[int]:
        """The workers' pids."""
        workers = self.it._pool if self.kind == "pool" else self.it._processes.values()
        return {worker.pid for worker in workers}


def outcome(answer: Callable[[], Any]) -> Any:
    """A value, or the exception itself."""
    try:
        return answer()
    except BaseException as error:
        return error


# --- the table: what goes wrong × who ------------------------------------

CAUSES: dict[str, tuple[type[BaseException], str]] = {
    "SIGKILL": (WorkerDied, "was killed by SIGKILL in "),
    "os._exit": (WorkerDied, "exited 7 in "),
    "sys.exit": (CallExited, r"called sys\.exit\(7\)"),
    "segfault": (WorkerDied, "was killed by SIGSEGV in "),
    "exception that cannot be unpickled": (calls.Unloadable, "words of it"),
    "result that cannot be pickled": (TypeError, "cannot pickle '_thread.lock' object"),
}


@each_method
@each_kind
@pytest.mark.parametrize("row", CAUSES)
def test_only_the_call_that_goes_wrong_fails(kind: str, method: str, row: str) -> None:
    error_type, words = CAUSES[row]
    with Crowd(kind, method) as crowd:
        answers = [crowd.call(calls.third, row, n) for n in range(8)]
        outcomes = [outcome(answer) for answer in answers]
        error = outcomes[3]
        assert isinstance(error, error_type), error
        with pytest.raises(error_type, match=words):
            raise error
        assert outcomes[:3] + outcomes[4:] == [0, 1, 2, 4, 5, 6, 7]
        assert crowd.call(calls.square, 9)() == 81
        if isinstance(error, WorkerDied):
            assert error.pid not in crowd.pids()
            assert f"third('{row}', 3)" in str(error)
            assert (kind == "executor") == isinstance(error, BrokenProcessPool)
        if row == "segfault":
            assert "in crash" in str(error)  # the Python stack
            assert "Segmentation fault" in error.stack


@each_method
@each_kind
def test_an_initializer_that_fails_fails_the_pool_at_once(kind: str, method: str) -> None:
    with Crowd(kind, method, initializer=calls.failing_initializer, initargs=("raise",)) as crowd:
        error = outcome(lambda: crowd.call(calls.square, 2)())
        if kind == "executor":
            assert isinstance(error, BrokenProcessPool)
            error = error.__cause__
        assert type(error) is ValueError
        assert (error.args, error.hint) == (("no database",), "start it")
        with pytest.raises((ValueError, BrokenProcessPool), match="no database"):
            crowd.call(calls.square, 2)()


@each_kind
@pytest.mark.parametrize("how", ["os._exit", "SIGKILL", "segfault", "sys.exit"])
def test_an_initializer_that_ends_its_worker_fails_the_pool(kind: str, how: str) -> None:
    with Crowd(kind, "forkserver", initializer=calls.failing_initializer, initargs=(how,)) as crowd:
        error = outcome(lambda: crowd.call(calls.square, 2)())
        assert "initializer" in str(error)
        assert not isinstance(error, SystemExit)


# --- the matrix: where × how ------------------------------------

DIED = {"SIGKILL": "SIGKILL", "os._exit": "exited 7", "segfault": "SIGSEGV"}
WHERES: dict[str, Callable[[Crowd, str], Any]] = {
    "pickling the call": lambda crowd, how: crowd.call(calls.give, calls.WhenPickled(how)),
    "unpickling the call": lambda crowd, how: crowd.call(calls.give, calls.WhenUnpickled(how)),
    "running": lambda crowd, how: crowd.call(calls.go_wrong, how),
    "pickling the result": lambda crowd, how: crowd.call(calls.give_when_pickled, how),
    "unpickling the result": lambda crowd, how: crowd.call(calls.give_when_unpickled, how),
}
IN_MAIN = ("pickling the call", "unpickling the result")  # where a death is the program's own


SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("spawn", "fork")]


@pytest.mark.parametrize("method", ["forkserver", *SLOW])
@each_kind
@pytest.mark.parametrize("how", calls.HOWS)
@pytest.mark.parametrize("where", WHERES)
def test_every_place_and_way_of_going_wrong(kind: str, where: str, how: str, method: str) -> None:
    if where in IN_MAIN and how in DIED:
        pytest.skip("that ends the program itself")
    with Crowd(kind, method) as crowd:
        before = [crowd.call(calls.square, n) for n in range(4)]
        error = outcome(lambda: WHERES[where](crowd, how)())
        after = [crowd.call(calls.square, n) for n in range(4)]
        assert [answer() for answer in before + after] == [0, 1, 4, 9] * 2
    if how in DIED:
        assert isinstance(error, WorkerDied)
        assert DIED[how] in str(error)
    elif how == "sys.exit" and where != "unpickling the result":
        assert isinstance(error, CallExited)
        assert error.code == 7
    elif where in ("running", "unpickling the call", "pickling the call"):
        assert (type(error), str(error)) == (ValueError, "told")
    elif where == "unpickling the result":
        assert isinstance(error, procession.errors.ResultNotPicklable)
        assert isinstance(error.__cause__, ValueError | SystemExit)
    elif kind == "pool":
        assert isinstance(error, multiprocessing.pool.MaybeEncodingError)  # type: ignore[attr-defined]
        assert "told" in str(error)
    else:
        assert (type(error), str(error)) == (ValueError, "told")


def test_a_callback_that_raises_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    def bad(_: Any) -> None:
        raise RuntimeError("bad callback")

    with Crowd("pool", "forkserver") as crowd:
        results = [crowd.it.apply_async(calls.square, (n,), callback=bad) for n in range(3)]
        assert [result.get(LIMIT) for result in results] == [0, 1, 4]
        failing = crowd.it.apply_async(calls.raise_value_error, error_callback=bad)
        with pytest.raises(ValueError, match="told"):
            failing.get(LIMIT)
        assert crowd.it.map(calls.square, range(5)) == [0, 1, 4, 9, 16]
    assert capsys.readouterr().err.count("RuntimeError: bad callback") == 4


def test_an_initializer_that_is_interrupted_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    executor = ProcessPoolExecutor(1, initializer=calls.sleep, initargs=(600,))
    future = executor.submit(calls.square, 2)
    executor.shutdown(timeout=0.1)
    with pytest.raises(BrokenProcessPool):
        future.result(LIMIT)
    assert capfd.readouterr() == ("", "")


@each_kind
def test_workers_that_die_between_calls_are_replaced(kind: str) -> None:
    with Crowd(kind, "forkserver") as crowd:
        assert crowd.call(calls.square, 2)() == 4
        for _ in range(5):
            for pid in crowd.pids():
                os.kill(pid, signal.SIGKILL)
            answer = outcome(crowd.call(calls.square, 3))
            assert answer == 9 or isinstance(answer, WorkerDied)
        wait_until(lambda: outcome(crowd.call(calls.square, 3)) == 9)


@each_kind
def test_a_worker_that_dies_at_shutdown_does_not_keep_it(kind: str) -> None:
    with Crowd(kind, "forkserver") as crowd:
        answers = [crowd.call(calls.sleep, 0.05) for _ in range(4)]
        if kind == "pool":
            crowd.it.close()
        else:
            crowd.it.shutdown(wait=False)
        for pid in crowd.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if kind == "pool":
            assert crowd.it.join(LIMIT)
        else:
            crowd.it.shutdown()
        for answer in answers:
            assert outcome(answer) == 0.05 or isinstance(outcome(answer), WorkerDied)


def test_what_was_prefetched_by_a_dead_worker_is_not_lost() -> None:
    """Tiny calls are sent many at a time; each is run once, whoever dies."""
    with Crowd("pool", "forkserver") as crowd:
        crowd.it.map(calls.square, range(5000))  # now it knows that they are tiny
        results = list(_outcomes(crowd.it.imap_unordered(calls.Nth("SIGKILL"), range(3000))))
    died = [result for result in results if isinstance(result, WorkerDied)]
    assert len(died) == 1
    assert "Nth(3)" in str(died[0])
    assert sorted(set(results) - set(died)) == [n for n in range(3000) if n != 3]


def _outcomes(iterator: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return
        except Exception as error:
            yield error


def test_a_slow_call_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Tiny calls behind a slow one go to other workers, and those before it are told at once."""
    path = tmp_path / "go"
    with Crowd("pool", "forkserver") as crowd:
        crowd.it.map(calls.mostly_quick, [(0, "")] * 5000)
        arguments = [(n, str(path)) for n in range(400)]
        results = crowd.it.imap_unordered(calls.mostly_quick, arguments)
        got = [results.next(LIMIT) for _ in range(399)]
        assert sorted(got) == [n for n in range(400) if n != 40]
        path.touch()
        assert results.next(LIMIT) == 40


# --- limits and cancelling ------------------------------------


@each_method
@each_kind
def test_a_call_over_its_time_is_stopped(kind: str, method: str) -> None:
    with Crowd(kind, method) as crowd:
        answers = [crowd.call(calls.square, n) for n in range(4)]
        late = crowd.call(calls.sleep, 60, timeout=0.3)
        in_time = crowd.call(calls.square, 5, timeout=LIMIT)
        error = outcome(late)
        assert isinstance(error, CallTimeout)
        assert str(error) == "sleep(60) did not end within 0.3 s; its worker was stopped"
        assert isinstance(error, TimeoutError)
        assert [answer() for answer in answers] == [0, 1, 4, 9]
        assert in_time() == 25


def test_a_stopped_call_takes_what_is_below_it_along() -> None:
    with Crowd("pool", "forkserver", 1) as crowd:
        sleeper = psutil.Process(crowd.call(calls.sleeper, 60)())
        with pytest.raises(CallTimeout):
            crowd.call(calls.sleep, 60, timeout=0.2)()
        wait_until(lambda: not sleeper.is_running())


@each_kind
def test_a_worker_that_is_stopped_by_sigstop_is_over_its_time(kind: str) -> None:
    with Crowd(kind, "forkserver") as crowd:
        error = outcome(crowd.call(calls.stop_myself, timeout=0.3))
        assert isinstance(error, CallTimeout)
        assert crowd.call(calls.square, 3)() == 9


def test_a_map_can_limit_each_call() -> None:
    with Crowd("pool", "forkserver") as crowd:
        with pytest.raises(CallTimeout, match=r"sleep\(60\)"):
            crowd.it.map(calls.sleep, [0, 60, 0], timeout=0.3)
        assert crowd.it.apply(calls.sleep, (0,), timeout=LIMIT) == 0


@each_method
def test_cancel_stops_a_running_call(method: str) -> None:
    there, here = procession.Pipe()
    with Crowd("executor", method, initializer=calls.set_conn, initargs=(here,)) as crowd:
        future = crowd.it.submit(calls.tell_and_wait)
        pid = there.recv()
        assert future.running()
        others = [crowd.it.submit(calls.square, n) for n in range(4)]
        assert future.cancel()
        assert future.cancelled()
        assert future.cancel()  # again is no error
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(LIMIT)
        assert [other.result(LIMIT) for other in others] == [0, 1, 4, 9]
        wait_until(lambda: not psutil.pid_exists(pid))
    for end in (there, here):
        end.close()


def test_a_cancelled_future_is_told_to_all_who_wait() -> None:
    there, here = procession.Pipe()
    options: dict[str, Any] = {"initializer": calls.set_conn, "initargs": (here,)}
    with Crowd("executor", "forkserver", 1, **options) as crowd:
        future = crowd.it.submit(calls.tell_and_wait)
        waiting = [crowd.it.submit(calls.square, n) for n in range(3)]
        there.recv()
        called: list[Any] = []
        future.add_done_callback(called.append)
        threading.Timer(0.05, future.cancel).start()
        done, _ = concurrent.futures.wait([future], LIMIT)
        assert done == {future}
        assert called == [future]
        assert waiting[1].cancel() or waiting[1].done()
        assert waiting[2].result(LIMIT) == 4
        assert not waiting[2].cancel()
    for end in (there, here):
        end.close()


def test_cancelling_one_of_many_tiny_calls_harms_no_other() -> None:
    with Crowd("executor", "forkserver") as crowd:
        for _ in range(10):
            futures = [crowd.it.submit(calls.square, n) for n in range(200)]
            cancelled = {n for n in range(50, 200, 7) if futures[n].cancel()}
            for n, future in enumerate(futures):
                if n in cancelled:
                    assert future.cancelled()
                else:
                    assert future.result(LIMIT) == n * n


# --- as ever ------------------------------------


@each_method
def test_results_come_as_from_the_builtin_map(method: str) -> None:
    with Crowd("pool", method) as crowd:
        pool = crowd.it
        expected = [n * n for n in range(500)]
        for chunk in (None, 1, 7, 1000):
            assert pool.map(calls.square, range(500), chunk) == expected
        assert list(pool.imap(calls.square, iter(range(500)))) == expected
        assert sorted(pool.imap_unordered(calls.square, iter(range(500)), 13)) == expected
        assert pool.starmap(calls.both, [(1, 2), (3, 4)]) == [3, 7]
        assert pool.apply(calls.both, (1,), {"b": 5}) == 6
        assert isinstance(pool, multiprocessing.pool.Pool)
    with Crowd("executor", method) as crowd:
        executor = crowd.it
        assert list(executor.map(calls.square, range(500))) == expected
        assert list(executor.map(calls.both, range(5), range(5))) == [0, 2, 4, 6, 8]
        assert list(executor.map(calls.square, range(20), buffersize=2)) == expected[:20]
        futures = [executor.submit(calls.square, n) for n in range(20)]
        done = concurrent.futures.as_completed(futures, LIMIT)
        assert sorted(future.result() for future in done) == expected[:20]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        1 << 200,
        2.5,
        float("inf"),
        "text",
        "\ud800 surrogate",
        "long " * 10_000,
        b"bytes",
        bytes(100_000),
        bytearray(b"array"),
        (1, "two", b"three"),
        (0, b"x", [1]),
        {"a": [1, {2}]},
        [None] * 3,
        calls.square,
        ValueError("as a value"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_arrive_as_they_are(one_pool: Any, value: Any) -> None:
    for got in (
        one_pool.apply(calls.give, (value,)),
        one_pool.map(calls.give, [value, value])[1],
        next(one_pool.imap(calls.give, iter([value]))),
    ):
        assert type(got) is type(value)
        assert repr(got) == repr(value)


@pytest.fixture
def one_pool() -> Iterator[Any]:
    with procession.get_context("forkserver").Pool(2) as pool:
        yield pool
    pool.join()


@each_method
def test_large_arrays_are_mapped_and_writable(method: str) -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full((512, 1024), n, dtype="float64") for n in range(6)]
    with Crowd("pool", method) as crowd:
        results = crowd.it.map(calls.plus_one, arrays)
        assert [float(result.max()) for result in results] == [1, 2, 3, 4, 5, 6]
        assert all(float(array.max()) == n for n, array in enumerate(arrays))
        results[0][:] = 7  # ours to write
        mixed = crowd.it.apply(calls.give, ({"big": arrays[2], "small": numpy.arange(3)},))
        assert mixed["small"].tolist() == [0, 1, 2]
        assert float(mixed["big"].min()) == 2
        assert len(crowd.it.apply(calls.big, (5 << 20,))) == 5 << 20


def test_exceptions_come_whole() -> None:
    with Crowd("pool", "forkserver") as crowd:
        with pytest.raises(ValueError, match="told") as caught:
            crowd.it.apply(calls.raise_value_error)
    names = [entry.name for entry in caught.traceback]
    assert "raise_value_error" in names
    assert "raise_value_error" in str(caught.value.__cause__)


def test_an_exception_asked_for_again_is_as_it_was_at_first() -> None:
    with Crowd("pool", "forkserver") as crowd:
        result = crowd.it.apply_async(calls.raise_value_error)
        depths = set()
        for _ in range(3):
            with pytest.raises(ValueError, match="told") as caught:
                result.get(LIMIT)
            depths.add(len(caught.traceback))
        assert len(depths) == 1
        assert not result.successful()


@each_method
def test_the_initializer_runs_in_every_worker(method: str) -> None:
    options: dict[str, Any] = {"initializer": calls.set_initial, "initargs": (5,)}
    for kind in KINDS:
        with Crowd(kind, method, **options) as crowd:
            answers = [crowd.call(calls.get_initial, n) for n in range(6)]
            assert {answer() for answer in answers} == {5}


def test_workers_are_replaced_after_their_tasks() -> None:
    with procession.get_context("forkserver").Pool(2, maxtasksperchild=3) as pool:
        pids = [pool.apply(calls.pid) for _ in range(12)]
        assert max(pids.count(pid) for pid in set(pids)) <= 3
        assert len(set(pool.map(calls.pid, range(40), chunksize=1))) >= 40 // 3
        results = [pool.apply_async(calls.pid) for _ in range(6)]
        pool.close()
        assert len({result.get(LIMIT) for result in results}) >= 2
    with ProcessPoolExecutor(2, max_tasks_per_child=2) as executor:
        assert executor._mp_context.get_start_method() == "spawn"
        pids = [executor.submit(calls.pid).result(LIMIT) for _ in range(5)]
        assert len(set(pids)) >= 3


def test_no_worker_takes_more_tasks_than_it_may_however_quick_they_are() -> None:
    """Quick calls go out many at a time; a task is what the user calls a chunk, all the same."""
    with procession.get_context("forkserver").Pool(2, maxtasksperchild=3) as pool:
        pool.map(calls.square, range(2000), chunksize=500)  # now it knows that they are quick
        for chunk in (1, 2):
            pids = pool.map(calls.pid, range(40), chunksize=chunk)
            assert max(pids.count(pid) for pid in set(pids)) <= 3 * chunk
    with ThreadPool(2) as threads:
        assert threads.map(calls.square, range(40)) == [n * n for n in range(40)]


def test_workers_that_start_slowly_come_to_their_tasks() -> None:
    """What waits for one is not taken from it again and again, nor counted as its tasks."""
    options: dict[str, Any] = {"initializer": calls.sleep, "initargs": (0.3,)}
    with Crowd("pool", "forkserver", maxtasksperchild=1, **options) as crowd:
        result = crowd.it.map_async(calls.pid, range(20), chunksize=5)
        assert len(set(result.get(LIMIT))) == 4


def test_the_time_of_a_call_begins_when_its_worker_is_there() -> None:
    options: dict[str, Any] = {"initializer": calls.sleep, "initargs": (0.5,)}
    with Crowd("executor", "forkserver", 1, **options) as crowd:
        assert crowd.call(calls.square, 3, timeout=0.25)() == 9


def test_a_worker_that_stands_still_keeps_no_calls_and_nobody_waiting() -> None:
    """However often it is given some: its channel never fills, so that nobody waits for it."""
    with Crowd("pool", "forkserver") as crowd:
        pool = crowd.it
        pool.map(calls.square, range(5000))
        still = psutil.Process(pool._pool[0].pid)
        still.suspend()
        for n in range(12):
            numbers = range(n, 3000 + n)
            assert pool.map_async(calls.square, numbers).get(LIMIT) == [n * n for n in numbers]
        still.resume()
        assert pool.map_async(calls.square, range(9)).get(LIMIT) == [n * n for n in range(9)]


def test_a_slow_call_is_not_given_others_again_and_again(tmp_path: Path) -> None:
    """They would fill its channel, and whoever gives it the next ones would wait for it."""
    path = tmp_path / "go"
    with Crowd("pool", "forkserver", 1) as crowd:
        pool = crowd.it
        pool.map(calls.mostly_quick, [(0, "")] * 5000)
        results = pool.imap(calls.mostly_quick, [(n, str(path)) for n in range(1000)])
        got = [results.next(LIMIT) for _ in range(40)]
        (hand,) = pool._crew.hands
        sent, spent = hand._sent, psutil.Process().cpu_times()
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(1.0)  # 20 times as long as it takes until the others are taken back
        now = psutil.Process().cpu_times()
        assert hand._sent <= sent + 1
        assert now.user + now.system - spent.user - spent.system < 0.7  # nobody runs in circles
        late = pool.apply_async(calls.square, (3,))
        path.touch()
        assert [*got, *(results.next(LIMIT) for _ in range(40, 1000))] == list(range(1000))
        assert late.get(LIMIT) == 9


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_call_that_comes_with_the_end_is_refused(end: str) -> None:
    """Whoever looked whether the pool runs just before it did not any more waits for nothing."""
    with Crowd("pool", "forkserver", 1) as crowd:
        pool = crowd.it
        assert pool.apply(calls.square, (2,)) == 4
        getattr(pool, end)()
        assert pool.join(LIMIT)
        pool._state = "RUN"  # as that thread saw it
        for start in (
            lambda: pool.apply_async(calls.square, (2,)).get(LIMIT),
            lambda: pool.map_async(calls.square, range(4)).get(LIMIT),
            lambda: pool.imap(calls.square, iter(range(4))).next(LIMIT),
        ):
            with pytest.raises(ValueError, match="Pool not running"):
                start()


def test_cancelling_what_waits_for_a_worker_that_starts_ends_nobody() -> None:
    options: dict[str, Any] = {"initializer": calls.sleep, "initargs": (0.3,)}
    with Crowd("executor", "forkserver", 1, **options) as crowd:
        first = crowd.it.submit(calls.pid)
        pids = crowd.pids()
        assert first.cancel()
        second = crowd.it.submit(calls.pid)
        assert {second.result(LIMIT)} == pids


def test_input_is_taken_no_further_than_is_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for n in itertools.count():
            taken += 1
            yield n

    with Crowd("pool", "forkserver") as crowd:
        results = crowd.it.imap(calls.square, endless(), buffersize=8)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert taken <= 5 + 8
    first = list(itertools.islice(procession.map(calls.square, endless(), workers=2), 100))
    assert first == [n * n for n in range(100)]


def test_the_input_may_come_out_of_the_same_pool() -> None:
    with Crowd("pool", "forkserver") as crowd:
        once = crowd.it.imap(calls.square, iter(range(50)))
        twice = crowd.it.imap(calls.square, once)
        assert list(twice) == [n**4 for n in range(50)]


def test_an_unused_buffer_does_not_keep_the_end() -> None:
    with Crowd("pool", "forkserver") as crowd:
        results = crowd.it.imap(calls.square, iter(range(20)), buffersize=2)
        crowd.it.close()
        assert crowd.it.join(LIMIT)
        assert list(results) == [n * n for n in range(20)]


def test_procession_map_is_one_line() -> None:
    assert list(procession.map(calls.square, range(10))) == [n * n for n in range(10)]
    unordered = procession.map(calls.square, range(10), ordered=False, workers=2)
    assert sorted(unordered) == [n * n for n in range(10)]
    assert list(procession.map(calls.both, [1, 2], [3, 4], workers=1)) == [4, 6]
    with pytest.raises(ValueError, match="told"):
        list(procession.map(calls.go_wrong, ["exception"], workers=1))
    with pytest.raises(CallTimeout):
        list(procession.map(calls.sleep, [60], workers=1, timeout=0.2))
    with pytest.raises(RuntimeError, match="StopIteration"):  # and not the end of the results
        list(procession.map(calls.stop_iterating, [1, 2], workers=1))
    half = procession.map(calls.square, itertools.count(), workers=1)
    next(half)
    half.close()  # type: ignore[attr-defined]
    for bad in ({"chunksize": 0}, {"buffersize": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            procession.map(calls.square, [], **bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        procession.map(3, [1])  # type: ignore[arg-type]


def test_progress_is_silent_where_nobody_sees_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(procession.map(calls.square, range(5), progress=True)) == [0, 1, 4, 9, 16]
    assert capfd.readouterr() == ("", "")


TQDM = """
    from tqdm.contrib.concurrent import process_map

    def square(x):
        return x * x

    if __name__ == "__main__":
        import concurrent.futures

        assert concurrent.futures.ProcessPoolExecutor.__module__ == "procession.executor"
        print(process_map(square, range(50), max_workers=2, chunksize=5, disable=True))
"""


def test_process_map_of_tqdm_is_served_by_our_executor(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    path = write(tmp_path, TQDM)
    command = [sys.executable, "-m", "procession", "run", "-q", str(path)]
    assert str([n * n for n in range(50)]) in run_command(command).out


# --- the end ------------------------------------


@each_kind
def test_who_waits_for_a_terminated_pool_is_told(kind: str) -> None:
    with Crowd(kind, "forkserver") as crowd:
        answers = [crowd.call(calls.sleep, 60) for _ in range(6)]
        threading.Timer(0.1, crowd.__exit__).start()
        for answer in answers:
            assert isinstance(outcome(answer), PoolTerminated)
    if kind == "pool":
        with pytest.raises(ValueError, match="Pool not running"):
            crowd.it.apply(calls.square, (1,))
    else:
        with pytest.raises(RuntimeError, match="after shutdown"):
            crowd.it.submit(calls.square, 1)


def test_maps_are_told_of_a_termination_too() -> None:
    with Crowd("pool", "forkserver") as crowd:
        mapped = crowd.it.map_async(calls.sleep, [60])
        lazy = crowd.it.imap(calls.sleep, iter([0, 60, 60]))
        assert next(lazy) == 0
    with pytest.raises(PoolTerminated):
        mapped.get(LIMIT)
    with pytest.raises(PoolTerminated):
        next(lazy)
    with pytest.raises(StopIteration):
        next(lazy)


def test_shutdown_has_a_limit() -> None:
    executor = ProcessPoolExecutor(2, procession.get_context("forkserver"))
    future = executor.submit(calls.sleep, 60)
    executor.submit(calls.square, 1).result(LIMIT)
    executor.shutdown(timeout=0.2)
    assert isinstance(future.exception(LIMIT), BrokenProcessPool)


def test_shutdown_cancels_what_was_not_begun() -> None:
    with ProcessPoolExecutor(1, procession.get_context("forkserver")) as executor:
        first = executor.submit(calls.sleep, 0.2)
        wait_until(first.running)
        rest = [executor.submit(calls.square, n) for n in range(5)]
        executor.shutdown(cancel_futures=True)
        assert first.result(LIMIT) == 0.2
        assert all(future.cancelled() for future in rest)


def test_asyncio_cancels_the_work_too() -> None:
    async def main(executor: Any) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, calls.square, 7) == 49
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await loop.run_in_executor(executor, calls.sleep, 60)
        assert await loop.run_in_executor(executor, calls.square, 8) == 64

    with ProcessPoolExecutor(1, procession.get_context("forkserver")) as executor:
        asyncio.run(main(executor))


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("Number of processes", lambda: Pool(0)),
        ("maxtasksperchild", lambda: Pool(1, maxtasksperchild=0)),
        ("max_workers must be greater", lambda: ProcessPoolExecutor(0)),
        ("max_tasks_per_child", lambda: ProcessPoolExecutor(1, max_tasks_per_child=0)),
        ("call_timeout", lambda: ProcessPoolExecutor(1, call_timeout=0)),
    ],
)
def test_bad_numbers_are_refused(words: str, make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_pool_that_is_dropped_ends_and_warns() -> None:
    pool = procession.get_context("forkserver").Pool(2)
    pids = [worker.pid for worker in pool._pool]
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))


# --- threads ------------------------------------


def test_a_pool_of_threads_is_no_worse() -> None:
    with ThreadPool(3) as pool:
        assert pool.map(calls.square, range(100)) == [n * n for n in range(100)]
        assert list(pool.imap(calls.square, iter(range(10)))) == [n * n for n in range(10)]
        assert pool.apply(calls.both, (1, 2)) == 3
        with pytest.raises(CallExited):
            pool.apply(calls.leave)
        with pytest.raises(BaseException, match="base"):
            pool.apply(_raise_base)
        assert pool.starmap(calls.both, [(1, 2)]) == [3]
    pool.join()
    with ThreadPool(2, initializer=calls.failing_initializer, initargs=("raise",)) as pool:
        with pytest.raises(ValueError, match="no database"):
            pool.apply(calls.square, (1,))
    pool.join()


def _raise_base() -> None:
    raise BaseException("base")


# --- whole programs ------------------------------------


@pytest.mark.parametrize("how", ["pool", "executor", "map"])
def test_one_ctrl_c_is_one_message(tmp_path: Path, how: str) -> None:
    text = f"""
        import time
        import procession

        def work(n):
            print("up", flush=True)
            time.sleep(60)

        how = {how!r}
        if how == "pool":
            with procession.Pool(3) as pool:
                pool.map(work, range(3), chunksize=1)
        elif how == "executor":
            with procession.ProcessPoolExecutor(3) as executor:
                list(executor.map(work, range(3)))
        else:
            list(procession.map(work, range(3), workers=3))
    """
    with running(write(tmp_path, text), start_new_session=True) as program:
        for _ in range(3):
            program.wait_for("up")
        os.killpg(program.pid, signal.SIGINT)
        done = program.finish()
        program.leaves_nothing()
    assert done.err.count("Traceback") <= 2, done.err  # the call's own, as cause, and main's
    assert done.err.rstrip().endswith("KeyboardInterrupt"), done.err
    assert done.code == -signal.SIGINT


@pytest.mark.parametrize("method", METHODS)
def test_no_guard_is_needed_and_lambdas_travel(tmp_path: Path, method: str) -> None:
    done = run_text(
        tmp_path,
        f"""
        import procession
        procession.set_start_method({method!r})
        base = 10

        def add(n):
            return base + n

        class Point:
            def __init__(self, x):
                self.x = x

        def point(n):
            return Point(n)

        with procession.Pool(2) as pool:
            print(pool.map(add, range(3)), pool.map(lambda n: n * base, range(3)))
            print([p.x for p in pool.map(point, range(3))], pool.apply(add, (5,)))

            def later(n):
                return add(n) + 1

            print(pool.map(later, range(3)), pool.apply_async(later, (1,)).get())
        with procession.ProcessPoolExecutor(2) as executor:
            futures = executor.map(lambda n: n + base, range(3))
            print(list(futures), executor.submit(add, 1).result())
        print(list(procession.map(add, [1])))
        """,
    )
    assert done.lines == [
        "[10, 11, 12] [0, 10, 20]",
        "[0, 1, 2] 15",
        "[11, 12, 13] 12",
        "[10, 11, 12] 11",
        "[11]",
    ], done.err


def test_what_was_submitted_is_done_before_the_interpreter_ends(tmp_path: Path) -> None:
    done = run_text(
        tmp_path,
        """
        import procession

        def work(n):
            import time
            time.sleep(0.2)
            print("done", n, flush=True)

        if __name__ == "__main__":
            executor = procession.ProcessPoolExecutor(2)
            for n in range(4):
                executor.submit(work, n)
        """,
    )
    assert sorted(done.lines) == [f"done {n}" for n in range(4)], done.err


def test_a_pool_left_open_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    done = run_text(
        tmp_path,
        """
        import procession, time

        if __name__ == "__main__":
            pool = procession.Pool(2)
            result = pool.map_async(time.sleep, [60] * 4)
            print("left")
        """,
    )
    assert (done.code, done.lines, done.err) == (0, ["left"], "")


@pytest.mark.parametrize("kept", ["pool", "pool, pool.apply_async(abs, (1,))"])
def test_a_pool_left_open_by_a_command_says_nothing(kept: str) -> None:
    command = f"import procession as mp; pool = mp.Pool(1); kept = {kept}"
    done = run_command([sys.executable, "-c", command])
    assert (done.code, done.out, done.err) == (0, "", "")


@each_method
def test_a_copy_that_a_call_forks_is_no_worker(method: str) -> None:
    with Crowd("pool", method, 1) as crowd:
        copies = [crowd.call(calls.fork_and_return_twice)() for _ in range(5)]
        assert all(copies), copies  # the worker's answers
        wait_until(lambda: all(has_ended(pid) for pid in copies))
        assert crowd.call(calls.square, 3)() == 9


@each_kind
def test_forked_workers_do_not_hold_each_others_channels(kind: str) -> None:
    def sockets(pid: int) -> int:
        found = 0
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += os.readlink(fd).startswith("socket:")
        return found

    with Crowd(kind, "fork", 4) as crowd:
        assert crowd.call(calls.square, 3)() == 9
        wait_until(lambda: len({sockets(pid) for pid in crowd.pids()}) == 1)


def test_how_a_worker_ended_is_told_as_data() -> None:
    with Crowd("pool", "forkserver") as crowd:
        error = outcome(crowd.call(calls.kill))
        assert isinstance(error, WorkerDied)
        assert error.ending.how is How.SIGNALED
        assert error.ending.signal == signal.SIGKILL
        assert error.call == "kill()"


# --- chaos ------------------------------------


def chaos(kind: str, method: str, total: int, seed: int) -> tuple[int, int]:
    """Kill workers at random during so many calls; how many calls died, and how many kills."""
    import random

    chance = random.Random(seed)
    kills = 0
    stop = threading.Event()
    results: list[Any] = []
    with Crowd(kind, method) as crowd:

        def killer() -> None:
            nonlocal kills
            seen = 0
            while not stop.wait(chance.random() * 0.2):
                pids = list(crowd.pids())
                if pids and len(results) > seen:  # not faster than workers can start, under load
                    seen = len(results)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(pids), signal.SIGKILL)
                        kills += 1

        thread = threading.Thread(target=killer)
        thread.start()
        try:
            if kind == "pool":
                results.extend(_outcomes(crowd.it.imap(calls.some_time, range(total), 1)))
            else:
                futures = [crowd.it.submit(calls.some_time, n) for n in range(total)]
                results.extend(outcome(lambda: future.result(LIMIT)) for future in futures)  # noqa: B023
        finally:
            stop.set()
            thread.join()
    died = 0
    assert len(results) == total
    for n, result in enumerate(results):
        if isinstance(result, WorkerDied):
            assert result.call == f"some_time({n})"
            died += 1
        else:
            assert result == n
    return died, kills


@pytest.mark.parametrize(
    ("kind", "method"), [*(("pool", method) for method in METHODS), ("executor", "forkserver")]
)
def test_every_call_ends_once_while_workers_are_killed(kind: str, method: str, seed: int) -> None:
    died, kills = chaos(kind, method, 500, seed)
    assert died <= kills


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_method
@each_kind
def test_every_call_of_many_ends_once_while_workers_are_killed(
    kind: str, method: str, seed: int
) -> None:
    died, kills = chaos(kind, method, 100_000, seed)
    print(f"{kind}, {method}: {kills} workers killed, {died} calls died")
    assert died <= kills
