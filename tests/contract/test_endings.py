"""One Ending per process, and the truth in it (G8)."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import Ending, How
from procession._launch import keeper_client
from procession._wire import channel, messages
from tests.contract import targets
from tests.contract.programs import (
    each_kept_method,
    each_method,
    fork_beside_pytests_threads,
    run_text,
    start,
    wait_until,
)

pytestmark = fork_beside_pytests_threads


@pytest.fixture(autouse=True)
def _no_core_files_and_quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)


def ended(process: Any) -> Ending:
    process.join(20)
    ending = process.ending
    assert isinstance(ending, Ending)
    assert process.ending is ending
    assert process.exitcode == ending.exitcode
    assert not process.is_alive()
    return ending


# --- Python's own ends --------------------------------------------------------------------------


@each_method
def test_returned(method: str) -> None:
    assert ended(start(method, targets.give, 5)) == Ending(How.RETURNED, 0)


@each_method
def test_raised(method: str) -> None:
    ending = ended(start(method, targets.raise_it, "plain"))
    assert ending == Ending(How.RAISED, 1, text="Plain: ('words', 2)")


@each_method
@pytest.mark.parametrize(
    ("value", "code"),
    [(None, 0), (0, 0), (7, 7), (256, 0), ("words", 1), (-1, 255), (True, 1), (1 << 40, 0)],
)
def test_exited_by_sys_exit(method: str, value: Any, code: int) -> None:
    assert ended(start(method, targets.leave, value)) == Ending(How.EXITED, code)


@each_method
def test_exited_by_os_exit(method: str) -> None:
    assert ended(start(method, targets.leave_at_once)) == Ending(How.EXITED, 3)
    assert ended(start(method, os._exit, 0)) == Ending(How.EXITED, 0)


@each_method
def test_what_a_child_prints_last_is_kept(method: str, tmp_path: Path) -> None:
    """By a finalizer or, where its kind of child has them, an exit function; without a flush."""
    text = """
    import atexit, sys
    from multiprocessing import util
    import procession

    def end():
        atexit.register(print, "exit function")
        util.Finalize(None, print, ("finalizer",), exitpriority=1)

    if __name__ == "__main__":
        process = procession.get_context(sys.argv[1]).Process(target=end)
        process.start()
        process.join()
    """
    expected = {"finalizer"}
    if method == "spawn" or sys.version_info >= (3, 13):
        expected.add("exit function")
    finished = run_text(tmp_path, text, method)
    assert set(finished.lines) == expected, finished.err


@each_method
def test_an_end_of_a_thread_is_not_the_end_of_the_process(method: str) -> None:
    process = start(method, targets.leave_a_thread, 0.05)
    assert ended(process) == Ending(How.RETURNED, 0)
    assert process.result(0) == "main thread"


@each_method
def test_a_handler_of_sigterm_may_decide_how_to_end(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.handle_sigterm, here, 9)
    assert there.recv() == "up"
    process.terminate()
    assert ended(process) == Ending(How.EXITED, 9)


@each_kept_method
def test_arguments_that_cannot_be_unpickled_are_an_exception_of_the_child(method: str) -> None:
    process = start(method, targets.nothing, targets.FailsOnArrival())
    ending = ended(process)
    assert ending.how is How.RAISED
    assert ending.text == "RuntimeError: not on this side"
    assert ending.exitcode == 1
    with pytest.raises(RuntimeError, match="not on this side"):
        process.result(0)


@each_kept_method
def test_leaving_while_arguments_are_unpickled_is_an_exit(method: str) -> None:
    process = start(method, targets.nothing, targets.LeavesOnArrival())
    assert ended(process).exitcode == 4


A_COPY_NEVER_COMES_BACK = """
import os, sys
import procession

main = os.getpid()

class Odd(procession.get_context("fork").Process):
    def _bootstrap(self, *, parent_sentinel=None):
        return odd

class Worse(procession.get_context("fork").Process):
    def _bootstrap(self, *, parent_sentinel=None):
        def excepthook(*_):
            raise KeyboardInterrupt
        sys.excepthook = excepthook
        raise BaseException

for odd in (None, "x", 1 << 70, -3):
    process = Odd()
    process.start()
    assert os.getpid() == main or os.write(1, b"here")
    process.join()
    print(process.exitcode)
