"""Under `procession run`: what a program makes when it calls a class or function of the standard's.

Only the call of a standard class itself makes ours, which is a subclass of it: whoever has the
class by whatever name, before us or after, from a context or from its module, is served, and
`isinstance` holds. A subclass that a program has made keeps the standard base.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STANDARD = "multiprocessing"
OURS = "procession"

# Where ours of that name is still the standard's own, the program gets that, and `-v` says so.
CLASSES: dict[str, tuple[str, ...]] = {
    "managers": ("BaseManager", "SyncManager", "SharedMemoryManager"),
    "pool": ("Pool",),
    "queues": ("Queue", "JoinableQueue", "SimpleQueue"),
    "shared_memory": ("SharedMemory", "ShareableList"),
    "synchronize": (
        "Lock",
        "RLock",
        "Semaphore",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Barrier",
    ),
}
"""Classes by module: a call makes ours of the same name."""

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "resource_tracker": ("register", "unregister"),
    "sharedctypes": ("RawValue", "RawArray", "Value", "Array", "copy", "synchronized"),
}
"""Functions by module, put in the place of the standard's."""

MODULES = tuple(f"{STANDARD}.{name}" for name in {**CLASSES, **FUNCTIONS})


def substitute(module: Any) -> None:
    """Let a module of `multiprocessing`, which is loaded, make what is ours."""
    name = module.__name__.partition(".")[2]
    for each in CLASSES.get(name, ()):
        standard = getattr(module, each)
        if not hasattr(standard.__dict__.get("__new__"), "_makes_ours"):
            standard.__new__ = _maker(standard, name)
    for each in FUNCTIONS.get(name, ()):
        standard = getattr(module, each, None)  # it may be bound to the one of a tracker
        if not hasattr(standard, "_makes_ours"):
            setattr(module, each, _caller(standard, name))


def _ours(module: str, name: str) -> Any:
    """What procession has under a name; by name, since those rooms stand above this one."""
    path = f"{OURS}.{module}"
    __import__(path)
    return getattr(sys.modules[path], name)


def _maker(standard: Any, module: str) -> Callable[..., Any]:
    """A `__new__` for a standard class: the class itself makes ours, a subclass as ever."""

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is standard:
            ours = _ours(module, standard.__name__)
            if ours is not standard:
                if not issubclass(ours, standard):  # the program has loaded the module anew
                    return ours(*args, **kwargs)
                return ours.__new__(ours, *args, **kwargs)
            tell_kept(f"{STANDARD}.{standard.__name__}", "")
        elif cls.__module__.partition(".")[0] not in (STANDARD, OURS):
            base = f"{STANDARD}.{module}.{standard.__name__}"
            tell_kept(f"{cls.__module__}.{cls.__qualname__}", f"a subclass of {base}")
        inherited = super(standard, cls).__new__
        return inherited(cls) if inherited is object.__new__ else inherited(cls, *args, **kwargs)

    __new__._makes_ours = True  # type: ignore[attr-defined]
    __new__.__wrapped__ = standard.__init__  # type: ignore[attr-defined]  # its signature
    return __new__


def _caller(standard: Any, module: str) -> Callable[..., Any]:
    """Our function in the place of a standard one."""
    import functools

    @functools.wraps(standard)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _ours(module, standard.__name__)(*args, **kwargs)

    call._makes_ours = True  # type: ignore[attr-defined]
    return call


_told: set[str] = set()


def tell_kept(what: str, why: str) -> None:
    """Write into the recording, once, what stayed standard in this program.

    Not where the standard library, or we, made it as a part of something else.
    """
    from procession._launch import replacement

    if replacement.recording < 0 or what in _told or not _asked_for_by_the_program():
        return
    _told.add(what)
    import time

    from procession._recording import writer

    line = writer.line("standard.kept", time.monotonic(), 0, what=what, why=why)
    writer.append(replacement.recording, line)


def _asked_for_by_the_program() -> bool:
    frame = sys._getframe(3)
    if frame.f_globals.get("__name__") == f"{STANDARD}.context" and frame.f_back is not None:
        frame = frame.f_back  # a context's method only passes it on
    caller = frame.f_globals.get("__name__", "").partition(".")[0]
    return caller not in (STANDARD, OURS)
