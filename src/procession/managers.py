"""Managers: objects in a server process, and proxies of them in any other.

The server is a process like all others: it goes when its program does, however that ends, and
whoever calls a proxy after its server died is told so, by ManagerDied. The classes are subclasses
of `multiprocessing.managers`'.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from multiprocessing import connection as _connection
from multiprocessing import managers as _standard
from multiprocessing import util
from typing import TYPE_CHECKING, Any

import procession
from procession import pool, shared_memory
from procession._launch import segments
from procession._launch.handle import Handle
from procession._managed import proxies, server, servers
from procession._managed.proxies import (
    AcquirerProxy,
    ArrayProxy,
    AutoProxy,
    BarrierProxy,
    BaseProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    NamespaceProxy,
    PoolProxy,
    SetProxy,
    ValueProxy,
)
from procession._managed.server import Server
from procession.errors import ManagerDied

if TYPE_CHECKING:  # at run time by __getattr__, with all that is private
    from multiprocessing.managers import Token

__all__ = [
    "BaseManager",
    "BaseProxy",
    "SharedMemoryManager",
    "SyncManager",
    "Token",
]

_private: Any = _standard
_procession: Any = procession
_State: Any = _private.State
_SHUTDOWN = 1.0  # seconds for each step of the server's end, unless the manager says otherwise

for _kind in vars(proxies).copy().values():  # they pickle and present themselves by this name
    if isinstance(_kind, type) and issubclass(_kind, BaseProxy):
        _kind.__module__ = __name__
Server.__module__ = AutoProxy.__module__ = MakeProxyType.__module__ = __name__


class BaseManager(_private.BaseManager):  # type: ignore[misc]
    """Starts a server process, or connects to one, and makes proxies of objects in it.

    Args:
        address: Where the server listens: ``(host, port)``, or a path; ``None``: where no other
            user can reach it, and without a file.
        authkey: What both sides prove to know; ``None``: this process's own.
        serializer: ``"pickle"`` or ``"xmlrpclib"``.
        ctx: The context whose process the server is.
        shutdown_timeout: Seconds for each step of `shutdown`: asking, terminating, killing.
    """

    _Server = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = _SHUTDOWN,
    ) -> None:
        # not `super()`: a SharedMemoryManager's starts the standard resource tracker
        start: Any = _private.BaseManager.__init__
        start(self, address, authkey, serializer, ctx or _procession.get_context())
        self._shutdown_timeout = shutdown_timeout

    def get_server(self) -> Any:
        """The server itself, to be run by this process with ``serve_forever()``."""
        self._check_initial()
        self._registry = _registry(type(self))
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Use a server that somebody else has started at the address."""
        self._registry = _registry(type(self))
        with servers.telling(self._address):
            super().connect()

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        """Start the server.

        Args:
            initializer: Called in it, before it serves.
            initargs: The initializer's arguments.

        Raises:
            ManagerDied: It ended before it served; ``__cause__`` is what the initializer raised.
            StartError: It cannot be started.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._registry = _registry(type(self))
        reader, writer = _connection.Pipe(duplex=False)
        with reader:
            with writer:
                process = self._start(writer, initializer, initargs)
            _connection.wait([reader, process.sentinel])
            try:
                if not reader.poll():  # others may have a copy of the writer: no end is to be seen
                    raise EOFError
                address = reader.recv()
            except EOFError:
                died = _failed_start(process)
                raise died from died.__cause__
        self._process, self._address = process, address
        self._state.value = _State.STARTED
        servers.started(address, process)
        self.shutdown = util.Finalize(
            self,
            _end,
            args=(
                process,
                address,
                self._authkey,
                self._serializer,
                self._state,
                self._shutdown_timeout,
            ),
            exitpriority=0,
        )

    def _start(self, writer: Any, initializer: Any, initargs: Any) -> Any:
        process = self._ctx.Process(
            target=server.run,
            args=(
                self._Server,
                self._registry,
                self._address,
                self._authkey,
                self._serializer,
                writer,
                initializer,
                initargs,
            ),
        )
        process.name = f"{type(self).__name__}-{':'.join(map(str, process._identity))}"
        process.start()
        return process

    def _check_initial(self) -> None:
        if self._state.value == _State.STARTED:
            raise _private.ProcessError("Already started server")
        if self._state.value == _State.SHUTDOWN:
            raise _private.ProcessError("Manager has shut down")

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> Any:
        with servers.telling(self._address):
            return super()._create(typeid, *args, **kwds)

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Any = None,
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Let managers of this class have objects of a type.

        Args:
            typeid: Its name, and the name of the manager's method that makes one.
            callable: What makes the object, in the server; not needed by who only connects.
            proxytype: The class of its proxies; ``None``: one with all its public methods.
            exposed: Names of the methods that proxies may call.
            method_to_typeid: Methods that return a proxy, and the type of what they return.
            create_method: Whether the manager gets the method.
        """
        # multiprocessing's own proxies are ours here
        ours: Any = AutoProxy if proxytype is None else _OURS.get(proxytype, proxytype)
        super().register(typeid, callable, ours, exposed, method_to_typeid, create_method=False)
        proxies.types[typeid] = ours
        if create_method:
            setattr(cls, typeid, _maker(typeid))


