"""ProcessPoolExecutor for `concurrent.futures`, and `map` for one line."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import _base as _standard
from concurrent.futures import process as _process
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import process as _processes
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from procession import _current, errors
from procession._crew.crew import Crew
from procession._crew.future import CallFuture
from procession._crew.jobs import ITEM, STAR, Call
from procession._crew.results import IMapIterator, IMapUnorderedIterator
from procession._crew.stream import submit_map, taken
from procession._crew.words import Words, again, exit_code
from procession._kernel import cpus
from procession._launch import exit_hooks, replacement, stopping

if TYPE_CHECKING:
    from procession._crew.hand import Hand
    from procession.ending import Ending

__all__ = ["ProcessPoolExecutor", "map"]

_private: Any = _process
_futures: Any = _standard
IN_FLIGHT = 4096  # items of `map` between its input and its user, unless that says otherwise


class WorkerDied(errors.WorkerDied, BrokenProcessPool):
    """The worker that had a call in its hands died; only that call is lost."""


class InitializerFailed(errors.ProcessionError, BrokenProcessPool):
    """The executor's initializer failed, or no worker can be started; ``__cause__`` says why."""


class ResultLost(errors.ResultNotPicklable, BrokenProcessPool):
    """What a call returned cannot be unpickled here; ``__cause__`` says why."""


class ExecutorTerminated(errors.PoolTerminated, BrokenProcessPool):
    """The executor was terminated before the call had ended."""


class _ExecutorWords(Words):
    """How an executor tells of failures: in kinds that code around the standard one catches."""

    def died(self, hand: Hand, ending: Ending, call: str, stack: str) -> BaseException:
        return WorkerDied(hand.process.name, hand.pid, ending, call, stack)

    def unsendable(self, call: str, text: str, error: BaseException) -> BaseException:
        error.add_note(f"{call} returned {text}")
        return self.raised(error, "")

    def unloadable(self, call: str, error: BaseException) -> BaseException:
        lost = ResultLost(
            f"what {call} returned cannot be unpickled here: {type(error).__name__}: {error}"
        )
        lost.__cause__ = error
        return lost

    def raised(self, error: BaseException, text: str) -> BaseException:
        if error.__cause__ is None and text:
            error.__cause__ = _private._RemoteTraceback(f'\n"""\n{text}"""')
        return error

    def closed(self) -> BaseException:
        return RuntimeError("cannot schedule new futures after shutdown")

    def no_start(self, error: BaseException) -> BaseException:
        if isinstance(error, BrokenProcessPool):
            return error
        failed = InitializerFailed(f"no worker can be used: {type(error).__name__}: {error}")
        failed.__cause__ = error
        return failed


class StandardWords(_ExecutorWords):
    """For an unchanged program: ``sys.exit`` in a call is raised where its result is asked for."""

    def exited(self, call: str, error: BaseException) -> BaseException:
        error.code = exit_code(error)  # type: ignore[attr-defined]
        return error


