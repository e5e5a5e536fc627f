"""Ending everything below this process, and knowing that nothing is left (G2)."""

from __future__ import annotations

import os
import select
import signal
import time

from procession import _native
from procession._kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procession._keeper.reaper import Reaper

PATIENCE = 10.0  # seconds until what could not be killed is reported instead of waited for
RELEASE_AFTER = 0.02  # seconds; whoever takes longer to die is helped to give its memory back


def end_everything(reaper: Reaper) -> list[int]:
    """SIGKILL every descendant of this subreaper, generation by generation, until none is left.

    Only direct children are killed by number: their numbers cannot be reused before they are
    reaped here. When they die, their own children become ours.

    Returns:
        Pids that could not be killed or did not die within `PATIENCE` seconds.
    """
    began = time.monotonic()
    refused: set[int] = set()
    released: set[int] = set()
    poll = select.poll()
    signals = _native.signalfd([signal.SIGCHLD])
    poll.register(signals, select.POLLIN)
    try:
        while True:
            children = _children(reaper)
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except PermissionError:
                    refused.add(pid)
            # /proc may show no child for a moment: only the kernel's ECHILD says that none is left
            if not reaper.reap():
                return []
            waited = time.monotonic() - began
            if waited > PATIENCE or (children and refused.issuperset(children)):
                return sorted(_children(reaper))
            if waited > RELEASE_AFTER:
                _release_memory(children - released)
                released.update(children)
            if poll.poll(5):
                try:
                    os.read(signals, 4096)
                except BlockingIOError:
                    pass
    finally:
        os.close(signals)


def _children(reaper: Reaper) -> set[int]:
    """All of this process's children that are known; those of the program also without /proc."""
    return {*procfs.children(os.getpid()), *reaper.children}


def _release_memory(pids: set[int]) -> None:
    """Tear down the memory of killed processes from here too, beside the kernel's own exit."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            _native.mrelease(pidfd)
        finally:
            os.close(pidfd)
