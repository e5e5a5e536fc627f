"""Which processes of the table are below no zygote, for guard and zygotes alike.

Children of start method fork are their starter's; those of a zygote that is gone are the guard's.
So whoever ends the program for want of a guard has to know of them. What is below such a process is
found through it: it is a subreaper (G2).
"""

from __future__ import annotations

import os
import signal
import time

from procession import _native
from procession._kernel.tree import Tree
from procession._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK_SHIFT = 8  # format.h, flags of a slot: which guard holds it
_MARK_MASK = 0xFFFFFF
_LIMIT_NS = 1_000_000_000  # until their starters are told of those that were killed
_LIVING = (_native.CLAIMED, _native.SPARE, _native.ASKED, _native.RUNNING)


class Marks:
    """The guard marks a forked child in the table before its code begins, and a zygote's when it
    adopts it; a zygote reads the marks if the guard is killed.

    In the table, since a killed guard can neither be asked nor lose a message there. The mark says
    which guard it was, so that an old zygote that is late never takes a new guard's children for
    its own.

    Args:
        table: The program's table of processes.
    """

    def __init__(self, table: _native.Table) -> None:
        self._table = table
        self._mark = table.read(messages.GUARD_SLOT)[1] & _MARK_MASK

    def add(self, index: int, generation: int) -> None:
        """A process is to be ended with the program."""
        self._table.set_flags(index, generation, self._mark << _MARK_SHIFT)

    def living(self) -> Iterator[tuple[int, int, int, int]]:
        """(index, pid, start time, method) of those that may live."""
        for index, pid, state in self._table.pids():
            if pid and state in _LIVING:
                row = self._table.read(index)
                if row[6] >> _MARK_SHIFT & _MARK_MASK == self._mark:
                    yield index, pid, row[3], row[5]

    def end(self) -> None:
        """SIGKILL to all of them, and to everything below them.

        Raises:
            OSError: There are no descriptors even to look at one process.
        """
        nobodys: dict[int, int] = {}
        with Tree() as tree:
            for index, pid, start_time, method in self.living():
                if tree.add(pid, start_time):
                    self._table.blame(index, os.getpid(), signal.SIGKILL)
                if method != _native.FORK:
                    nobodys[pid] = index
            tree.scan(freeze=True)
            tree.kill()
            if nobodys:  # nobody of ours will reap them and say so
                for pid in tree.wait(time.monotonic_ns() + _LIMIT_NS):
                    nobodys.pop(pid, None)
        for index in nobodys.values():
            self._table.end(index, -1, 0, 0, 0, _native.FLAG_LOST)
