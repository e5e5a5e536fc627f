"""`procession.testing` and the pytest plugin: what is left is found, named, and ended."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing.shared_memory import SharedMemory

import psutil
import pytest

import procession
from procession import testing

pytest_plugins = ["pytester"]

pytestmark = (
    pytest.mark.slow
)  # once, three of these failed together on a loaded machine: why is not known


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


def test_a_subprocess_and_what_is_below_it_are_left() -> None:
    text = "import subprocess, sys; print(1, flush=True); subprocess.run(['sleep', '3600'])"
    with pytest.raises(testing.StraysLeft) as caught:
        with testing.no_strays(0.1):
            child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            testing.wait_until(lambda: psutil.Process(child.pid).children())
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
