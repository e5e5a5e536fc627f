"""What becomes of a program when half of its keeper dies, or cannot go on."""

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


@each_method
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


@each_method
@pytest.mark.parametrize("stopped", [False, True], ids=["", "and a child is stopped"])
def test_a_killed_guard_is_one_clear_error_then_a_new_keeper(
    method: str, stopped: bool, tmp_path: Path
) -> None:
    with running(write(tmp_path, THREE), method, "guard", stdin=-1) as program:
        pids = program.wait_for("started").split()
        if stopped:  # an orphaned process group with a stopped member gets SIGHUP from the kernel
            os.kill(int(pids[0]), signal.SIGSTOP)
        one_zygote(program)
        (guard,) = program.named("pn-guard")
        guard.kill()
        program.tell("go on")
        finished = program.finish()
    assert finished.err == ""
    if method == "fork":  # main's own children: it knows their status, and who sent the signal
        assert finished.lines[1].count("was killed by SIGKILL, sent by") == 3
    else:
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


# --- it cannot go on ----------------------------------------------------------------------------

GIVES_UP = """
import os, subprocess, sys, time
import procession
from procession._launch import keeper_client
from procession._wire import channel, messages

def child():
    subprocess.Popen(["setsid", "sleep", "300"])
    os.write(1, b"up\\n")
    time.sleep(300)

if __name__ == "__main__":
    processes = [procession.get_context(m).Process(target=child) for m in sys.argv[1:]]
    for process in processes:
        process.start()
    sys.stdin.readline()
    channel.send(keeper_client.existing().door, (messages.HELLO,))  # without what belongs to it
    for process in processes:
        process.join(30)
    print(*(process.exitcode for process in processes), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("methods", [("fork",), ("forkserver", "fork", "spawn")])
def test_a_guard_that_cannot_go_on_ends_all_that_it_held(
    methods: tuple[str, ...], tmp_path: Path
) -> None:
    """As when it is killed: nothing stays uncontained, children of main's own neither."""
    with running(write(tmp_path, GIVES_UP), *methods, stdin=-1) as program:
        for _ in methods:
            program.wait_for("up")
        program.tell("go on")
        codes = {"fork": "-9", "forkserver": "255", "spawn": "255"}
        assert program.line().split() == [codes[method] for method in methods]
        wait_until(lambda: [p.pid for p in program.processes()] == [program.pid], program.picture)
        program.tell("end")
        assert program.finish().code == 0


# --- it has no room -----------------------------------------------------------------------------

NO_ROOM = """
import resource, sys, time
import procession

resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140))
context = procession.get_context("fork")
processes = []
try:
    while True:
        process = context.Process(target=time.sleep, args=(300,))
        process.start()
        processes.append(process)
except procession.StartError as error:
    print(error.errno, error, flush=True)
assert all(process.is_alive() for process in processes)
for process in processes[:20]:
    process.kill()
    process.join()
deadline = time.monotonic() + 30
while True:  # the guard hears of their ends a moment later
    try:
        process = context.Process(target=int)
        process.start()
    except procession.StartError as error:
        assert time.monotonic() < deadline, error
        time.sleep(0.01)
    else:
        break
process.join()
print(process.exitcode, 80 < len(processes) < 140)
for process in processes:
    process.kill()
"""


def test_a_guard_without_room_for_a_forked_child_is_an_error_at_its_start(tmp_path: Path) -> None:
    path = write(tmp_path, f"import os\nos.closerange(3, 64)\n{NO_ROOM}")
    finished = run(path)
    assert finished.lines[0].startswith("24 "), finished.err
    assert "ulimit -Hn" in finished.lines[0]
    assert finished.lines[1] == "0 True"
    assert finished.err == ""


REFUSED = """
import os, resource, sys
import procession
from procession._launch import keeper_client
from procession._wire import messages

class Blind:
    def __init__(self, table):
        self.table = table
    def full(self):
        return False  # as a starter sees it who comes a moment too early
    def __getattr__(self, name):
        return getattr(self.table, name)

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    context = procession.get_context("fork")
    process = context.Process(target=int)
    process.start()
    process.join()
    keeper = keeper_client.existing()
    for number in range(250):  # more than it can hold, and nobody claims them
        keeper.hand((messages.DEPOSIT, os.urandom(16), 0), [2])
    table, keeper.table = keeper.table, Blind(keeper.table)
    process = context.Process(target=print, args=("it ran",), name="the next one")
    process.start()
    process.join()
    print(process.exitcode, process.ending)
    try:
        process.result()
    except OSError as error:  # the answer would take one, too
        print(error.errno)
    keeper.table = table
    try:
        context.Process(target=print, args=("it ran",)).start()
    except procession.StartError as error:
        print("at the call")
"""


def test_a_forked_child_that_cannot_be_held_says_so_and_does_not_run(tmp_path: Path) -> None:
    finished = run_text(tmp_path, REFUSED)
    assert finished.lines[0].startswith("1 raised StartError"), finished.err
    assert finished.lines[1:] == ["24", "at the call"], finished.err
    assert "the next one was not started" in finished.err
    assert finished.err.count("ulimit -Hn") == 1
