"""The ledger: who started whom, how each one ended, and the outcomes that nobody fetched yet.

The living are in the table of processes; the ledger adds what outlives them.
"""

from __future__ import annotations

import os
import time

from procession import _native
from procession._kernel import procfs
from procession._recording import writer
from procession._wire import channel, messages

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


def identity(index: int, generation: int) -> int:
    """One number for one process of the program, never used twice: its owner's name for it."""
    return generation << 32 | index


class Ledger:
    """What the guard knows of a program's processes.

    Args:
        table: The program's table of processes.
        config: What main said in BEGIN: pid, name, and the recording's descriptor or -1.
    """

    def __init__(self, table: _native.Table, config: dict[str, Any]) -> None:
        self._table = table
        self._main_pid: int = config["pid"]
        self._recording: int = config["recording"]
        self._outcomes: dict[int, bytes | int] = {}
        self._unreleased: list[tuple[int, int]] = []
        self._sweep_at = 64
        self._forked_dead: dict[int, tuple[int, int, int | None]] = {}
        self._seen_ending: dict[int, float] = {}
        self._killed_owners: set[int] = set()
        self.owner_ids: set[int] = set()
        self._write(
            {
                "event": "program.started",
                "pid": self._main_pid,
                "name": config["name"],
                "at": time.monotonic(),
            }
        )

    # --- ends ------------------------------------------------------------------------------

    def ended(self, index: int, generation: int) -> None:
        """A process has ended and was reaped; its slot is read once and freed when let go."""
        row = self._table.read(index)
        if row[1] != generation:
            return
        me = identity(index, generation)
        if me in self.owner_ids:
            self.owner_ids.discard(me)
            if row[7] == _native.HOW_NONE:
                self._killed_owners.add(me)
        if row[10]:  # a spare that was never asked for is nobody's business
            self._record(me, row)
        self._unreleased.append((index, generation))
        self._sweep()

    def forked_child_ended(self, index: int, generation: int, pidfd: int) -> None:
        """A child of start method fork ended; only its parent can collect its status.

        The status is taken from the kernel too where it can be, for when main never asks.
        """
        # its parent may reap it much later; until then it is a zombie, and not alive
        self._seen_ending[identity(index, generation)] = time.monotonic()
        self._forked_dead[identity(index, generation)] = (
            index,
            generation,
            _native.pidfd_exit_status(pidfd),
        )
        self._settle_forked(final=False)

    def _settle_forked(self, *, final: bool) -> None:
        for me, (index, generation, status) in list(self._forked_dead.items()):
            if self._table.state(index, generation) not in (_native.ENDED, _native.FREE):
                if not final:
                    continue
                flags = 0
                if status is None:
                    row = self._table.read(index)
                    status = row[8] << 8 if row[7] != _native.HOW_NONE else -1
                    flags = _native.FLAG_LOST if status == -1 else 0
                self._table.end(index, status, 0, 0, 0, flags)
            self._forked_dead.pop(me, None)
            self.ended(index, generation)

    def _sweep(self) -> None:
        """Free the slots that their owners have let go of, now and then."""
        if len(self._unreleased) < self._sweep_at:
            return
        kept = []
        for index, generation in self._unreleased:
            flags = self._table.set_flags(index, generation, 0)
            if flags == -1:
                continue
            if flags & _native.FLAG_RELEASED or self._owner_is_gone(index):
                self._drop_outcome(identity(index, generation))
                self._table.free(index, generation)
            else:
                kept.append((index, generation))
        self._unreleased = kept
        self._sweep_at = 64 + 2 * len(kept)

    def _owner_is_gone(self, index: int) -> bool:
        owner: int = self._table.read(index)[4]
        state = self._table.state(owner & 0xFFFFFFFF, owner >> 32)
        return state in (_native.ENDED, _native.FREE)

    def ownerless(self) -> list[int]:
        """Pids of living processes whose owner was killed: nobody will ever wait for them."""
        pids = []
        for index, pid, state in self._table.pids():
            if state in (_native.ASKED, _native.RUNNING) and index > messages.GUARD_SLOT:
                owner: int = self._table.read(index)[4]
                if owner in self._killed_owners:
                    pids.append(pid)
        return pids

    # --- outcomes --------------------------------------------------------------------------

    def keep_outcome(self, index: int, generation: int, outcome: bytes, fds: Sequence[int]) -> None:
        """Keep what a process returned or raised until its owner asks or lets go."""
        me = identity(index, generation)
        self._drop_outcome(me)
        self._outcomes[me] = fds[0] if fds else outcome

    def answer(self, asker: channel.Socket, index: int, generation: int) -> None:
        """Send a process's outcome to who asked for it."""
        outcome = self._outcomes.get(identity(index, generation))
        try:
            if isinstance(outcome, int):
                channel.send(asker, (messages.OUTCOME, None), [outcome])
            else:
                channel.send(asker, (messages.OUTCOME, outcome))
        except OSError:
            pass  # the asker is gone
        finally:
            asker.close()

    def _drop_outcome(self, me: int) -> None:
        outcome = self._outcomes.pop(me, None)
        if isinstance(outcome, int):
            os.close(outcome)

    # --- the recording ---------------------------------------------------------------------

    def close(
        self, how: str, *, unkillable: Sequence[int] = (), let_go: Sequence[int] = ()
    ) -> None:
        """The program is over: the last lines of the recording."""
        self._settle_forked(final=True)
        now = time.monotonic()
        for event, pids in (("process.unkillable", unkillable), ("process.let_go", let_go)):
            for pid in pids:
                status = procfs.stat(pid)
                if status is not None and status.state not in "ZX":
                    self._write({"event": event, "pid": pid, "name": status.comm, "at": now})
        self._write({"event": "program.ended", "pid": self._main_pid, "how": how, "at": now})

    def _record(self, me: int, row: tuple[Any, ...]) -> None:
        seen = self._seen_ending.pop(me, None)
        if self._recording < 0:
            return
        (_, _, pid, _, owner, method, flags, how, _, status) = row[:10]
        asked_ns, running_ns, ended_ns, utime_ns, stime_ns, max_rss = row[10:16]
        killer, _, name, target, text = row[16:]
        signal = None
        if flags & _native.FLAG_LOST:
            way, code = "lost", None
        elif os.WIFSIGNALED(status):
            signal = os.WTERMSIG(status)
            way, code = "out_of_memory" if flags & _native.FLAG_OOM else "signaled", -signal
        else:
            way, code = HOWS.get(how, "exited"), os.WEXITSTATUS(status)
        self._write(
            {
                "event": "process.ended",
                "id": me,
                "parent": 0 if owner & 0xFFFFFFFF == messages.MAIN_SLOT else owner,
                "program": self._main_pid,
                "pid": pid,
                "name": name.decode("utf-8", "replace"),
                "target": target.decode("utf-8", "replace"),
                "method": METHODS.get(method, "?"),
                "daemon": bool(flags & _native.FLAG_DAEMON),
                "asked": asked_ns / 1e9,
                "running": running_ns / 1e9 if running_ns else None,
                "ended": ended_ns / 1e9 if seen is None else min(seen, ended_ns / 1e9),
                "reaped": time.monotonic() if seen is None else ended_ns / 1e9,
                "how": way,
                "exitcode": code,
                "signal": signal,
                "text": text.decode("utf-8", "replace"),
                "cpu": (utime_ns + stime_ns) / 1e9,
                "max_rss": max_rss,
                "by": killer or None,
            }
        )

    def _write(self, event: dict[str, Any]) -> None:
        if self._recording < 0:
            return
        try:
            os.write(self._recording, writer.line(event))
        except OSError:
            self._recording = -1  # its file system is full or gone: the program matters more
