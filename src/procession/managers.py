"""`multiprocessing.managers`; a manager that is given no context has our default one."""

from __future__ import annotations

from multiprocessing import managers as _standard
from typing import TYPE_CHECKING, Any

import procession

if TYPE_CHECKING:  # at run time by __getattr__, with all that is private
    from multiprocessing.managers import BaseProxy, Token

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

_procession: Any = procession


class BaseManager(_standard.BaseManager):
    """As the standard one."""

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        **options: Any,
    ) -> None:
        ctx = ctx or _procession.get_context()
        super().__init__(address, authkey, serializer, ctx, **options)


class SyncManager(BaseManager, _standard.SyncManager):
    """As the standard one."""


class SharedMemoryManager(BaseManager, _standard.SharedMemoryManager):
    """As the standard one."""


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
