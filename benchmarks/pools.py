"""Pools and executors of all libraries by one face, for the failure table and the benchmarks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

OURS = ("procession Pool", "procession executor", "ProcessGroup")
STANDARD = ("standard Pool", "standard executor")
PEERS = ("loky", "pebble", "mpire")

LIMIT = 3600.0  # seconds that a result is waited for; who measures has a limit of its own


def available() -> list[str]:
    """The libraries that this environment has."""
    return [*OURS, *STANDARD, *(name for name in PEERS if importlib.util.find_spec(name))]


class Workers:
    """Some workers of a library.

    Args:
        library: One of `available()`.
        method: The start method; a peer that cannot choose takes its own.
        size: How many.
        initializer: Called in each worker first.
    """

    def __init__(
        self, library: str, method: str, size: int, initializer: Callable[[], object] | None = None
    ) -> None:
        self.library = library
        make: Any = getattr(self, "_" + library.replace(" ", "_").lower())
        self.it, self._submit = make(method, size, initializer)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Start a call; what is returned waits for its outcome."""
        ask: Callable[[], Any] = self._submit(fn, *args)
        return ask

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """All results, calls sent one by one."""
        if self.library in ("procession Pool", "standard Pool"):
            return list(self.it.map(fn, items, chunksize=1))
        if self.library == "pebble":
            return list(self.it.map(fn, items, chunksize=1).result())
        if self.library == "mpire":
            return list(self.it.map(fn, items, chunk_size=1))
        return list(self.it.map(fn, items))

    def end(self) -> None:
        """Let them end, when all is done."""
        if self.library in ("procession Pool", "standard Pool", "pebble"):
            self.it.close()
            self.it.join()
        elif self.library == "mpire":
            self.it.stop_and_join()
        elif self.library != "ProcessGroup":
            self.it.shutdown()

    # --- the libraries ---------------------------------------------------------------------

    @staticmethod
    def _pool(library: str, method: str, size: int, initializer: Any) -> Any:
        pool = importlib.import_module(library).get_context(method).Pool(size, initializer)
        return pool, lambda fn, *args: pool.apply_async(fn, args).get

    def _procession_pool(self, method: str, size: int, initializer: Any) -> Any:
        return self._pool("procession", method, size, initializer)

    def _standard_pool(self, method: str, size: int, initializer: Any) -> Any:
        return self._pool("multiprocessing", method, size, initializer)

    def _procession_executor(self, method: str, size: int, initializer: Any) -> Any:
        import procession

        context = procession.get_context(method)
        executor = procession.ProcessPoolExecutor(size, context, initializer)
        return executor, lambda fn, *args: executor.submit(fn, *args).result

    def _standard_executor(self, method: str, size: int, initializer: Any) -> Any:
        import concurrent.futures
        import multiprocessing

        context = multiprocessing.get_context(method)
        executor = concurrent.futures.ProcessPoolExecutor(size, context, initializer)
        return executor, lambda fn, *args: executor.submit(fn, *args).result

    def _processgroup(self, method: str, size: int, initializer: Any) -> Any:
        import procession

        context = procession.get_context(method)

        def submit(fn: Any, *args: Any) -> Any:
            def ask() -> Any:
                with procession.ProcessGroup(context=context) as group:
                    process = group.start(_initialized, initializer, fn, args)
                return process.result()

            return ask

        return None, submit

    def _loky(self, method: str, size: int, initializer: Any) -> Any:
        import loky

        executor = loky.ProcessPoolExecutor(size, initializer=initializer)
        return executor, lambda fn, *args: executor.submit(fn, *args).result

    def _pebble(self, method: str, size: int, initializer: Any) -> Any:
        import multiprocessing

        import pebble

        pool = pebble.ProcessPool(
            size, initializer=initializer, context=multiprocessing.get_context(method)
        )
        return pool, lambda fn, *args: pool.schedule(fn, args=args).result

    def _mpire(self, method: str, size: int, initializer: Any) -> Any:
        import mpire

        pool = mpire.WorkerPool(size, start_method=method)
        options = {} if initializer is None else {"worker_init": initializer}
        return pool, lambda fn, *args: pool.apply_async(fn, args, **options).get


def _initialized(initializer: Callable[[], object] | None, fn: Any, args: Any) -> Any:
    if initializer is not None:
        initializer()
    return fn(*args)
