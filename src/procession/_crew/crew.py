"""The crew: workers, calls that wait, and the one thread that brings them together.

A caller's thread gives its call to an idle worker itself, and waits for it itself where it can; the
dispatcher comes in for all else. State changes under one lock; what the user's code sees of it
(values, exceptions, callbacks) is handed over without it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from procession._crew.direct import Direct
from procession._crew.encoding import Packer
from procession._crew.giving import nothing
from procession._crew.hand import Hand, end
from procession._crew.jobs import Call, MapJob, describe, pack
from procession._crew.portable import portable
from procession._crew.staff import Staff, lines
from procession._crew.words import Words
from procession._launch import stopping
from procession._launch.own_thread import OwnThread

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew(Direct):
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
        staff = Staff(size, start, initializer, initargs, tasks)
        super().__init__(staff, words or Words(), on_demand=on_demand)
        self._tasks = tasks
        self._thread: OwnThread | None = None
        self._ended = threading.Event()
        _crews.add(self)
        try:
            if not on_demand:
                staff.fill()
            self._start_dispatcher()
        except BaseException:  # nobody will have it: what it has goes now
            self.terminate()
            if self._thread is None:
                self._close()
            raise

    def _start_dispatcher(self) -> None:
        self._thread = OwnThread("procession-dispatcher", _Dispatcher(self).run)
        try:
            self._thread.start()
        except (
            RuntimeError
        ):  # no thread is to be had; after an interrupt there is one, which closes
            self._thread = None
            raise

    @property
    def workers(self) -> list[Any]:
        """The worker processes."""
        with self._lock:
            return [hand.process for hand in self.hands]

    # --- calls -------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take over a call; whatever becomes of it is told to its ``finish``."""
        if not self.encode(call):
            return
        self.submit_encoded(call)

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

    # --- the end of some ---------------------------------------------------------------------

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
            self._end_for(hand, nothing)
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

    # --- the end of all ----------------------------------------------------------------------

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

    def check_waiter(self) -> None:
        """Refuse a wait of the thread that brings the outcomes: it would be for ever.

        Raises:
            RuntimeError: This is that thread.
        """
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a callback cannot wait for a call of its own pool: the thread that runs it is the "
                "one that brings the outcomes. Wait with a timeout, or in another thread"
            )


class _Dispatcher:
    """The thread's own side. It holds its crew: whoever made that closes it.

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