class ProcessPoolExecutor(Executor):
    """An executor whose calls run in worker processes.

    A worker that dies takes one call along, the one in its hands, which ends with `WorkerDied` (a
    BrokenProcessPool); it is replaced, and all other calls go on.

    Args:
        max_workers: How many workers; ``None``: as many as CPUs that this process may use. They are
            started when they are needed.
        mp_context: Whose processes they are.
        initializer: Called by each before its first call. One that fails ends all calls.
        initargs: Its arguments.
        max_tasks_per_child: Calls after which a worker is replaced.
        call_timeout: Seconds that each call may take before it is stopped with `CallTimeout`.

    Raises:
        ValueError: A number is out of range.
        TypeError: The initializer cannot be called, or a number is none.
    """

    _words: Words = _ExecutorWords()

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        call_timeout: float | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = cpus.allowed()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if mp_context is None:
            mp_context = _current.context()
            if max_tasks_per_child is not None:
                mp_context = mp_context.get_context("spawn")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        method = mp_context.get_start_method(allow_none=False)
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if method == "fork":
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' multiprocessing start "
                    "method; supply a different mp_context."
                )
        if call_timeout is not None and not call_timeout > 0:
            raise ValueError(f"call_timeout must be more than 0 seconds, got {call_timeout!r}")
        self._max_workers = max_workers
        self._mp_context = mp_context
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._max_tasks_per_child = max_tasks_per_child
        self._call_timeout = call_timeout
        self._on_demand = method != "fork"  # it forks before it has a thread
        self._crew: Crew | None = None
        self._lock = threading.Lock()
        self._shutdown = False
        self._maps: weakref.WeakSet[IMapIterator] = weakref.WeakSet()

    @property
    def _processes(self) -> dict[int, Any]:
        """Pid → worker, as the standard executor has them."""
        crew = self._crew
        return {} if crew is None else {process.pid: process for process in crew.workers}

    @property
    def _broken(self) -> Any:
        crew = self._crew
        return False if crew is None or crew.broken is None else str(crew.broken)

    @property
    def _executor_manager_thread(self) -> Any:
        """The dispatcher, as the standard executor has one."""
        return None if self._crew is None else self._crew._thread

    def _running_crew(self) -> Crew:
        with self._lock:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._crew is None:
                self._crew = self._make_crew()
            if not self._crew.is_owner():
                raise RuntimeError("the executor belongs to the process that made it")
            if self._crew.broken is not None:
                raise again(self._crew.broken)
            return self._crew

    def _make_crew(self) -> Crew:
        context = self._mp_context

        def start(target: Callable[..., None], args: tuple[Any, ...]) -> Any:
            process = context.Process(target=target, args=args)
            process.start()
            if _waits_later:
                _leave_to_at_exit([process])
            return process

        initializer, initargs = self._initializer, self._initargs
        if initializer is not None:
            initializer, initargs = _logged, (initializer, initargs)
        crew = Crew(
            self._max_workers,
            start,
            initializer,
            initargs,
            tasks=self._max_tasks_per_child,
            words=self._words,
            on_demand=self._on_demand,
        )
        _register(crew)
        return crew

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn(*args, **kwargs)`` in a worker; the future has its outcome.

        Raises:
            RuntimeError: The executor was shut down.
            BrokenProcessPool: The initializer failed.
        """
        return self.schedule(fn, args, kwargs)

    def schedule(
        self,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Future[Any]:
        """As `submit`, with a limit.

        Args:
            timeout: Seconds after which the call is stopped and its future has `CallTimeout`;
                ``None``: the executor's ``call_timeout``.
        """
        crew = self._running_crew()
        future = CallFuture(crew)
        call = Call(
            fn,
            tuple(args),
            kwargs or {},
            future.finish,
            future.set_running_or_notify_cancel,
            self._call_timeout if timeout is None else timeout,
            future.drop,
        )
        future._call = call
        crew.submit(call)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As the built-in `map`, in the workers.

        Args:
            timeout: Seconds, from now on, in which all results must have come.
            chunksize: Calls that go to a worker together, at least; otherwise measured time says.
            buffersize: How many calls may be under way whose results were not taken; then the
                input is taken as needed, else all of it at once.

        Raises:
            TimeoutError: The time was over.
            BaseException: What a call raised; the calls after it are not begun.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        crew = self._running_crew()
        shape = ITEM if len(iterables) == 1 else STAR
        items: Iterable[Any] = iterables[0] if shape == ITEM else zip(*iterables, strict=False)
        if buffersize is None:
            items = list(items)
        results = submit_map(
            crew, IMapIterator(self), shape, fn, items, chunksize, self._call_timeout, buffersize
        )
        self._maps.add(results)
        return taken(crew, results, deadline)

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None:
        """Take no more calls; the workers end when all are done.

        Args:
            wait: Wait for that.
            cancel_futures: Cancel the calls that were not begun.
            timeout: Longest wait in seconds; what still runs then is stopped.
        """
        with self._lock:
            self._shutdown = True
            crew = self._crew
        if crew is None or not crew.is_owner():
            return
        if cancel_futures:
            crew.cancel_waiting(CancelledError())
        crew.close()
        if wait or timeout is not None:
            crew.lift_limits()
            if not crew.join(timeout):
                self._terminate(stopping.gently(stopping.GRACE))
                crew.join()

    def terminate_workers(self) -> None:
        """Terminate the workers; calls that have not ended fail, and no new ones are taken."""
        self._terminate(stopping.terminating(stopping.GRACE))

    def kill_workers(self) -> None:
        """Kill the workers; calls that have not ended fail, and no new ones are taken."""
        self._terminate(())

    def _terminate(self, steps: stopping.Steps) -> None:
        with self._lock:
            self._shutdown = True
            crew = self._crew
        if crew is not None and crew.is_owner():
            crew.terminate(
                steps, ExecutorTerminated("the executor was stopped before the call had ended")
            )

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None and crew.is_owner():
            crew.close()


class StandardExecutor(ProcessPoolExecutor):
    """What serves `concurrent.futures` in an unchanged program."""

    _words = StandardWords()


StandardExecutor.__name__ = StandardExecutor.__qualname__ = "ProcessPoolExecutor"
if replacement.installed:
    replacement.patch_executors(_process)


def map(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    workers: int | None = None,
    ordered: bool = True,
    chunksize: int = 1,
    buffersize: int | None = None,
    timeout: float | None = None,
    context: Any = None,
    progress: bool = False,
) -> Iterator[Any]:
    """As the built-in `map`, in worker processes that live as long as the iterator::

        for small in procession.map(shrink, pictures):
            ...

    The input may be endless: items are taken only as far ahead as ``buffersize`` says.

    Args:
        fn: What to call.
        iterables: Its arguments, one of each for a call.
        workers: How many; ``None``: as many as CPUs that this process may use, and no more than
            its cgroup's quota of their time keeps busy.
        ordered: Whether the results come in the order of the input, or as they are ready.
        chunksize: Calls that go to a worker together, at least; otherwise measured time says.
        buffersize: How many items may be on their way from the input to you.
        timeout: Seconds that each call may take before it is stopped.
        context: Whose processes the workers are.
        progress: Show a bar: in a terminal with rich, in a notebook with tqdm, where there is one.

    Raises:
        CallTimeout: A call took too long.
        WorkerDied: The worker that had a call in its hands died.
        BaseException: What a call raised; the calls after it are not begun.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__!r}: {fn!r}")
    if not iterables:
        raise TypeError("map() must have at least one iterable")
    if chunksize < 1:
        raise ValueError(f"chunksize must be at least 1, got {chunksize!r}")
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be at least 1 or None, got {buffersize!r}")
    results = _mapped(
        ProcessPoolExecutor(cpus.paid_for() if workers is None else workers, context),
        fn,
        iterables,
        ordered,
        chunksize,
        buffersize or IN_FLIGHT,
        timeout,
    )
    if progress:
        from procession._crew.progress import shown

        sizes = [len(one) for one in iterables if isinstance(one, Sized)]
        return shown(results, min(sizes, default=None))
    return results


