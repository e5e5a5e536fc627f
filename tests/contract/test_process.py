"""Process beyond the standard members: subclasses, waiting from many threads, names in use."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import Ending, How
from tests.contract import targets
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    in_threads,
    run_text,
    start,
    wait_until,
)

pytestmark = fork_beside_pytests_threads


@contextlib.contextmanager
def held(method: str, **options: Any) -> Any:
    """A process that waits until the end of the block."""
    there, here = procession.Pipe()
    process = start(method, targets.wait, here, **options)
    here.close()
    try:
        yield process
    finally:
        there.close()
        process.kill()
        process.join(20)


# --- one end, seen by many ---------------------------------------------------------------------


@each_method
def test_eight_threads_agree_about_an_end(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.wait, here)
    here.close()
    seen: list[Any] = []

    def watch(look: Callable[[], Any]) -> None:
        seen.append(look())

    def by_join() -> Any:
        process.join(20)
        return process.exitcode, process.is_alive()

    def by_sentinel() -> Any:
        assert connection.wait([process.sentinel], 20)
        return process.exitcode, process.is_alive()

    def by_polling() -> Any:
        while process.exitcode is None:
            time.sleep(0)
        return process.exitcode, process.is_alive()

    def by_is_alive() -> Any:
        while process.is_alive():
            time.sleep(0)
        return process.exitcode, process.is_alive()

    looks = (by_join, by_sentinel, by_polling, by_is_alive) * 2
    threads = [threading.Thread(target=watch, args=(look,)) for look in looks]
    for thread in threads:
        thread.start()
    there.send(None)
    for thread in threads:
        thread.join(20)
    assert seen == [(0, False)] * 8
    there.close()


@each_method
def test_eight_threads_agree_about_a_kill(method: str) -> None:
    with held(method) as process:
        killer = threading.Timer(0.01, process.kill)
        killer.start()

        def look() -> Any:
            process.join(20)
            return process.exitcode, process.is_alive(), process.ending

        answers = in_threads(look)
        killer.join()
        assert answers == [(-9, False, answers[0][2])] * 8
        assert answers[0][2].how is How.SIGNALED


SENTINELS = """
import os, sys
from multiprocessing import connection
import procession

context = procession.get_context(sys.argv[1])
rounds = int(sys.argv[2])
pending, ends = {}, []
for _ in range(rounds):
    process = context.Process(target=os.getpid)
    process.start()
    pending[process.sentinel] = process
    while len(pending) >= 16 or (pending and len(ends) + len(pending) == rounds):
        for sentinel in connection.wait(list(pending), 20):
            ended = pending.pop(sentinel)
            ends.append((ended.exitcode, ended.is_alive()))
            ended.join(0)
            ended.close()
