"""A process that keeps a process group from being orphaned (src/anchor.h)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from procession import _native
from procession._wire import messages
from tests.contract.programs import wait_until


@pytest.fixture
def group():
    with subprocess.Popen(["sleep", "600"], process_group=0) as leader:
        yield leader.pid
        leader.kill()


def test_it_is_in_the_group_has_no_descriptor_and_leaves_no_trace(group: int) -> None:
    threads = os.listdir("/proc/self/task")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pid = _native.anchor(group)
    try:
        assert os.getpgid(pid) == group
        assert os.listdir(f"/proc/{pid}/fd") == []
        assert Path(f"/proc/{pid}/comm").read_text() == f"{messages.COMM_ANCHOR}\n"
        assert os.listdir("/proc/self/task") == threads
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP, signal.SIGCONT):
            os.kill(pid, number)
        assert psutil.Process(pid).is_running()
    finally:
        _native.weigh_anchor(pid)
    assert not psutil.pid_exists(pid)


def test_where_there_is_no_such_group() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(PermissionError):
        _native.anchor(1 << 22)
    assert set(psutil.Process().children()) <= before


def test_it_ends_with_its_parent(group: int) -> None:
    code = (
        "import os, sys; from procession import _native;"
        "print(_native.anchor(int(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(group)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done
    wait_until(lambda: not psutil.pid_exists(int(done.stdout)))
