"""A process and everything below it, as one thing to be ended (G3)."""

from __future__ import annotations

import os
import select
import signal
import time

from procession._kernel import procfs

PASSES = 50  # scans of a tree that goes on forking while it is being stopped


class Tree:
    """Pidfds of processes and of all their descendants known so far.

    Descendants are held by pidfd from the moment that they are seen: once a parent has died, the
    link from it to what it left is gone, and a number may name a stranger.
    """

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}
        self.unkillable: list[int] = []

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()

    @property
    def pids(self) -> list[int]:
        """Pids of all that were seen, in the order in which they were found."""
        return list(self._pidfds)

    def add(self, pid: int) -> bool:
        """Hold a process; false when it is gone already."""
        if pid in self._pidfds:
            return True
        try:
            self._pidfds[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        return True

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
                for child in procfs.children(pid):
                    if child not in self._pidfds and self.add(child):
                        # the number may have been reused between the list and the pidfd
                        status = procfs.stat(child)
                        if status is None or status.parent not in self._pidfds:
                            os.close(self._pidfds.pop(child))
                        else:
                            grown = True
            if not grown:
                return

    def kill(self) -> None:
        """SIGKILL to everything held; what may not be killed is noted in ``unkillable``."""
        for pid in list(self._pidfds):
            self._signal(pid, signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        """One signal to everything held."""
        for pid in list(self._pidfds):
            self._signal(pid, number)

    def wait(self, deadline_ns: int) -> list[int]:
        """Wait until all held have ended; the pids of those that had not at the deadline."""
        poll = select.poll()
        left = {pidfd: pid for pid, pidfd in self._pidfds.items()}
        for pidfd in left:
            poll.register(pidfd, select.POLLIN)
        while left:
            rest = (deadline_ns - time.monotonic_ns()) / 1e6
            ready = poll.poll(max(0.0, rest))
            if not ready and rest <= 0:
                break
            for pidfd, _ in ready:
                poll.unregister(pidfd)
                del left[pidfd]
        return list(left.values())

    def _signal(self, pid: int, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfds[pid], number)
        except ProcessLookupError:
            pass
        except PermissionError:
            if pid not in self.unkillable:
                self.unkillable.append(pid)
