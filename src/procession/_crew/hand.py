"""A worker as its owner sees it: its process, channel and slate, and the calls in its hands."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from procession._crew import encoding, slate, worker
from procession._crew.encoding import Channel, Mapping, Unsent
from procession._crew.jobs import Batch, Call
from procession._crew.slate import Slate
from procession._kernel import procfs
from procession._launch import stopping
from procession._launch.handle import Handle
from procession.ending import LOST_EXITCODE, Ending, How

STOP_LIMIT = 0.2  # seconds in which a process that was sent SIGSTOP has stopped; it needs a moment
BEGIN_LIMIT = 1.0  # and so many, at least, in which a ready worker has begun what it was given
UNREAD = 3  # messages that may wait in a channel; with one more a send might have to wait

Done = tuple[Batch, int, list[Any], Mapping]
"""A batch, the position of the first of its calls that ended, their outcomes, and their buffers."""


class Hand:
    """One worker.

    Args:
        process: The started process.
        line: Our end of its channel.
        notes: Its slate.
        budget: Tasks it may still take; ``None`` has no limit.
    """

    def __init__(self, process: Any, line: Channel, notes: Slate, budget: int | None) -> None:
        self.process = process
        self.channel = line
        self.slate = notes
        self.budget = budget
        """Tasks of the user's that it may still take; ``None``: any number."""
        self.sentinel: int = process.sentinel
        self.pid: int = process.pid
        self.batches: collections.deque[Batch] = collections.deque()
        self.ready = False
        self.leaving = False
        self.borrowed: Call | None = None
        """What a thread waits for directly, past the dispatcher."""
        self.is_watched = True
        """Whether the dispatcher looks for what it says."""
        self.giving = False
        """Whether something is being sent; where an interrupt came in between, it is in doubt."""
        self.heard = time.monotonic()
        self.recalled = False
        """Whether calls were taken back from it, and no word of it has come since."""
        self.limit: float | None = None
        """Seconds that the call in its hands may take."""
        self.deadline: float | None = None
        self.verdict: Callable[[Batch, int], BaseException | None] | None = None
        """What is to be said of the call that it was ended for."""
        self._known: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._next = 1
        self._done = 0
        self._sent = 0

    # --- calls -----------------------------------------------------------------------------

    def is_spent(self) -> bool:
        """Whether it has taken all tasks that it may."""
        return self.budget is not None and self.budget <= 0

    def is_available(self) -> bool:
        """Whether it may be given anything: what was taken back stays in its channel, too."""
        if self.leaving or self.borrowed or self.verdict is not None or self.is_spent():
            return False
        unread: int = self._sent - self.slate.words[slate.RECEIVED]
        return unread < UNREAD

    def is_idle(self) -> bool:
        """Whether it waits for something to do, as far as is known."""
        if self.batches or self.recalled or not self.ready:
            return False
        return self.is_available()

    def is_at_work(self) -> bool:
        """Whether its next word is the outcome of what it has in hand."""
        if self.leaving or self.borrowed or self.verdict is not None:
            return False
        return self.ready and not self.recalled and self.deadline is None

    def could_take_more(self) -> bool:
        """Whether it will soon have done what it has, and should find the next calls there."""
        if len(self.batches) != 1 or not self.ready or self.recalled or self.deadline is not None:
            return False
        return self.batches[0].job.is_quick()

    def in_hand(self) -> int:
        """How many calls it was given and has not ended."""
        return sum(len(batch) - batch.done for batch in self.batches)

    def has_waiting(self) -> bool:
        """Whether it was given a call that it has not begun."""
        if not self.batches:
            return False
        last = self.batches[-1]
        return bool(last.first + len(last) - 1 > self.slate.words[slate.BEGUN])

    def give(self, batch: Batch) -> None:
        """Send it a batch.

        Raises:
            OSError: It is gone; the batch is in its hands all the same.
            Unsent: It cannot be sent, and is not in its hands.
        """
        job = batch.job
        blob = None if job.key in self._known else job.blob
        message = (encoding.CALLS, self._next, job.shape, job.key, blob, batch.entries)
        batch.first, batch.done = self._next, 0
        if not self.batches:
            self.heard = time.monotonic()
        limit = self.limit
        self.giving = True
        self.batches.append(batch)
        self._count(batch, 1)
        self.limit = batch.ids[0].timeout if job.shape == worker.WHOLE else job.timeout
        if self.ready:
            self.start_clock()
        try:
            self.channel.send(message, batch.all_buffers() if batch.buffers else None)
        except Unsent:
            self.batches.pop()
            self._count(batch, -1)
            self.limit = limit
            self.giving = False
            raise
        if blob is not None:
            worker.remember(self._known, job.key)
        self.giving = False

    def _count(self, batch: Batch, sign: int) -> None:
        self._next += sign * len(batch)
        self._sent += sign
        if self.budget is not None:
            self.budget -= sign * batch.tasks()

    def start_clock(self) -> None:
        """The call in its hands, if it is limited, has its time from now on."""
        self.deadline = None if self.limit is None else time.monotonic() + self.limit

    def lengthen(self) -> bool:
        """Once more the time of a call, where it was not begun; false where it has had that."""
        if self.limit is None or not self.has_waiting():
            return False
        self.deadline = time.monotonic() + max(self.limit, BEGIN_LIMIT)
        self.limit = None
        return True

    def dismiss(self) -> None:
        """Tell it to end when it has done what it has in hand."""
        if not self.leaving:
            self.leaving = True
            with contextlib.suppress(OSError):
                self.channel.send((encoding.END,))

    def ended(self, first: int, outcomes: list[Any], mapping: Mapping) -> list[Done]:
        """Whose outcomes these are, from a call's number on; what is known already is left out.

        Nothing changes until `settle`: an interrupt in between loses nothing.
        """
        batches = self.batches
        if len(batches) == 1 and len(outcomes) == 1:
            batch = batches[0]
            if batch.first == first > self._done and len(batch.ids) == 1:  # most usual, in short
                return [(batch, 0, outcomes, mapping)]
        found: list[Done] = []
        at = max(0, self._done + 1 - first)
        for batch in batches:  # none are left where all was dropped
            if at >= len(outcomes):
                break
            start = first + at - batch.first
            if start < len(batch):
                some = outcomes[at : at + len(batch) - start]
                found.append((batch, start, some, mapping))
                at += len(some)
        return found

    def settle(self, parts: list[Done]) -> None:
        """What `ended` said is known now."""
        self.heard = time.monotonic()
        self.deadline = None
        self.recalled = False
        if parts:
            batch, start, some, _ = parts[-1]
            self._done = batch.first + start + len(some) - 1
        batches = self.batches  # the rest follows from that one word, however often it is done
        while batches:
            batch = batches[0]
            batch.done = max(batch.done, min(len(batch.ids), self._done + 1 - batch.first))
            if batch.done < len(batch.ids):
                break
            batches.popleft()

    # --- while it cannot run ---------------------------------------------------------------

    @contextlib.contextmanager
    def stopped(self) -> Iterator[bool]:
        """Stop the process for a moment; false where that is not possible, or not soon."""
        was = procfs.stat(self.pid)
        if was is not None and was.state in "Tt":
            yield True
            return
        try:
            self._signal(signal.SIGSTOP)
        except OSError:
            yield False
            return
        try:
            deadline = time.monotonic() + STOP_LIMIT
            pause = 0.0
            while (now := procfs.stat(self.pid)) is not None and now.state not in "TtZX":
                if time.monotonic() > deadline:
                    break
                time.sleep(pause)  # it may need this very CPU to stop
                pause = min(pause + 0.0001, 0.005)
            yield now is not None and now.state in "Tt"
        finally:
            with contextlib.suppress(OSError):
                self._signal(signal.SIGCONT)

    def salvage(self) -> list[Done]:
        """The outcomes on its slate. Only while it cannot run."""
        first, outcomes = self.slate.outcomes()
        parts = self.ended(first, outcomes, Mapping()) if outcomes else []
        self.settle(parts)
        return parts

    def not_begun(self) -> list[Batch]:
        """Take back the calls that it did not begin. Only while it cannot run."""
        begun = self.slate.words[slate.BEGUN]
        back: list[Batch] = []
        while self.batches:
            batch = self.batches[-1]
            kept = begun + 1 - batch.first
            if kept >= len(batch):
                break
            kept = max(kept, batch.done)
            if self.budget is not None:
                self.budget += batch.tasks() - batch.tasks(kept)
            back.insert(0, batch.tail(kept))
            if kept > batch.done:
                self.batches[-1] = _cut(batch, kept)
                break
            self.batches.pop()
        self.slate.words[slate.REVOKED_FROM] = begun
        self.slate.words[slate.REVOKED_TO] = self._next - 1
        if not self.batches:
            self.deadline = self.limit = None
        self.recalled = bool(back or self.batches)
        return back

    def lost(self) -> list[tuple[Batch, int]]:
        """The calls that nothing will come of, now that it is dead: one, or none."""
        found = [(batch, at) for batch in self.batches for at in range(batch.done, len(batch))]
        self.batches.clear()
        return found

    # --- the process -----------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        handle = self.process._popen
        if isinstance(handle, Handle):
            pidfd = handle.open_sentinel()
            try:
                signal.pidfd_send_signal(pidfd, number)
            except OSError as error:
                raise ProcessLookupError from error
            finally:
                os.close(pidfd)
        elif self.process.is_alive():
            os.kill(self.pid, number)

    def ending(self) -> Ending:
        """How it ended; only after it did."""
        self.process.join()
        handle = self.process._popen
        if isinstance(handle, Handle) and handle.ending is not None:
            return handle.ending
        code = self.process.exitcode
        if code is None:
            return Ending(How.LOST, LOST_EXITCODE)
        return Ending(How.SIGNALED if code < 0 else How.EXITED, code)

    def was_initializing(self) -> bool:
        """Whether it ended in its initializer."""
        stage: int = self.slate.words[slate.STAGE]
        return stage == slate.INITIALIZING

    def stack(self) -> str:
        """Its Python stack, where it crashed."""
        return self.slate.stack()

    def close(self) -> None:
        """Let go of its channel and slate."""
        self.channel.close()
        self.slate.close()


def end(hands: Sequence[Hand], steps: stopping.Steps) -> None:
    """End workers, and everything below them."""
    ours = [hand.process._popen for hand in hands if isinstance(hand.process._popen, Handle)]
    if ours:
        stopping.end_trees(ours, steps)
    others = [hand.process for hand in hands if not isinstance(hand.process._popen, Handle)]
    for process in others:
        process.terminate() if steps else process.kill()
    limit = sum(seconds for _, seconds in steps)
    deadline = time.monotonic() + limit
    for process in others:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join(stopping.GRACE)


def _cut(batch: Batch, count: int) -> Batch:
    cut = batch.head(count)
    cut.first, cut.done = batch.first, batch.done
    return cut
