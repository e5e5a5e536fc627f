"""Stops take the whole tree (G3), and one Ctrl-C is one message (G10).

Limits are generous: the machine may be loaded.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.contract.programs import LIMIT, each_method, run_text, running, wait_until, write

TREE = """
import os, signal, subprocess, sys, time
import procession

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def grandchild(deaf):
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("below", os.getpid())
    time.sleep(300)

def child(deaf):
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stopped = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
    stopped.send_signal(signal.SIGSTOP)
    session = subprocess.Popen(["setsid", "sleep", "300"], stdout=subprocess.DEVNULL)
    script = "sleep 300 >/dev/null & echo $!"
    stray = subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE).stdout
    context = procession.get_context(sys.argv[1])
    context.Process(target=grandchild, args=(deaf,)).start()
    say("below", stopped.pid, session.pid, int(stray))
    time.sleep(300)

if __name__ == "__main__":
    process = procession.get_context(sys.argv[1]).Process(target=child, args=("deaf" in sys.argv,))
    process.start()
    sys.stdin.readline()
    began = time.monotonic()
    how = sys.argv[2]
    if how == "stop":
        print(process.stop(float(sys.argv[3])), time.monotonic() - began < 20, flush=True)
        sys.stdin.readline()
    process.join()
"""


@each_method
@pytest.mark.parametrize(
    ("options", "words"),
    [(("20",), "SIGINT"), (("0.2", "deaf"), "SIGKILL"), (("0",), "SIGKILL")],
    ids=["listens", "deaf", "at once"],
)
def test_stop_takes_the_whole_tree(
    method: str, options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    path = write(tmp_path, TREE)
    with running(path, method, "stop", *options, stdin=-1) as program:
        pids = []
        for _ in range(2):
            pids += map(int, program.wait_for("below").split())
        assert len(pids) == 4
        program.tell("stop it")
        line = program.line()
        # the child itself may end by an unhandled KeyboardInterrupt, which is an exception
        assert words in line or "KeyboardInterrupt" in line
        assert line.endswith("True")
        left = [pid for pid in pids if is_alive(pid)]
        assert left == []
        program.tell("over")
        assert program.finish().code == 0


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


# --- Ctrl-C ---------------------------------------------------------------------------------------

INTERRUPTED = """
import os, sys, time
import procession

