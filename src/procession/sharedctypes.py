"""`multiprocessing.sharedctypes`; its locks are of our contexts where none is given."""

from __future__ import annotations

from multiprocessing import sharedctypes as _standard
from typing import TYPE_CHECKING, Any

import procession

if TYPE_CHECKING:  # at run time by __getattr__, with all that is private
    from multiprocessing.sharedctypes import RawArray, RawValue, copy

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_procession: Any = procession


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """As the standard one."""
    ctx = ctx or _procession.get_context()
    return _standard.Value(typecode_or_type, *args, lock=lock, ctx=ctx)


def Array(
    typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None
) -> Any:
    """As the standard one."""
    ctx = ctx or _procession.get_context()
    return _standard.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=ctx)


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """As the standard one."""
    return _standard.synchronized(obj, lock, ctx or _procession.get_context())


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
