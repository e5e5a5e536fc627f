"""The crew: workers, calls that wait, and the one thread that brings them together.

A caller's thread gives its call to an idle worker itself, and for a plain `apply` waits for it
itself; the dispatcher comes in for all else. State changes under one lock; what the user's code
sees of it (values, exceptions, callbacks) is handed over without it.
"""

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
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from procession._crew import encoding
from procession._crew.delivery import Delivery
from procession._crew.encoding import Mapping, Packer, Unsent
from procession._crew.hand import Hand, end
from procession._crew.jobs import Batch, Call, Calls, Job, MapJob, describe, pack
from procession._crew.portable import portable
from procession._crew.staff import Staff, lines
from procession._crew.words import Words
from procession._launch import stopping
from procession._launch.own_thread import OwnThread
from procession._wire.outcome import dump_outcome, load_outcome, remote_text
from procession.errors import CallTimeout

if TYPE_CHECKING:
    from procession.ending import Ending

OVERDUE = 0.05  # seconds without a word from a worker, after which its other calls go elsewhere
BAD_LUCK = 100  # and so many that were killed before they came to their initializer
START_ATTEMPTS = 3  # workers in a row that may end in their initializer; that is no accident

Take = Callable[[bool, Any], bool]
"""Takes an outcome over, ``(ok, value or exception)``; false: it does not want to."""

