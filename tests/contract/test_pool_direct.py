"""Pool and executor: a call whose caller waits for its worker itself, and interrupts there."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dis
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import procession
from tests.contract import calls
from tests.contract.programs import fork_beside_pytests_threads, run_text, wait_until
from tests.contract.test_pool import LIMIT

pytestmark = fork_beside_pytests_threads

SIZE = 4 << 20
OURS = Path(procession.__file__).parent


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


# --- interrupts ----------------------------------------------------------------------------------


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
