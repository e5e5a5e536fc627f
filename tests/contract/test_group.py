"""ProcessGroup: all have ended when the block is left, and the first failure stops the others."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import procession
from procession import GroupCancelled, GroupTimeout, How, ProcessDied, ProcessGroup, StillRunning
from tests.contract import targets
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    run_text,
    running,
    wait_until,
    write,
)

pytestmark = fork_beside_pytests_threads


def group_of(method: str, **options: Any) -> ProcessGroup:
    return ProcessGroup(context=procession.get_context(method), **options)


def busy(group: ProcessGroup, *, target: Any = targets.wait_then_tell) -> tuple[Any, Any]:
    """A process of the group that runs until it is stopped, and the way to hear from it."""
    here, there = procession.Pipe()
    process = group.start(target, there)
    there.close()
    assert here.recv() == "up"
    return process, here


def gone(process: Any) -> None:
    """Not even a zombie is left, or it is gone in a moment."""
    wait_until(lambda: not psutil.pid_exists(process.pid))


# --- leaving the block -------------------------------------------------------------------------


@each_method
def test_all_have_ended_when_the_block_is_left(method: str) -> None:
    with group_of(method) as group:
        members = [group.start(targets.give, n) for n in range(5)]
    assert [member.result(0) for member in members] == [0, 1, 2, 3, 4]
    for member in members:
        gone(member)
    assert group.processes == tuple(members)


def test_an_empty_block_is_left_at_once() -> None:
    with ProcessGroup():
        pass
    with ProcessGroup(timeout=60):
        pass


@each_method
def test_a_process_joins_by_its_constructor(method: str) -> None:
    process_class = procession.get_context(method).Process
    with ProcessGroup() as group:
        process = process_class(group=group, target=targets.give, args=(3,))
        assert group.processes == ()
        process.start()
        assert group.processes == (process,)
    assert process.result(0) == 3


@pytest.mark.parametrize("group", [1, "group", threading.Lock()])
def test_the_constructor_refuses_other_groups(group: Any) -> None:
    with pytest.raises(AssertionError, match="group argument must be None or a ProcessGroup"):
        procession.Process(group=group)


def test_a_group_must_be_entered_and_only_once() -> None:
    group = ProcessGroup()
    with pytest.raises(RuntimeError, match="not entered"):
        group.start(targets.nothing)
    process = procession.Process(group=group, target=targets.give, args=(1,))
    with pytest.raises(RuntimeError, match="not entered"):
        process.start()
    with group:
        process.start()  # a refused start is no start
    assert process.result(0) == 1
    with pytest.raises(RuntimeError, match="was left"):
        group.start(targets.nothing)
    with pytest.raises(RuntimeError, match="once"):
        group.__enter__()


@pytest.mark.parametrize("options", [{"timeout": -1}, {"grace": -1}, {"grace": float("nan")}])
def test_bad_times_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"must be at least 0"):
        ProcessGroup(**options)


def test_a_closed_process_does_not_keep_the_block() -> None:
    with ProcessGroup() as group:
        process = group.start(targets.nothing)
        process.join(30)
        process.close()


# --- failures ----------------------------------------------------------------------------------


@each_method
def test_the_first_failure_stops_the_others(method: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with group_of(method) as group:
            other, heard = busy(group)
            group.start(targets.raise_it, "attributes")
            assert heard.recv() == "finally"  # while the block goes on
    (error,) = caught.value.exceptions
    assert isinstance(error, targets.WithAttributes)
    assert (error.code, error.hint) == (7, "look there")
    gone(other)
    assert str(caught.value) == "1 failure in a group of 2 processes (1 sub-exception)"
    heard.close()


FAILURES = {
    "killed": (targets.die, (), "was killed by SIGKILL"),
    "os._exit": (targets.leave_at_once, (), "exited 3"),
    "sys.exit": (targets.leave, (4,), "exited 4"),
    "segfault": (targets.segfault, (), "was killed by SIGSEGV"),
    "exception that cannot be unpickled": (targets.raise_it, ("unloadable",), "words of it"),
}


@each_method
@pytest.mark.parametrize("failure", FAILURES)
def test_every_kind_of_failure_is_told(method: str, failure: str) -> None:
    target, arguments, words = FAILURES[failure]
    with pytest.raises(ExceptionGroup) as caught:
        with group_of(method) as group:
            fine = group.start(targets.give, 1)
            fine.join(30)
            failed = group.start(target, *arguments)
    (error,) = caught.value.exceptions
    assert words in str(error)
    if isinstance(error, ProcessDied):
        assert error.pid == failed.pid
    assert fine.result(0) == 1


def test_an_exit_with_status_0_is_no_failure() -> None:
    with ProcessGroup() as group:
        process = group.start(targets.leave, 0)
    assert process.ending.how is How.EXITED


@each_method
def test_a_result_that_cannot_be_pickled_fails_who_asks_for_it(method: str) -> None:
    with group_of(method) as group:
        process = group.start(targets.give_lock)
    with pytest.raises(TypeError, match="cannot be pickled"):
        process.result(0)


def test_failures_of_the_same_moment_are_all_told() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup() as group:
            members, pipes = about_to_fail(group, 3)
            os.kill(members[0].pid, signal.SIGSTOP)  # stopped, it fails only on its way out
            for pipe in pipes[1:]:
                pipe.send(None)
            for member in members[1:]:
                member.join(30)
    told = sorted(str(error) for error in caught.value.exceptions)
    assert told.count("as told") >= 1
    assert set(told) == {"as told"}
    for pipe in pipes:
        pipe.close()


def about_to_fail(group: ProcessGroup, count: int) -> tuple[list[Any], list[Any]]:
    """Processes of the group that fail when they are sent something, and the ways to send it."""
    pipes = [procession.Pipe() for _ in range(count)]
    members = [group.start(_wait_and_fail, here) for _, here in pipes]
    for there, here in pipes:
        assert there.recv() == "up"
        here.close()
    return members, [there for there, _ in pipes]


def _wait_and_fail(conn: Any) -> None:
    conn.send("up")
    conn.recv()
    raise ValueError("as told")


def test_a_clean_up_that_fails_is_a_failure_too() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup(grace=60) as group:
            _, heard = busy(group, target=_fail_when_stopped)
            group.start(targets.raise_it, "plain")
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {targets.Plain, OSError}
    heard.close()


def _fail_when_stopped(conn: Any) -> None:
    try:
        conn.send("up")  # from here on it may be stopped
        time.sleep(60)
    except KeyboardInterrupt:
        raise OSError("cannot clean up") from None


# --- the block's own end -----------------------------------------------------------------------


def test_an_exception_in_the_block_stops_all_and_comes_first() -> None:
    own = KeyError("in the block")
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup(grace=60) as group:
            _, heard = busy(group, target=_fail_when_stopped)
            raise own
    assert caught.value.exceptions[0] is own
    assert [type(error) for error in caught.value.exceptions[1:]] == [OSError]
    heard.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_the_block_as_they_are(kind: type[BaseException]) -> None:
    with pytest.raises(kind) as caught:
        with ProcessGroup() as group:
            process, heard = busy(group)
            raise kind("from the block")
    assert caught.value.args == ("from the block",)
    gone(process)
    heard.close()


@pytest.mark.parametrize("first", ["in the block", "while it is left"])
def test_a_second_interrupt_kills_at_once(first: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        with ProcessGroup(grace=600) as group:
            process, heard = busy(group, target=targets.ignore_everything)

            def interrupt() -> None:
                if first != "in the block":
                    wait_until(lambda: group._left)
                    os.kill(os.getpid(), signal.SIGINT)
                wait_until(lambda: group._left and group.cancelled)
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            if first == "in the block":
                raise KeyboardInterrupt
    thread.join()
    assert process.ending.signal == signal.SIGKILL
    heard.close()


def test_an_interrupt_before_the_wait_for_the_end_does_not_leave_that_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the block's exception is its own is seen by processes' outcomes, which takes time."""
    judge = ProcessGroup._is_consequence

    def interrupted(group: ProcessGroup, error: BaseException) -> bool:
        monkeypatch.setattr(ProcessGroup, "_is_consequence", judge)
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessGroup, "_is_consequence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with ProcessGroup() as group:
            process, heard = busy(group)
            raise KeyError
    gone(process)
    assert process.exitcode is not None
    heard.close()