_main = threading.main_thread().ident
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew:
    """Workers and their calls.

    Args:
        size: How many workers.
        start: Starts a worker process that runs ``target(*args)``.
        initializer: Called by each worker before its first call.
        initargs: Its arguments.
        tasks: After so many tasks a worker is replaced; ``None``: never.
        words: How failures are told.
        on_demand: Start a worker only when a call finds none idle.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[Callable[..., None], tuple[Any, ...]], Any],
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        tasks: int | None = None,
        words: Words | None = None,
        on_demand: bool = False,
    ) -> None:
        self.size = size
        self.broken: BaseException | None = None
        self._tasks = tasks
        self._words = words or Words()
        self._delivery = Delivery(self._words)
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
        self._staff = Staff(size, start, initializer, initargs, tasks)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._staff.epoll.register(self._wake, select.EPOLLIN)
        self._thread: OwnThread | None = None
        self._ended = threading.Event()
        _crews.add(self)
        if not on_demand:
            try:
                self._staff.fill()
            except BaseException:
                self._close()
                raise
        self._thread = OwnThread("procession-dispatcher", _Dispatcher(self).run)
        self._thread.start()

    # --- what is asked of it ----------------------------------------------------------------

    @property
    def hands(self) -> list[Hand]:
        """The workers, as they are seen from here."""
        return self._staff.hands

    @property
    def workers(self) -> list[Any]:
        """The worker processes."""
        with self._lock:
            return [hand.process for hand in self.hands]

    def is_owner(self) -> bool:
        """Whether this process made the crew, and is no forked copy."""
        return self._staff.owner == os.getpid()

    def submit(self, call: Call) -> None:
        """Take over a call; whatever becomes of it is told to its ``finish``."""
        if not self.encode(call):
            return
        self.submit_encoded(call)

    def submit_encoded(self, call: Call) -> None:
        """As `submit`, for a call that was pickled already."""
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self._calls.waiting.append(call)
                if self._calls not in self._jobs:
                    self._jobs.append(self._calls)
                if self._calls.is_quick() and any(hand.batches for hand in self.hands):
                    self.kick()  # by the time it looks there may be more of them
                else:
                    self._assign()
            else:
                self.later(lambda: call.finish(False, refusal))
        self._tell()

    def submit_map(self, job: MapJob) -> None:
        """Take over a map's calls."""
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self._jobs.append(job)
                self._assign()
            else:
                job.cancel()
                self.later(lambda: job.sink.abandoned(refusal))
        job.start(self)
        self._tell()

    def _refusal(self) -> BaseException | None:
        """Why no more calls are taken: who asked for it may have looked before the end came."""
        if self.broken is None and self._closing:
            return self._words.closed()
        return self.broken

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
            self._let_go(call)
            raise
        if self._after:
            self._tell()

    def cancel(self, call: Call) -> bool:
        """End a call that a worker has in hand, and the worker with it.

        Returns:
            False where no worker has it any more.
        """
        with self._lock:
            if self._calls.forget(call):
                return True
            hand = self._whose(call)
            if hand is None:
                return False
            if not hand.borrowed and (hand.in_hand() > 1 or hand.has_waiting()):
                self.kick()  # whatever this finds out is told, and given, by the dispatcher
                if not self._recall(hand):
                    return False  # its end would take others along
                if self._calls.forget(call):
                    return True
                if self._whose(call) is None:
                    return False
            self._end_for(hand, _nothing)
        return True

    def cancel_map(self, job: MapJob) -> None:
        """Begin no more calls of a map."""
        with self._lock:
            job.cancel()
            self.kick()

    def cancel_waiting(self, error: BaseException) -> None:
        """Drop the calls that no worker has begun; maps that lose some end with an error."""
        with self._lock:
            calls = list(self._calls.waiting)
            self._calls.waiting.clear()
            jobs = [job for job in self._jobs if isinstance(job, MapJob)]
            for job in jobs:
                job.cancel()
            self.kick()
        for call in calls:
            if call.drop is not None:
                call.drop()
        for job in jobs:
            job.sink.abandoned(error)

    def lift_limits(self) -> None:
        """Take all input without waiting for results to be taken."""
        with self._lock:
            for job in self._jobs:
                if isinstance(job, MapJob):
                    job.lift_limit()

    def close(self) -> None:
        """Take no more calls; end when all are done."""
        with self._lock:
            self._closing = True
            self.kick()

    def terminate(
        self, steps: stopping.Steps | None = None, error: BaseException | None = None
    ) -> None:
        """End all workers now; calls that have not ended never will, unless with an error."""
        with self._lock:
            self._terminated = self._closing = True
            jobs, calls = self._drop_all()
            hands = list(self.hands)
            for job in jobs:
                job.cancel()
            for hand in hands:
                hand.dismiss()  # who has nothing to do comes to Python's own end
        end(hands, stopping.terminating(stopping.GRACE) if steps is None else steps)
        if error is not None:
            for call in calls:
                call.finish(False, error)
            for job in jobs:
                job.sink.abandoned(error)
        self.kick()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all has ended; false when the time was over."""
        if self._thread is threading.current_thread():
            return False
        return self._ended.wait(timeout)

    def kick(self) -> None:
        """Let the dispatcher look again."""
        with self._lock:  # so that the descriptor is still ours
            if not self._kicked and self._wake >= 0:
                self._kicked = True
                os.eventfd_write(self._wake, 1)

    def later(self, what: Callable[[], object]) -> None:
        """Do something when the lock is free."""
        self._after.append(what)

    @contextlib.contextmanager
    def packer(self) -> Iterator[Packer]:
        """A packer that nobody else uses at the moment."""
        packer = self._packers.pop() if self._packers else Packer()
        try:
            yield packer
        finally:
            packer.take_buffers()
            self._packers.append(packer)

    # --- giving out ------------------------------------------------------------------------

    def encode(self, call: Call) -> bool:
        """Pickle a call in its caller's thread; a failure ends the call, and is false."""
        packer = self._packers.pop() if self._packers else Packer()
        try:
            function = portable(call.function)
            call.entry = pack(packer, (function, call.args, call.kwargs))
            if packer.buffers:
                call.buffers = packer.take_buffers()
            self._packers.append(packer)  # after a failure it goes: who knows what is in it
        except KeyboardInterrupt:
            raise
        except SystemExit as error:
            text = describe(call.function, call.args, call.kwargs)
            call.finish(False, self._words.exited(text, error))
            return False
        except BaseException as error:
            call.finish(False, error)
            return False
        return True

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
            batch = job.take(job.size(self.size, hand.budget), self)
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
        if self._on_demand and len(self.hands) < self.size and not self._terminated:
            hired = self._hire()
            if hired is not None:
                return hired
        return quick or silent

    # --- one call directly -----------------------------------------------------------------

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
            elif self._jobs and threading.get_ident() != _main:
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
                        self._end_for(hand, _nothing)
        self._tell()

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

    @staticmethod
    def _receive(hand: Hand, wait: bool = True) -> tuple[tuple[Any, ...], Mapping] | None:
        try:
            return hand.channel.receive(wait)
        except encoding.Undelivered as error:
            refusal = encoding.RAISED, dump_outcome(error=error.told("its result"))
            if not error.count:
                return (encoding.INITIALIZER_FAILED, refusal[1]), encoding.NOTHING
            return (encoding.OUTCOMES, error.first, [refusal] * error.count, 0), encoding.NOTHING

    # --- workers ---------------------------------------------------------------------------

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
        while len(self.hands) < self.size and not (self._closing and not self._has_work()):
            if self._hire() is None:
                return

    def _has_work(self) -> bool:
        return bool(self._jobs) or any(hand.batches for hand in self.hands)

    def _whose(self, call: Call) -> Hand | None:
        for hand in self.hands:
            for batch in hand.batches:
                if batch.job is self._calls and call in batch.ids[batch.done :]:
                    return hand
        return None

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

    def _put_back(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            batch.job.put_back(batch)
            if batch.job not in self._jobs:
                self._jobs.appendleft(batch.job)

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
            hand.verdict = hand.verdict or _nothing
            hand.batches.clear()
        return jobs, calls

    def _close(self) -> None:
        self._staff.close()
        os.close(self._wake)
        self._wake = -1

    # --- outcomes --------------------------------------------------------------------------

    def _tell(self) -> None:
        """Do what waited for the lock."""
        while self._after:
            with self._lock:
                after, self._after = self._after, []
            for what in after:
                try:
                    what()
                except Exception:
                    sys.excepthook(*sys.exc_info())

    # --- the dispatcher's side --------------------------------------------------------------

    def _patience(self) -> float | None:
        """Seconds until a worker may have to be looked at."""
        due = [due for hand in self.hands if (due := self._due(hand)) is not None]
        due += [at for at in (self._staff.trims_at, self._staff.hires_at) if at < math.inf]
        return max(0.0, min(due) - time.monotonic()) if due else None

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

    def _note_memory(self, hand: Hand) -> None:
        self._staff.note_memory(hand)
        if self._staff.trims_at < self._wakes_at:
            self.kick()

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

    def _hear_what_was_left(self) -> None:
        """Take the messages that somebody received who then left them to us."""
        for hand in self.hands:
            if not hand.borrowed and hand.channel.is_left():
                self._hear(hand)

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
        self._bad_starts += BAD_LUCK // max(START_ATTEMPTS, self.size) if by_itself else 1
        if self._bad_starts >= BAD_LUCK - self.size:
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


class _Dispatcher:
    """The thread's own side; it lets go of a crew that nobody else holds.

    Args:
        crew: The crew.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self) -> None:
        """Bring calls and workers together until the crew has ended."""
        crew = self._crew
        try:
            while not self._step(crew):
                pass
        except Exception as error:  # a fault of ours: nobody is to wait for ever because of it
            sys.excepthook(*sys.exc_info())
            with crew._lock:
                crew._closing = True
                crew._break(error)
            crew._tell()
            crew._close()
        finally:
            crew._ended.set()

    def _step(self, crew: Crew) -> bool:
        with crew._lock:
            patience = crew._patience()
            crew._wakes_at = math.inf if patience is None else time.monotonic() + patience
        events = crew._staff.epoll.poll(patience)
        with crew._lock:
            crew._wakes_at = 0.0
            dead: list[Hand] = []
            for fd, _ in events:
                hand = crew._staff.find(fd)
                if hand is None:
                    if fd == crew._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(fd)
                        crew._kicked = False
                        crew._hear_what_was_left()
                elif hand.borrowed:
                    continue
                elif fd == hand.sentinel:
                    dead.append(hand)
                else:
                    crew._hear(hand)
            for hand in dead:
                crew._bury(hand)
            crew._look_at_the_time()
            crew._dismiss_the_spent()
            crew._assign()
            over = crew._is_over()
            if over:
                crew._close()
        crew._tell()
        return over


def _nothing(batch: Batch, at: int) -> BaseException | None:
    return None


def _too_late(batch: Batch, at: int) -> BaseException | None:
    job = batch.job
    timeout = job.timeout
    if timeout is None and not isinstance(job, MapJob):
        timeout = batch.ids[at].timeout
    return CallTimeout(job.text(batch.items[at]), timeout or 0.0)


def _after_fork_in_child() -> None:
    """A forked copy lets go of its starter's workers: also one that is to be a worker itself."""
    for line in list(lines):
        with contextlib.suppress(OSError):
            line.close()
    for crew in list(_crews):
        if crew.is_owner():
            continue
        for hand in crew.hands:
            with contextlib.suppress(OSError, BufferError, ValueError):
                hand.slate.close()
        crew.hands.clear()
        with contextlib.suppress(OSError, ValueError):
            crew._close()


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["Crew"]
