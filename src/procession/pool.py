"""Pool: worker processes that take calls; a bad call harms nothing but itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from multiprocessing import pool as _standard
from multiprocessing import util
from types import TracebackType
from typing import Any

from procession import _current
from procession._crew.crew import Crew
from procession._crew.jobs import ITEM, STAR, Call, MapJob
from procession._crew.results import (
    Answer,
    AsyncResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    check_waiter,
)
from procession._crew.threads import ThreadCrew
from procession._crew.words import Words
from procession._kernel import cpus
from procession._launch import exit_hooks, stopping
from procession._wire import pickling
from procession.errors import PoolTerminated, ResultNotPicklable

__all__ = ["Pool", "ThreadPool"]

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"

ApplyResult = AsyncResult
_private: Any = _standard


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class CannotSendResult(ResultNotPicklable, _private.MaybeEncodingError):  # type: ignore[misc]
    """A call returned what cannot be pickled.

    Attributes:
        exc: Why, in words.
        value: What, in words.
    """

    def __init__(self, text: str, exc: str, value: str) -> None:
        Exception.__init__(self, text, exc, value)
        self.text = text
        self.exc = exc
        self.value = value

    def __str__(self) -> str:
        return self.text

    __repr__ = Exception.__repr__


class _PoolWords(Words):
    """How a pool tells of failures."""

    def unsendable(self, call: str, text: str, error: BaseException) -> BaseException:
        told = CannotSendResult(
            f"{call} returned {text}, which cannot be pickled: {type(error).__name__}: {error}",
            repr(error),
            text,
        )
        told.__cause__ = error
        return told

    def raised(self, error: BaseException, text: str) -> BaseException:
        """With the traceback in words as its cause, as ever, where it has none of its own."""
        if error.__cause__ is None and text:
            error.__cause__ = _private.RemoteTraceback(text)
        return error

    def no_start(self, error: BaseException) -> BaseException:
        return error


_StandardPool: Any = _standard.Pool  # its signatures are narrower than ours


class Pool(_StandardPool):  # type: ignore[misc]
    """Worker processes that take calls.

    A worker that dies takes one call along, the one in its hands, which ends with `WorkerDied`;
    it is replaced, and all other calls go on. An initializer that fails ends every call with its
    exception.

    Args:
        processes: How many; ``None``: as many as CPUs that this process may use.
        initializer: Called by each worker before its first call.
        initargs: Its arguments.
        maxtasksperchild: Tasks (chunks, or single calls) after which a worker is replaced.
        context: Whose processes the workers are.

    Raises:
        ValueError: A number is out of range.
        TypeError: The initializer cannot be called.
        StartError: A worker cannot be started.
    """

    _words: Words = _PoolWords()

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._state = CLOSE  # until it stands: nothing is to be warned of
        self._ctx: Any = context or _current.context()
        if processes is None:
            processes = cpus.allowed()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = processes
        self._crew: Any = self._make_crew(processes, initializer, tuple(initargs), maxtasksperchild)
        self._terminate = util.Finalize(self, _end_crew, args=(self._crew,), exitpriority=15)
        self._state = RUN

    def _make_crew(
        self,
        processes: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        tasks: int | None,
    ) -> Any:
        context, make = self._ctx, self.Process

        def start(target: Callable[..., None], args: tuple[Any, ...]) -> Any:
            process = make(context, target=target, args=args)
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            process.start()
            return process

        return Crew(processes, start, initializer, initargs, tasks=tasks, words=self._words)

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Make a worker's process; a subclass may override it."""
        return ctx.Process(*args, **kwds)

    def __repr__(self) -> str:
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>"
        )

    def __del__(
        self,
        _warn: Any = warnings.warn,
        RUN: str = RUN,
        _is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if getattr(self, "_state", None) != RUN or not self._crew.is_owner():
            return
        _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)
        if not _is_finalizing():  # else the exit function has ended it, and our modules are gone
            self._crew.terminate(())

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end(interrupted=isinstance(error, KeyboardInterrupt))

    @property
    def _pool(self) -> list[Any]:
        """The workers' processes, as the standard pool has them."""
        return list(self._crew.workers)

    def _repopulate_pool(self) -> None:
        """Nothing to do: the crew sees to it by itself."""

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")
        if not self._crew.is_owner():
            raise ValueError("Pool not running (it belongs to the process that made it)")

    # --- calls -----------------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Call ``func(*args, **kwds)`` in a worker and wait for it.

        Args:
            timeout: Seconds after which the call is stopped, and its worker with it.

        Raises:
            CallTimeout: It took longer.
            WorkerDied: Its worker died.
            BaseException: What the call raised.
        """
        self._check_running()
        answer = Answer()
        call = Call(func, tuple(args), kwds or {}, answer.finish, None, timeout)
        crew = self._crew
        if crew.encode(call) and (timeout is not None or not crew.call(call, answer.finish)):
            check_waiter(self)
            crew.submit_encoded(call)
        return answer.get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncResult:
        """As `apply`, without waiting."""
        self._check_running()
        result = AsyncResult(self, callback, error_callback)
        call = Call(func, tuple(args), kwds or {}, result.finish, None, timeout)
        if self._crew.encode(call):
            self._crew.submit_encoded(call)
        return result

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """``[func(item) for item in iterable]``, in the workers.

        Args:
            chunksize: Calls that go to a worker together, at least; ``None``: by measured time.
            timeout: Seconds that each call may take.
        """
        results: list[Any] = self.map_async(func, iterable, chunksize, timeout=timeout).get()
        return results

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """``[func(*item) for item in iterable]``, in the workers."""
        results: list[Any] = self.starmap_async(func, iterable, chunksize, timeout=timeout).get()
        return results

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> MapResult:
        """As `map`, without waiting."""
        return self._map(ITEM, func, iterable, chunksize, callback, error_callback, timeout)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> MapResult:
        """As `starmap`, without waiting."""
        return self._map(STAR, func, iterable, chunksize, callback, error_callback, timeout)

    def _map(
        self,
        shape: int,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Any,
        error_callback: Any,
        timeout: float | None,
    ) -> MapResult:
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        count = len(iterable)  # type: ignore[arg-type]
        result = MapResult(self, callback, error_callback)
        if chunksize is None:
            # a task, for maxtasksperchild, is what the standard pool would make one; otherwise
            # the time that calls take decides
            limited = getattr(self._crew, "_tasks", None) is not None
            chunksize = -(-count // (self._processes * 4)) if limited else 1
        job = self._job(shape, func, result, iterable, max(1, chunksize), timeout, None)
        if job is not None:
            self._crew.submit_map(job)
        return result

    def _job(
        self,
        shape: int,
        func: Callable[..., Any],
        sink: Any,
        iterable: Iterable[Any],
        chunk: int,
        timeout: float | None,
        limit: int | None,
    ) -> MapJob | None:
        try:
            blob = self._dump(func)
        except Exception as error:
            sink.abandoned(error)
            return None
        return MapJob(shape, func, blob, sink, iterable, chunk=chunk, timeout=timeout, limit=limit)

    def _dump(self, func: Callable[..., Any]) -> bytes | None:
        return pickling.dump_function(func)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
    ) -> IMapIterator:
        """As `map`, an item at a time: the results come in the order of the input.

        Args:
            buffersize: How many items may be taken from the input before their results were
                taken from here; ``None`` has no limit but what the workers need.
        """
        return self._imap(IMapIterator(self), func, iterable, chunksize, buffersize, timeout)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
    ) -> IMapIterator:
        """As `imap`; the results come as the calls end."""
        return self._imap(
            IMapUnorderedIterator(self), func, iterable, chunksize, buffersize, timeout
        )

    def _imap(
        self,
        results: IMapIterator,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        timeout: float | None,
    ) -> IMapIterator:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be at least 1 or None, got {buffersize!r}")
        job = self._job(ITEM, func, results, iterable, chunksize, timeout, buffersize)
        if job is not None:
            results.job = job if buffersize is not None else None
            self._crew.submit_map(job)
        return results

    # --- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls; the workers end when all are done."""
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()

    def terminate(self) -> None:
        """End the workers now, with everything below them.

        Who waits for a call that has not ended gets `PoolTerminated`.
        """
        self._end()

    def _end(self, *, interrupted: bool = False) -> None:
        self._state = TERMINATE
        if interrupted and self._terminate.still_active():
            self._terminate.cancel()
            _end_crew(self._crew, interrupted=True)
        self._terminate()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers have ended, after `close` or `terminate`.

        Args:
            timeout: Longest wait in seconds; ``None`` has no limit.

        Returns:
            Whether they have.

        Raises:
            ValueError: The pool was not closed.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._crew.lift_limits()
        ended: bool = self._crew.join(timeout)
        return ended


class ThreadPool(Pool, _private.ThreadPool):  # type: ignore[misc]
    """As `Pool`, with threads of this process for workers.

    Args:
        processes: How many threads; ``None``: as many as CPUs that this process may use.
        initializer: Called by each before its first call.
        initargs: Its arguments.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(processes, initializer, initargs)

    def _make_crew(
        self,
        processes: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        tasks: int | None,
    ) -> Any:
        return ThreadCrew(processes, initializer, initargs, tasks)

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """A thread with a process's methods."""
        from multiprocessing.dummy import Process

        return Process(*args, **kwds)

    def _dump(self, func: Callable[..., Any]) -> bytes | None:
        return None


def _end_crew(crew: Any, interrupted: bool = False) -> None:
    if not crew.is_owner():
        return
    if interrupted or exit_hooks.was_interrupted():
        steps = stopping.after_interrupt(stopping.GRACE)
    else:
        steps = stopping.terminating(stopping.GRACE)
    crew.terminate(steps, PoolTerminated("the pool was terminated before the call had ended"))
