"""One program with everything below it that tends to be left behind, ended in every way (G2).

The contract's tests and the table of `nox -s orphan_table` run the same program, under procession
or under `multiprocessing`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.contract.programs import LIMIT, Program, name_of, state_of, wait_until

KINDS = (
    "busy",
    "busy nested",
    "sleeping",
    "sleeping daemon",
    "in a system call",
    "in a system call daemon",
    "gone astray",
    "stopped",
)
"""What the eight children are; each has a subprocess that would run for minutes."""

WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "os._exit", "exec")
"""Ends of main that are not Python's own, or that leave nothing all the same."""

PROGRAM = r"""
import importlib, os, signal, subprocess, sys, time

library = importlib.import_module(sys.argv[1])
context = library.get_context(sys.argv[2])
count = int(sys.argv[3])
kinds = sys.argv[4].split(",")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # one write: many share the pipe

def below(kind):
    if "astray" in kind:  # a session of its own, and nobody's child
        script = "sleep 300 >/dev/null & echo $!"
        line = subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE).stdout
        return int(line.split()[0])
    process = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
    if "stopped" in kind:
        process.send_signal(signal.SIGSTOP)
    return process.pid

def child(kind):
    pid = below(kind)
    if "nested" in kind:
        context.Process(target=child, args=("sleeping",)).start()
    say("up", os.getpid(), pid)
    if "busy" in kind:
        while True:
            pass
    if "system call" in kind:
        reading, writing = os.pipe()
        os.read(reading, 1)
    if "stopped" in kind:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(300)

if __name__ == "__main__":
    ballast = bytearray(int(sys.argv[5]) << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    for number in range(count):
        kind = kinds[number % len(kinds)]
        context.Process(target=child, args=(kind,), daemon="daemon" in kind).start()
    say("all started")
    order = sys.stdin.readline().strip()
    if order == "os._exit":
        os._exit(3)
    if order == "exec":
        os.execv("/bin/sleep", ["sleep", "300"])
    if order == "sys.exit":
        sys.exit(7)
    if order == "exception":
        raise ValueError("main's own")
"""


class Family(Program):
    """The program, running with all its processes."""

    def __init__(
        self,
        folder: Path,
        method: str,
        *,
        library: str = "procession",
        count: int = len(KINDS),
        kinds: tuple[str, ...] = KINDS,
        ballast: int = 0,
    ) -> None:
        path = folder / "family.py"
        path.write_text(PROGRAM)
        self._known: dict[int, float] = {}
        command = [sys.executable, str(path), library, method, str(count), ",".join(kinds)]
        super().__init__([*command, str(ballast)], stdin=-1)
        self._count = count
        self._nested = sum("nested" in kinds[n % len(kinds)] for n in range(count))
        self._stopped = {kinds[n % len(kinds)] for n in range(count)} & {"stopped"}

    def settle(self, limit: float = LIMIT) -> None:
        """Wait until every process of it is where it is to be met."""
        ups = 0
        while ups < self._count + self._nested:
            word, *pids = self.line(limit).split()
            if word == "up":
                ups += 1
                self._known.update((int(pid), _start(int(pid))) for pid in pids)
        if self._stopped:
            wait_until(self._has_stopped, lambda: "no child stopped itself")

    def _has_stopped(self) -> bool:
        stopped = [p for p in self.processes() if state_of(p) == psutil.STATUS_STOPPED]
        return any(name_of(process) != "sleep" for process in stopped)

    def end_main(self, way: str) -> None:
        """Let main end in one of the `WAYS`."""
        if way.startswith("SIG"):
            os.kill(self.pid, signal.Signals[way])
        else:
            self.tell(way)

    def left(self) -> list[psutil.Process]:
        """What is left of it, but main itself; by its mark, and by its pids."""
        found = {process.pid: process for process in self.processes()}
        for pid, began in self._known.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if _start(pid) == began and process.status() != psutil.STATUS_ZOMBIE:
                    found[pid] = process
        found.pop(self.pid, None)
        return list(found.values())

    def main_is_over(self) -> bool:
        """Whether main has ended, or is another program."""
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self.pid)
            return state_of(main) == psutil.STATUS_ZOMBIE or name_of(main) == "sleep"
        return True


def _start(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return 0.0


@contextlib.contextmanager
def family(folder: Path, method: str, **options: object) -> Iterator[Family]:
    """The program with all its processes; ended and closed afterwards, whatever is left."""
    one = Family(folder, method, **options)  # type: ignore[arg-type]
    try:
        one.settle(float(LIMIT) * 4)
        yield one
    finally:
        one.end()
        one.close()