print(ends == [(0, False)] * rounds)
"""


@each_method
def test_the_sentinel_never_runs_ahead_of_the_exit_code(method: str, tmp_path: Path) -> None:
    """Whoever sees the sentinel ready finds the exit code there: 2000 times over all methods."""
    rounds = {"forkserver": 1200, "fork": 700, "spawn": 100}[method]
    finished = run_text(tmp_path, SENTINELS, method, str(rounds), limit=100)
    assert finished.lines == ["True"], finished.err


@each_method
def test_a_sentinel_works_with_select_and_poll(method: str) -> None:
    with held(method) as process:
        poll = select.poll()
        poll.register(process.sentinel, select.POLLIN)
        assert poll.poll(0) == []
        assert connection.wait([process.sentinel], 0) == []
        process.terminate()
        assert poll.poll(20_000)
        assert select.select([process.sentinel], [], [], 20)[0]
        assert process.exitcode == -15
        assert select.select([process.sentinel], [], [], 0)[0]  # for ever


@each_method
def test_a_sentinel_first_asked_for_after_the_end_is_ready(method: str) -> None:
    process = start(method, targets.nothing)
    process.join(20)
    assert connection.wait([process.sentinel], 0)
    process.close()


@each_method
def test_join_with_a_timeout_takes_that_time(method: str) -> None:
    with held(method) as process:
        began = time.monotonic()
        assert process.join(0.2) is None
        assert 0.2 <= time.monotonic() - began < 2
        assert process.is_alive()


@each_method
def test_a_limit_may_be_far_away(method: str) -> None:
    process = start(method, targets.give, 1)
    process.join(3e6)
    assert process.exitcode == 0
    assert process.result(3e6) == 1


@each_method
def test_join_goes_on_after_a_signal_handler(method: str) -> None:
    """PEP 475: the handler runs while join() waits, and join() goes on waiting."""
    calls: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    try:
        with held(method) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            process.join(0.5)
            assert calls == [1]
            assert process.is_alive()
    finally:
        signal.signal(signal.SIGALRM, old)


@each_method
def test_an_exception_of_a_signal_handler_leaves_join(method: str) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError("by the handler")

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with held(method) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError):
                process.join(20)
            assert process.is_alive()
    finally:
        signal.signal(signal.SIGALRM, old)


@each_method
def test_many_threads_may_start_at_once(method: str) -> None:
    def one() -> Any:
        process = start(method, targets.give, threading.get_ident())
        return process.result(20) == threading.get_ident()

    assert in_threads(one) == [True] * 8


# --- somebody else waited ----------------------------------------------------------------------


def test_a_forked_child_that_somebody_else_waited_for_has_its_exit_code() -> None:
    """Its own last words say it (G8)."""
    process = start("fork", targets.leave, 7)
    assert os.waitpid(process.pid, 0)[1] == 7 << 8
    assert in_threads(lambda: (process.exitcode, process.is_alive())) == [(7, False)] * 8
    process.join(0)
    assert process.ending == Ending(How.EXITED, 7)


def test_a_killed_forked_child_that_somebody_else_waited_for_is_lost_or_known() -> None:
    with held("fork") as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        process.join(20)
        assert not process.is_alive()
        assert (process.exitcode, process.ending.how) in (
            (255, How.LOST),
            (-9, How.SIGNALED),  # kernels that keep the status for a pidfd
        )
        assert connection.wait([process.sentinel], 0)


def test_a_result_is_there_though_somebody_else_waited() -> None:
    process = start("fork", targets.give, [1, 2])
    os.waitpid(process.pid, 0)
    assert process.result(20) == [1, 2]


def test_ignoring_sigchld_loses_no_exit_code(tmp_path: Path) -> None:
    finished = run_text(
        tmp_path,
        """
        import procession, signal, sys
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        def leave():
            sys.exit(6)
        if __name__ == "__main__":
            for method in sorted(procession.get_all_start_methods()):
                process = procession.get_context(method).Process(target=leave)
                process.start()
                process.join()
                print(method, process.exitcode, process.ending)
        """,
    )
    assert finished.lines == [f"{m} 6 exited 6" for m in ("fork", "forkserver", "spawn")]


# --- new members --------------------------------------------------------------------------------


@each_method
def test_interrupt_lets_finally_run(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.wait_then_tell, here)
    assert there.recv() == "up"
    process.interrupt()
    assert there.recv() == "finally"
    process.join(20)
    assert process.exitcode == 1
    assert process.ending.how is How.RAISED
    assert isinstance(process.exception(0), KeyboardInterrupt)


@each_method
def test_an_interrupt_prints_no_traceback(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.wait_then_tell, here)
    assert there.recv() == "up"
    process.interrupt()
    process.join(20)
    assert capfd.readouterr().err == ""


@each_method
def test_stop_ends_politely_where_it_can(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.wait_then_tell, here)
    assert there.recv() == "up"
    ending = process.stop(grace=20)
    assert there.recv() == "finally"
    assert ending is process.ending
    assert ending.how is How.RAISED
    assert process.exitcode == 1
    assert not process.is_alive()
    assert process not in procession.active_children()
    assert process.stop() is ending  # again: nothing to do


@each_method
def test_stop_ends_what_does_not_listen(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, targets.ignore_everything, here)
    assert there.recv() == "up"
    began = time.monotonic()
    ending = process.stop(grace=0.2)
    assert time.monotonic() - began < 5
    assert ending == Ending(How.SIGNALED, -9, killed_by=os.getpid())


@each_method
def test_stop_without_grace_kills(method: str) -> None:
    with held(method) as process:
        assert process.stop(grace=0).exitcode == -9


@each_method
def test_stop_ends_a_stopped_process(method: str) -> None:
    with held(method) as process:
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert process.stop(grace=60).exitcode in (-9, -15)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("grace", [-1, float("nan")])
def test_stop_wants_a_sensible_time(grace: float) -> None:
    with held("forkserver") as process:
        with pytest.raises(ValueError, match="grace must be at least 0"):
            process.stop(grace)
        assert process.is_alive()


@each_method
def test_rusage_tells_what_was_used(method: str) -> None:
    process = start(method, targets.use, 0.2, 60_000_000)
    process.join(20)
    assert process.rusage.user + process.rusage.system >= 0.15
    assert 60_000_000 <= process.rusage.max_rss < 400_000_000


# --- subclasses ---------------------------------------------------------------------------------


@each_method
def test_a_subclass_may_use_our_names_for_its_own(method: str) -> None:
    process = targets.OWN_NAMES[method]("mine")
    process.start()
    assert process.received.recv() == ["stop mine", "result mine", "timeout mine", "env mine"]
    process.join(20)
    assert (process.exitcode, process.is_alive()) == (0, False)
    assert process.stop == "stop mine"
    assert process.result == "result mine"
    assert process.ending == "ending mine"
    assert process not in procession.active_children()
    process.close()


@each_method
def test_a_subclass_with_an_own_constructor_and_run(method: str) -> None:
    process = targets.COUNTERS[method](3)
    process.start()
    assert process.result(20) == 6
    assert process.name.startswith("Counter-")


@each_method
def test_the_object_of_the_starter_is_not_changed_by_the_child(method: str) -> None:
    process = targets.COUNTERS[method](3)
    process.start()
    process.join(20)
    assert process.total == 0


@each_method
def test_target_and_arguments_are_let_go_after_start(method: str) -> None:
    class Held:
        pass

    import gc
    import weakref

    thing = targets.Weak()
    ref = weakref.ref(thing)
    process = start(method, targets.nothing, thing)
    del thing
    gc.collect()
    assert ref() is None
    process.join(20)


@each_method
def test_a_process_object_that_nobody_keeps_ends_well(method: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    start(method, targets.touch, str(mark))
    wait_until(mark.exists)
    wait_until(lambda: not procession.active_children())


# --- names that others use ----------------------------------------------------------------------


@each_method
def test_popen_is_what_others_use_it_as(method: str) -> None:
    with held(method) as process:
        popen = process._popen
        assert popen.poll() is None
        assert popen.wait(0) is None
        assert popen.wait(timeout=0.01) is None
        assert popen.pid == process.pid
        assert popen.returncode is None
        assert popen.sentinel == process.sentinel
        popen.terminate()
        assert popen.wait(20) == -15
        assert popen.poll() == popen.returncode == process.exitcode == -15
        popen.terminate()
        popen.kill()


@each_method
def test_our_children_are_in_multiprocessings_own_set(method: str) -> None:
    with held(method) as process:
        assert process in multiprocessing.process._children  # type: ignore[attr-defined]
        assert process in multiprocessing.active_children()
        assert process in procession.active_children()
    assert process not in multiprocessing.active_children()


@each_method
def test_a_child_taken_out_of_the_set_is_let_go(method: str, tmp_path: Path) -> None:
    """Libraries take a process out to let it outlive an exit: nobody waits for it then."""
    finished = run_text(
        tmp_path,
        """
        import multiprocessing.process, os, procession, sys, time

        def linger(path):
            os.close(1)
            while not os.path.exists(path):
                time.sleep(0.005)
            open(path + ".answer", "w").close()

        if __name__ == "__main__":
            context = procession.get_context(sys.argv[1])
            process = context.Process(target=linger, args=(sys.argv[2],))
            process.start()
            multiprocessing.process._children.discard(process)
            print(process.pid)
        """,
        method,
        str(tmp_path / "go"),
        leaves=True,
        keep=True,
    )
    assert finished.code == 0
    pid = int(finished.lines[0])
    assert os.path.exists(f"/proc/{pid}")
    (tmp_path / "go").touch()
    wait_until((tmp_path / "go.answer").exists)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


@each_method
def test_a_patched_bootstrap_is_gone_through(method: str, tmp_path: Path) -> None:
    """Coverage hooks in this way: it patches the class, and has itself imported by the child."""
    (tmp_path / "hook.py").write_text(
        """
