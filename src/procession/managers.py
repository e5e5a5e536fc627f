"""`multiprocessing.managers`; a manager that is given no context has our default one."""

from __future__ import annotations

from multiprocessing import managers as _standard
from typing import TYPE_CHECKING, Any

import procession
from procession import shared_memory
from procession._launch import segments

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


class _SharedMemoryTracker(_standard._SharedMemoryTracker):  # type: ignore[misc,name-defined]
    """The names of a manager's segments, which go with it."""

    def destroy_segment(self, segment_name: str) -> None:
        """Unlink a segment, unless somebody has done so already."""
        self.segment_names.remove(segment_name)
        try:
            segment = shared_memory.SharedMemory(segment_name)
        except FileNotFoundError:
            return
        segment.close()
        segment.unlink()


class SharedMemoryServer(_standard.SharedMemoryServer):
    """As the standard one, for segments of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        context: Any = self.shared_memory_context  # type: ignore[has-type]
        self.shared_memory_context = _SharedMemoryTracker(context.shared_memory_context_name, [])


class SharedMemoryManager(BaseManager, _standard.SharedMemoryManager):
    """As the standard one; what it makes also goes with the program, however that ends."""

    _Server = SharedMemoryServer

    def __init__(self, *args: Any, ctx: Any = None, **kwargs: Any) -> None:
        # not the standard one's, which starts the standard resource tracker
        ctx = ctx or _procession.get_context()
        start: Any = _standard.BaseManager.__init__
        start(self, *args, ctx=ctx, **kwargs)

    def SharedMemory(self, size: int) -> shared_memory.SharedMemory:
        """A new segment, which is unlinked when the manager shuts down."""
        segment = shared_memory.SharedMemory(None, create=True, size=size)
        self._track(segment)
        return segment

    def ShareableList(self, sequence: Any) -> shared_memory.ShareableList:
        """A new list, which is unlinked when the manager shuts down."""
        new = shared_memory.ShareableList(sequence)
        self._track(new.shm)
        return new

    def _track(self, segment: Any) -> None:
        manager: Any = self
        try:
            with manager._Client(manager._address, authkey=manager._authkey) as connection:
                _dispatch(connection, None, "track_segment", (segment.name,))
            segments.hand_over(segment.name)
        except BaseException:
            segment.close()
            segment.unlink()
            raise


_dispatch: Any = _standard.dispatch  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
