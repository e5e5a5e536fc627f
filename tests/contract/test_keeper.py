"""The keeper: who is whose, what it imports for children, and what it may never do to a program."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.contract.programs import (
    each_method,
    run_text,
    running,
    write,
)

# --- who is whose -------------------------------------------------------------------------------

NESTED = """
import json, os, sys
import procession

def below(depth):
    me, parent = procession.current_process(), procession.parent_process()
    row = [os.getpid(), parent.pid, os.getpgid(0), os.getsid(0), me.daemon]
    if depth == 0:
        return [row]
    process = procession.get_context(sys.argv[1]).Process(target=below, args=(depth - 1,))
    process.start()
    assert {child.pid for child in procession.active_children()} <= {process.pid}  # or over
    rows = [row, *process.result(30)]
    assert procession.active_children() == []
    return rows

if __name__ == "__main__":
    process = procession.get_context(sys.argv[1]).Process(
        target=below, args=(3,), daemon=bool(sys.argv[2:]))
    process.start()
    rows = process.result(30)
    print(json.dumps([[os.getpid(), None, os.getpgid(0), os.getsid(0), None], *rows]))
"""


@each_method
@pytest.mark.parametrize("daemon", [(), ("daemon",)], ids=["", "of a daemon"])
def test_nested_processes_belong_to_who_started_them(
    method: str, daemon: tuple[str, ...], tmp_path: Path
) -> None:
    rows = run_text(tmp_path, NESTED, method, *daemon).said
    assert [row[1] for row in rows[1:]] == [row[0] for row in rows[:-1]], "each one's parent"
    assert {tuple(row[2:4]) for row in rows} == {tuple(rows[0][2:4])}, "main's group and session"
    assert {row[4] for row in rows[1:]} == {bool(daemon)}, "a daemon's children are daemons"


# --- preloading and forking ---------------------------------------------------------------------

PRELOADS = """
import os, sys
import procession

def look(names):
    return [name for name in names if name in sys.modules], len(os.listdir("/proc/self/task"))

if __name__ == "__main__":
    names = sys.argv[2:]
    procession.set_forkserver_preload(names, on_error="warn")
    for _ in range(2):
        process = procession.get_context(sys.argv[1]).Process(target=look, args=(names,))
        process.start()
        print(process.result(60))
"""


def test_a_preload_that_leaves_a_thread_is_named_and_dropped(tmp_path: Path) -> None:
    """Nothing is forked from a process with threads (G9); the others are preloaded all the same."""
    write(
        tmp_path,
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "threaded.py",
    )
    write(tmp_path, "", "tame.py")
    finished = run_text(tmp_path, PRELOADS, "forkserver", "tame", "threaded")
    assert finished.lines == ["(['tame'], 1)"] * 2
    assert finished.err.count("threaded") == 1
    assert "preloaded module 'threaded' left a thread" in finished.err


def test_a_preload_is_found_where_main_finds_it_and_no_path_is_too_long(tmp_path: Path) -> None:
    """What main added to sys.path counts, and a name of a socket has no more than 107 bytes."""
    folder = tmp_path / ("long" * 40) / "added"
    folder.mkdir(parents=True)
    write(folder, "", "found.py")
    text = f"""
        import sys
        sys.path.append({str(folder)!r})
        {PRELOADS.replace(chr(10), chr(10) + " " * 8)}
            with procession.Manager() as manager:
                print(manager.list([1]), procession.Pool(1).map(abs, [-1]))
    """
    finished = run_text(tmp_path, text, "forkserver", "found", env={"TMPDIR": str(folder)})
    assert finished.lines == ["(['found'], 1)"] * 2 + ["[1] [1]"], finished.err


def test_a_preload_that_fails_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, "raise ValueError('not today')", "broken.py")
    finished = run_text(tmp_path, PRELOADS, "forkserver", "broken", "absent")
    assert finished.lines == ["([], 1)"] * 2
    assert finished.err.splitlines() == [
        "procession: cannot preload 'broken': ValueError: not today",
        "procession: cannot preload 'absent': ModuleNotFoundError: No module named 'absent'",
    ]


DRAWS = """
import os, random, sys
import procession

def draw():
    import numpy
    return numpy.random.random(), random.random(), os.urandom(4).hex()

if __name__ == "__main__":
    procession.set_forkserver_preload(["numpy.random", "random"], on_error="warn")
    context = procession.get_context(sys.argv[1])
    processes = [context.Process(target=draw) for _ in range(4)]
    for process in processes:
        process.start()
    drawn = [process.result(60) for process in processes]
    print([len(set(column)) for column in zip(*drawn)])