process = Worse()
process.start()
assert os.getpid() == main or os.write(1, b"here")
process.join()
print(process.exitcode)
"""


def test_a_forked_child_never_comes_back_into_its_starters_frames(tmp_path: Path) -> None:
    finished = run_text(tmp_path, A_COPY_NEVER_COMES_BACK)
    assert finished.lines == ["1", "1", "0", "253", "1"]
    assert finished.code == 0


# --- signals ------------------------------------------------------------------------------------


@each_method
def test_killed_from_outside(method: str) -> None:
    _there, here = procession.Pipe()
    process = start(method, targets.wait, here)
    os.kill(process.pid, signal.SIGKILL)
    ending = ended(process)
    assert ending == Ending(How.SIGNALED, -9)
    assert ending.signal == signal.SIGKILL
    assert str(ending) == "was killed by SIGKILL"


@each_method
@pytest.mark.parametrize(("name", "number"), [("kill", 9), ("terminate", 15)])
def test_killed_by_us_says_by_whom(method: str, name: str, number: int) -> None:
    _there, here = procession.Pipe()
    process = start(method, targets.wait, here)
    getattr(process, name)()
    ending = ended(process)
    assert ending == Ending(How.SIGNALED, -number, killed_by=os.getpid())
    assert str(ending).endswith(f", sent by pid {os.getpid()}")


@each_method
def test_another_signal_than_ours_is_not_blamed_on_us(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.ignore_everything, here)
    assert there.recv() == "up"
    process.terminate()
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process) == Ending(How.SIGNALED, -9)


@each_method
def test_a_nested_killer_is_named(method: str) -> None:
    """The one that started it ends it, a child of ours."""
    process = start(method, targets.kill_a_child_of_my_own, method)
    killer, ending = process.result(20)
    assert killer == process.pid
    assert ending == Ending(How.SIGNALED, -9, killed_by=process.pid)


@each_method
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 2])
def test_other_signals_end_a_process_too(method: str, number: int) -> None:
    process = start(method, targets.die_by, number)
    assert ended(process) == Ending(How.SIGNALED, -number)


@each_method
def test_a_segfault(method: str) -> None:
    ending = ended(start(method, targets.segfault))
    assert ending == Ending(How.SIGNALED, -signal.SIGSEGV)
    assert str(ending) == "was killed by SIGSEGV"


@each_method
def test_an_abort(method: str) -> None:
    assert ended(start(method, targets.abort)) == Ending(How.SIGNALED, -signal.SIGABRT)


@each_method
def test_a_stopped_process_has_not_ended(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.stop_myself, here)
    assert there.recv() == "up"
    state = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    assert process.is_alive()
    assert process.exitcode is None
    assert process.ending is None
    process.join(0.05)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGCONT)
    assert there.recv() == "going on"
    assert ended(process) == Ending(How.RETURNED, 0)


# --- another program ----------------------------------------------------------------------------


@each_method
def test_a_process_that_executed_another_program_ends_as_that_does(method: str) -> None:
    process = start(method, os.execv, "/bin/sh", ["sh", "-c", "read line; exit 9"])
    # its stdin is /dev/null or the test's own: either ends at once
    assert ended(process) == Ending(How.EXITED, 9)


@each_method
def test_a_process_that_executed_another_program_is_alive(method: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"while ! test -e {go}; do sleep 0.01; done; kill -9 $$"
    process = start(method, os.execv, "/bin/sh", ["sh", "-c", script])
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sh\n")
    assert process.is_alive()
    process.join(0.05)
    assert process.ending is None
    go.touch()
    assert ended(process) == Ending(How.SIGNALED, -9)


@each_method
def test_an_executed_program_can_be_stopped(method: str) -> None:
    process = start(method, os.execv, "/bin/sleep", ["sleep", "60"])
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    assert process.stop(10).exitcode in (-2, -15)


# --- out of memory ------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group with a memory limit, where this user may make one."""
    group = _limited_group(f"procession-test-{uuid.uuid4().hex[:8]}", limit)
    if group is None:
        pytest.skip("no memory cgroup can be made here (needs root and the memory controller)")
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), limit=5)
        group.rmdir()


