"""ProcessGroup: what users of nurseries would do with it, and without a free descriptor."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import threading
import time
from typing import Any

import pytest

import procession
from procession import GroupCancelled, ProcessGroup
from procession._launch.own_thread import OwnThread
from tests.contract import targets
from tests.contract.programs import each_method, fork_beside_pytests_threads, limited
from tests.contract.test_group import about_to_fail, busy, gone, group_of

pytestmark = fork_beside_pytests_threads


@pytest.mark.parametrize("timeout", [3e6, 1e300, float("inf")])
def test_a_deadline_may_be_far_away(timeout: float) -> None:
    with ProcessGroup(timeout=timeout) as group:
        process = group.start(targets.give, 1)
    assert process.result(0) == 1


def test_failures_of_block_and_processes_are_all_told() -> None:
    own = KeyError("in the block")
    with pytest.raises(ExceptionGroup) as caught:
        with ProcessGroup() as group:
            members, pipes = about_to_fail(group, 3)
            for member in members:  # none is stopped before all have failed
                os.kill(member.pid, signal.SIGSTOP)
            for pipe in pipes:
                pipe.send(None)
            with group._changed:  # nor looked at
                for member in members:
                    os.kill(member.pid, signal.SIGCONT)
                for member in members:
                    member.join(30)
            raise own
    assert caught.value.exceptions[0] is own
    assert [str(error) for error in caught.value.exceptions[1:]] == ["as told"] * 3
    for pipe in pipes:
        pipe.close()


def test_another_thread_may_cancel_and_too_late_it_changes_nothing() -> None:
    with ProcessGroup() as group:
        process, heard = busy(group)
        thread = threading.Thread(target=group.cancel)
        thread.start()
    thread.join()
    gone(process)
    heard.close()
    with ProcessGroup() as group:
        pass
    group.cancel()
    assert not group.cancelled


def test_cancelled_without_a_free_descriptor_it_ends_all_the_same() -> None:
    with ProcessGroup() as group:
        process, heard = busy(group)
        taken: list[int] = []
        most = max(int(number) for number in os.listdir("/proc/self/fd"))
        with limited(resource.RLIMIT_NOFILE, most + 1):
            try:
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                group.cancel()
                process.join(30)
                assert process.exitcode is not None
            finally:
                for number in taken:
                    os.close(number)
    heard.close()


def test_a_start_without_a_free_descriptor_is_refused_and_changes_nothing() -> None:
    with ProcessGroup() as group:
        for free in range(8):
            number = os.dup(0)
            os.close(number)
            with (
                limited(resource.RLIMIT_NOFILE, number + free),
                contextlib.suppress(procession.StartError),
            ):
                group.start(targets.nothing)
        last = group.start(targets.give, 1)
    assert last.result(0) == 1
    assert not procession.active_children()


def test_without_a_thread_nothing_is_started_nor_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with ProcessGroup() as group:
        with monkeypatch.context() as patch:
            patch.setattr(OwnThread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                group.start(targets.give, 1)
            before = os.listdir("/proc/self/fd")
            with pytest.raises(RuntimeError, match="new thread"):
                ProcessGroup(timeout=60).__enter__()
            assert os.listdir("/proc/self/fd") == before
        with ProcessGroup() as inner:
            assert inner._outer is group
        last = group.start(targets.give, 2)
    assert last.result(0) == 2


def _within(**options: Any) -> Any:
    with ProcessGroup(**options) as group:
        process = group.start(time.sleep, 60)
        try:
            yield group, process
        finally:
            group.cancel()


@pytest.mark.parametrize("thread", [False, True])
def test_a_generators_end_is_the_groups(thread: bool) -> None:
    inside = _within()
    group, process = next(inside)
    if thread:  # another one has another context
        other = threading.Thread(target=inside.close)
        other.start()
        other.join()
    else:
        inside.close()
    gone(process)
    assert "left" in repr(group)


def test_blocks_of_generators_are_left_in_any_order() -> None:
    first, second = _within(), _within()
    outer, _ = next(first)
    next(second)
    first.close()  # which cancels what is inside it
    assert outer.cancelled
    with pytest.raises(GroupCancelled):
        next(second)
    with ProcessGroup() as group:  # inside nothing
        process = group.start(targets.give, 1)
    assert process.result(0) == 1


def test_a_forked_copy_leaves_the_block_by_itself() -> None:
    with ProcessGroup() as group:
        process = group.start(targets.give, 1)
        copy = os.fork()
        if copy == 0:
            signal.alarm(30)
    if copy == 0:
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 5
    assert process.result(0) == 1


def test_a_group_cannot_go_elsewhere() -> None:
    with ProcessGroup() as group:
        with pytest.raises(TypeError, match="a ProcessGroup belongs to its process"):
            pickle.dumps(group)
        with pytest.raises(TypeError, match="a ProcessGroup belongs to its process"):
            group.start(targets.give, group)


@each_method
def test_a_child_may_have_a_group(method: str) -> None:
    with group_of(method) as group:
        process = group.start(_group_of_two, method)
    assert process.result(0) == [1, 2]


def _group_of_two(method: str) -> list[int]:
    with group_of(method) as group:
        members = [group.start(targets.give, n) for n in (1, 2)]
    return [member.result(0) for member in members]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_come_one_by_one() -> None:
    count = 500
    with ProcessGroup() as group:
        for n in range(count):
            group.start(targets.give, n)
        first = [group.wait_any() for _ in range(count // 2)]
        seen = [*first, *group.as_completed()]
        assert sorted(process.result() for process in seen if process) == list(range(count))
