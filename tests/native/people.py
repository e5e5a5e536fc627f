"""Real processes that do what a test tells them, one line of Python at a time.

They know the C core and nothing else of us: each has `native`, `table` and what it was told before.
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procession import _native as native

PATIENCE = 60.0  # seconds; a wait of a test that takes longer has hung
SOURCES = Path(native.__file__).parent / "src"

_LISTEN = """
import os, sys
from procession import _native as native
table = native.Table.attach(int(sys.argv[1])) if sys.argv[1] != "-1" else None
told = {"native": native, "table": table, "os": os, "sys": sys}
answers = os.fdopen(os.dup(1), "w")
# unbuffered: what is written after a line may be for another program that this one executes
for line in iter(open(0, "rb", buffering=0, closefd=False).readline, b""):
    line = eval(line)
    try:
        try:
            answer = eval(line, told)
        except SyntaxError:
            answer = exec(line, told)
    except BaseException as error:
        answer = error
    print(repr(answer) if not isinstance(answer, BaseException)
          else repr((type(answer).__name__, *answer.args)), file=answers, flush=True)
"""


class Person:
    """A process under a test's command.

    Args:
        table: The table that it maps, if any.
        options: More arguments of `subprocess.Popen`.
    """

    def __init__(self, table: native.Table | None = None, **options: Any) -> None:
        fd = table.fileno() if table else -1
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, str(fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd] if table else [],
            **options,
        )
        self.pid = self.process.pid

    def begin(self, line: str) -> None:
        """Tell it to do something, and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line!r}\n".encode())
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What came of it; an exception is a tuple of its name and arguments."""
        assert self.process.stdout is not None
        assert is_ready(self.process.stdout.fileno()), f"{self.pid} does not answer"
        line = self.process.stdout.readline()
        assert line, f"{self.pid} has ended"
        return ast.literal_eval(line.decode())

    def do(self, line: str) -> Any:
        """Tell it to do something, and wait for the answer."""
        self.begin(line)
        return self.answer()

    def kill(self) -> None:
        """SIGKILL, and reap it."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def close(self) -> None:
        """End it, if it lives, and close our ends."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.kill()
        self.process.wait(PATIENCE)


def is_ready(fd: int, patience: float = PATIENCE) -> bool:
    """Whether a descriptor becomes readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    """Starts persons, and ends them with the test."""
    people: list[Person] = []

    def start(table: native.Table | None = None, **options: Any) -> Person:
        people.append(Person(table, **options))
        return people[-1]

    yield start
    for one in people:
        one.close()


@pytest.fixture
def table() -> Iterator[native.Table]:
    """A table of 16 slots."""
    table = native.Table.create(16)
    yield table
    table.close_fd()  # pytest keeps the object longer than the test


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Forks this process; the copy does something and ends. Killed and reaped with the test."""
    pids: list[int] = []

    def fork(act: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                act()
                os._exit(0)
            except BaseException as error:
                print(f"in a forked copy: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        pids.append(pid)
        return pid

    yield fork
    for pid in pids:
        with contextlib.suppress(OSError):  # the test has reaped it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