def _limited_group(name: str, limit: int) -> Path | None:
    for root, file in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(root, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(str(limit))
            swap = group / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        except OSError:
            group.rmdir()
        else:
            return group
    return None


OUT_OF_MEMORY = """
import os, sys
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
import procession, signal

def eat(conn):
    conn.send("up")
    blocks = []
    while True:
        block = bytearray(4 << 20)
        block[::4096] = b"x" * len(block[::4096])
        blocks.append(block)

def wait(conn):
    conn.recv()

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    there, here = procession.Pipe()
    process = context.Process(target=eat, args=(here,))
    process.start()
    process.join()
    print(process.ending.how, process.exitcode, process.ending)
    process = context.Process(target=wait, args=(here,))
    process.start()
    process.kill()
    process.join()
    print(process.ending.how, process.ending.killed_by == os.getpid())
    process = context.Process(target=wait, args=(here,))
    process.start()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    print(process.ending.how)
"""


@each_method
def test_out_of_memory_is_told_from_a_kill(method: str, tmp_path: Path) -> None:
    with memory_group(160 << 20) as group:
        finished = run_text(tmp_path, OUT_OF_MEMORY, method, str(group / "cgroup.procs"))
    assert finished.lines == [
        "out_of_memory -9 was killed by SIGKILL (out of memory, inferred)",
        "signaled True",
        "signaled",
    ], finished.err


OUT_OF_MEMORY_IN_A_CALL = """
import os, sys
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
import procession

def eat(n):
    blocks = []
    while n:
        block = bytearray(4 << 20)
        block[::4096] = b"x" * len(block[::4096])
        blocks.append(block)
    return n

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    with context.Pool(1) as pool, procession.ProcessPoolExecutor(1, context) as executor:
        pooled = lambda n: pool.apply_async(eat, (n,)).get
        for start in (pooled, lambda n: executor.submit(eat, n).result):
            try:
                start(1)(60)
            except procession.WorkerDied as error:
                print(error.ending, "in", error.call)
            print(start(0)(60))
"""


def test_out_of_memory_in_a_call_fails_that_call(tmp_path: Path) -> None:
    with memory_group(160 << 20) as group:
        program = OUT_OF_MEMORY_IN_A_CALL
        finished = run_text(tmp_path, program, "forkserver", str(group / "cgroup.procs"))
    told = "was killed by SIGKILL (out of memory, inferred) in eat(1)"
    assert finished.lines == [told, "0"] * 2, finished.err


# --- the object itself --------------------------------------------------------------------------


def test_an_ending_can_be_compared_hashed_pickled_and_not_changed() -> None:
    ending = Ending(How.SIGNALED, -9, killed_by=5)
    assert pickle.loads(pickle.dumps(ending)) == ending
    assert len({ending, Ending(How.SIGNALED, -9, killed_by=5), Ending(How.LOST, 255)}) == 2
    with pytest.raises(AttributeError):
        ending.exitcode = 0  # type: ignore[misc]
    assert How("signaled") is How.SIGNALED
    assert ending.how == "signaled"


def test_a_child_that_is_killed_while_it_registers_takes_nobody_along() -> None:
    # the child's end of the socket is closed before the guard answers
    keeper = keeper_client.ensure(zygote=False)
    index, generation = keeper.table.claim()
    ours, theirs = channel.message_pair()
    ours.close()
    pidfd = os.pidfd_open(os.getpid())
    with theirs:
        channel.send(
            keeper.door,
            (messages.REGISTER, index, generation),
            [pidfd, theirs.fileno()],
        )
    os.close(pidfd)
    assert ended(start("fork", targets.give, 1)).how is How.RETURNED


@pytest.mark.parametrize(
    ("ending", "words", "number"),
    [
        (Ending(How.RETURNED, 0), "returned", None),
        (Ending(How.RAISED, 1), "raised an exception", None),
        (Ending(How.RAISED, 1, "ValueError: x"), "raised ValueError: x", None),
        (Ending(How.EXITED, 3), "exited 3", None),
        (Ending(How.SIGNALED, -15), "was killed by SIGTERM", 15),
        (Ending(How.SIGNALED, -70), "was killed by signal 70", 70),
        (Ending(How.SIGNALED, -9, killed_by=3), "was killed by SIGKILL, sent by pid 3", 9),
        (
            Ending(How.LOST, 255),
            "was lost: its keeper was gone before its end was known",
            None,
        ),
    ],
)
def test_an_ending_in_words(ending: Ending, words: str, number: int | None) -> None:
    assert str(ending) == words
    assert ending.signal == number
