"""Proxies of objects in a manager's server: the standard ones', with ManagerDied where it is dead.

Each is a subclass of the standard proxy of its name. Methods that newer Pythons gave to lists and
dicts, and the proxy of sets, are there on all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from multiprocessing import managers as _standard
from multiprocessing import process
from typing import Any, ClassVar

from procession._managed import servers

_private: Any = _standard

types: dict[str, Any] = {}
"""What makes the proxy of a type that was registered anywhere, for proxies without a manager."""


class BaseProxy(_private.BaseProxy):  # type: ignore[misc]
    """A proxy: an object here that has an object in the manager's server do its work."""

    def _connect(self) -> None:
        with servers.telling(self._token.address):
            super()._connect()

    def _incref(self) -> None:
        with servers.telling(self._token.address):
            super()._incref()

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Have a method of the object called, and return a copy of what it returned.

        Raises:
            ManagerDied: The server is dead.
            BaseException: What the method raised.
        """
        connection = getattr(self._tls, "connection", None)
        if connection is None:
            self._connect()
            connection = self._tls.connection
        try:
            connection.send((self._id, methodname, args, kwds))
            kind, result = connection.recv()
        except (EOFError, ConnectionError) as error:
            self._disconnect()  # who serves this address next may be reached again
            died = servers.obituary(self._token.address)
            if died is None:
                raise
            died.errno = getattr(error, "errno", None)
            raise died from error
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_of_result(*result)
        try:
            raise _private.convert_to_error(kind, result)
        finally:
            del result  # its traceback holds this frame

    def _disconnect(self) -> None:
        connection = self._tls.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _proxy_of_result(self, exposed: tuple[str, ...], token: Any) -> Any:
        """A proxy for what a method returned, also where this proxy came without its manager."""
        registry = getattr(self._manager, "_registry", None)
        make = registry[token.typeid][-1] if registry else types.get(token.typeid, AutoProxy)
        token.address = self._token.address
        proxy = make(
            token,
            self._serializer,
            manager=self._manager,
            authkey=self._authkey,
            exposed=exposed,
        )
        with closing(self._Client(token.address, authkey=self._authkey)) as connection:
            _private.dispatch(connection, None, "decref", (token.id,))
        return proxy

    def __reduce__(self) -> tuple[Any, ...]:
        _, (make, *rest) = super().__reduce__()
        if make is _private.AutoProxy:
            make = AutoProxy
        return _rebuild, (servers.known(self._token.address), make, *rest)


def _rebuild(server: servers.Server | None, make: Any, token: Any, *rest: Any) -> Any:
    servers.learn(token.address, server)
    return _private.RebuildProxy(make, token, *rest)


def _value(other: Any) -> Any:
    """An operand as the server can use it: a proxy's own object, by value."""
    return other._getvalue() if isinstance(other, _private.BaseProxy) else other


# --- made to measure ------------------------------------------------------------------------------


