"""`multiprocessing.pool`; a Pool that is given no context has our default one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import pool as _standard
from typing import TYPE_CHECKING, Any

import procession

if TYPE_CHECKING:  # at run time by __getattr__, with all that is private
    from multiprocessing.pool import ThreadPool

__all__ = ["Pool", "ThreadPool"]

_procession: Any = procession


class Pool(_standard.Pool):
    """As the standard one."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        context = context or _procession.get_context()
        super().__init__(processes, initializer, initargs, maxtasksperchild, context)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
