"""Tells the recording what happens to the program's processes (G13).

Most is read from the table of processes, where it stands anyway. A start costs its starter nothing:
the child itself says that it begins, and what was never said is told at the end at the latest.
"""

from __future__ import annotations

import os
import time

from procession import _native
from procession._kernel import procfs
from procession._recording import writer
from procession._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

METHODS = {
    _native.FORKSERVER: "forkserver",
    _native.SPAWN: "spawn",
    _native.FORK: "fork",
}
HOWS = {_native.RETURNED: "returned", _native.RAISED: "raised", _native.EXITED: "exited"}
LOST_EXITCODE = 255


class Recorder:
    """Writes one program's events while there is a recording; otherwise does nothing.

    Args:
        table: The program's table of processes.
        main_pid: Pid of its main process.
        name: The program's name.
    """

    def __init__(self, table: _native.Table, main_pid: int, name: str) -> None:
        self._table = table
        self._main_pid = main_pid
        self._name = name
        self._keeper = os.getpid()
        self._fd = -1
        self._since_ns = 0
        self._told: dict[int, set[str]] = {}
        """Process → what was told of it; until it is reaped."""

    # --- the file --------------------------------------------------------------------------

    def begin(self, fd: int, since_ns: int = 0) -> None:
        """Write a recording from now on, into a file whose head is there.

        Args:
            fd: The file.
            since_ns: What had ended by then is not on the record.
        """
        if self._fd >= 0:
            os.close(fd)
            return
        self._fd = fd
        self._since_ns = since_ns
        self._table.set_recorded(True)
        status = procfs.stat(self._main_pid)
        self._write(
            self._line(
                "program.started",
                time.monotonic_ns(),
                pid=self._main_pid,
                parent_pid=status.parent if status else 0,
                program=self._name,
            )
        )
        for index, _, state in self._table.pids():
            if index > messages.GUARD_SLOT and state in (_native.ASKED, _native.RUNNING):
                self.seen(index, self._table.read(index)[1])

    @property
    def writes(self) -> bool:
        """Whether there is a recording."""
        return self._fd >= 0

    def end(self, how: str = "closed") -> None:
        """Write no more."""
        if self._fd < 0:
            return
        now_ns = time.monotonic_ns()
        self._write(self._line("program.ended", now_ns, pid=self._main_pid, how=how))
        self._give_up()

    def _give_up(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._told.clear()
        self._table.set_recorded(False)

    def _write(self, lines: bytes) -> None:
        if lines and self._fd >= 0 and not writer.append(self._fd, lines):
            self._give_up()  # its file system is full or gone: the program matters more

    def _line(self, name: str, at_ns: int, **fields: Any) -> bytes:
        return writer.line(name, at_ns / 1e9, self._keeper, **fields)

    # --- lives -----------------------------------------------------------------------------

    def seen(self, index: int, generation: int) -> None:
        """A process was asked for, and runs perhaps."""
        if self._fd < 0:
            return
        row = self._table.read(index)
        if row[1] == generation and row[10] and row[2]:  # one that is being forked has no pid yet
            self._write(self._beginning(generation << 32 | index, row))

    def ended(self, me: int, index: int, at_ns: int) -> None:
        """A process has ended; who started it has not reaped it yet."""
        if self._fd < 0:
            return
        lines = self._beginning(me, self._table.read(index)) + self._code_ended(me, index)
        self._told[me].add("ended")
        self._write(lines + self._line("process.ended", at_ns, id=me))

    def reaped(self, me: int, index: int, row: tuple[Any, ...], seen_ns: int | None) -> None:
        """A process has ended and was reaped: all that was not told of it yet.

        Args:
            me: The process.
            index: Its slot.
            row: What the table says of it.
            seen_ns: When it was seen to end, where that was before it was reaped.
        """
        ended_ns = row[12]
        if self._fd < 0 or (me not in self._told and ended_ns < self._since_ns):
            return
        lines = self._beginning(me, row) + self._code_ended(me, index)
        if "ended" not in self._told.pop(me):
            lines += self._line("process.ended", min(seen_ns or ended_ns, ended_ns), id=me)
        lines += self._reaped(me, row, ended_ns)
        since_ns = self._table.joined_since(index)
        if since_ns:
            lines += self._waited(row[4], me, since_ns, row[12])
        self._write(lines)

    def _beginning(self, me: int, row: tuple[Any, ...]) -> bytes:
        (_, _, pid, _, owner, method, flags) = row[:7]
        asked_ns, running_ns = row[10:12]
        told = self._told.setdefault(me, set())
        lines = b""
        if "asked" not in told:
            told.add("asked")
            lines += self._line(
                "process.asked",
                asked_ns,
                id=me,
                parent=_who(owner),
                pid=pid,
                title=row[18].decode("utf-8", "replace"),
                target=row[19].decode("utf-8", "replace"),
                method=METHODS.get(method, ""),
                daemon=bool(flags & _native.FLAG_DAEMON),
            )
        if running_ns and "started" not in told:
            told.add("started")
            lines += self._line("process.started", running_ns, id=me)
        return lines

    def _code_ended(self, me: int, index: int) -> bytes:
        at_ns = self._table.code_ended(index)
        if not at_ns or "code ended" in self._told[me]:
            return b""
        return self._line("process.code_ended", at_ns, id=me)

    def _reaped(self, me: int, row: tuple[Any, ...], at_ns: int) -> bytes:
        flags, how, _, status = row[6:10]
        utime_ns, stime_ns, max_rss_kib, killer, killer_signal = row[13:18]
        by_us = False
        if flags & _native.FLAG_LOST:
            way, code = "lost", LOST_EXITCODE
        elif os.WIFSIGNALED(status):
            by_us = os.WTERMSIG(status) == killer_signal
            memory = flags & _native.FLAG_OOM and not by_us
            way, code = "out_of_memory" if memory else "signaled", -os.WTERMSIG(status)
        else:
            way, code = HOWS.get(how, "exited"), os.WEXITSTATUS(status)
        fields: dict[str, Any] = {"id": me, "how": way, "exitcode": code}
        if row[20] and way == "raised":
            fields["text"] = row[20].decode("utf-8", "replace")
        if by_us:
            fields["by"] = killer
        fields["cpu"] = round((utime_ns + stime_ns) / 1e9, 6)
        fields["max_rss"] = max_rss_kib * 1024
        return self._line("process.reaped", at_ns, **fields)

    # --- what processes say of themselves ---------------------------------------------------

    def waits(self, waiter: int, whom: int, began_ns: int) -> None:
        """A process has been waiting for another one's end, and goes on."""
        if self._fd >= 0:
            self._write(self._line("wait.began", began_ns, waiter=_who(waiter), whom=_who(whom)))

    def waited(self, waiter: int, whom: int, began_ns: int, ended_ns: int) -> None:
        """A process waited for another one's end, and gave it up."""
        if self._fd >= 0:
            self._write(self._waited(waiter, whom, began_ns, ended_ns))

    def _waited(self, waiter: int, whom: int, began_ns: int, ended_ns: int) -> bytes:
        began = round(began_ns / 1e9, 6)
        fields = {"waiter": _who(waiter), "whom": _who(whom), "began": began}
        return self._line("wait.ended", ended_ns, **fields)

    def code_ended(self, who: int, at_ns: int) -> None:
        """A process's own code has ended."""
        if self._fd < 0:
            return
        self._told.setdefault(who, set()).add("code ended")
        self._write(self._line("process.code_ended", at_ns, id=_who(who)))

    def owner_died(self, owner: int, taker: int, lock: str, at_ns: int) -> None:
        """A lock was passed on from somebody who was killed."""
        if self._fd >= 0:
            fields = {"owner": _who(owner), "taker": _who(taker), "lock": lock}
            self._write(self._line("lock.owner_died", at_ns, **fields))

    def stopped(self, kind: str, index: int, generation: int, at_ns: int) -> None:
        """A process was stopped, or goes on."""
        if self._fd < 0:
            return
        me = generation << 32 | index
        lines = self._beginning(me, self._table.read(index))
        self._write(lines + self._line(f"process.{kind}", at_ns, id=me))

    # --- the end of the program ------------------------------------------------------------

    def program_ended(self, how: str, unkillable: Sequence[int], let_go: Sequence[int]) -> None:
        """The program is over, and this is what is still there."""
        now_ns = time.monotonic_ns()
        for name, pids in (("process.unkillable", unkillable), ("process.let_go", let_go)):
            for pid in pids:
                status = procfs.stat(pid)
                if self._fd >= 0 and status is not None and status.state not in "ZX":
                    self._write(self._line(name, now_ns, pid=pid, comm=status.comm))
        self.end(how)


def _who(owner: int) -> int:
    return 0 if owner & 0xFFFFFFFF == messages.MAIN_SLOT else owner
