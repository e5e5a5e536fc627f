"""What is heard of workers, and what becomes of their calls when nothing is, or they have died."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

from procession._crew import encoding
from procession._crew.encoding import Mapping
from procession._crew.giving import Giving
from procession._crew.hand import Hand
from procession._crew.jobs import Batch, MapJob
from procession._crew.words import Words
from procession._wire.outcome import dump_outcome, load_outcome, remote_text
from procession.errors import CallTimeout

if TYPE_CHECKING:
    from procession.ending import Ending

BAD_LUCK = 100  # workers that may be killed before they came to their initializer
START_ATTEMPTS = 3  # and those in a row that may end in it; that is no accident


class Hearing(Giving):
    """The part of a crew that listens: the dispatcher's work, for the most part."""

    @staticmethod
    def _receive(hand: Hand, wait: bool = True) -> tuple[tuple[Any, ...], Mapping] | None:
        try:
            return hand.channel.receive(wait)
        except encoding.Undelivered as error:
            refusal = encoding.RAISED, dump_outcome(error=error.told("its result"))
            if not error.count:
                return (encoding.INITIALIZER_FAILED, refusal[1]), encoding.NOTHING
            return (encoding.OUTCOMES, error.first, [refusal] * error.count, 0), encoding.NOTHING

    def _hear(self, hand: Hand) -> bool:
        """Take one message of a worker; false when there is none."""
        try:
            received = self._receive(hand, wait=False)
        except BlockingIOError:
            return False
        if received is None:
            self._staff.heard_all(hand)
            return False
        (kind, *rest), mapping = received
        if kind == encoding.READY:
            hand.ready = True
            self._bad_starts = 0
            hand.heard = time.monotonic()
            hand.start_clock()
        elif kind == encoding.INITIALIZER_FAILED:
            outcome = load_outcome(rest[0])
            assert outcome.error is not None
            if isinstance(outcome.error, SystemExit):
                self._break(Words().exited("the initializer", outcome.error))
            else:
                self._break(self._words.raised(outcome.error, remote_text(rest[0])))
        else:
            first, outcomes, used_ns = rest
            if hand.batches and outcomes:
                hand.batches[0].job.measured(used_ns, len(outcomes))
            parts = hand.ended(first, outcomes, mapping)
            self.later(lambda: self._delivery.deliver(parts))
            hand.settle(parts)
        hand.channel.taken()
        return True

    def _hear_what_was_left(self) -> None:
        """Take the messages that somebody received who then left them to us."""
        for hand in self.hands:
            if not hand.borrowed and hand.channel.is_left():
                self._hear(hand)

    # --- workers that say nothing ------------------------------------------------------------

    def _recall(self, hand: Hand) -> bool:
        """Take back what a worker has not begun, and take over what it has ended.

        Returns:
            False where it could not be stopped for that now.
        """
        with hand.stopped() as is_stopped:
            hand.heard = time.monotonic()
            if not is_stopped:
                return False
            while self._hear(hand):
                pass
            parts = hand.salvage()
            back = hand.not_begun()
        self.later(lambda: self._delivery.deliver(parts))
        self._put_back(back)
        return True

    def _look_at_the_time(self) -> None:
        now = time.monotonic()
        if now >= self._staff.trims_at:
            self._staff.trim()
        if now >= self._staff.hires_at:
            self._staff.hires_at = math.inf
            self._replenish()
        for hand in list(self.hands):
            due = self._due(hand)
            if due is None or due > now:
                continue
            if hand.deadline is None:
                self._recall(hand)
            elif not hand.lengthen():
                self._end_for(hand, _too_late)

    # --- workers that have ended -------------------------------------------------------------

    def _bury(self, hand: Hand) -> None:
        """A worker has ended: what it had in hand ends, too, or goes to others."""
        while self._hear(hand):
            pass
        self._staff.dismissed(hand)
        ending = hand.ending()
        parts = hand.salvage()
        back = hand.not_begun()
        lost = hand.lost()
        stack = hand.stack()
        initializing = hand.was_initializing()
        hand.close()
        self.later(lambda: self._delivery.deliver(parts))
        self._put_back(back)
        for batch, at in lost:
            if hand.verdict is not None:
                error = hand.verdict(batch, at)
            else:
                error = self._words.died(hand, ending, batch.job.text(batch.items[at]), stack)
            if error is not None:
                self.later(functools.partial(self._delivery.fail, batch, at, error))
        by_us = hand.verdict is not None or self._terminated
        if not hand.ready and not by_us and self.broken is None:
            self._judge_start(hand, ending, stack, initializing=initializing)
        self._replenish()
        self._assign()

    def _judge_start(self, hand: Hand, ending: Ending, stack: str, *, initializing: bool) -> None:
        """A worker ended before it was ready: an accident, or what every other one will do?"""
        by_itself = initializing or ending.signal is None
        size = self._staff.size
        self._bad_starts += BAD_LUCK // max(START_ATTEMPTS, size) if by_itself else 1
        if self._bad_starts >= BAD_LUCK - size:
            where = "its initializer" if initializing else "its start"
            self._break(self._words.died(hand, ending, where, stack))

    def _dismiss_the_spent(self) -> None:
        for hand in list(self.hands):
            if hand.is_spent() and not hand.batches and not hand.borrowed:
                hand.dismiss()

    def _is_over(self) -> bool:
        if not self._closing:
            return False
        if not (self._terminated or self.broken is not None) and self._has_work():
            return False
        for hand in self.hands:
            hand.dismiss()
        return not self.hands


def _too_late(batch: Batch, at: int) -> BaseException | None:
    job = batch.job
    timeout = job.timeout
    if timeout is None and not isinstance(job, MapJob):
        timeout = batch.ids[at].timeout
    return CallTimeout(job.text(batch.items[at]), timeout or 0.0)


__all__ = ["Hearing"]
