"""Ending processes with everything below them: interrupt, terminate, kill, each step bounded (G3).

What is below a process is found before it dies: afterwards the link is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from procession._kernel import procfs
from procession._kernel.tree import Tree
from procession._launch.handle import Handle

GRACE = 5.0  # seconds; half of what container runtimes allow between SIGTERM and SIGKILL
ALREADY_TOLD = 0.2  # seconds; after Ctrl-C the terminal has told the children itself
LOOK_AGAIN = 0.05  # seconds between looks at whether those left can react at all
KILLED_LIMIT_NS = 2_000_000_000

Steps = Sequence[tuple[int | None, float]]


def gently(grace: float) -> Steps:
    """Interrupt, then terminate; the grace time is shared between the two. None at all: kill."""
    if grace == 0:
        return ()
    return (signal.SIGINT, grace / 2), (signal.SIGTERM, grace / 2)


def after_interrupt(grace: float) -> Steps:
    """As `gently`, for children that may have had the terminal's SIGINT a moment ago: a second
    one would hit them in the middle of their clean-up.
    """
    return (None, ALREADY_TOLD), *gently(grace)


def terminating(grace: float) -> Steps:
    """Terminate only, as `multiprocessing` does with daemons."""
    return ((signal.SIGTERM, grace),)


def end_trees(handles: Sequence[Handle], steps: Steps) -> None:
    """End processes and all below them.

    Args:
        handles: Processes that this one started.
        steps: Signals to the processes themselves, and how many seconds each may take to work;
            then SIGKILL to everything that is left in their trees.
    """
    with Tree() as tree:
        for number, seconds in steps:
            living = [handle for handle in handles if handle.poll() is None]
            _hold(tree, living)
            if not living:
                break
            for handle in living:
                if number is not None:
                    handle._send(number)
            _wait(living, seconds)
        living = [handle for handle in handles if handle.poll() is None]
        _hold(tree, living)
        tree.scan(freeze=True)
        for handle in living:
            handle._keeper.table.blame(handle._index, os.getpid(), signal.SIGKILL)
        tree.kill()
        tree.wait(time.monotonic_ns() + KILLED_LIMIT_NS)
    for handle in living:
        handle.wait(KILLED_LIMIT_NS / 1e9)


def _hold(tree: Tree, handles: Sequence[Handle]) -> None:
    for handle in handles:
        tree.add(handle.pid)
        for pid in handle.owned_pids():
            tree.add(pid)
    tree.scan()


def _wait(handles: Sequence[Handle], seconds: float) -> None:
    """Wait until all have ended, or those left are stopped and cannot react, or it is time."""
    deadline = time.monotonic() + seconds
    left = list(handles)
    while left:
        rest = deadline - time.monotonic()
        left[0].wait(max(0.0, min(rest, LOOK_AGAIN)))
        left = [handle for handle in left if handle.poll() is None]
        if rest <= 0 or all(_is_stopped(handle.pid) for handle in left):
            return


def _is_stopped(pid: int) -> bool:
    status = procfs.stat(pid)
    return status is not None and status.state in "Tt"
