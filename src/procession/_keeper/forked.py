"""Which processes of the table are children of start method fork, for guard and zygotes alike.

Such a child is below neither of them, so whoever ends the program has to know of it. What is below
it is found through it: it is a subreaper (G2).
"""

from __future__ import annotations

import os
import signal

from procession import _native
from procession._kernel.tree import Tree
from procession._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK_SHIFT = 8  # format.h, flags of a slot: which guard holds it
_MARK_MASK = 0xFFFFFF


class ForkedChildren:
    """The guard marks a child in the table before its code begins; a zygote reads the marks if the
    guard is killed.

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
        """A child is to be ended with the program."""
        self._table.set_flags(index, generation, self._mark << _MARK_SHIFT)

    def living(self) -> Iterator[tuple[int, int, int]]:
        """(index, pid, start time) of those that may live."""
        for index, pid, state in self._table.pids():
            if state in (_native.ASKED, _native.RUNNING):
                row = self._table.read(index)
                if row[5] == _native.FORK and row[6] >> _MARK_SHIFT & _MARK_MASK == self._mark:
                    yield index, pid, row[3]

    def end(self) -> None:
        """SIGKILL to all of them, and to everything below them.

        Raises:
            OSError: There are no descriptors even to look at one process.
        """
        with Tree() as tree:
            for index, pid, start_time in self.living():
                if tree.add(pid, start_time):
                    self._table.blame(index, os.getpid(), signal.SIGKILL)
            tree.scan(freeze=True)
            tree.kill()
