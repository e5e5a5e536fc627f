"""Under `procession run`: the standard library's processes, started and held by us.

Only what starts a process is replaced. The classes, and every subclass that a program has made of
them, stay what they are.
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


def install(recording_fd: int = -1) -> None:
    """Let `multiprocessing` start its processes through procession, in this process and below.

    Args:
        recording_fd: Descriptor of the recording to which the guard appends, or -1.
    """
    global installed, recording
    recording = recording_fd
    installed = True
    sys.meta_path.insert(0, _Watcher())
    if "multiprocessing.context" in sys.modules:
        patch()


class _Watcher:
    """Patches `multiprocessing.context` when the program imports it, and not before: a program that
    never does is not to pay for it. It stays, since some import it anew.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find `multiprocessing.context` as ever, and patch it once it is executed."""
        if name != "multiprocessing.context":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def patch(context: Any = None) -> None:
    """Put our way of starting into the three standard process classes."""
    global installed
    installed = True
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
    context.ForkServerProcess._Popen = staticmethod(forkserver)
    context.SpawnProcess._Popen = staticmethod(spawn)
    context.ForkProcess._Popen = staticmethod(fork)
