"""Contexts: one for each start method, and the default one, whose method can be set once.

They are `multiprocessing`'s contexts with our processes and pools; what is not ours yet (locks,
queues, managers) is the standard library's, bound to the context that it is taken from.
"""

from __future__ import annotations

import sys
from multiprocessing import context as _standard
from multiprocessing.context import (  # type: ignore[attr-defined]
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    reduction,
    set_spawning_popen,
)

from procession import _current
from procession import process as _process
from procession._launch import replacement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._launch.handle import Handle

__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "ProcessError",
    "SpawnContext",
    "SpawnProcess",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "reduction",
    "set_spawning_popen",
]

_ON_ERROR = ("ignore", "warn", "fail")

Process = _process.Process


class ForkServerProcess(_process.Process):
    """A process forked from the keeper's zygote."""

    _method = "forkserver"

    @staticmethod
    def _Popen(process: Any) -> Handle:
        from procession._launch.kept import KeptHandle

        return KeptHandle(process)


class SpawnProcess(_process.Process):
    """A process in a fresh interpreter."""

    _method = "spawn"

    @staticmethod
    def _Popen(process: Any) -> Handle:
        from procession._launch.kept import SpawnHandle

        return SpawnHandle(process)

    @staticmethod
    def _after_fork() -> None:
        """A fresh interpreter has no copies of the starter's objects to see to."""


class ForkProcess(_process.Process):
    """A process that is a copy of its starter."""

    _method = "fork"

    @staticmethod
    def _Popen(process: Any) -> Handle:
        from procession._launch.forked import ForkHandle

        return ForkHandle(process)