from multiprocessing import process, spawn

original = process.BaseProcess._bootstrap
prepare = spawn.get_preparation_data

def bootstrap(self, *args, **kwargs):
    print("bootstrap begins", flush=True)
    try:
        return original(self, *args, **kwargs)
    finally:
        print("bootstrap ends", flush=True)

class Stowaway:
    def __setstate__(self, state):
        patch()

    def __getstate__(self):
        return {"patch": True}

def preparation(name):
    data = prepare(name)
    data["stowaway"] = Stowaway()
    return data

def patch():
    if process.BaseProcess._bootstrap is not bootstrap:
        process.BaseProcess._bootstrap = bootstrap
        spawn.get_preparation_data = preparation
"""
    )
    finished = run_text(
        tmp_path,
        """
        import hook, procession, sys
        hook.patch()

        def work():
            print("work", flush=True)

        class Mine(procession.get_context(sys.argv[1]).Process):
            def run(self):
                print("run", flush=True)

        if __name__ == "__main__":
            for process in (procession.get_context(sys.argv[1]).Process(target=work), Mine()):
                process.start()
                process.join()
        """,
        method,
        env={"PYTHONPATH": str(tmp_path)},
    )
    around = "bootstrap begins", "bootstrap ends"
    assert finished.lines == [around[0], "work", around[1], around[0], "run", around[1]], finished


@each_method
def test_a_subclass_may_override_bootstrap(method: str) -> None:
    process = targets.BOOTSTRAPPED[method]()
    process.start()
    process.join(20)
    assert process.exitcode == 42


@each_method
def test_isinstance_checks_of_libraries_hold(method: str) -> None:
    ctx = procession.get_context(method)
    process = ctx.Process(target=targets.nothing)
    assert isinstance(ctx, multiprocessing.context.BaseContext)
    assert isinstance(process, multiprocessing.process.BaseProcess)
    assert isinstance(process, procession.Process)
    assert issubclass(procession.Process, multiprocessing.process.BaseProcess)
    assert isinstance(procession.current_process(), multiprocessing.process.BaseProcess)
    for name in ("ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"):
        assert getattr(procession, name) is getattr(multiprocessing, name)
    assert issubclass(procession.StillRunning, TimeoutError)
    assert issubclass(procession.StartError, OSError)
    assert issubclass(procession.KeeperLost, RuntimeError)


@each_method
def test_multiprocessings_own_functions_answer_in_our_children(method: str) -> None:
    process = start(method, targets.look_around, name="looked at")
    assert process.result(20) == {
        "current": "looked at",
        "same": True,
        "parent": os.getpid(),
        "parent alive": True,
        "children": [],
        "logger": "looked at",
    }


@each_method
def test_a_child_waits_for_its_parents_end_by_the_sentinel(method: str, tmp_path: Path) -> None:
    """`parent_process().join()` returns in a child that outlives its parent for a moment."""
    finished = run_text(
        tmp_path,
        """
        import os, procession, sys, time

        def child(conn, looked):
            parent = procession.parent_process()
            conn.send((parent.pid, parent.is_alive()))
            conn.close()
            looked.send(None)
            parent.join(20)
            write = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
            os.write(write, b"ended" if not parent.is_alive() else b"alive")

        def middle(conn):
            there, here = procession.Pipe()
            procession.get_context(sys.argv[1]).Process(target=child, args=(conn, here)).start()
            there.recv()
            os._exit(0)

        if __name__ == "__main__":
            there, here = procession.Pipe()
            process = procession.get_context(sys.argv[1]).Process(target=middle, args=(here,))
            process.start()
            here.close()
            pid, alive = there.recv()
            process.join()
            try:
                there.recv()
            except EOFError:
                pass
            while not os.path.exists(sys.argv[2]) or not os.path.getsize(sys.argv[2]):
                time.sleep(0.002)
            print(pid == process.pid, alive, open(sys.argv[2]).read())
        """,
        method,
        str(tmp_path / "out"),
    )
    assert finished.lines == ["True True ended"], finished


FULL = """
import errno, multiprocessing, os, resource
import procession

