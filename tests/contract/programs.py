"""Running whole programs as a user would, and looking at them from outside."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import procession

METHODS = ("forkserver", "spawn", "fork")
KEPT = ("forkserver", "spawn")

each_method = pytest.mark.parametrize("method", METHODS)
each_kept_method = pytest.mark.parametrize("method", KEPT)

# pytest-timeout watches each test from a thread; a fork in the test's own process is told of it
fork_beside_pytests_threads = pytest.mark.filterwarnings("ignore:fork copies this process")

LIMIT = 30.0  # seconds; nothing here takes that long unless it hangs
_MARK = "PROCESSION_TEST_MARK"


class Finished(NamedTuple):
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed on stdout."""
        return self.out.splitlines()

    @property
    def said(self) -> Any:
        """Its last line, which is JSON."""
        assert self.lines, f"nothing on stdout; code {self.code}; stderr:\n{self.err}"
        return json.loads(self.lines[-1])


class Program:
    """A running program; everything below it carries a mark in its environment."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self._mark = uuid.uuid4().hex
        environ = {**os.environ, **(options.pop("env", None) or {}), _MARK: self._mark}
        environ.pop("PYTEST_CURRENT_TEST", None)
        self._err = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        options.setdefault("stderr", self._err)
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        self.process = subprocess.Popen(command, env=environ, **options)
        self._seen = b""
        self._rest = b""

    @property
    def pid(self) -> int:
        """The pid of the program's main process."""
        return self.process.pid

    def line(self, limit: float = LIMIT) -> str:
        """The next line of its stdout, waited for."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + limit
        while b"\n" not in self._rest:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            if not chunk:
                raise AssertionError(
                    f"no further line within {limit} s; so far:\n{self._seen.decode()}\n"
                    f"{self._rest.decode()}\nstderr:\n{self.error_text()}"
                )
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        self._seen += line + b"\n"
        return line.decode()

    def wait_for(self, text: str) -> str:
        """The rest of the first line that begins with a text."""
        while not (line := self.line()).startswith(text):
            pass
        return line[len(text) :].strip()

    def error_text(self) -> str:
        """What it wrote on stderr so far."""
        self._err.seek(0)
        return self._err.read()

    def tell(self, text: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def finish(self, limit: float = LIMIT) -> Finished:
        """Wait for its end, and for the end of all it started."""
        try:
            out, _ = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            pytest.fail(
                f"the program did not end within {limit} s; stdout so far:\n"
                f"{(self._seen + self._rest).decode()}\nstderr:\n{self.error_text()}\n"
                f"its processes:\n{self.picture()}"
            )
        text = (self._seen + self._rest + (out or b"")).decode()
        return Finished(self.process.returncode, text, self.error_text())

    def processes(self) -> list[psutil.Process]:
        """All that is left of the program, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and self._is_mine(process.pid):
                    found.append(process)
        return found

    def _is_mine(self, pid: int) -> bool:
        try:
            return f"{_MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def named(self, name: str) -> list[psutil.Process]:
        """Its processes with this name in ps."""
        return [process for process in self.processes() if name_of(process) == name]

    def picture(self) -> str:
        """Its processes, for a message."""
        rows = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                rows.append(
                    f"{process.pid} {process.name()} {process.status()} of {process.ppid()}"
                )
        return "\n".join(rows)

    def leaves_nothing(self, limit: float = 5.0) -> None:
        """Fail unless all of it is gone within some seconds."""
        wait_until(lambda: not self.processes(), lambda: f"left behind:\n{self.picture()}", limit)

    def end(self) -> None:
        """Kill all that is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Close its streams."""
        for stream in (self.process.stdin, self.process.stdout, self._err):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def write(folder: Path, text: str, name: str = "program.py") -> Path:
    """A script of this text."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


@contextlib.contextmanager
def running(
    path: Path, *arguments: str, leaves: bool = False, keep: bool = False, **options: Any
) -> Iterator[Program]:
    """Run a script; nothing of it may be left afterwards.

    Args:
        path: The script.
        arguments: For its ``sys.argv``.
        leaves: Do not look at what is left (the standard library leaves helpers for a moment).
        keep: Do not end what is left either.
        options: For `subprocess.Popen`.
    """
    python = options.pop("python", sys.executable)
    flags = options.pop("flags", ())
    program = Program([python, *flags, str(path), *arguments], **options)
    try:
        yield program
        if not leaves and program.process.poll() is not None:
            program.leaves_nothing()
    finally:
        if not keep:
            program.end()
        program.close()


def run(path: Path, *arguments: str, **options: Any) -> Finished:
    """Run a script to its end."""
    limit = options.pop("limit", LIMIT)
    with running(path, *arguments, **options) as program:
        return program.finish(limit)


def run_text(folder: Path, text: str, *arguments: str, **options: Any) -> Finished:
    """Run a program given as text to its end."""
    return run(write(folder, text), *arguments, **options)


def run_command(command: list[str], **options: Any) -> Finished:
    """Run any command to its end; nothing of it may be left."""
    limit = options.pop("limit", LIMIT)
    program = Program(command, **options)
    try:
        finished = program.finish(limit)
        program.leaves_nothing()
        return finished
    finally:
        program.end()
        program.close()


def start(method: str, target: Callable[..., object], *args: Any, **options: Any) -> Any:
    """A started process in the test's own process; its target is light to import."""
    process = procession.get_context(method).Process(target=target, args=args, **options)
    process.start()
    return process


def in_threads(function: Callable[[], Any], count: int = 8) -> list[Any]:
    """What a function answers to several threads at once."""
    answers: list[Any] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        answers.append(function())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def has_ended(pid: int) -> bool:
    """Whether there is nobody with this pid but perhaps a zombie."""
    with contextlib.suppress(psutil.Error):
        return state_of(psutil.Process(pid)) == psutil.STATUS_ZOMBIE
    return True


def name_of(process: psutil.Process) -> str:
    """Its name in ps; empty once it is gone, which it may be at any look."""
    with contextlib.suppress(psutil.Error):
        return str(process.name())
    return ""


def state_of(process: psutil.Process) -> str:
    """Its state as psutil calls it; that of a zombie once it is gone."""
    with contextlib.suppress(psutil.Error):
        return str(process.status())
    return str(psutil.STATUS_ZOMBIE)


@contextlib.contextmanager
def limited(limit: int, value: int) -> Iterator[None]:
    """A soft limit of this process, for a while."""
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


def wait_until(
    fact: Callable[[], Any],
    otherwise: Callable[[], str] = lambda: "it did not come true",
    limit: float = LIMIT,
) -> Any:
    """Wait for a fact that nobody announces."""
    deadline = time.monotonic() + limit
    while not (value := fact()):
        if time.monotonic() > deadline:
            pytest.fail(otherwise())
        time.sleep(0.002)
    return value
