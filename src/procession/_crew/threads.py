"""A crew whose workers are threads of this process: what stands behind `ThreadPool`."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from procession._crew.encoding import Packer
from procession._crew.jobs import Batch, Call, Calls, Job, MapJob
from procession._crew.words import Words
from procession._crew.worker import ITEM, STAR
from procession._launch.own_thread import OwnThread


class ThreadCrew:
    """As `Crew`, without processes: a call cannot be stopped, and nothing is pickled.

    Args:
        size: How many threads.
        initializer: Called by each before its first call.
        initargs: Its arguments.
        tasks: After so many tasks a thread is replaced; ``None``: never.
    """

    def __init__(
        self,
        size: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        tasks: int | None = None,
    ) -> None:
        self.size = size
        self.broken: BaseException | None = None
        self._initializer = initializer
        self._initargs = initargs
        self._tasks = tasks
        self._words = Words()
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._calls = Calls()
        self._jobs: collections.deque[Job] = collections.deque()
        self._running: dict[int, Batch] = {}
        self._closing = False
        self._terminated = False
        self.workers: list[Any] = []
        for _ in range(size):
            self._hire()

    def is_owner(self) -> bool:
        """Whether this process made the crew, and is no forked copy."""
        return self._owner == os.getpid()

    def encode(self, call: Call) -> bool:
        """Nothing needs to be."""
        return True

    def submit_encoded(self, call: Call) -> None:
        """Take over a call; whatever becomes of it is told to its ``finish``."""
        with self._changed:
            refusal = self._refusal()
            if refusal is None:
                self._calls.waiting.append(call)
                if self._calls not in self._jobs:
                    self._jobs.append(self._calls)
                self._changed.notify()
        if refusal is not None:
            call.finish(False, refusal)

    def _refusal(self) -> BaseException | None:
        if self.broken is None and self._closing:
            return self._words.closed()
        return self.broken

    def call(self, call: Call, take: object) -> bool:
        """No thread can be waited for without a hop."""
        return False

    def submit_map(self, job: MapJob) -> None:
        """Take over a map's calls."""
        job.raw = True
        with self._changed:
            refusal = self._refusal()
            if refusal is None:
                self._jobs.append(job)
                self._changed.notify_all()
        if refusal is not None:
            job.cancel()
            job.sink.abandoned(refusal)
        job.start(self)

    def cancel_map(self, job: MapJob) -> None:
        """Begin no more calls of a map."""
        with self._changed:
            job.cancel()
            self._changed.notify_all()

    def lift_limits(self) -> None:
        """Take all input without waiting for results to be taken."""
        with self._changed:
            for job in self._jobs:
                if isinstance(job, MapJob):
                    job.lift_limit()

    def close(self) -> None:
        """Take no more calls; end when all are done."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def terminate(self, steps: Any = None, error: BaseException | None = None) -> None:
        """Begin no more calls; those that run cannot be stopped."""
        with self._changed:
            self._terminated = self._closing = True
            calls, jobs = self._drop_all()
            self._changed.notify_all()
        if error is not None:
            _abandon(calls, jobs, error)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads have ended; false when the time was over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                left = [one for one in self.workers if one is not threading.current_thread()]
            if not left:
                return True
            left[0].join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if left[0].is_alive():
                return False

    def packer(self) -> contextlib.AbstractContextManager[Packer]:
        """Never needed: nothing is pickled."""
        raise NotImplementedError

    def later(self, what: Callable[[], object]) -> None:
        """Never needed: nothing fails on its way to a thread."""
        raise NotImplementedError

    def kick(self) -> None:
        """Let the threads look again."""
        with self._changed:
            self._changed.notify_all()

    # --- threads ---------------------------------------------------------------------------

    def _hire(self) -> None:
        thread = OwnThread("procession-worker", self._work)
        self.workers.append(thread)
        thread.start()

    def _work(self) -> None:
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
        except BaseException as error:
            self._break(error)
        tasks = self._tasks
        while True:
            batch = self._next_batch(tasks)
            if batch is None:
                return
            started = time.perf_counter_ns()
            for at in range(len(batch)):
                self._run(batch, at)
            with self._changed:
                batch.job.measured(time.perf_counter_ns() - started, len(batch))
                del self._running[id(batch)]
                self._changed.notify_all()
            if tasks is not None:
                tasks -= batch.tasks()
            del batch

    def _next_batch(self, tasks: int | None) -> Batch | None:
        me = threading.current_thread()
        with self._changed:
            while True:
                batch = None if tasks is not None and tasks <= 0 else self._take(tasks)
                if batch is not None:
                    self._running[id(batch)] = batch
                    return batch
                spent = tasks is not None and tasks <= 0
                idle = not (self._jobs or self._running)
                if self._terminated or spent or (self._closing and idle) or self.broken:
                    self.workers.remove(me)
                    if spent and not self._terminated and not (self._closing and idle):
                        self._hire()
                    return None
                self._changed.wait()

    def _take(self, tasks: int | None) -> Batch | None:
        for job in list(self._jobs):
            batch = job.take(job.size(self.size, tasks), self)
            if job.is_exhausted():
                self._jobs.remove(job)
            if batch is not None:
                return batch
        return None

    def _run(self, batch: Batch, at: int) -> None:
        job, item = batch.job, batch.items[at]
        try:
            if job.shape == ITEM:
                value = job.function(item)
            elif job.shape == STAR:
                value = job.function(*item)
            else:
                function, args, kwargs = item
                value = function(*args, **kwargs)
        except SystemExit as error:
            self._finish(batch, at, False, self._words.exited(job.text(item), error))
        except BaseException as error:
            self._finish(batch, at, False, error)
        else:
            self._finish(batch, at, True, value)

    def _finish(self, batch: Batch, at: int, ok: bool, value: Any) -> None:
        job = batch.job
        if not isinstance(job, MapJob):
            batch.ids[at].finish(ok, value)
        elif ok:
            job.sink.values([batch.ids[at]], [value])
        else:
            job.sink.failed(batch.ids[at], value)

    def _break(self, error: BaseException) -> None:
        with self._changed:
            self.broken = error
            calls, jobs = self._drop_all()
            self._changed.notify_all()
        _abandon(calls, jobs, error)

    def _drop_all(self) -> tuple[list[Call], list[MapJob]]:
        calls = list(self._calls.waiting)
        running = list(self._running.values())
        jobs = [job for job in self._jobs if isinstance(job, MapJob)]
        for batch in running:
            if isinstance(batch.job, MapJob):
                jobs += [] if batch.job in jobs else [batch.job]
            else:
                calls += batch.ids
        for job in jobs:
            job.cancel()
        self._jobs.clear()
        self._calls.waiting.clear()
        return calls, jobs


def _abandon(calls: list[Call], jobs: list[MapJob], error: BaseException) -> None:
    for call in calls:
        call.finish(False, error)
    for job in jobs:
        job.sink.abandoned(error)
