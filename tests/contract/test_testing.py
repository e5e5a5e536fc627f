"""`procession.testing` and the pytest plugin: what is left is found, named, and ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest

import procession
from procession import testing
from tests.contract.programs import name_of, run_text

pytest_plugins = ["pytester"]


def test_a_block_that_leaves_nothing_passes() -> None:
    with testing.no_strays():
        process = procession.get_context("forkserver").Process(target=print)
        process.start()
        process.join()
        process.close()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_process_that_is_left_is_shown_and_ended(method: str) -> None:
    with pytest.raises(testing.StraysLeft) as caught:
        with testing.no_strays(0.1):
            process = procession.get_context(method).Process(target=time.sleep, args=(3600,))
            process.start()
    assert caught.value.processes == [process.pid]
    assert f"process     {process.pid} " in str(caught.value)
    process.join(30)
    testing.wait_until(lambda: not psutil.pid_exists(process.pid))  # reaped
    process.close()


def names_below(pid: int) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [name_of(child) for child in psutil.Process(pid).children()]
    return []


AFTER_A_FORK = """
import contextlib, os, time, procession
from procession import testing

def start(method, *args):
    process = procession.get_context(method).Process(target=time.sleep, args=args)
    process.start()
    return process

def look(method):
    try:
        with testing.no_strays(0.1):
            process = start(method, 3600)
    except testing.StraysLeft as left:
        print(method, left.processes == [process.pid] or left)
    else:
        print(method, "is not seen")
        process.kill()
    process.join()
    process.close()

if __name__ == "__main__":
    start("fork", 0).join()
    for method in ("forkserver", "spawn", "fork"):
        look(method)
    inner = procession.get_context("forkserver").Process(target=look, args=("forkserver",))
    inner.start()
    inner.join()
"""


def test_processes_are_seen_whoever_their_parent_is(tmp_path: Path) -> None:
    done = run_text(tmp_path, AFTER_A_FORK)
    assert done.lines == ["forkserver True", "spawn True", "fork True", "forkserver True"], done.err


FIRST_OBJECTS = """
import procession
from procession import testing

with testing.no_strays(0.1):
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition"):
        getattr(procession, name)()
    for name in ("Queue", "JoinableQueue", "SimpleQueue"):
        getattr(procession, name)()
    procession.Barrier(2), procession.Value("i"), procession.Array("i", 3)
print("nothing left")
"""


def test_what_is_kept_for_the_next_objects_is_not_left(tmp_path: Path) -> None:
    done = run_text(tmp_path, FIRST_OBJECTS)
    assert done.lines == ["nothing left"], done.err


def test_a_subprocess_and_what_is_below_it_are_left() -> None:
    text = "import subprocess, sys; print(1, flush=True); subprocess.run(['sleep', '3600'])"
    with pytest.raises(testing.StraysLeft) as caught:
        with testing.no_strays(0.1):
            child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            testing.wait_until(lambda: names_below(child.pid) == ["sleep"])  # no longer a copy
    below = [pid for pid in caught.value.processes if pid != child.pid]
    assert len(below) == 1
    assert f"└ {below[0]} sleep (alive) sleep 3600" in str(caught.value)
    child.wait(30)
    child.stdout.close()


def test_threads_descriptors_and_shared_memory_are_left() -> None:
    go = threading.Event()
    with pytest.raises(testing.StraysLeft) as caught:
        with testing.no_strays(0.1):
            thread = threading.Thread(target=go.wait, name="waits")
            thread.start()
            reading, writing = os.pipe()
            segment = SharedMemory(create=True, size=8)
    go.set()
    thread.join()
    os.close(reading)
    os.close(writing)
    segment.close()
    left = caught.value
    assert left.threads == ["waits"]
    assert {reading, writing} <= set(left.descriptors)
    assert left.shared_memory == [f"/dev/shm/{segment.name}"]
    assert not os.path.exists(left.shared_memory[0])  # cleaned up
    multiprocessing.resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]


def test_the_blocks_own_error_goes_first() -> None:
    with pytest.raises(ZeroDivisionError):
        with testing.no_strays():
            raise ZeroDivisionError


def test_waiting_returns_what_came_true_or_says_what_did_not() -> None:
    answers = iter([0, 0, 7])
    assert testing.wait_until(lambda: next(answers)) == 7
    with pytest.raises(TimeoutError, match=r"never has not come true within 0.01 s; it said \[\]"):

        def never() -> list[int]:
            return []

        testing.wait_until(never, 0.01)


TESTS = """
    import subprocess, pytest
    @pytest.fixture
    def sleeper():
        child = subprocess.Popen(["sleep", "3600"])
        yield child
        child.kill()
        child.wait()
    def test_good(no_strays, sleeper, wait_until):
        assert wait_until(lambda: sleeper.poll() is None)
    def test_bad(no_strays):
        global child
        child = subprocess.Popen(["sleep", "3601"])
    def test_unseen():
        child.wait()
"""


def test_the_plugin_fails_the_test_that_leaves_something(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(textwrap.dedent(TESTS))
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_bad*", "left behind:"])
    result.stdout.fnmatch_lines(["process     * sleep (alive) sleep 3601"])
    assert "During handling" not in result.stdout.str()


def test_the_plugin_looks_after_every_test_where_the_ini_says_so(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nprocession_no_strays = true\n")
    pytester.makepyfile(
        "import subprocess\ndef test_bad():\n    global child\n"
        "    child = subprocess.Popen(['sleep', '3602'])\ndef test_good():\n    child.wait()\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