"""


def test_no_two_children_draw_the_same(tmp_path: Path) -> None:
    """One thread for numpy's algebra, or it would not be preloaded at all."""
    finished = run_text(
        tmp_path, DRAWS, "forkserver", env={"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    )
    assert finished.lines == ["[4, 4, 4]"]
    assert finished.err == ""


RAW_FORK = """
import os, sys
import procession

def pid():
    return os.getpid(), procession.parent_process().pid

def wait(conn):
    return conn.recv()

def start(target, *args):
    process = procession.get_context(sys.argv[1]).Process(target=target, args=args)
    process.start()
    return process

if __name__ == "__main__":
    ours, theirs = procession.Pipe()
    waiting = start(wait, theirs)
    copy = os.fork()
    if copy == 0:  # a program of its own
        assert procession.active_children() == []
        child, parent = start(pid).result(30)
        assert parent == os.getpid()
        print("copy", flush=True)
        sys.exit(0) if sys.argv[2] == "exit" else os._exit(0)
    print(os.waitpid(copy, 0)[1])
    assert waiting.is_alive()
    print(start(pid).result(30)[1] == os.getpid())
    ours.send("still there")
    print(waiting.result(30))
"""


@each_method
@pytest.mark.parametrize("way", ["exit", "os._exit"])
def test_a_raw_fork_is_a_program_of_its_own(method: str, way: str, tmp_path: Path) -> None:
    finished = run_text(tmp_path, RAW_FORK, method, way)
    assert finished.lines == ["copy", "0", "True", "still there"], finished.err
    assert finished.err == ""


THREAD_FIRST = """
import os, sys, threading, time
import procession

def wait(conn):
    return conn.recv()

def first():
    global process, ours
    ours, theirs = procession.Pipe()
    process = procession.get_context(sys.argv[1]).Process(target=wait, args=(theirs,))
    process.start()

if __name__ == "__main__":
    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    if sys.argv[2] == "killed":
        print("up", flush=True)
        time.sleep(300)
    assert process.is_alive(), "the end of its thread is not the end of main"
    ours.send(5)
    print(process.result(30))
"""


@each_method
def test_main_may_use_it_first_from_another_thread(method: str, tmp_path: Path) -> None:
    path = write(tmp_path, THREAD_FIRST)
    with running(path, method, "returns") as program:
        assert program.finish().lines == ["5"]
    with running(path, method, "killed") as program:
        program.wait_for("up")
        os.kill(program.pid, signal.SIGKILL)
        program.process.wait(20)
        program.leaves_nothing(20)


# --- nothing unasked in main --------------------------------------------------------------------

WAITS_FOR_ALL = """
import os
import procession

def leave(code):
    os._exit(code)

context = procession.get_context("fork")
processes = [context.Process(target=leave, args=(n,)) for n in (3, 4)]
for process in processes:
    process.start()
codes = {}
try:
    while True:
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
except ChildProcessError:
    pass
print([codes.get(process.pid) for process in processes], len(codes))
print([process.exitcode for process in processes])
"""


def test_a_program_that_only_forks_waits_for_all_as_ever(tmp_path: Path) -> None:
    """No helper is main's child there, which os.wait() would wait for."""
    finished = run_text(tmp_path, WAITS_FOR_ALL)
    assert finished.lines == ["[3, 4] 2", "[3, 4]"], finished.err


UNASKED = """
import ctypes, json, os, signal, sys, threading
import procession

def nothing():
    pass

def look():
    flag = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(flag), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "python's threads": len(threading.enumerate()),
        "handlers": [str(signal.getsignal(n)) for n in range(1, 65)],
        "caught": status["SigCgt"], "blocked": status["SigBlk"], "ignored": status["SigIgn"],
        "wakeup": signal.set_wakeup_fd(-1),
        "name": status["Name"], "command": open("/proc/self/cmdline").read(),
        "group": os.getpgid(0), "session": os.getsid(0), "umask": status["Umask"],
        "subreaper": flag.value, "directory": os.getcwd(), "environ": dict(os.environ),
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook)],
        "switch": sys.getswitchinterval(), "trace": str(sys.gettrace()),
        "method": procession.get_start_method(allow_none=True),
    }

if __name__ == "__main__":
    before = look()
    for method in ("forkserver", "spawn", "fork"):
        process = procession.get_context(method).Process(target=nothing)
        process.start()
        process.is_alive(), process.sentinel, process.join()
        after = look()
        print(method, [name for name in before if before[name] != after[name]])
"""


def test_nothing_unasked_in_main(tmp_path: Path) -> None:
    lines = run_text(tmp_path, UNASKED).lines
    assert lines == ["forkserver []", "spawn []", "fork []"]


def test_importing_starts_nothing(tmp_path: Path) -> None:
    text = """
    import os, sys, threading
    import procession, procession.context, procession.pool, procession.queues
    procession.get_context("forkserver").Process(target=print)
    print(os.listdir("/proc/self/task") == [str(os.getpid())])
    print(open(f"/proc/self/task/{os.getpid()}/children").read())
    """
    assert run_text(tmp_path, text).lines == ["True", ""]


# --- light --------------------------------------------------------------------------------------

ALLOWED_IN_A_KEEPER = """
__future__ _abc _codecs _collections _collections_abc _functools _json _operator _signal _socket
_stat _struct _thread _weakref abc atexit codecs collections enum errno fcntl functools genericpath
importlib io itertools keyword marshal operator os posix posixpath procession reprlib resource
select signal stat struct sys time types warnings
"""
OUR_ROOMS_IN_A_KEEPER = (
    "procession._keeper",
    "procession._kernel",
    "procession._native",
    "procession._recording",
    "procession._wire",
)


def test_a_keeper_imports_little(tmp_path: Path) -> None:
    """Its start is the first start() of every program; whatever it imports costs all of them."""
    text = """
    import sys
    before = set(sys.modules)  # site's own: .pth files of the environment
    import procession._keeper.__main__, procession._keeper.guard
    print(*sorted(set(sys.modules) - before))
    """
    (line,) = run_text(tmp_path, text).lines
    more = {
        name
        for name in line.split()
        if name.partition(".")[0] not in ALLOWED_IN_A_KEEPER.split()
        and not name.startswith(OUR_ROOMS_IN_A_KEEPER)
    }
    assert more == set()