def child(cleans):
    try:
        os.write(1, b"up\\n")
        time.sleep(300)
    finally:
        if cleans:
            os.write(1, b"cleaned up\\n")

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    processes = [context.Process(target=child, args=(True,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""


class Terminal:
    """A program in the foreground of a terminal of its own, as a shell starts one."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.fd, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_SESSION, str(path), *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        self.text = ""

    def read(self) -> bool:
        """Some more of what it shows; false when it shows nothing more."""
        if not select.select([self.fd], [], [], LIMIT)[0]:
            pytest.fail(f"nothing more on the terminal; so far:\n{self.text}")
        try:
            chunk = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self.text += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Read until it has shown a text so many times."""
        while self.text.count(text) < count:
            assert self.read(), self.text

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.fd, key)

    def finish(self) -> int:
        """Everything it shows until the terminal is let go; its status."""
        while self.read():
            pass
        return self.process.wait(LIMIT)

    def close(self) -> None:
        """End what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.fd)


_IN_A_SESSION = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@each_method
def test_one_ctrl_c_one_message(method: str, tmp_path: Path) -> None:
    terminal = Terminal(write(tmp_path, INTERRUPTED), method)
    try:
        terminal.wait_for("up", 4)
        terminal.press(b"\x03")
        code = terminal.finish()
    finally:
        terminal.close()
    assert code == -signal.SIGINT
    assert terminal.text.count("Traceback") == 1, terminal.text
    assert terminal.text.count("KeyboardInterrupt") == 1, terminal.text
    assert terminal.text.count("cleaned up") == 4, terminal.text


DEAF = """
import os, signal, sys, time
import procession

def child():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"up\\n")
    time.sleep(300)

if __name__ == "__main__":
    process = procession.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
"""


@each_method
def test_a_second_ctrl_c_ends_it_at_once(method: str, tmp_path: Path) -> None:
    """While main waits for children that do not listen; and nothing is left."""
    path = write(tmp_path, DEAF)
    with running(path, method) as program:
        program.wait_for("up")
        os.kill(program.pid, signal.SIGINT)
        wait_until(lambda: "KeyboardInterrupt" in program.error_text())
        os.kill(program.pid, signal.SIGINT)
        program.finish()
        program.leaves_nothing(20)


@each_method
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_main_alone_ends_all(method: str, name: str, tmp_path: Path) -> None:
    """Children are interrupted, so that they clean up, where main had the time to do it."""
    number = signal.Signals[name]
    with running(write(tmp_path, INTERRUPTED), method) as program:
        for _ in range(4):
            program.wait_for("up")
        os.kill(program.pid, number)
        finished = program.finish()
        program.leaves_nothing(20)
    assert finished.code == -number
    if number == signal.SIGINT:
        assert finished.lines.count("cleaned up") == 4
        assert finished.err.count("KeyboardInterrupt") == 1, finished.err
    else:
        assert finished.err == ""


HANDLES = """
import os, signal, sys, time
import procession

def child(conn):
    try:
        conn.send("up")
        time.sleep(300)
    except KeyboardInterrupt:
        conn.send("interrupted")
        return "went on"

if __name__ == "__main__":
    ours, theirs = procession.Pipe()
    process = procession.get_context(sys.argv[1]).Process(target=child, args=(theirs,))
    process.start()
    print(ours.recv())
    process.interrupt()
    print(ours.recv())
    print(process.result(30), process.exitcode)
    process.interrupt()  # nothing to what has ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    last = procession.get_context(sys.argv[1]).Process(target=time.sleep, args=(300,), daemon=True)
    last.start()
    print("ready", flush=True)
    time.sleep(300)
"""


@each_method
def test_interrupt_and_a_handler_of_mains_own(method: str, tmp_path: Path) -> None:
    """A main that handles SIGTERM ends as it says, with Python's own end; its daemons with it."""
    with running(write(tmp_path, HANDLES), method) as program:
        lines = [program.line() for _ in range(4)]
        assert lines == ["up", "interrupted", "went on 0", "ready"]
        os.kill(program.pid, signal.SIGTERM)
        assert program.finish().code == 9


# --- the hang-up of an orphaned process group -----------------------------------------------------

STOPPED_BESIDE = """
import os, signal, subprocess, sys
import procession
def nothing():
    pass
if __name__ == "__main__":
    beside = subprocess.Popen(["sleep", "600"])
    os.kill(beside.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, beside.pid, os.WSTOPPED | os.WNOWAIT)
    context = procession.get_context(sys.argv[1])
    for number in range(4):
        process = context.Process(target=nothing)
        process.start()
        process.join()
        print(process.ending, flush=True)
    beside.kill()
    beside.wait()
"""


@each_method
def test_a_stopped_process_beside_an_ended_child_hangs_nobody_up(
    method: str, tmp_path: Path
) -> None:
    """main leads its session, as under systemd: no shell keeps its group from being orphaned."""
    finished = run_text(tmp_path, STOPPED_BESIDE, method)
    assert finished.lines == ["returned"] * 4, finished
    assert finished.code == 0


ANCHOR_KILLED = """
import os, signal, sys
import psutil
import procession
def nothing():
    pass
def is_ours(pid):
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:
        return False
def anchors():
    return {it.pid for it in psutil.process_iter(["name"])
            if it.info["name"] == "pn-anchor" and is_ours(it.pid)}
def run():
    process = context.Process(target=nothing)
    process.start()
    process.join()
if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    killed = set()
    for _ in range(4):
        for _ in range(40):
            run()
            if alive := anchors() - killed:
                break
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        killed |= alive
        print(len(alive) > 0)
"""


def test_what_keeps_the_group_from_being_orphaned_is_made_again(tmp_path: Path) -> None:
    """More than once: an heir brings one, too."""
    finished = run_text(tmp_path, ANCHOR_KILLED, "forkserver")
    assert finished.lines == ["True"] * 4, finished
    assert finished.code == 0
