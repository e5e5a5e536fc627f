"""The thread that takes a lazy input, ahead of the workers and no further."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from procession._launch.own_thread import OwnThread

if TYPE_CHECKING:
    from procession._crew.jobs import MapJob

AHEAD = 64  # items that a feeder keeps ready, at least


class Kickable(Protocol):
    """Who works on what is taken."""

    def kick(self) -> None:
        """There is something new."""


class Feeder:
    """Takes a lazy input item by item, ahead of the workers and no further.

    It has a thread, since the input may take its time, or come out of this very pool.

    Args:
        job: For whom.
        iterator: The input.
        chunk: Items that belong together: where the input raises, those begun are dropped.
        limit: How many items may be on their way altogether.
    """

    def __init__(self, job: MapJob, iterator: Iterator[Any], chunk: int, limit: int | None) -> None:
        self._job = job
        self._iterator: Iterator[Any] | None = iterator
        self._chunk = chunk if limit is None else min(chunk, limit)
        self._limit = limit
        self._changed = threading.Condition()
        self._ready: collections.deque[Any] = collections.deque()
        self._taken = 0
        self._consumed = 0
        self._ended = False
        self._stopped = False
        self._ahead = AHEAD

    def start(self, crew: Kickable) -> None:
        """Begin."""
        self._crew = crew
        OwnThread("procession-feeder", self._feed).start()

    def stop(self) -> None:
        """Take no more."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify()

    def consumed(self) -> None:
        """A result was taken."""
        with self._changed:
            self._consumed += 1
            self._changed.notify()

    def lift_limit(self) -> None:
        """Go on without waiting for results to be taken."""
        with self._changed:
            self._limit = None
            self._changed.notify()

    def take(self, count: int) -> list[Any]:
        """Items that are ready."""
        with self._changed:
            self._ahead = max(AHEAD, 4 * count)
            found = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
            self._changed.notify()
        return found

    def is_empty(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return self._ended and not self._ready

    def _has_room(self) -> bool:
        if self._stopped:
            return True
        if self._limit is not None and self._taken - self._consumed + self._chunk > self._limit:
            return False
        return len(self._ready) < self._ahead

    def _feed(self) -> None:
        assert self._iterator is not None
        error: BaseException | None = None
        while True:
            with self._changed:
                self._changed.wait_for(self._has_room)
                if self._stopped:
                    break
            chunk: list[Any] = []
            try:
                for item in itertools.islice(self._iterator, self._chunk):
                    chunk.append(item)
            except BaseException as failure:
                error = failure
                break
            with self._changed:
                self._taken += len(chunk)
                if not self._stopped:
                    self._ready.extend(chunk)
            if len(chunk) < self._chunk:
                chunk.clear()
                break
            self._crew.kick()
        self._iterator = None
        with self._changed:
            self._ended = True
        if error is not None:
            self._job.sink.source_failed(self._taken, error)
        else:
            self._job.sink.counted(self._taken)
        self._crew.kick()
