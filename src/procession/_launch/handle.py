"""What a started process is to its starter: how to wait for it, signal it, and know its end.

`multiprocessing` calls this a Popen; its attributes are used by others and stay: pid, returncode,
sentinel, poll, wait, terminate, kill, interrupt, close, duplicate_for_child.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import util

from procession import _native
from procession._kernel.polling import is_readable
from procession._launch.keeper import SLICE_NS
from procession._wire import messages
from procession.ending import Ending, How, Rusage, from_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procession._launch.keeper import Keeper

_HOWS = {
    _native.RETURNED: How.RETURNED,
    _native.RAISED: How.RAISED,
    _native.EXITED: How.EXITED,
}
_TOLD_AFTER = 0.005  # seconds; most waits are over by then, and need not be told in between
_KEEPER_GRACE_NS = 2_000_000_000  # what a zygote gets to end everything when the guard was killed


class Handle:
    """A process of the table that this process started."""

    method = ""

    def __init__(self, process: Any) -> None:
        self.returncode: int | None = None
        self.ending: Ending | None = None
        self.rusage: Rusage | None = None
        self.pid = 0
        self.finalizer = None
        self.name: str = process._name
        self._keeper: Keeper
        self._index = 0
        self._generation = 0
        self._owner_pid = os.getpid()
        self._pidfd = -1
        self._fetched = False
        self._outcome: Any = None
        self._settling = threading.Lock()
        util._flush_std_streams()  # type: ignore[attr-defined]
        self._launch(process)

    def _launch(self, process: Any) -> None:
        raise NotImplementedError

    def duplicate_for_child(self, fd: int) -> int:
        """Pass a descriptor on to the child; what the child's pickle calls it."""
        raise NotImplementedError

    # --- waiting ---------------------------------------------------------------------------

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process has ended; opened at first use."""
        if self._pidfd < 0:
            self._pidfd = self.open_sentinel()
        return self._pidfd

    def open_sentinel(self) -> int:
        """A sentinel that is the caller's own, to be closed by it."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return os.eventfd(1, os.EFD_CLOEXEC)  # ended and reaped: readable for ever
        if self._has_ended():  # the number may be a stranger's already
            os.close(pidfd)
            return os.eventfd(1, os.EFD_CLOEXEC)
        return pidfd

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, or ``None`` while it runs; with ``flag`` 0, wait for it."""
        if self.returncode is None:
            if not self._has_ended():
                if flag != os.WNOHANG:
                    return self.wait(None)
                if self._pidfd < 0 or not is_readable(self._pidfd):
                    return None
                # the sentinel is ready: whoever saw that may ask for the exit code at once, which
                # is in the table as soon as the reaper has been there
                self._wait_ended(None)
            self._settle()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended.

        Args:
            timeout: Longest wait in seconds; ``None`` has no limit.

        Returns:
            The exit code, or ``None`` when the time was over.
        """
        if self.returncode is None:
            if not self._wait_seen(timeout):
                return None
            self._settle()
        return self.returncode

    def _wait_seen(self, timeout: float | None) -> bool:
        """Wait, with a note of it in this process's own slot for whoever looks on, and a word to
        the recording where there is one.
        """
        if (timeout is not None and timeout <= 0) or self._has_ended():
            return self._wait_ended(timeout)
        keeper, table = self._keeper, self._keeper.table
        whom = self._generation << 32 | self._index
        recorded = table.recorded()
        began_ns = time.monotonic_ns() if recorded else 0
        place = table.begin_wait(keeper.index, whom)
        ended = False
        try:
            if recorded and (timeout is None or timeout > _TOLD_AFTER):
                ended = self._wait_ended(_TOLD_AFTER)
                if ended:
                    return True
                keeper.tell(messages.WAITS, keeper.owner_id, whom, began_ns)
                timeout = None if timeout is None else timeout - _TOLD_AFTER
            ended = self._wait_ended(timeout)
            return ended
        finally:
            table.end_wait(keeper.index, place, 0 if ended else whom)
            if recorded and not ended:  # what lasted until the end is told with the end
                now_ns = time.monotonic_ns()
                keeper.tell(messages.WAITED, keeper.owner_id, whom, began_ns, now_ns)

    def _has_ended(self) -> bool:
        return self._keeper.table.state(self._index, self._generation) in (
            _native.ENDED,
            _native.FREE,
        )

    def _wait_ended(self, timeout: float | None) -> bool:
        """Sleep on the slot's state, looking now and then whether anybody is left to change it."""
        table = self._keeper.table
        deadline = None if timeout is None else time.monotonic_ns() + round(timeout * 1e9)
        while True:
            rest = SLICE_NS
            if deadline is not None:
                rest = min(rest, max(0, deadline - time.monotonic_ns()))
            if table.wait(self._index, self._generation, rest):
                return True
            if deadline is not None and time.monotonic_ns() >= deadline:
                return False
            if self._keeper.guard_is_dead():
                self._without_keeper()

    def _without_keeper(self) -> None:
        """The guard is dead. The zygote ends its children and says so; if it is dead too, nobody
        contains this process any more and nobody else will ever tell of its end: both fall to us.
        """
        table = self._keeper.table
        if table.wait(self._index, self._generation, _KEEPER_GRACE_NS):
            return
        self._send(signal.SIGKILL)
        fd = self.sentinel
        if is_readable(fd, 10_000):
            table.end(self._index, -1, 0, 0, 0, _native.FLAG_LOST)

    def _settle(self) -> None:
        """Take the end out of the table, once, the same for every thread."""
        with self._settling:
            if self.returncode is not None:
                return
            row = self._keeper.table.read(self._index)
            (_, generation, _, _, _, _, flags, how, _, status, _, _, _) = row[:13]
            utime_ns, stime_ns, max_rss_kib, killer, killer_signal, _, _, text = row[13:]
            lost = generation != self._generation or bool(flags & _native.FLAG_LOST)
            by_us = not lost and os.WIFSIGNALED(status) and os.WTERMSIG(status) == killer_signal
            self.ending = from_status(
                status,
                _HOWS.get(how),
                text.decode("utf-8", "replace"),
                lost=lost,
                oom=bool(flags & _native.FLAG_OOM) and not by_us,
                killer=killer if by_us else 0,
            )
            if not lost:
                self.rusage = Rusage(utime_ns / 1e9, stime_ns / 1e9, max_rss_kib * 1024)
            self.returncode = self.ending.exitcode

    # --- signals ---------------------------------------------------------------------------

    def _send(self, number: int) -> None:
        """Send a signal, to this process and no other that may have its number by now."""
        if self.returncode is not None:
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self._has_ended():
                return
            self._keeper.table.blame(self._index, os.getpid(), number)
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._send(signal.SIGINT)

    # --- what it leaves ---------------------------------------------------------------------

    def load_outcome(self) -> Any:
        """What it returned or raised (an `Outcome`), fetched once; ``None``: nothing to tell."""
        with self._settling:
            if not self._fetched:
                blob = self._keeper.fetch_outcome(self._index, self._generation)
                if blob is not None:
                    from procession._wire.outcome import load_outcome

                    self._outcome = load_outcome(blob)
                self._fetched = True
                self._traceback = self._outcome and getattr(
                    self._outcome.error, "__traceback__", None
                )
            if self._outcome is not None and self._outcome.error is not None:
                # every raise of it adds frames: who asks again is to see the child's own only
                self._outcome.error.__traceback__ = self._traceback
        return self._outcome

    def owned_pids(self) -> list[int]:
        """Pids of the living processes that it started, and that those started, through us."""
        table = self._keeper.table
        rows = {index: table.read(index) for index, _, _ in table.pids()}
        members = {self._generation << 32 | self._index}
        pids: list[int] = []
        while True:
            found = [
                (row[1] << 32 | index, row[2])
                for index, row in rows.items()
                if row[4] in members and row[0] in (_native.ASKED, _native.RUNNING)
            ]
            new = [(me, pid) for me, pid in found if me not in members]
            if not new:
                return pids
            members.update(me for me, _ in new)
            pids += [pid for _, pid in new]

    def close(self) -> None:
        """Give back the descriptor and the slot."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._release()

    def _release(self) -> None:
        if self._generation and self._owner_pid == os.getpid():  # not in a forked copy
            self._keeper.table.set_flags(self._index, self._generation, _native.FLAG_RELEASED)

    def __del__(self) -> None:
        try:
            self.close()
        except (AttributeError, OSError, TypeError):
            pass  # half-made, closed by the user's own closerange, or our modules are gone already
