"""Under `procession run`: the standard library's processes, started and held by us.

What starts a process is replaced in the standard library's own classes, so that every subclass of
them is served, too; what a program makes besides is in `substitutes`. Nothing is imported for it
that the program does not import, and what it imports is put right once it is executed.
"""

from __future__ import annotations

import sys

from procession._launch import substitutes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

installed = False
"""Whether this program's `multiprocessing` is served by us; its children's is then, too."""


recording = -1
"""Descriptor of the recording that `procession run` passed to this program, or -1."""


def install(recording_fd: int = -1) -> None:
    """Let `multiprocessing` start its processes through procession, in this process and below.

    Args:
        recording_fd: Descriptor of the recording to which the guard appends, or -1.
    """
    global installed, recording
    recording = recording_fd
    installed = True
    _watch()


def _watch() -> None:
    """Put right what the program imports from now on, and what it has imported."""
    if any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Watcher())
    for name, put_right in _PUT_RIGHT.items():
        if name in sys.modules:
            put_right(sys.modules[name])


class _Watcher:
    """Puts modules right when the program imports them, and not before: a program that never does
    is not to pay for it. It stays, since some import them anew.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module as ever, and patch it once it is executed."""
        put_right = _PUT_RIGHT.get(name)
        if put_right is None:
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


def patch_starting(context: Any) -> None:
    """Put our way of starting into the three standard process classes."""

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
    context.ForkServerProcess._Popen = staticmethod(forkserver)
    context.SpawnProcess._Popen = staticmethod(spawn)
    context.ForkProcess._Popen = staticmethod(fork)


_PUT_RIGHT: dict[str, Callable[[Any], None]] = {
    "concurrent.futures.process": patch_executors,
    "multiprocessing.context": patch_starting,
    **dict.fromkeys(substitutes.MODULES, substitutes.substitute),
}
"""What is done to a module when the program imports it."""