def child(ran):
    os.write(ran, b"x")

def attempt():
    process = context.Process(target=child, args=(theirs,))
    try:
        process.start()
    except procession.StartError as error:
        assert error.errno == errno.EMFILE and "descriptor" in str(error) or refusing, error
        assert not multiprocessing.active_children()
        return False
    process.join()
    assert process.exitcode == 0, process.exitcode
    process.close()
    return True

def children():
    return set(open("/proc/thread-self/children").read().split())

if __name__ == "__main__":
    context = procession.get_context("fork")
    ran, theirs = os.pipe()
    refusing = False
    assert attempt()
    before = children()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    full = []
    try:
        while True:
            full.append(os.dup(0))
    except OSError:
        pass
    done = []
    for _ in range(8):
        done.append(attempt())
        os.close(full.pop())
    assert not done[0] and done[-1] and done == sorted(done), done
    assert children() == before
    # another thread takes it between the fork and the pidfd
    pidfd_open, me = os.pidfd_open, os.getpid()
    def refuse(pid):
        if os.getpid() == me:
            raise OSError(errno.EMFILE, "Too many open files")
        return pidfd_open(pid)
    os.pidfd_open, refusing = refuse, True
    assert not attempt()
    os.pidfd_open, refusing = pidfd_open, False
    assert children() == before
    assert attempt()
    print(len(os.read(ran, 100)) - sum(done))
"""


def test_a_fork_without_free_descriptors_is_refused_and_leaves_no_child(tmp_path: Path) -> None:
    """The first and the last attempt; the one in between may have run or not, but is gone."""
    finished = run_text(tmp_path, FULL)
    assert finished.lines in (["2"], ["3"]), finished.err
