"""A process and everything below it, as one thing to be ended (G3)."""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from procession._kernel import procfs
from procession._kernel.polling import is_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    _T = TypeVar("_T")

PASSES = 50  # scans of a tree that goes on forking while it is being stopped
_SPARE = 3  # descriptors that it takes to look at a process and to signal it
_NONE = -1  # instead of a pidfd
_LOOK_MS = 10.0  # between two looks at processes without a pidfd


class Tree:
    """Pidfds of processes and of all their descendants known so far.

    Descendants are held by pidfd from the moment that they are seen: once a parent has died, the
    link from it to what it left is gone, and a number may name a stranger. Where this process has
    no descriptor left for one, the time of its start tells it from strangers.

    Raises:
        OSError: On entering, before anything was signalled: there are no descriptors even to look
            at one process.
    """

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}
        self._lent: set[int] = set()
        self._start_times: dict[int, int] = {}
        """Of the processes that are held without a pidfd."""
        self._spare: list[int] = []
        self._is_full = False
        self.unkillable: list[int] = []

    def __enter__(self) -> Tree:
        procfs.is_ours()  # the first time that takes a descriptor: later there may be none
        try:
            for _ in range(_SPARE):
                self._spare.append(os.eventfd(0, os.EFD_CLOEXEC))
        except OSError:
            self._free_spare()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._free_spare()
        for pid, pidfd in self._pidfds.items():
            if pidfd != _NONE and pid not in self._lent:
                os.close(pidfd)
        self._pidfds.clear()

    def _free_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    @property
    def pids(self) -> list[int]:
        """Pids of all that were seen, in the order in which they were found."""
        return list(self._pidfds)

    def add(self, pid: int, start_time: int | None = None) -> bool:
        """Hold a process; false when it is gone already.

        Args:
            pid: Its pid.
            start_time: When it was started, where that is known: a process that has got its number
                since is not held.
        """
        if pid in self._pidfds:
            return True
        if not self._hold(pid):
            return False
        if start_time is not None:
            status = self._look(procfs.stat, pid)
            if status is None or status.start_time != start_time:
                self._let_go(pid)
                return False
        return True

    def _hold(self, pid: int) -> bool:
        if not self._is_full:
            try:
                self._pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                return False
            except OSError as error:
                self._use_spare(error)
            else:
                return True
        status = procfs.stat(pid)
        if status is None:
            return False
        self._pidfds[pid], self._start_times[pid] = _NONE, status.start_time
        return True

    def _use_spare(self, error: OSError) -> None:
        """Go on without further pidfds, if that is what an error is about."""
        if self._is_full or error.errno not in (errno.EMFILE, errno.ENFILE):
            raise error
        self._is_full = True
        self._free_spare()

    def _look(self, at: Callable[[int], _T], pid: int) -> _T:
        """What /proc says of a process: that takes a descriptor, too."""
        try:
            return at(pid)
        except OSError as error:
            self._use_spare(error)
            return at(pid)

    def hold(self, pid: int, pidfd: int) -> None:
        """Hold a process by a pidfd that stays the caller's."""
        self._pidfds[pid] = pidfd
        self._lent.add(pid)

    def _let_go(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        if pidfd == _NONE:
            del self._start_times[pid]
        else:
            os.close(pidfd)

    def _with_pidfd(self, pid: int, do: Callable[[int], bool]) -> bool:
        """What a function says of a pidfd of a process held.

        Raises:
            ProcessLookupError: It is gone, and its number may be another's.
        """
        if (held := self._pidfds[pid]) != _NONE:
            return do(held)
        pidfd = os.pidfd_open(pid)
        try:
            status = procfs.stat(pid)
            if status is None or status.start_time != self._start_times[pid]:
                raise ProcessLookupError(errno.ESRCH, "it is gone")
            return do(pidfd)
        finally:
            os.close(pidfd)

    def scan(self, *, freeze: bool = False) -> None:
        """Find what is below the processes held, until a whole pass finds nothing new.

        Args:
            freeze: Stop each one found (SIGSTOP) before looking below it, so that none can fork
                and get away meanwhile.
        """
        frozen: set[int] = set()
        for _ in range(PASSES):
            grown = False
            for pid in list(self._pidfds):
                if freeze and pid not in frozen:
                    frozen.add(pid)
                    self._signal(pid, signal.SIGSTOP)
                for child in self._look(procfs.children, pid):
                    if child not in self._pidfds and self.add(child):
                        # the number may have been reused between the list and the pidfd
                        status = self._look(procfs.stat, child)
                        if status is None or status.parent not in self._pidfds:
                            self._let_go(child)
                        else:
                            grown = True
            if not grown:
                return

    def kill(self) -> None:
        """SIGKILL to everything held; what may not be killed is noted in ``unkillable``.

        From the leaves up: if this process is killed in between, whoever comes after it finds all
        that is left below those who still live.
        """
        for pid in reversed(list(self._pidfds)):
            self._signal(pid, signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        """One signal to everything held."""
        for pid in list(self._pidfds):
            self._signal(pid, number)

    def wait(self, deadline_ns: int) -> list[int]:
        """Wait until all held have ended; the pids of those that had not at the deadline."""
        poll = select.poll()
        left = {pidfd: pid for pid, pidfd in self._pidfds.items() if pidfd != _NONE}
        unseen = list(self._start_times)
        for pidfd in left:
            poll.register(pidfd, select.POLLIN)
        while left or unseen:
            rest = max(0.0, (deadline_ns - time.monotonic_ns()) / 1e6)
            ready = poll.poll(min(rest, _LOOK_MS) if unseen else rest)
            for pidfd, _ in ready:
                poll.unregister(pidfd)
                del left[pidfd]
            unseen = [pid for pid in unseen if not self._has_ended(pid)]
            if not ready and rest <= 0:
                break
        return [*left.values(), *unseen]

    def _has_ended(self, pid: int) -> bool:
        try:
            return self._with_pidfd(pid, is_readable)
        except ProcessLookupError:
            return True

    def _signal(self, pid: int, number: int) -> None:
        def send(pidfd: int) -> bool:
            signal.pidfd_send_signal(pidfd, number)
            return True

        try:
            self._with_pidfd(pid, send)
        except ProcessLookupError:
            pass
        except PermissionError:
            if pid not in self.unkillable:
                self.unkillable.append(pid)
