"""How a zygote sleeps: what it hears, and whom it reaps meanwhile.

Each case runs in a process of one thread, as a zygote is: this file, executed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from procession import _native

LIMIT_MS = 30_000


class Parent:
    """A process with a table and children."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self.table = _native.Table.create(8)
        self.children: dict[int, tuple[int, int]] = {}
        self.signals = _native.signalfd([signal.SIGCHLD])
        self.epoll = select.epoll()
        self.epoll.register(self.signals, select.EPOLLIN)

    def start(self, signal_number: int = 0) -> tuple[int, tuple[int, int]]:
        """A child that ends at once, with 7 or by a signal."""
        place = self.table.claim()
        pid = os.fork()
        if pid == 0:
            if signal_number:
                os.kill(os.getpid(), signal_number)
            os._exit(7)
        self.children[pid] = place
        return pid, place

    def attend(
        self, children: dict[int, tuple[int, int]] | None
    ) -> tuple[list[int], list[tuple[int, int]], bool]:
        return _native.attend(self.table, self.epoll.fileno(), LIMIT_MS, self.signals, children)


def child_that_ended(parent: Parent) -> None:
    _, place = parent.start()
    assert parent.attend(parent.children) == ([], [place], False)
    assert parent.table.state(*place) == _native.ENDED
    assert os.waitstatus_to_exitcode(parent.table.read(place[0])[9]) == 7
    assert parent.children == {}
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return
    raise AssertionError("it was not reaped")


def child_that_was_killed(parent: Parent) -> None:
    pid, place = parent.start(signal.SIGKILL)
    assert parent.attend(parent.children) == ([], [], True)
    assert parent.table.state(*place) != _native.ENDED
    assert parent.children == {pid: place}
    assert os.waitpid(pid, 0)[0] == pid


def stranger(parent: Parent) -> None:
    pid, _ = parent.start()
    assert parent.attend({}) == ([], [], True)
    assert os.waitpid(pid, 0)[0] == pid


def other_descriptor(parent: Parent) -> None:
    bell = os.eventfd(1, os.EFD_CLOEXEC)
    parent.epoll.register(bell, select.EPOLLIN)
    assert parent.attend({}) == ([bell], [], False)


def children_kept_from_it(parent: Parent) -> None:
    pid, _ = parent.start()
    assert parent.attend(None) == ([], [], True)
    assert os.waitpid(pid, 0)[0] == pid


CASES = (
    child_that_ended,
    child_that_was_killed,
    stranger,
    other_descriptor,
    children_kept_from_it,
)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_attend(case: str, no_strays: None) -> None:
    done = subprocess.run(
        [sys.executable, __file__, case], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    {case.__name__: case for case in CASES}[sys.argv[1]](Parent())