class _Context(BaseContext):
    """What our contexts share."""

    def get_context(self, method: str | None = None) -> Any:
        """This context, or the one of another start method.

        Raises:
            ValueError: There is no such start method.
        """
        if method is None:
            return self
        try:
            return _contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """Worker processes of this context that take calls; see `procession.pool.Pool`."""
        from procession.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, self.get_context())

    def set_forkserver_preload(
        self, module_names: Sequence[str], *, on_error: str = "ignore"
    ) -> None:
        """Modules that the fork server imports before its first child, so that children have them.

        Call it before the first process is started.

        Args:
            module_names: Names as in an import statement. ``"__main__"`` lets main's file be run
                there, too, once for all children, as it is where this is never called; a list
                without it lets each child run it.
            on_error: What happens where one cannot be imported: ``"ignore"``, ``"warn"`` on
                stderr, or ``"fail"``, which makes every start raise StartError.

        Raises:
            TypeError: A name is no string.
            ValueError: ``on_error`` is none of the three.
        """
        from procession._launch import keeper_client

        if on_error not in _ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(_ON_ERROR)}, got {on_error!r}")
        names = list(module_names)
        if not all(type(name) is str for name in names):
            raise TypeError("module_names must be a list of strings")
        keeper_client.preload = [name for name in names if name != "__main__"]
        keeper_client.preload_main = "__main__" in names
        keeper_client.preload_on_error = on_error

    def Manager(self) -> Any:
        """A started manager, its server in a process of this context; see `procession.managers`."""
        from procession.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Lock(self, *, on_owner_death: str = "warn") -> Any:
        """A lock: see `procession.synchronize.Lock`."""
        from procession import synchronize

        return synchronize.Lock(on_owner_death=on_owner_death, ctx=self.get_context())

    def RLock(self, *, on_owner_death: str = "warn") -> Any:
        """A recursive lock: see `procession.synchronize.RLock`."""
        from procession import synchronize

        return synchronize.RLock(on_owner_death=on_owner_death, ctx=self.get_context())

    def Semaphore(
        self, value: int = 1, *, reclaim: bool = False, on_owner_death: str = "warn"
    ) -> Any:
        """A number of permits: see `procession.synchronize.Semaphore`."""
        from procession import synchronize

        return synchronize.Semaphore(
            value, reclaim=reclaim, on_owner_death=on_owner_death, ctx=self.get_context()
        )

    def BoundedSemaphore(
        self, value: int = 1, *, reclaim: bool = False, on_owner_death: str = "warn"
    ) -> Any:
        """Permits that never get more: see `procession.synchronize.BoundedSemaphore`."""
        from procession import synchronize

        return synchronize.BoundedSemaphore(
            value, reclaim=reclaim, on_owner_death=on_owner_death, ctx=self.get_context()
        )

    def Event(self) -> Any:
        """A flag that wakes all who wait for it: see `procession.synchronize.Event`."""
        from procession import synchronize

        return synchronize.Event(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> Any:
        """A condition: see `procession.synchronize.Condition`."""
        from procession import synchronize

        return synchronize.Condition(lock, ctx=self.get_context())

    def Pipe(self, duplex: bool = True) -> Any:
        """Two connected ends: see `procession.connection.Pipe`."""
        from procession import connection

        return connection.Pipe(duplex)

    def Barrier(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Where so many meet: see `procession.synchronize.Barrier`."""
        from procession import synchronize

        return synchronize.Barrier(parties, action, timeout, ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A shared object without a lock: see `procession.sharedctypes.RawValue`."""
        from procession import sharedctypes

        return sharedctypes.RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A shared array without a lock: see `procession.sharedctypes.RawArray`."""
        from procession import sharedctypes

        return sharedctypes.RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A shared object with a lock of this context: see `procession.sharedctypes.Value`."""
        from procession import sharedctypes

        return sharedctypes.Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A shared array with a lock of this context: see `procession.sharedctypes.Array`."""
        from procession import sharedctypes

        return sharedctypes.Array(
            typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context()
        )

    def Queue(
        self, maxsize: int = 0, *, max_bytes: int | None = None, on_writers_gone: str = "proved"
    ) -> Any:
        """A queue; see `procession.queues.Queue`."""
        from procession.queues import Queue

        ctx = self.get_context()
        return Queue(maxsize, ctx=ctx, max_bytes=max_bytes, on_writers_gone=on_writers_gone)

    def JoinableQueue(
        self, maxsize: int = 0, *, max_bytes: int | None = None, on_writers_gone: str = "proved"
    ) -> Any:
        """A queue that counts what is done; see `procession.queues.JoinableQueue`."""
        from procession.queues import JoinableQueue

        ctx = self.get_context()
        return JoinableQueue(maxsize, ctx=ctx, max_bytes=max_bytes, on_writers_gone=on_writers_gone)

    def SimpleQueue(self, *, max_bytes: int | None = None, on_writers_gone: str = "proved") -> Any:
        """A queue with the fewest methods; see `procession.queues.SimpleQueue`."""
        from procession.queues import SimpleQueue

        ctx = self.get_context()
        return SimpleQueue(ctx=ctx, max_bytes=max_bytes, on_writers_gone=on_writers_gone)

    def freeze_support(self) -> None:
        """Nothing to do: children never execute a frozen program's own file by accident."""


class ForkServerContext(_Context):
    """Context of start method ``forkserver``."""

    _name = "forkserver"
    Process = ForkServerProcess


class SpawnContext(_Context):
    """Context of start method ``spawn``."""

    _name = "spawn"
    Process = SpawnProcess


class ForkContext(_Context):
    """Context of start method ``fork``."""

    _name = "fork"
    Process = ForkProcess


_contexts: dict[str, _Context] = {
    "forkserver": ForkServerContext(),
    "spawn": SpawnContext(),
    "fork": ForkContext(),
}


class DefaultContext(_Context):
    """The context whose start method is set once, by the user or by its first use."""

    Process = _process.Process

    def __init__(self) -> None:
        self._actual_context: _Context | None = None

    def get_context(self, method: str | None = None) -> Any:
        if method is not None:
            return super().get_context(method)
        if replacement.installed:  # then both libraries have one default, the standard's
            return _contexts[_standard_default.get_context()._name]
        if self._actual_context is None:
            self._actual_context = _contexts["forkserver"]
        return self._actual_context

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the start method of processes that are started without a context of their own.

        Raises:
            RuntimeError: It is set already, or was fixed by use, and ``force`` is false.
            ValueError: There is no such start method.
        """
        if replacement.installed:
            _standard_default.set_start_method(method, force)
            return
        if self._actual_context is not None and not force:
            raise RuntimeError("context has already been set")
        if method is None and force:
            self._actual_context = None
            return
        self._actual_context = self.get_context(method)

    def get_start_method(self, allow_none: bool = False) -> str | None:  # type: ignore[override]
        """The start method in force; asking fixes it, unless ``allow_none``."""
        if allow_none and self.fixed_method() is None:
            return None
        name: str = self.get_context()._name
        return name

    def get_all_start_methods(self) -> list[str]:
        """The start methods there are, in the order in which this Python's own library has them."""
        methods: list[str] = _standard_default.get_all_start_methods()
        return methods

    # --- what `_current` asks ---------------------------------------------------------------

    def adopt(self, method: str | None) -> None:
        """Take over the start method of this process's starter."""
        if method is not None:
            _force_start_method(method)

    def fixed_method(self) -> str | None:
        """The start method where it is fixed."""
        if replacement.installed:
            return _standard_default.get_start_method(allow_none=True)  # type: ignore[no-any-return]
        return self._actual_context._name if self._actual_context else None  # type: ignore[attr-defined]

    def popen(self, process: Any) -> Handle:
        """Start a process by the method in force."""
        handle: Handle = self.get_context().Process._Popen(process)
        return handle


_standard_default: Any = _standard._default_context
_default_context = DefaultContext()
_current.default = _default_context


def _force_start_method(method: str) -> None:
    if replacement.installed:
        _standard._force_start_method(method)
        return
    _default_context._actual_context = _contexts[method]


if "__main__" in sys.modules:  # what a child pickles from its copy of main is main's own
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
