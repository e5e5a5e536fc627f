"""Servers that start workers, each in its own way, under `procession run`: `nox -s programs`.

Each answers a request and gets one signal, sent to the command: it comes to the server once, and
nothing is left.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.programs import LIMIT as SHORT
from tests.contract.programs import Program, run_command, wait_until
from tests.programs.support import HERE, LIMIT, RUN, home, needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@contextlib.contextmanager
def serving(tmp_path: Path, *arguments: str, cwd: Path = HERE) -> Iterator[Program]:
    """A program under the command, its two streams as one."""
    options = {"cwd": cwd, "stderr": subprocess.STDOUT, "env": home(tmp_path)}
    program = Program([*RUN, "-m", *arguments], **options)
    try:
        yield program
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


def address(program: Program) -> str:
    """Where it says that it listens."""
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", program.line(LIMIT))):
        pass
    return found[0]


def ask(where: str) -> int:
    """The pid of the worker that answers; some listen only after they have said so."""

    def answer() -> int | None:
        try:
            with urllib.request.urlopen(where, timeout=SHORT) as answer:
                return int(answer.read())
        except (OSError, http.client.HTTPException):
            return None

    return int(wait_until(answer, lambda: "nobody answers"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gunicorn(number: signal.Signals, tmp_path: Path) -> None:
    needs("gunicorn", "flask")
    command = ["gunicorn", "-w", "2", "-b", "127.0.0.1:0", "--no-control-socket", "served:wsgi"]
    with serving(tmp_path, *command) as program:
        assert ask(address(program)) in {process.pid for process in program.processes()}
        program.process.send_signal(number)
        done = program.finish(LIMIT)
    assert done.code == 0
    assert done.out.count(f"Handling signal: {number.name[3:].lower()}") == 1, done.out
    assert done.out.count("Worker exiting") == 2, done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_uvicorn(number: signal.Signals, tmp_path: Path) -> None:
    needs("uvicorn", "flask")
    command = ["uvicorn", "--workers", "2", "--port", "0", "served:asgi"]
    with serving(tmp_path, *command) as program:
        assert ask(address(program)) in {process.pid for process in program.processes()}
        program.process.send_signal(number)
        done = program.finish(LIMIT)
    assert done.code == 0
    assert done.out.count(f"Received {number.name}, exiting") == 1, done.out
    assert "2 children" in done.out


def test_flasks_reloader(tmp_path: Path) -> None:
    needs("flask")
    shutil.copy(HERE / "served.py", tmp_path)
    command = ["flask", "--app", "served", "run", "--debug", "--port", "0"]
    with serving(tmp_path, *command, cwd=tmp_path) as program:
        where = address(program)
        first = ask(where)
        with (tmp_path / "served.py").open("a") as file:
            file.write("\n# touched\n")
        program.wait_for(" * Restarting with stat")
        wait_until(lambda: ask(where) != first, lambda: "nobody answers anew")
        program.process.send_signal(signal.SIGTERM)
        done = program.finish(LIMIT)
    assert "nothing left behind" in done.out


def test_celery(tmp_path: Path) -> None:
    needs("celery")
    command = ["celery", "-A", "tasks", "worker", "-c", "2", "-P", "prefork"]
    with serving(tmp_path, *command) as program:
        done = run_command([*RUN, "tasks.py"], cwd=HERE, env=home(tmp_path), limit=LIMIT)
        assert done.lines == ["5"], done.err
        program.process.send_signal(signal.SIGTERM)
        done = program.finish(LIMIT)
    assert done.code == 0
    assert done.out.count("Warm shutdown") == 1
