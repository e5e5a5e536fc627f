"""What a caller holds while a pool works: the results of its single calls and of its maps."""

from __future__ import annotations

import _thread
import collections
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import TimeoutError
from multiprocessing import pool as _standard
from typing import Any

from procession._crew.jobs import MapJob


class Answer:
    """The outcome of one `apply`, for the thread that waits for it."""

    def __init__(self) -> None:
        self._outcome: tuple[bool, Any] | None = None
        self._latch: Any = None  # only where it is waited for

    def finish(self, ok: bool, value: Any) -> bool:
        """The call has ended."""
        if self._outcome is None:
            self._outcome = ok, value
            latch, self._latch = self._latch, None
            if latch is not None:
                latch.release()
        return True

    def get(self) -> Any:
        """Wait for it."""
        if self._outcome is None:
            latch = _thread.allocate_lock()
            latch.acquire()
            self._latch = latch
            if self._outcome is None:  # who comes with it from now on finds the latch
                latch.acquire()
        assert self._outcome is not None
        ok, value = self._outcome
        if ok:
            return value
        try:
            raise value
        finally:
            self._outcome = value = None


def check_waiter(pool: Any) -> None:
    """Refuse to wait for a call where that would be for ever; no pool: it has ended."""
    check = getattr(getattr(pool, "_crew", None), "check_waiter", None)
    if check is not None:
        check()


class AsyncResult(_standard.AsyncResult):  # type: ignore[type-arg]
    """The result of a call that may still run.

    Args:
        callback: Called with the value, in a thread of the pool's.
        error_callback: Called with the exception.
    """

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._pool = pool  # it lives as long as somebody waits for it
        self._event = threading.Event()
        self._callback = callback
        self._error_callback = error_callback
        self._success = False
        self._value: Any = None
        self._traceback: Any = None
        self._finishing = threading.Lock()

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception.

        Raises:
            ValueError: It has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for so many seconds."""
        if timeout is None:
            check_waiter(self._pool)
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """What the call returned.

        Args:
            timeout: Longest wait in seconds; ``None`` has no limit.

        Raises:
            TimeoutError: The time was over.
            WorkerDied: Its worker died.
            PoolTerminated: The pool was terminated.
            BaseException: What the call raised.
        """
        if timeout is None:
            check_waiter(self._pool)
        if not self._event.wait(timeout):
            raise TimeoutError
        if self._success:
            return self._value
        raise self._value.with_traceback(self._traceback)  # each time as at first

    def finish(self, ok: bool, value: Any, *, quietly: bool = False) -> None:
        """The call has ended; only the first word counts."""
        if not self._finishing.acquire(blocking=False):
            return
        self._success, self._value = ok, value
        if not ok:
            self._traceback = value.__traceback__
        callback = self._callback if ok else self._error_callback
        if callback is not None and not quietly:
            try:
                callback(value)
            except BaseException:
                sys.excepthook(*sys.exc_info())
        self._callback = self._error_callback = None
        self._pool = None
        self._event.set()


class MapResult(AsyncResult):
    """The results of a map, a list in the order of the input."""

    def __init__(self, pool: Any, callback: Any = None, error_callback: Any = None) -> None:
        super().__init__(pool, callback, error_callback)
        self._lock = threading.Lock()
        self._results: list[Any] = []
        self._got = 0
        self._total: int | None = None
        self._error: BaseException | None = None

    def values(self, ids: Sequence[int], values: list[Any]) -> None:
        """Some calls returned."""
        with self._lock:
            self._reserve(ids[-1] + 1)
            if isinstance(ids, range):
                self._results[ids.start : ids.stop] = values
            else:
                for index, value in zip(ids, values, strict=True):
                    self._results[index] = value
            self._got += len(ids)
        self._look()

    def failed(self, index: int, error: BaseException) -> None:
        """A call failed; the first failure is the map's, when all have ended."""
        with self._lock:
            self._error = self._error or error
            self._got += 1
        self._look()

    def counted(self, total: int) -> None:
        """So many calls there are."""
        with self._lock:
            self._total = total
            self._reserve(total)
        self._look()

    def source_failed(self, index: int, error: BaseException) -> None:
        """The input raised after so many items."""
        with self._lock:
            self._error = self._error or error
            self._total = index
        self._look()

    def abandoned(self, error: BaseException) -> None:
        """No call that has not ended ever will."""
        self.finish(False, error, quietly=True)

    def _reserve(self, size: int) -> None:
        if len(self._results) < size:
            self._results.extend([None] * (size - len(self._results)))

    def _look(self) -> None:
        if self._total is not None and self._got >= self._total:
            results, self._results = self._results, []
            if self._error is None:
                self.finish(True, results)
            else:
                self.finish(False, self._error)


class IMapIterator:
    """The results of `imap`, in the order of the input."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.job: MapJob | None = None
        self._changed = threading.Condition()
        self._index = 0
        self._total: int | None = None
        self._abandoned: BaseException | None = None
        self._results: dict[int, tuple[bool, Any]] = {}

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Args:
            timeout: Longest wait in seconds; ``None`` has no limit.

        Raises:
            StopIteration: There is none any more.
            TimeoutError: The time was over.
            BaseException: What the call raised.
        """
        found = self.take(timeout)
        if found is None:
            raise StopIteration
        ok, value = found
        if ok:
            return value
        raise value

    __next__ = next

    def take(self, timeout: float | None = None) -> tuple[bool, Any] | None:
        """As `next`, with what the call returned or raised as a value: it may be StopIteration.

        Returns:
            Whether the call returned, and what; ``None`` when there is none any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._has_next():
                if self._abandoned is not None:
                    error, self._abandoned = self._abandoned, None
                    self._total = self._index
                    self._pool = None
                    raise error
                if self._total is not None and self._index >= self._total:
                    self._pool = None
                    return None
                if deadline is None:
                    check_waiter(self._pool)
                rest = None if deadline is None else deadline - time.monotonic()
                if rest is not None and rest <= 0:
                    raise TimeoutError from None
                self._changed.wait(rest)
            found = self._take()
            self._index += 1
        if self.job is not None:
            self.job.consumed()
        return found

    def _has_next(self) -> bool:
        return self._index in self._results

    def _take(self) -> tuple[bool, Any]:
        return self._results.pop(self._index)

    def _put(self, index: int, ok: bool, value: Any) -> None:
        self._results[index] = (ok, value)

    def values(self, ids: Sequence[int], values: list[Any]) -> None:
        """Some calls returned."""
        with self._changed:
            for index, value in zip(ids, values, strict=True):
                self._put(index, True, value)
            self._changed.notify()

    def failed(self, index: int, error: BaseException) -> None:
        """A call failed."""
        with self._changed:
            self._put(index, False, error)
            self._changed.notify()

    def counted(self, total: int) -> None:
        """So many results there are."""
        with self._changed:
            self._total = total
            self._changed.notify()

    def source_failed(self, index: int, error: BaseException) -> None:
        """The input raised after so many items; that comes last."""
        with self._changed:
            self._put(index, False, error)
            self._total = index + 1
            self._changed.notify()

    def abandoned(self, error: BaseException) -> None:
        """No call that has not ended ever will."""
        with self._changed:
            self._abandoned = error
            self._changed.notify()


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, as they come."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._queue: collections.deque[tuple[bool, Any]] = collections.deque()

    def _has_next(self) -> bool:
        return bool(self._queue)

    def _take(self) -> tuple[bool, Any]:
        return self._queue.popleft()

    def _put(self, index: int, ok: bool, value: Any) -> None:
        self._queue.append((ok, value))
