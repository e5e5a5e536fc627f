"""Who gets what, and when: the calls that wait, and the workers that could take them."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

from procession._crew.delivery import Delivery
from procession._crew.encoding import Packer, Unsent
from procession._crew.hand import Hand, end
from procession._crew.jobs import Batch, Call, Calls, Job, MapJob
from procession._crew.staff import Staff
from procession._crew.words import Words
from procession._kernel import interrupts

OVERDUE = 0.05  # seconds without a word from a worker, after which its other calls go elsewhere
LONGEST_SLEEP = 3600.0  # epoll takes no more than 24 days


class Giving:
    """A crew's state, all of it below one lock, and how its calls come to its workers.

    Args:
        staff: The workers, none of them started.
        words: How failures are told.
        on_demand: Start a worker only when a call finds none idle.
    """

    def __init__(self, staff: Staff, words: Words, *, on_demand: bool) -> None:
        self.broken: BaseException | None = None
        self._words = words
        self._delivery = Delivery(words)
        self._on_demand = on_demand
        self._lock = threading.RLock()
        self._calls = Calls()
        self._jobs: collections.deque[Job] = collections.deque()
        self._after: list[Callable[[], object]] = []
        self._packers: list[Packer] = []
        self._closing = False
        self._terminated = False
        self._bad_starts = 0
        self._kicked = False
        self._all_ready = False
        self._wakes_at = 0.0
        self._staff = staff
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._staff.epoll.register(self._wake, select.EPOLLIN)

    @property
    def hands(self) -> list[Hand]:
        """The workers, as they are seen from here."""
        return self._staff.hands

    def is_owner(self, _getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this process made the crew, and is no forked copy.

        A pool that dies with the interpreter asks, too, when there is no module left to look in.
        """
        return self._staff.owner == _getpid()

    def kick(self) -> None:
        """Let the dispatcher look again."""
        with self._lock:  # so that the descriptor is still ours
            if not self._kicked and self._wake >= 0:
                self._kicked = True
                os.eventfd_write(self._wake, 1)

    def later(self, what: Callable[[], object]) -> None:
        """Do something when the lock is free."""
        self._after.append(what)

    def _tell(self) -> None:
        """Do what waited for the lock; the dispatcher does, where an interrupt might come."""
        if self._after and interrupts.may_come() and self._wake >= 0:
            self.kick()
            return
        while self._after:
            with self._lock:
                after, self._after = self._after, []
            for what in after:
                try:
                    what()
                except Exception:
                    sys.excepthook(*sys.exc_info())

    def _refusal(self) -> BaseException | None:
        """Why no more calls are taken: who asked for it may have looked before the end came."""
        if self.broken is None and self._closing:
            return self._words.closed()
        return self.broken

    def _close(self) -> None:
        self._staff.close()
        os.close(self._wake)
        self._wake = -1

    @contextlib.contextmanager
    def packer(self) -> Iterator[Packer]:
        """A packer that nobody else uses at the moment."""
        packer = self._packers.pop() if self._packers else Packer()
        try:
            yield packer
        finally:
            packer.take_buffers()
            self._packers.append(packer)

    # --- who gets what -----------------------------------------------------------------------

    def _assign(self) -> None:
        """Give every worker that can take one a batch. Called with the lock held."""
        while self._jobs:
            hand = self._free_hand()
            if hand is None:
                return
            batch = self._next_batch(hand)
            if batch is None:
                return
            self._give(hand, batch)

    def _give(self, hand: Hand, batch: Batch) -> None:
        self._staff.watch(hand)
        try:
            hand.give(batch)
        except OSError:
            pass  # it is dead: its end brings back what it was given
        except Unsent as error:
            if len(batch) > 1:  # perhaps one alone can be sent
                self._put_back([batch.tail(1)])
                self._give(hand, batch.head(1))
                return
            text = batch.job.text(batch.items[0])
            self.later(functools.partial(self._delivery.fail, batch, 0, error.told(text)))
        except BaseException:
            if hand.giving:  # an interrupt: whether it was sent nobody knows
                hand.leaving = True
                self.later(lambda: end([hand], ()))
                self.kick()
            raise
        else:
            self._note_memory(hand)
        due = self._due(hand)
        if due is not None and due < self._wakes_at:
            self.kick()

    def _next_batch(self, hand: Hand) -> Batch | None:
        """Calls for a worker, of the first job that has any."""
        for job in list(self._jobs):
            if hand.batches and (job.is_timed() or not job.is_quick()):
                return None  # it would keep them waiting behind what it does now
            batch = job.take(job.size(self._staff.size, hand.budget), self)
            if job.is_exhausted():
                self._jobs.remove(job)
            if batch is not None:
                return batch
        return None

    def _free_hand(self) -> Hand | None:
        """The worker that should get the next batch."""
        quick = None
        starting = None
        silent = None
        for hand in self.hands:
            if not hand.is_available():
                continue
            if not hand.batches:
                if hand.recalled:
                    silent = hand
                elif hand.ready:
                    return hand
                else:
                    starting = starting or hand
            elif quick is None and hand.could_take_more():
                quick = hand
        if starting is not None:
            return starting
        if self._on_demand and len(self.hands) < self._staff.size and not self._terminated:
            hired = self._hire()
            if hired is not None:
                return hired
        return quick or silent

    def _whose(self, call: Call) -> Hand | None:
        for hand in self.hands:
            for batch in hand.batches:
                if batch.job is self._calls and call in batch.ids[batch.done :]:
                    return hand
        return None

    def _put_back(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            batch.job.put_back(batch)
            if batch.job not in self._jobs:
                self._jobs.appendleft(batch.job)

    def _has_work(self) -> bool:
        return bool(self._jobs) or any(hand.batches for hand in self.hands)

    def _note_memory(self, hand: Hand) -> None:
        self._staff.note_memory(hand)
        if self._staff.trims_at < self._wakes_at:
            self.kick()

    # --- workers -----------------------------------------------------------------------------

    def _hire(self) -> Hand | None:
        """A new worker; where none can be started it is tried again later, by the dispatcher."""
        self._all_ready = False
        try:
            hand = self._staff.hire()
        except Exception as error:
            self._break(error)
            return None
        if self._staff.untold:
            self.later(self._staff.tell)
        if self._staff.hires_at < self._wakes_at:
            self.kick()
        return hand

    def _replenish(self) -> None:
        """Replace what has ended, where there is or may be something to do."""
        if self.broken is not None or self._terminated:
            return
        if self._on_demand:
            self._assign()
            return
        while len(self.hands) < self._staff.size and not (self._closing and not self._has_work()):
            if self._hire() is None:
                return

    def _end_for(self, hand: Hand, verdict: Callable[[Batch, int], BaseException | None]) -> None:
        """End a worker for the sake of the one call in its hands."""
        hand.verdict = verdict
        hand.deadline = None
        self.later(lambda: end([hand], ()))
        self.kick()

    def _break(self, error: BaseException) -> None:
        """Nothing can be done any more: all calls end with this error."""
        self.broken = self._words.no_start(error)
        jobs, calls = self._drop_all()
        hands = list(self.hands)
        broken = self.broken

        def tell() -> None:
            end(hands, ())
            for call in calls:
                call.finish(False, broken)
            for job in jobs:
                job.cancel()
                job.sink.abandoned(broken)

        self.later(tell)

    def _drop_all(self) -> tuple[list[MapJob], list[Call]]:
        """Forget all calls; the maps and single calls that they were of."""
        jobs: list[MapJob] = []
        calls = list(self._calls.waiting)
        batches = [batch for hand in self.hands for batch in hand.batches]
        for job in [*self._jobs, *(batch.job for batch in batches)]:
            if isinstance(job, MapJob) and job not in jobs:
                jobs.append(job)
        for batch in [*self._calls._returned, *batches]:
            if batch.job is self._calls:
                calls += batch.ids[batch.done :]
        self._jobs.clear()
        self._calls.waiting.clear()
        self._calls._returned.clear()
        for hand in self.hands:
            hand.verdict = hand.verdict or nothing
            hand.batches.clear()
        return jobs, calls

    # --- when they are to be looked at -------------------------------------------------------

    def _patience(self) -> float | None:
        """Seconds until a worker may have to be looked at."""
        due = [due for hand in self.hands if (due := self._due(hand)) is not None]
        due += [at for at in (self._staff.trims_at, self._staff.hires_at) if at < math.inf]
        return min(max(0.0, min(due) - time.monotonic()), LONGEST_SLEEP) if due else None

    def _due(self, hand: Hand) -> float | None:
        """When a worker is to be looked at, if no word of it comes before."""
        if not hand.batches or hand.borrowed or hand.verdict is not None:
            return None
        if hand.deadline is not None:
            return hand.deadline
        if hand.ready and not hand.recalled:
            return hand.heard + OVERDUE if hand.in_hand() > 1 else None
        # what waits for one that starts is better off only with one that has nothing to do
        if hand.has_waiting() and any(other.is_idle() for other in self.hands):
            return hand.heard + OVERDUE
        return None


def nothing(batch: Batch, at: int) -> BaseException | None:
    return None


__all__ = ["Giving", "nothing"]
