"""`procession show`, `ps` and `doctor`, and what the command line refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procession._cli import doctor
from tests import witness

COMMAND = [sys.executable, "-m", "procession"]
LIMIT = 60  # seconds

HANGING = """
import multiprocessing, os, subprocess, sys, time

def inner():
    print("up", flush=True)
    time.sleep(3600)

def outer():
    process = multiprocessing.Process(target=inner, name="inner\\x1b[2J")
    process.start()
    process.join()

def shell():
    subprocess.run([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(3600)"])

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    multiprocessing.Process(target=outer, name="outer").start()
    multiprocessing.Process(target=shell).start()
"""


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "COLUMNS": "120", "PYTHONUTF8": "1", **environ}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=LIMIT, env=given
    )


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def hanging(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that hangs for an hour: main at its exit, `outer` in a join."""
    script = tmp_path / "hangs.py"
    script.write_text(HANGING)
    with subprocess.Popen(
        [*COMMAND, "run", "-q", str(script), request.param], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
        yield process
        process.terminate()
        process.wait(LIMIT)


def test_ps_says_who_waits_for_whom_since_when(hanging: subprocess.Popen[str]) -> None:
    def told() -> str:
        shown = run("ps").stdout
        mine = [part for part in shown.split("\n\n") if "hangs.py" in part]
        return mine[0] if mine else ""

    pattern = re.compile(
        r"who +pid +age +what it does\n"
        r"hangs\.py +\d+ +\S+ \S+ +waits at exit for (outer|shell-2) \(pid \d+\) for \S+ m?s\n"
        r"├ outer +(\d+) +\S+ m?s +waits for inner\?\[2J \(pid (\d+)\) for \S+ m?s\n"
        r"│ └ inner\?\[2J +(\d+) +\S+ m?s +sleeps\n"
        r"└ shell-2 +\d+ +\S+ m?s +(sleeps|runs)\n"
        r"  └ \S+ +\d+ +\S+ m?s +(sleeps|runs)\n?$"
    )
    # "up" comes from below: those above may need a moment until they wait
    assert witness.wait_until(lambda: pattern.match(told()) is not None, LIMIT), told()
    found = pattern.match(told())
    assert found is not None
    assert found[3] == found[4] != found[2]


def test_ps_says_that_one_is_stopped(hanging: subprocess.Popen[str]) -> None:
    def outer() -> re.Match[str] | None:
        return re.search(r"outer +(\d+) .*", run("ps").stdout)

    found = outer()
    assert found is not None
    os.kill(int(found[1]), signal.SIGSTOP)
    try:
        found = outer()
        assert found is not None
        assert found[0].endswith("is stopped")
    finally:
        os.kill(int(found[1]), signal.SIGCONT)


COPY = """
import os, sys, time
import procession

if __name__ == "__main__":
    lock = procession.Lock()
    process = procession.Process(target=time.sleep, args=(600,))
    process.start()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with lock:
            os.write(writing, b"x")
            time.sleep(600)
    os.read(reading, 1)
    print(pid, flush=True)
    sys.stdin.readline()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    print("reaped", flush=True)
    sys.stdin.readline()
    process.kill()
"""


def test_ps_shows_a_copy_that_nobody_asked_for_while_it_lives(tmp_path: Path) -> None:
    (tmp_path / "copied.py").write_text(COPY)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "copied.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        row = re.search(rf"[├└] (\S+) +{pid} +.* m?s ", run("ps").stdout)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        later = run("ps").stdout
        process.communicate("\n")
    assert row is not None
    assert row[1].startswith("python")  # the name in /proc: it has no other
    assert "copied.py" in later
    assert not re.search(rf" {pid} ", later)


def test_ps_without_programs_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from procession._cli import ps
    from procession._kernel import programs

    monkeypatch.setattr(programs, "guards", lambda comm: [])
    assert ps.ps() == 0
    assert capsys.readouterr().out == "no living program of yours uses procession\n"


def test_ps_is_not_confused_by_who_only_has_the_name() -> None:
    code = (
        "from procession import _native; _native.set_process_name('pn-guard'); "
        "print('up', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = run("ps")
        assert found.returncode == 0
        assert found.stderr == ""
        process.communicate(b"\n")


def test_doctor_has_five_lines() -> None:
    found = run("doctor")
    lines = found.stdout.splitlines()
    assert len(lines) == 5
    assert [line.split()[1] for line in lines] == [
        "ends",
        "containment",
        "memory",
        "sharing",
        "room",
    ]
    assert found.returncode == any(line.startswith("no") for line in lines)


def test_doctor_says_what_degrades(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(doctor._native, "set_subreaper", refuse)
    monkeypatch.setattr(doctor.memory, "oom_kills_are_counted", lambda: False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor.doctor() == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("no  ") for line in lines)
    assert "no sentinel" in lines[0]
    assert "double-forks gets away" in lines[1]
    assert "shown as SIGKILL" in lines[2]
    assert "no named SharedMemory" in lines[3]
    assert "no interpreter" in lines[4]


def test_a_probe_that_fails_is_a_line_and_no_traceback(monkeypatch, capsys) -> None:
    def fail() -> doctor.Answer:
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "PROBES", [("ends", fail)])
    assert doctor.doctor() == 1
    assert capsys.readouterr().out == "no  ends         could not be tried (surprise)\n"


def test_show_reads_a_recording_that_is_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.plr"
    script = tmp_path / "prog.py"
    script.write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    p = multiprocessing.Process(target=print, name='child'); p.start(); p.join()\n"
    )
    assert run("run", "-q", "-o", str(whole), str(script)).returncode == 0
    contents = whole.read_bytes()
    cut = tmp_path / "cut.plr"
    for end in (0, 10, contents.index(b"process.ended"), len(contents) - 1):
        cut.write_bytes(contents[:end])
        found = run("show", str(cut))
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("procession  ")
    assert "child" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "say which recording"),
        (["show", "a", "b"], "one recording at a time"),
        (["show", "/nowhere/a.plr"], "cannot read '/nowhere/a.plr': No such file"),
        (["show", "/"], "cannot read '/': Is a directory"),
        (["show", sys.executable], "this is no recording of procession"),
        (["show", "--colour", "x"], "there is no option '--colour'"),
        (["ps", "aux"], "ps takes no arguments, got 'aux'"),
        (["doctor", "who"], "doctor takes no arguments, got 'who'"),
        (["run", "-o"], "--output needs a file's name"),
        (["run", "-q", "-v", "x.py"], "-q and -v contradict each other"),
        (["run", "--force", "x.py"], "--force overwrites the file of -o"),
        (["run", "-o", "/nowhere/a.plr", "x.py"], "cannot make '/nowhere/a.plr'"),
        ([], "say what to do"),
        (["dance"], "there is no command 'dance'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments: list[str], words: str) -> None:
    found = run(*arguments)
    assert found.returncode == 125
    assert found.stdout == ""
    assert words in found.stderr.splitlines()[0]
    assert "Traceback" not in found.stderr


def test_a_recording_is_not_overwritten_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kept.plr"
    path.write_text("precious")
    found = run("run", "-o", str(path), "-c", "print('ran')")
    assert found.returncode == 125
    assert "--force" in found.stderr
    assert (found.stdout, path.read_text()) == ("", "precious")
    found = run("run", "-o", str(path), "--force", "-c", "print('ran')")
    assert found.returncode == 0
    assert run("show", str(path)).returncode == 0


@pytest.mark.parametrize("command", ["run", "show", "ps", "doctor"])
def test_every_command_has_help(command: str) -> None:
    for arguments in ([command, "--help"], ["help", command]):
        found = run(*arguments)
        assert found.returncode == 0
        assert found.stdout.startswith(f"usage: procession {command}")
    assert f"  {command} " in run("--help").stdout


def test_run_imports_nothing_heavy_before_its_program_runs(tmp_path: Path) -> None:
    """What a program waits for: nobody's json, re, typing, dataclasses, multiprocessing …"""
    code = (
        "import os, sys\n"
        "def spawn(*arguments, **options):\n"
        "    os.write(1, repr(sorted(set(sys.modules))).encode())\n"
        "    os._exit(0)\n"
        "os.posix_spawn = spawn\n"
        "sys.argv = ['procession', 'run', '-c', 'pass']\n"
        "from procession._cli.app import main\n"
        "main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT
    )
    loaded = set(re.findall(r"'([^']+)'", found.stdout))
    assert "procession._cli.run" in loaded, found.stderr
    heavy = {"json", "re", "typing", "dataclasses", "multiprocessing", "inspect", "argparse"}
    heavy |= {"subprocess", "rich", "click", "procession.events", "procession.lifeline"}
    assert not heavy & loaded
