"""A child that ended is reaped at once, joined or not (G1)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.contract.programs import name_of, running, state_of, wait_until, write

PROGRAM = """
import sys
import procession
def nothing():
    pass
if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    count = int(sys.argv[2])
    processes = [context.Process(target=nothing) for _ in range(count)]
    for process in processes:
        process.start()
    print("started", flush=True)
    sys.stdin.readline()
    if sys.argv[1] == "fork":
        procession.active_children()  # its next call
    print("called", flush=True)
    sys.stdin.readline()
    print(sum(process.exitcode == 0 for process in processes), flush=True)
"""


@pytest.mark.parametrize(("method", "count"), [("forkserver", 200), ("spawn", 20), ("fork", 200)])
def test_children_that_nobody_joins_leave_no_zombies(
    method: str, count: int, tmp_path: Path
) -> None:
    script = write(tmp_path, PROGRAM)
    with running(script, method, str(count), stdin=subprocess.PIPE) as program:
        program.wait_for("started")
        if method == "fork":  # main's own children: its next call reaps them
            wait_until(lambda: not living(program.pid))
        program.tell("go on")
        program.wait_for("called")
        wait_until(lambda: not below(program.pid), lambda: f"left: {below(program.pid)}")
        program.tell("go on")
        assert program.line() == str(count)
        assert program.finish().code == 0


def below(pid: int) -> list[psutil.Process]:
    """All below a process, zombies too, but the keeper and its spares."""
    everyone = psutil.Process(pid).children(recursive=True)
    named = ((process, name_of(process)) for process in everyone)
    return [process for process, name in named if name and not name.startswith("pn-")]


def living(pid: int) -> list[psutil.Process]:
    """Those that have not ended."""
    return [process for process in below(pid) if state_of(process) != psutil.STATUS_ZOMBIE]