_OURS = {
    getattr(_private, kind.__name__): kind
    for kind in (
        *(AcquirerProxy, ArrayProxy, AutoProxy, BarrierProxy, BaseProxy, ConditionProxy, DictProxy),
        *(EventProxy, IteratorProxy, ListProxy, NamespaceProxy, PoolProxy, ValueProxy),
    )
}


def _maker(typeid: str) -> Callable[..., Any]:
    """The method of a manager that makes an object in the server, and a proxy of it here."""

    def make(self: Any, /, *args: Any, **kwds: Any) -> Any:
        token, exposed = self._create(typeid, *args, **kwds)
        proxytype = self._registry[typeid][-1]
        proxy = proxytype(
            token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
        )
        with closing(self._Client(token.address, authkey=self._authkey)) as connection:
            _private.dispatch(connection, None, "decref", (token.id,))
        return proxy

    make.__name__ = typeid
    return make


def _registry(kind: Any) -> dict[str, Any]:
    """The types of a class of managers.

    Under `procession run` a program registers its types with the standard classes, which ours
    stand for: there, what it has put in the place of a standard type counts, and not ours.
    """
    types: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for typeid, entry in base.__dict__.get("_registry", {}).items():
            there = types.get(typeid)
            if there is None or base.__module__ != __name__ or _is_standard(typeid, there):
                types[typeid] = entry
    return types


def _is_standard(typeid: str, entry: Any) -> bool:
    """Whether an entry is what the standard library, or this module, has of that name."""
    mine = SyncManager.__dict__["_registry"].get(typeid)
    proxytype = _OURS.get(entry[-1], entry[-1])
    return mine is not None and (
        typeid == "Pool" or (entry[0] == mine[0] and proxytype == mine[-1])
    )


def _failed_start(process: Any) -> ManagerDied:
    name, pid = process.name, process.pid
    process.join()
    died = ManagerDied(name, pid, process._popen.ending)
    try:
        died.__cause__ = process.exception()
    except Exception:
        pass  # it raised nothing, or is a process of the standard library's
    return died


def _end(
    process: Any, address: Any, authkey: bytes, serializer: str, state: Any, limit: float
) -> None:
    """Shut the server down: ask it, then end it and what is below it; each step is bounded."""
    if process.is_alive():
        try:
            server.ask_to_end(address, authkey, serializer, limit)
        except Exception:
            pass  # it is stopped, or too busy, or gone just now
        process.join(limit)
        if process.is_alive():
            _stop(process, limit)
    state.value = _State.SHUTDOWN
    servers.ended(address)
    _private.BaseProxy._address_to_local.pop(address, None)


def _stop(process: Any, limit: float) -> None:
    if isinstance(process._popen, Handle):
        from procession._launch import stopping

        stopping.end_trees([process._popen], stopping.gently(2 * limit))
        process.join(0)
        return
    process.terminate()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()


class SyncManager(BaseManager, _private.SyncManager):  # type: ignore[misc]
    """Has what threads share, and lists, dicts, sets, values and namespaces."""


for _typeid, _callable, _proxytype in (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", pool.Pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("set", set, SetProxy),
    ("Value", _private.Value, ValueProxy),
    ("Array", _private.Array, ArrayProxy),
    ("Namespace", _private.Namespace, NamespaceProxy),
):
    SyncManager.register(_typeid, _callable, _proxytype)
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)


# --- named shared memory --------------------------------------------------------------------------


class _SharedMemoryTracker(_private._SharedMemoryTracker):  # type: ignore[misc]
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


class SharedMemoryServer(Server, _private.SharedMemoryServer):  # type: ignore[misc]
    """A server that keeps the names of segments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        it: Any = self
        name = it.shared_memory_context.shared_memory_context_name
        it.shared_memory_context = _SharedMemoryTracker(name, [])


class SharedMemoryManager(BaseManager, _private.SharedMemoryManager):  # type: ignore[misc]
    """Makes named shared memory that goes with it, and with the program, however that ends."""

    _Server = SharedMemoryServer

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
        try:
            with servers.telling(self._address):
                with closing(self._Client(self._address, authkey=self._authkey)) as connection:
                    _private.dispatch(connection, None, "track_segment", (segment.name,))
            segments.hand_over(segment.name)
        except BaseException:
            segment.close()
            segment.unlink()
            raise


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
