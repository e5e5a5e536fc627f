"""Under `procession run`: the standard library's processes, started and held by us.

Only what starts a process or makes a pool is replaced. The classes, and every subclass that a
program has made of them, stay what they are.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

installed = False
"""Whether this program's `multiprocessing` is served by us; its children's is then, too."""


recording = -1
"""Descriptor of the recording that `procession run` passed to this program, or -1."""

_KEPT = {
    "Manager": "its server is one of our processes",
    "Queue": "and its feeder thread",
    "JoinableQueue": "and its feeder thread",
    "SimpleQueue": "",
    "Lock": "",
    "RLock": "",
    "Semaphore": "",
    "BoundedSemaphore": "",
    "Condition": "",
    "Event": "",
    "Barrier": "",
    "Value": "",
    "Array": "",
    "RawValue": "",
    "RawArray": "",
}
"""What a context makes that is left to the standard library, and what there is to say of it."""

_told: set[str] = set()


def install(recording_fd: int = -1) -> None:
    """Let `multiprocessing` start its processes through procession, in this process and below.

    Args:
        recording_fd: Descriptor of the recording to which the guard appends, or -1.
    """
    global installed, recording
    recording = recording_fd
    installed = True
    _watch()
    if "multiprocessing.context" in sys.modules:
        patch()


def _watch() -> None:
    """Patch what the program imports from now on, and its executors if they are there already."""
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())
    executors = sys.modules.get("concurrent.futures.process")
    if hasattr(executors, "ProcessPoolExecutor"):  # else it is being imported just now
        patch_executors(executors)


class _Watcher:
    """Patches `multiprocessing.context` and the executors of `concurrent.futures` when the program
    imports them, and not before: a program that never does is not to pay for it. It stays, since
    some import them anew.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module as ever, and patch it once it is executed."""
        put_right: Any
        if name == "multiprocessing.context":
            put_right = patch
        elif name == "concurrent.futures.process":
            put_right = patch_executors
        else:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            put_right(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def patch_executors(module: Any) -> None:
    """Let `concurrent.futures` make our executors.

    By name: the rooms above this one are loaded for the program, never used here.
    """
    import importlib

    ours = getattr(importlib.import_module("procession.executor"), "StandardExecutor", None)
    if ours is None:
        return  # it is being imported just now, and comes back here when it has been
    module.ProcessPoolExecutor = ours
    package = sys.modules.get("concurrent.futures")
    if package is not None and "ProcessPoolExecutor" in vars(package):
        package.ProcessPoolExecutor = ours  # type: ignore[attr-defined]


def _make_pool(
    self: Any,
    processes: int | None = None,
    initializer: Any = None,
    initargs: Any = (),
    maxtasksperchild: int | None = None,
) -> Any:
    """Returns a process pool object"""
    import importlib

    ours = importlib.import_module("procession.pool").Pool
    return ours(processes, initializer, initargs, maxtasksperchild, self.get_context())


def _telling(name: str, make: Any) -> Any:
    """A factory of the standard library's that tells the recording of its first use."""
    import functools

    @functools.wraps(make)
    def tell_and_make(self: Any, *arguments: Any, **options: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if caller not in ("multiprocessing", "procession"):  # a part of something told already
            _tell_kept(f"multiprocessing.{name}", _KEPT[name])
        return make(self, *arguments, **options)

    return tell_and_make


def _tell_kept(what: str, why: str) -> None:
    if what in _told:
        return
    _told.add(what)
    import time

    from procession._recording import writer

    writer.append(recording, writer.line("standard.kept", time.monotonic(), 0, what=what, why=why))


def patch(context: Any = None) -> None:
    """Put our way of starting into the three standard process classes, and our pool beside them."""
    global installed
    installed = True
    _watch()
    if context is None:
        from multiprocessing import context

    def forkserver(process: Any) -> Any:
        from procession._launch.kept import KeptHandle

        return KeptHandle(process)

    def spawn(process: Any) -> Any:
        from procession._launch.kept import SpawnHandle

        return SpawnHandle(process)

    def fork(process: Any) -> Any:
        from procession._launch.forked import ForkHandle

        return ForkHandle(process)

    standard_preload = context.BaseContext.set_forkserver_preload

    def set_forkserver_preload(self: Any, module_names: Any, **options: Any) -> None:
        from procession._launch import keeper_client

        names = list(module_names)
        standard_preload(self, names, **options)
        keeper_client.preload = names
        keeper_client.preload_on_error = options.get("on_error", "ignore")

    context.BaseContext.set_forkserver_preload = set_forkserver_preload
    context.BaseContext.Pool = _make_pool
    if recording >= 0:
        for name in _KEPT:
            setattr(context.BaseContext, name, _telling(name, getattr(context.BaseContext, name)))
    context.ForkServerProcess._Popen = staticmethod(forkserver)
    context.SpawnProcess._Popen = staticmethod(spawn)
    context.ForkProcess._Popen = staticmethod(fork)