def _method(name: str) -> Callable[..., Any]:
    def call(self: Any, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    call.__name__ = call.__qualname__ = name
    return call


_made: dict[tuple[str, tuple[str, ...]], Any] = {}


def MakeProxyType(name: str, exposed: Iterable[str]) -> Any:
    """A class of proxies that have these methods."""
    key = name, tuple(exposed)
    if key not in _made:
        _made[key] = type(
            name, (BaseProxy,), {each: _method(each) for each in key[1]} | {"_exposed_": key[1]}
        )
    return _made[key]


def AutoProxy(
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> Any:
    """A proxy with all public methods of its object."""
    if authkey is None:
        authkey = manager._authkey if manager is not None else process.current_process().authkey
    if exposed is None:
        client = _private.listener_client[serializer][1]
        with (
            servers.telling(token.address),
            closing(client(token.address, authkey=authkey)) as connection,
        ):
            exposed = _private.dispatch(connection, None, "get_methods", (token,))
    proxy = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )
    proxy._isauto = True
    return proxy


# --- the types that a SyncManager has ------------------------------------------------------------


class IteratorProxy(BaseProxy, _private.IteratorProxy):  # type: ignore[misc]
    """An iterator or generator."""


class AcquirerProxy(BaseProxy, _private.AcquirerProxy):  # type: ignore[misc]
    """A lock or semaphore of the server's threads."""


class ConditionProxy(AcquirerProxy, _private.ConditionProxy):  # type: ignore[misc]
    """A condition of the server's threads."""


class EventProxy(BaseProxy, _private.EventProxy):  # type: ignore[misc]
    """An event of the server's threads."""


class BarrierProxy(BaseProxy, _private.BarrierProxy):  # type: ignore[misc]
    """A barrier of the server's threads."""


class NamespaceProxy(BaseProxy, _private.NamespaceProxy):  # type: ignore[misc]
    """An object with attributes."""


class ValueProxy(BaseProxy, _private.ValueProxy):  # type: ignore[misc]
    """One value."""


class ArrayProxy(BaseProxy, _private.ArrayProxy):  # type: ignore[misc]
    """An array."""


class PoolProxy(BaseProxy, _private.PoolProxy):  # type: ignore[misc]
    """A pool that the server has."""


class ListProxy(BaseProxy, _private.ListProxy):  # type: ignore[misc]
    """A list."""

    _exposed_ = tuple(dict.fromkeys((*_private.ListProxy._exposed_, "clear", "copy")))

    clear = _method("clear")
    copy = _method("copy")


class DictProxy(BaseProxy, _private.DictProxy):  # type: ignore[misc]
    """A dict."""

    _exposed_ = tuple(
        dict.fromkeys(
            (
                *_private.DictProxy._exposed_,
                *("__or__", "__ror__", "__ior__", "__reversed__", "fromkeys"),
            )
        )
    )
    _method_to_typeid_: ClassVar = {
        **_private.DictProxy._method_to_typeid_,
        "__reversed__": "Iterator",
    }

    fromkeys = _method("fromkeys")
    __reversed__ = _method("__reversed__")

    def __or__(self, other: Any) -> Any:
        return self._callmethod("__or__", (_value(other),))

    def __ror__(self, other: Any) -> Any:
        return self._callmethod("__ror__", (_value(other),))

    def __ior__(self, other: Any) -> DictProxy:
        self._callmethod("__ior__", (_value(other),))
        return self


_SET_QUESTIONS = ("__contains__", "__len__", "__iter__", "isdisjoint", "issubset", "issuperset")
_SET_METHODS = (
    *("add", "clear", "copy", "difference", "difference_update", "discard", "intersection"),
    *("intersection_update", "pop", "remove", "symmetric_difference"),
    *("symmetric_difference_update", "union", "update"),
)
_SET_OPERATORS = (
    *("__and__", "__or__", "__sub__", "__xor__", "__rand__", "__ror__", "__rsub__", "__rxor__"),
    *("__lt__", "__le__", "__gt__", "__ge__"),
)
_SET_CHANGES = ("__iand__", "__ior__", "__isub__", "__ixor__")
_BaseSetProxy: Any = MakeProxyType(
    "SetProxy", (*_SET_QUESTIONS, *_SET_METHODS, *_SET_OPERATORS, *_SET_CHANGES)
)


class SetProxy(_BaseSetProxy):  # type: ignore[misc]
    """A set."""

    _method_to_typeid_: ClassVar = {"__iter__": "Iterator"}


def _operator(name: str) -> Callable[..., Any]:
    def apply(self: Any, other: Any) -> Any:
        return self._callmethod(name, (_value(other),))

    return apply


def _change(name: str) -> Callable[..., Any]:
    def apply(self: Any, other: Any) -> Any:
        self._callmethod(name, (_value(other),))
        return self

    return apply


for _name in _SET_OPERATORS:
    setattr(SetProxy, _name, _operator(_name))
for _name in _SET_CHANGES:
    setattr(SetProxy, _name, _change(_name))
