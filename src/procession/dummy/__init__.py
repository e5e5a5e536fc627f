"""`multiprocessing.dummy`: threads with the face of processes, and our pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import dummy as _standard
from typing import Any

__all__ = list(_standard.__all__)


def Pool(
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
) -> Any:
    """A pool of threads; see `procession.pool.ThreadPool`."""
    from procession.pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_standard)})