def test_a_result_of_a_stopped_process_is_no_failure_of_its_own() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup() as group:
            other, heard = busy(group)
            group.start(targets.raise_it, "plain")
            other.result()
    assert [type(error) for error in caught.value.exceptions] == [targets.Plain]
    heard.close()


def test_a_failure_asked_for_in_the_block_is_told_once() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup() as group:
            failed = group.start(targets.raise_it, "plain")
            failed.result()
    assert [type(error) for error in caught.value.exceptions] == [targets.Plain]


# --- cancel, deadline, nesting -----------------------------------------------------------------


@each_method
def test_cancel_ends_all_and_says_nothing(method: str) -> None:
    with group_of(method) as group:
        process, heard = busy(group)
        group.cancel()
        assert group.cancelled
        with pytest.raises(RuntimeError, match="being stopped"):
            group.start(targets.nothing)
        assert heard.recv() == "finally"
    gone(process)
    heard.close()


def test_what_ignores_signals_is_killed_after_the_grace_time() -> None:
    with ProcessGroup(grace=0.2) as group:
        process, heard = busy(group, target=targets.ignore_everything)
        group.cancel()
    assert process.ending.signal == signal.SIGKILL
    heard.close()


def test_a_stopped_process_takes_what_is_below_it_along() -> None:
    with ProcessGroup(grace=0) as group:
        _, heard = busy(group, target=_start_a_sleeper)
        sleeper = psutil.Process(heard.recv())
        group.cancel()
    wait_until(lambda: not sleeper.is_running())
    heard.close()


