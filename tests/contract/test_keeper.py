"""The keeper: what becomes of a program when half of it dies, and what it may never do to one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.contract.programs import (
    Program,
    each_kept_method,
    each_method,
    run,
    run_text,
    running,
    wait_until,
    write,
)

# --- half of it dies ----------------------------------------------------------------------------

THREE = """
import os, sys, time
import procession

def wait(conn):
    conn.send("up")
    return conn.recv()

def start(method, conn):
    process = procession.get_context(method).Process(target=wait, args=(conn,))
    process.start()
    return process

if __name__ == "__main__":
    method = sys.argv[1]
    pairs = [procession.Pipe() for _ in range(3)]
    children = [start(method, theirs) for _, theirs in pairs]
    for ours, _ in pairs:
        ours.recv()
    print("started", *(child.pid for child in children), flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "guard":
        for child in children:
            child.join(30)
        print([(str(c.ending), c.exitcode, c.is_alive(), c.rusage) for c in children])
        for _ in range(3):
            try:
                start(method, pairs[0][1]).kill()
                print("a start")
            except Exception as error:
                print(type(error).__name__, error)
    else:
        pairs.append(procession.Pipe())
        children.append(start(method, pairs[-1][1]))
        for number, (ours, _) in enumerate(pairs):
            ours.send(number)
        print([child.result(30) for child in children])
        print([str(child.ending) for child in children])
"""


@each_kept_method
@pytest.mark.parametrize("times", [1, 3])
def test_a_killed_zygote_loses_nothing(method: str, times: int, tmp_path: Path) -> None:
    with running(write(tmp_path, THREE), method, "zygote", stdin=-1) as program:
        program.wait_for("started")
        for _ in range(times):
            (zygote,) = one_zygote(program)
            zygote.kill()
            wait_until(lambda dead=zygote: [p for p in one_zygote(program) if p != dead])
        program.tell("go on")
        finished = program.finish()
    assert finished.lines[-2:] == ["[0, 1, 2, 3]", str(["returned"] * 4)], finished.err
    assert finished.err == ""


def one_zygote(program: Program) -> list[psutil.Process]:
    """The zygote, when there is exactly one."""
    return wait_until(lambda: len(found := program.named("pn-zygote")) == 1 and found)  # type: ignore[no-any-return]


@each_kept_method
@pytest.mark.parametrize("stopped", [False, True], ids=["", "and a child is stopped"])
def test_a_killed_guard_is_one_clear_error_then_a_new_keeper(
    method: str, stopped: bool, tmp_path: Path
) -> None:
    with running(write(tmp_path, THREE), method, "guard", stdin=-1) as program:
        pids = program.wait_for("started").split()
        if stopped:  # an orphaned process group with a stopped member gets SIGHUP from the kernel
            os.kill(int(pids[0]), signal.SIGSTOP)
        (guard,) = program.named("pn-guard")
        guard.kill()
        program.tell("go on")
        finished = program.finish()
    assert finished.err == ""
    lost = "was lost: its keeper was gone before its end was known"
    assert finished.lines[1] == str([(lost, 255, False, None)] * 3)
    assert finished.lines[2].startswith("KeeperLost the keeper of this program was killed; ")
    assert finished.lines[3:] == ["a start", "a start"]


@each_kept_method
def test_signals_that_are_not_sigkill_are_nothing_to_the_keeper(
    method: str, tmp_path: Path
) -> None:
    with running(write(tmp_path, THREE), method, "zygote", stdin=-1) as program:
        program.wait_for("started")
        keeper = program.named("pn-guard") + program.named("pn-zygote")
        for name in ("HUP", "INT", "TERM", "QUIT", "TSTP", "TTIN", "TTOU", "CHLD", "PIPE", "USR1"):
            for half in keeper:
                half.send_signal(signal.Signals[f"SIG{name}"])
        program.tell("go on")
        finished = program.finish()
        assert finished.lines[1:] == ["[0, 1, 2, 3]", str(["returned"] * 4)]
        assert finished.err == ""


KILLED_EARLY = """
import os, signal, sys, threading
import procession
from procession._launch import keeper_client

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    keeper_client.channel.send = die  # the keeper is there, and main's first word is not said
    process = procession.get_context(sys.argv[1]).Process(target=print)
    if sys.argv[2] == "main":
        process.start()
    else:
        thread = threading.Thread(target=process.start)
        thread.start()
        thread.join()
"""


@pytest.mark.parametrize("thread", ["main", "another"])
@each_method
def test_a_main_killed_before_its_first_word_leaves_no_keeper(
    method: str, thread: str, tmp_path: Path
) -> None:
    path = write(tmp_path, KILLED_EARLY)
    assert run(path, method, thread).code == -signal.SIGKILL  # and nothing is left


CLOSES = """
import os, sys
import procession

def nothing():
    pass

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    def start():
        process = context.Process(target=nothing)
        process.start()
        process.join(30)
        return process.exitcode
    print(start())
    os.closerange(3, 4096)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(12)]  # the numbers are others' now
    for _ in range(3):
        try:
            print(start())
        except procession.ProcessionError as error:
            print(type(error).__name__, "closed the descriptors" in str(error))
    print(all(os.fstat(fd) for fd in held))
