"""Collecting the dead: first the table is told, then the kernel may forget them.

In this order a reaper that is killed in between loses nothing: the zombie goes to the next
subreaper above, which does both again.
"""

from __future__ import annotations

import os
import signal
import time

from procession import _native
from procession._kernel import memory
from procession._kernel.polling import is_readable

_UNUSED_LIMIT = 1.0  # seconds for spares that were killed to be gone; they hold nothing up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Reaper:
    """Reaps the children of this process.

    Args:
        table: The program's table of processes.
        on_end: Called with (index, generation) of each process of the table that has ended.
        on_stop: Called with "stopped" or "continued", (index, generation) and the time of each one
            that was, while a recording is written.
        on_other: Called with the pid of each one that is not of the table, before it is forgotten.
    """

    def __init__(
        self,
        table: _native.Table,
        on_end: Callable[[int, int], None],
        on_stop: Callable[[str, int, int, int], None],
        on_other: Callable[[int], None] | None = None,
    ) -> None:
        self._table = table
        self._on_end = on_end
        self._on_stop = on_stop
        self._on_other = on_other
        self._oom_kills = memory.oom_kills()
        self.children: dict[int, tuple[int, int]] = {}
        """Pid → (index, generation) of the processes of the table that are to be reaped here."""
        self.lost = False
        """Say of all that end from now on that they were lost: they end for want of a guard."""

    def reap(self) -> bool:
        """Reap all that have ended; false when this process has no child left at all."""
        if self._table.recorded():
            self._see_stops()
        while True:
            try:
                dead = _native.peek_child()
            except ChildProcessError:
                return False
            if dead is None:
                return True
            pid, status, utime_ns, stime_ns, max_rss_kib = dead
            place = self.children.pop(pid, None)
            if place is not None:
                self._tell(place, status, utime_ns, stime_ns, max_rss_kib)
            elif self._on_other is not None:
                self._on_other(pid)
            os.waitpid(pid, 0)
            if place is not None:
                self._on_end(*place)

    def end_unused(self, signals: int) -> None:
        """The spares that nobody has asked for go, the children stay.

        Args:
            signals: A descriptor that is readable when a child has ended.
        """
        unused = {
            pid
            for pid, (index, generation) in self.children.items()
            if self._table.withdraw(index, generation)
        }
        for pid in unused:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _UNUSED_LIMIT
        # what was read tells of others, too: each time it is reaped once more
        while self.reap() and unused & self.children.keys() and time.monotonic() < deadline:
            if is_readable(signals, 10):
                os.read(signals, 4096)

    def _see_stops(self) -> None:
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            except ChildProcessError:
                return
            if seen is None:
                return
            place = self.children.get(seen.si_pid)
            if place is not None:
                kind = "continued" if seen.si_code == os.CLD_CONTINUED else "stopped"
                self._on_stop(kind, *place, time.monotonic_ns())

    def _tell(
        self, place: tuple[int, int], status: int, utime_ns: int, stime_ns: int, max_rss_kib: int
    ) -> None:
        index, _ = place
        flags = _native.FLAG_LOST if self.lost else 0
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills = memory.oom_kills()
            if kills > self._oom_kills:
                self._oom_kills = kills
                flags |= _native.FLAG_OOM
        self._table.end(index, status, utime_ns, stime_ns, max_rss_kib, flags)