def _start_a_sleeper(conn: Any) -> None:
    import subprocess

    conn.send("up")
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    conn.send(sleeper.pid)
    time.sleep(60)


def test_the_deadline_stops_all() -> None:
    with pytest.raises(GroupTimeout, match=r"within 0\.2 s"):
        with ProcessGroup(timeout=0.2) as group:
            process = group.start(time.sleep, 60)
    assert isinstance(GroupTimeout(""), TimeoutError)
    gone(process)


def test_the_deadline_counts_in_the_block_too() -> None:
    with pytest.raises(GroupTimeout):
        with ProcessGroup(timeout=0.2) as group:
            process = group.start(time.sleep, 60)
            process.join(30)
            assert process.exitcode is not None


def test_a_failure_stops_the_groups_inside() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup() as outer:
            with ProcessGroup() as inner:
                deep, heard = busy(inner)
                outer.start(targets.raise_it, "plain")
            pytest.fail("the inner block was left without an exception")
    assert [type(error) for error in caught.value.exceptions] == [targets.Plain]
    gone(deep)
    heard.close()


def test_a_failure_inside_leaves_the_inner_block_alone() -> None:
    with ProcessGroup() as outer:
        process, heard = busy(outer)
        with pytest.raises(ExceptionGroup):
            with ProcessGroup() as inner:
                inner.start(targets.raise_it, "plain")
        assert process.is_alive()
        assert not outer.cancelled
        outer.cancel()
    heard.close()


def test_what_leaves_an_inner_block_leaves_the_outer_one_nested() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup(), ProcessGroup() as inner:
            inner.start(targets.raise_it, "plain")
    matched, rest = caught.value.split(targets.Plain)
    assert matched is not None
    assert rest is None


def test_a_cancelled_outer_group_cancels_the_inner_block() -> None:
    with ProcessGroup() as outer:
        with pytest.raises(GroupCancelled):
            with ProcessGroup() as inner:
                _, heard = busy(inner)
                outer.cancel()
    heard.close()


# --- one after the other -----------------------------------------------------------------------


def test_as_completed_follows_the_order_of_ending() -> None:
    with ProcessGroup() as group:
        pipes = [procession.Pipe() for _ in range(3)]
        members = [group.start(targets.wait, here) for _, here in pipes]
        seen = []
        pipes[1][0].send(None)
        for member in group.as_completed():
            seen.append(member)
            if len(seen) < 3:
                pipes[(0, 2)[len(seen) - 1]][0].send(None)
    assert seen == [members[1], members[0], members[2]]
    for pair in pipes:
        for end in pair:
            end.close()


def test_wait_any_has_a_limit_and_an_end() -> None:
    with ProcessGroup() as group:
        assert group.wait_any() is None
        process, heard = busy(group)
        with pytest.raises(StillRunning):
            group.wait_any(0.01)
        with pytest.raises(StillRunning):
            next(group.as_completed(0.01))
        group.cancel()
        assert group.wait_any() is process
        assert group.wait_any() is None
    heard.close()


def test_processes_may_be_started_while_others_end() -> None:
    with ProcessGroup() as group:
        group.start(targets.give, 0)
        values = []
        for process in group.as_completed():
            values.append(process.result())
            if len(values) < 5:
                group.start(targets.give, len(values))
    assert values == [0, 1, 2, 3, 4]


def test_many_threads_start_in_one_group() -> None:
    with ProcessGroup() as group:

        def some() -> None:
            for n in range(5):
                group.start(targets.give, n)

        threads = [threading.Thread(target=some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len([process.result(0) for process in group.processes]) == 20


# --- whole programs ----------------------------------------------------------------------------


def test_one_ctrl_c_is_one_message(tmp_path: Path) -> None:
    text = """
        import time
        import procession

        def work(n):
            try:
                print("up", flush=True)
                time.sleep(60)
            finally:
                print("finally", flush=True)

        with procession.ProcessGroup() as group:
            for n in range(3):
                group.start(work, n)
    """
    with running(write(tmp_path, text), start_new_session=True) as program:
        for _ in range(3):
            program.wait_for("up")
        os.killpg(program.pid, signal.SIGINT)
        done = program.finish()
        program.leaves_nothing()
    assert done.lines.count("finally") == 3
    assert done.err.count("KeyboardInterrupt") == 1, done.err
    assert done.err.count("Traceback") == 1, done.err
    assert done.code == -signal.SIGINT


def test_a_group_works_by_fork_without_a_word_about_its_own_thread(tmp_path: Path) -> None:
    done = run_text(
        tmp_path,
        """
        import procession
        procession.set_start_method("fork")
        with procession.ProcessGroup() as group:
            members = [group.start(pow, 2, n) for n in range(4)]
        print([member.result() for member in members])
        """,
        flags=("-W", "error"),
    )
    assert (done.lines, done.err) == (["[1, 2, 4, 8]"], "")