"""


@each_method
def test_a_main_that_closed_its_descriptors_gets_one_error(method: str, tmp_path: Path) -> None:
    """As code that daemonises does; what has their numbers since is not touched."""
    finished = run_text(tmp_path, CLOSES, method)
    if method == "fork":
        assert [line for line in finished.lines if line != "0"][-1] == "True"
    else:
        assert finished.lines == ["0", "KeeperLost True", "0", "0", "True"], finished.err
    assert finished.err == ""


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


# --- what a child sees --------------------------------------------------------------------------

SEES = """
import json, os, resource, signal, sys, warnings
import procession

def look():
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "directory": os.getcwd(),
        "environ": {k: v for k, v in os.environ.items()},
        "path": sys.path,
        "argv": sys.argv,
        "umask": status["Umask"].strip(),
        "blocked": status["SigBlk"].strip(),
        "ignored": hex(int(status["SigIgn"], 16) & ~(3 << 31)),  # 32 and 33 are glibc's own
        "limits": [resource.getrlimit(n) for n in range(16)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "filters": [[f[0], str(f[1]), f[2].__name__, str(f[3]), f[4]] for f in warnings.filters],
        "options": [sys._xoptions, sys.warnoptions],
        "flags": [str(sys.flags), sys.get_int_max_str_digits()],
        "files": [[os.fstat(n).st_dev, os.fstat(n).st_ino] for n in range(3)],
    }

def child(conn):
    conn.send(look())

def compare(when):
    for _ in range(2):
        ours, theirs = procession.Pipe()
        process = procession.get_context(sys.argv[1]).Process(target=child, args=(theirs,))
        process.start()
        there, here = ours.recv(), look()
        process.join(30)
        for name in here:
            if here[name] != there[name]:
                print(when, name, "here:", here[name], "there:", there[name])

def change():
    os.mkdir("below")
    os.chdir("below")
    os.environ["ADDED"] = "yes"
    os.environ["ODD"] = "\\udcff"
    del os.environ["TAKEN"]
    sys.path.append("/somewhere")
    sys.argv.append("more")
    os.umask(0o027)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN])
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(2)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore", ResourceWarning)
    warnings.filterwarnings("error", "words of it", UserWarning, "module")
    for number in (0, 1, 2):
        file = os.open(f"file{number}", os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)

if __name__ == "__main__":
    out = os.dup(1)
    compare("at first")
    change()
    compare("changed")
    print("over")
    sys.stdout.flush()
    with open("file1") as file:
        os.write(out, file.read().encode())
"""


@each_method
def test_a_child_sees_what_main_sees_at_its_start(method: str, tmp_path: Path) -> None:
    flags = ("-X", "utf8", "-X", "int_max_str_digits=5000", "-W", "ignore:in particular", "-B")
    path = write(tmp_path, SEES)
    with running(
        path, method, flags=flags, cwd=tmp_path, env={"TAKEN": "1", "PYTHONPATH": "/elsewhere"}
    ) as program:
        finished = program.finish()
    assert finished.lines == ["over"], finished.err


CLOSED = """
import os, sys
import procession

def look(conn):
    conn.send([sys.stdin is None, sys.stdout is None])

if __name__ == "__main__":
    ours, theirs = procession.Pipe()
    os.close(0)
    process = procession.get_context(sys.argv[1]).Process(target=look, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
    try:
        print("nothing of ours is there:", os.fstat(0))
    except OSError as error:
        print(error.strerror)
"""


@each_kept_method
def test_a_closed_standard_descriptor_is_closed_in_the_child(method: str, tmp_path: Path) -> None:
    assert run_text(tmp_path, CLOSED, method).lines == ["[True, False]", "Bad file descriptor"]


LISTS = """
import os, subprocess, sys
import procession

def child():
    os.execv("/bin/ls", ["ls", "/proc/self/fd"])

if __name__ == "__main__":
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    for _ in range(3):
        process = procession.get_context(sys.argv[1]).Process(target=child)
        process.start()
        process.join()
"""


@each_kept_method
def test_only_the_standard_descriptors_go_on_to_a_program(method: str, tmp_path: Path) -> None:
    """None of ours is inherited by what a child executes, and none of main's by a child (G12)."""
    lines = run_text(tmp_path, LISTS, method).lines
    assert lines == ["0", "1", "2", "3"] * 3  # 3 is the listing's own


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