def _mapped(
    executor: ProcessPoolExecutor,
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    ordered: bool,
    chunk: int,
    limit: int,
    timeout: float | None,
) -> Iterator[Any]:
    shape = ITEM if len(iterables) == 1 else STAR
    items = iterables[0] if shape == ITEM else zip(*iterables, strict=False)
    sink = IMapIterator(executor) if ordered else IMapUnorderedIterator(executor)
    crew = executor._running_crew()
    try:
        yield from taken(
            crew, submit_map(crew, sink, shape, fn, items, chunk, timeout, limit), None
        )
    except GeneratorExit:
        executor.kill_workers()
        raise
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        steps = stopping.after_interrupt if interrupted else stopping.terminating
        executor._terminate(steps(stopping.GRACE))
        raise
    finally:
        executor.shutdown()


def _logged(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Run the initializer as the standard executor does."""
    try:
        initializer(*initargs)
    except KeyboardInterrupt:
        raise  # who sent that knows
    except BaseException:
        _futures.LOGGER.critical("Exception in initializer:", exc_info=True)
        raise


# --- the interpreter's exit -------------------------------------------------------------------

_exiting = False
_waits_later = False
_open: weakref.WeakSet[Crew] = weakref.WeakSet()
_registered_in = 0


def _register(crew: Crew) -> None:
    global _registered_in
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        # before any thread is waited for: a thread may wait for a call of ours
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
        if _processes.parent_process() is not None:
            util.Finalize(None, _wait_later, exitpriority=1)
    _open.add(crew)


def _wait_later() -> None:
    """In a child all processes are joined before the threads: then ours would never be told."""
    global _waits_later
    _waits_later = True
    _leave_to_at_exit([worker for crew in list(_open) for worker in crew.workers])


def _leave_to_at_exit(workers: list[Any]) -> None:
    _processes._children.difference_update(workers)  # type: ignore[attr-defined]


def _at_exit() -> None:
    """Wait for what was submitted, as the standard executor does; after Ctrl-C, stop it."""
    global _exiting
    _exiting = True
    crews = [crew for crew in list(_open) if crew.is_owner()]
    for crew in crews:
        crew.close()
    for crew in crews:
        if exit_hooks.was_interrupted():
            crew.terminate(
                stopping.after_interrupt(stopping.GRACE),
                ExecutorTerminated("the program was interrupted before the call had ended"),
            )
        crew.lift_limits()
        crew.join()


os.register_at_fork(after_in_child=_open.clear)
