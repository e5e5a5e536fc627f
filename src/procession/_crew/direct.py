"""One call past the dispatcher: who wants its outcome waits for its worker itself."""

from __future__ import annotations

import functools
import select
from collections.abc import Callable
from typing import Any

from procession._crew.encoding import Mapping, Unsent
from procession._crew.giving import nothing
from procession._crew.hand import Hand
from procession._crew.hearing import Hearing
from procession._crew.jobs import Batch, Call
from procession._kernel import interrupts

Take = Callable[[bool, Any], bool]
"""Takes an outcome over, ``(ok, value or exception)``; false: it does not want to."""


class Direct(Hearing):
    """The part of a crew that works in the thread of whoever waits.

    Interrupts come there. So nothing is taken over until it is done for good: until then an
    outcome's message stays in its channel, where the dispatcher finds it.
    """

    def call(self, call: Call, take: Take) -> bool:
        """Run an encoded call with an idle worker and wait for it in this thread.

        Args:
            take: As of `attend`.

        Returns:
            False where no worker is idle: then nothing was done.
        """
        try:
            with self._lock:
                hand = self._borrow(call)
                if hand is None:
                    return False
                batch = Batch(
                    self._calls,
                    [call],
                    [call.entry],
                    [(call.function, call.args, call.kwargs)],
                    {0: call.buffers} if call.buffers else {},
                )
                try:
                    hand.give(batch)
                except OSError:
                    self._give_back(hand)  # it is dead; the dispatcher sees to that
                    return True
                except Unsent as error:
                    self._give_back(hand)
                    self.later(functools.partial(call.finish, False, error.told(call.text())))
                    hand = None
                else:
                    self._note_memory(hand)
            if hand is not None:
                self._take_from(hand, batch, take)
        except BaseException:
            self._let_go(call)  # its outcome comes by the dispatcher, if at all
            raise
        if self._after:
            self._tell()
        return True

    def attend(self, call: Call, take: Take) -> None:
        """Wait in this thread for a call that a worker has in hand, if that has nothing else.

        Args:
            take: Takes the outcome over; where it declines, or was not asked, the dispatcher tells
                the call's ``finish``, perhaps once more.
        """
        try:
            with self._lock:
                hand = self._borrow_from_the_dispatcher(call)
                if hand is None:
                    return
                batch = hand.batches[0]
            self._take_from(hand, batch, take)
        except BaseException:
            self._let_go(call)  # the worker has it still
            raise
        if self._after:
            self._tell()

    def _borrow(self, call: Call) -> Hand | None:
        """An idle worker."""
        if self._jobs or self._refusal() is not None:
            return None
        for hand in self.hands:
            if hand.is_idle():
                hand.borrowed = call
                self._staff.look_away(hand)
                return hand
        return None

    def _borrow_from_the_dispatcher(self, call: Call) -> Hand | None:
        """The worker that has this very call in hand, and will say nothing else."""
        for hand in self.hands:
            if len(hand.batches) == 1 and hand.batches[0].ids[0] is call:
                if len(hand.batches[0]) > 1 or not hand.is_at_work():
                    return None
                hand.borrowed = call
                self._staff.look_away(hand)
                return hand
        return None

    def _await(self, hand: Hand) -> tuple[tuple[Any, ...], Mapping] | None:
        """Its next outcomes; ``None`` when it died, which the dispatcher will see, too."""
        while True:
            try:
                return self._receive(hand)
            except BlockingIOError:  # nothing for a while: is there still somebody?
                poll = select.poll()
                poll.register(hand.sentinel, select.POLLIN)
                if poll.poll(0):
                    return None

    def _take_from(self, hand: Hand, batch: Batch, take: Take) -> None:
        """Take the outcome of the one call that a borrowed worker has in hand.

        Its message stays where it is until all is done: an interrupt in between leaves it to the
        dispatcher.
        """
        message = self._await(hand)
        taken = False
        if message is not None:
            (_, first, outcomes, _), mapping = message
            if first == batch.first:
                taken = take(
                    *self._delivery.decode(batch.job, batch.items[0], outcomes[0], mapping)
                )
        with self._lock:
            if taken:
                hand.settle([(batch, 0, outcomes, mapping)])
                hand.channel.taken()
            self._give_back(hand)
            if message is not None and not taken:
                self.kick()
            elif self._jobs and not interrupts.may_come():
                self._assign()
            elif self._jobs:
                self.kick()  # what is half given when an interrupt comes would be lost

    def _give_back(self, hand: Hand) -> None:
        """Nobody waits for it directly any more. Idle it says nothing: it need not be watched."""
        hand.borrowed = None
        if hand.batches:
            self._staff.watch(hand)
        if not self._all_ready:
            self._all_ready = all(other.ready for other in self.hands)
        if self._closing or not self._all_ready or hand.is_spent():
            self.kick()  # to end, to give it what waits for one that starts, or to dismiss it

    def _let_go(self, call: Call) -> None:
        """Nobody waits for a call directly any more: an interrupt came, wherever it was."""
        with self._lock:
            self.kick()
            for hand in self.hands:
                if hand.borrowed is call:
                    self._give_back(hand)
                    self._staff.watch(hand)
                    if hand.giving:  # whether it was sent nobody knows
                        self._end_for(hand, nothing)
        self._tell()


__all__ = ["Direct", "Take"]
