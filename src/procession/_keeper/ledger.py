"""The ledger: who started whom, how each one ended, and the outcomes that nobody fetched yet.

The living are in the table of processes; the ledger adds what outlives them.
"""

from __future__ import annotations

import os
import time

from procession import _native
from procession._keeper.recorder import Recorder
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


ADOPTED_LIMIT = 2.0  # seconds at the end of a recorded program until a status counts as lost


def identity(index: int, generation: int) -> int:
    """One number for one process of the program, never used twice: its owner's name for it."""
    return generation << 32 | index


class Ledger:
    """What the guard knows of a program's processes.

    Args:
        table: The program's table of processes.
        config: What main said in BEGIN: pid, name, and the recording's descriptor or -1.

    Attributes:
        recorder: Tells the recording, where there is one.
    """

    def __init__(self, table: _native.Table, config: dict[str, Any]) -> None:
        self._table = table
        self._outcomes: dict[int, bytes | int] = {}
        self._unreleased: list[tuple[int, int]] = []
        self._sweep_at = 64
        self._forked_dead: dict[int, tuple[int, int, int]] = {}
        """Identity → (index, generation, pidfd) of forked children that a parent has to reap."""
        self._seen_ending: dict[int, int] = {}
        self._killed_owners: set[int] = set()
        self.owner_ids: set[int] = set()
        self.recorder = Recorder(table, config["pid"], config["name"])
        if config["recording"] >= 0:
            self.recorder.begin(config["recording"])

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
            self.recorder.reaped(me, index, row, self._seen_ending.pop(me, None))
        self._unreleased.append((index, generation))
        self._sweep()

    def forked_child_ended(self, index: int, generation: int, pidfd: int) -> None:
        """A child of start method fork ended; only its parent can collect its status.

        The pidfd is the ledger's from now on: it may tell the status of what somebody adopted.
        """
        # its parent may reap it much later; until then it is a zombie, and not alive
        me, now_ns = identity(index, generation), time.monotonic_ns()
        self._seen_ending[me] = now_ns
        self._forked_dead[me] = index, generation, pidfd
        self.recorder.ended(me, index, now_ns)
        self._settle_forked(final=False)

    def expects(self, index: int, generation: int) -> bool:
        """Whether a process is a forked child that has ended and waits to be reaped."""
        return identity(index, generation) in self._forked_dead

    def _settle_forked(self, *, final: bool) -> None:
        deadline = time.monotonic() + ADOPTED_LIMIT * self.recorder.writes
        for me, (index, generation, pidfd) in list(self._forked_dead.items()):
            if self._table.state(index, generation) not in (_native.ENDED, _native.FREE):
                if not final:
                    continue
                flags = 0
                # the kernel tells it once somebody has reaped it: who adopted it, in a moment
                while (status := _native.pidfd_exit_status(pidfd)) is None:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.001)
                if status is None:
                    row = self._table.read(index)
                    status = row[8] << 8 if row[7] != _native.HOW_NONE else -1
                    flags = _native.FLAG_LOST if status == -1 else 0
                self._table.end(index, status, 0, 0, 0, flags)
            del self._forked_dead[me]
            os.close(pidfd)
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
                if owner in self._killed_owners or self._was_killed(owner):
                    pids.append(pid)
        return pids

    def _was_killed(self, owner: int) -> bool:
        """Whether the table says so of one of whose end nobody has told us yet."""
        index, generation = owner & 0xFFFFFFFF, owner >> 32
        row = self._table.read(index)
        ended = self._table.state(index, generation) == _native.ENDED
        return ended and row[1] == generation and row[7] == _native.HOW_NONE

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

    def end_recording(self) -> None:
        """No more is told, but all that had happened until now.

        The table knows already of what nobody has said yet: processes that were asked for a moment
        ago, and ends of which the zygote's word is still on its way.
        """
        self._settle_forked(final=False)
        known = set(self._unreleased)
        for index, _, state in self._table.pids():
            row = self._table.read(index)
            if index <= messages.GUARD_SLOT or not row[10] or (index, row[1]) in known:
                continue
            if state == _native.ENDED:
                me = identity(index, row[1])
                self.recorder.reaped(me, index, row, self._seen_ending.get(me))
            else:
                self.recorder.seen(index, row[1])
        self.recorder.end()

    # --- the end of the program ------------------------------------------------------------

    def close(
        self, how: str, *, unkillable: Sequence[int] = (), let_go: Sequence[int] = ()
    ) -> None:
        """The program is over: the last lines of the recording."""
        self._settle_forked(final=True)
        self.recorder.program_ended(how, unkillable, let_go)
