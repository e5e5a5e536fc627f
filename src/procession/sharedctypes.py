"""ctypes objects in shared memory, with or without a lock around them.

The classes are subclasses of `multiprocessing.sharedctypes`', so that whoever checks for those is
served; the memory is ours (`heap`) and so is the lock, which survives its owner's death.
"""

from __future__ import annotations

import ctypes
import operator
import weakref
from multiprocessing import sharedctypes as _standard
from multiprocessing.reduction import ForkingPickler
from typing import Any

import procession
from procession import heap

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_procession: Any = procession

typecode_to_type: dict[str, Any] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


# --- without a lock ---------------------------------------------------------------------------


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """A ctypes object in shared memory, without a lock.

    Args:
        typecode_or_type: A ctypes type, or a letter as for `array.array` (and ``"c"``).
        args: What its constructor takes; without any it is all zero.

    Raises:
        TypeError: There is no such type.
        OSError: There is no memory for it.
    """
    obj = _new(_type_of(typecode_or_type))
    if args:
        obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """A ctypes array in shared memory, without a lock.

    Args:
        typecode_or_type: The type of its items, as for `RawValue`.
        size_or_initializer: How many items, all zero; or a sequence of them.

    Raises:
        TypeError: There is no such type, or the initializer has no length.
        ValueError: The size is negative.
        OSError: There is no memory for it.
    """
    item = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError(f"an array has at least 0 items, got {size_or_initializer}")
        return _new(item * size_or_initializer)
    obj = _new(item * len(size_or_initializer))
    obj.__init__(*size_or_initializer)
    return obj


def copy(obj: Any) -> Any:
    """A shared object without a lock that has the value of another ctypes object."""
    new = _new(type(obj))
    ctypes.memmove(ctypes.addressof(new), ctypes.addressof(obj), ctypes.sizeof(new))
    return new


def _type_of(typecode_or_type: Any) -> Any:
    kind = typecode_to_type.get(typecode_or_type, typecode_or_type)
    try:
        ctypes.sizeof(kind)
    except TypeError:
        raise TypeError(
            f"a ctypes type or one of the letters {' '.join(typecode_to_type)} is needed, "
            f"got {typecode_or_type!r}"
        ) from None
    return kind


def _new(kind: Any) -> Any:
    return _place(kind, heap.BufferWrapper(ctypes.sizeof(kind)))


def _place(kind: Any, wrapper: heap.BufferWrapper) -> Any:
    """An object of a ctypes type that lies in a block of shared memory, and keeps it."""
    ForkingPickler.register(kind, _reduce)
    obj = kind.from_buffer(wrapper.create_memoryview())
    obj._wrapper = wrapper
    return obj


# --- with a lock ------------------------------------------------------------------------------


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """A ctypes object in shared memory, with a lock around each access.

    Args:
        typecode_or_type: As for `RawValue`.
        args: As for `RawValue`.
        lock: ``True`` or ``None`` for a lock of its own, a lock to use, or ``False`` for none.
        ctx: The context whose RLock it is to have; by default the default one's.

    Raises:
        AttributeError: What was given as a lock has no ``acquire``.
    """
    obj = RawValue(typecode_or_type, *args)
    return obj if lock is False else _locked(obj, lock, ctx)


def Array(
    typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None
) -> Any:
    """A ctypes array in shared memory, with a lock around each access.

    Args:
        typecode_or_type: As for `RawArray`.
        size_or_initializer: As for `RawArray`.
        lock: As for `Value`.
        ctx: As for `Value`.

    Raises:
        AttributeError: What was given as a lock has no ``acquire``.
    """
    obj = RawArray(typecode_or_type, size_or_initializer)
    return obj if lock is False else _locked(obj, lock, ctx)


def _locked(obj: Any, lock: Any, ctx: Any) -> SynchronizedBase:
    if lock is True or lock is None:
        return synchronized(obj, None, ctx)
    if not hasattr(lock, "acquire"):
        raise AttributeError(
            f"lock must be True, False, None or a lock, got {lock!r}, which has no method 'acquire'"
        )
    return synchronized(obj, lock, ctx)


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> SynchronizedBase:
    """Put a lock around a ctypes object.

    Args:
        obj: An object that has none yet.
        lock: The lock; ``None`` makes one.
        ctx: The context that makes it.
    """
    assert not isinstance(obj, _standard.SynchronizedBase), "object already synchronized"
    return _wrapper_class(obj)(obj, lock, ctx)


def _wrapper_class(obj: Any) -> type[SynchronizedBase]:
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized
    if isinstance(obj, ctypes.Array):
        return SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray
    kind = type(obj)
    made = _structure_classes.get(kind)
    if made is None:
        fields = {
            field[0]: _guarded(field[0])
            for base in reversed(kind.__mro__)
            for field in base.__dict__.get("_fields_", ())
        }
        made = type(f"Synchronized{kind.__name__}", (SynchronizedBase,), fields)
        _structure_classes[kind] = made
    return made


_structure_classes: weakref.WeakKeyDictionary[type, type[SynchronizedBase]] = (
    weakref.WeakKeyDictionary()
)


def _guarded(name: str) -> Any:
    """A property that is read and written with the lock held."""

    get = operator.attrgetter(name)

    def read(self: SynchronizedBase) -> Any:
        self.acquire()  # a third of the time that `with` takes through a lock's Python face
        try:
            return get(self._obj)
        finally:
            self.release()

    def write(self: SynchronizedBase, value: Any) -> None:
        self.acquire()
        try:
            setattr(self._obj, name, value)
        finally:
            self.release()

    return property(read, write)


class SynchronizedBase(_standard.SynchronizedBase):  # type: ignore[type-arg]
    """A ctypes object and its lock: what differs from the standard one."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        if lock is None:
            lock = (ctx or _procession.get_context()).RLock()
        self._obj = obj
        self._lock = lock
        self.acquire = lock.acquire
        self.release = lock.release

    def __reduce__(self) -> tuple[Any, ...]:
        return synchronized, (self._obj, self._lock)


class Synchronized(SynchronizedBase, _standard.Synchronized):  # type: ignore[type-arg]
    """One value; ``value`` is read and written with the lock held."""


class SynchronizedArray(SynchronizedBase, _standard.SynchronizedArray):  # type: ignore[type-arg]
    """An array; items and slices are read and written with the lock held."""


class SynchronizedString(SynchronizedArray, _standard.SynchronizedString):
    """An array of bytes: ``value`` up to the first zero, ``raw`` whole."""


# --- on the way to another process --------------------------------------------------------------


def _reduce(obj: Any) -> Any:
    """A shared object goes as the same memory; one in this process's own memory by value."""
    wrapper = getattr(obj, "_wrapper", None)
    if wrapper is None:
        return obj.__reduce_ex__(2)
    if isinstance(obj, ctypes.Array):  # its class is made anew: it has no name to be found by
        return _rebuild, (obj._type_, wrapper, obj._length_)
    return _rebuild, (type(obj), wrapper, None)


def _rebuild(kind: Any, wrapper: heap.BufferWrapper, length: int | None) -> Any:
    return _place(kind if length is None else kind * length, wrapper)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
