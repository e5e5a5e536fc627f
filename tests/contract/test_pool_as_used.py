"""Pool and executor: what users of the standard library and its relatives met."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import ProcessPoolExecutor
from procession._crew.jobs import describe
from tests.contract import calls
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    run_text,
    running,
    wait_until,
    write,
)
from tests.contract.test_pool import LIMIT, Crowd, each_kind, outcome

pytestmark = fork_beside_pytests_threads

SIZE = 4 << 20


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
