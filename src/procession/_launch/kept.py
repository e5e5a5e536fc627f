"""Start methods `forkserver` and `spawn`: a spare of the keeper's becomes the child."""

from __future__ import annotations

import os
import sys
import time
import warnings
from multiprocessing import context, spawn

from procession import _current, _native
from procession._child.inherited import InheritedDescriptor
from procession._launch import debugger, exit_hooks, heirs, keeper_client, replacement
from procession._launch.handle import Handle
from procession._launch.keeper import environ
from procession._wire import channel, main_module, messages, pickling, preparation
from procession.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procession._launch.keeper import Keeper

_ATTEMPTS = 8  # spares that may be found dead, one after the other, before a start gives up
_STANDARD = [[fd for fd in range(3) if bits & 1 << fd] for bits in range(8)]
"""Which of 0-2 are open, by what a look says of them."""


class KeptHandle(Handle):
    """A child forked by the zygote."""

    method = "forkserver"
    _method_number = _native.FORKSERVER
    DupFd = InheritedDescriptor

    def __init__(self, process: Any) -> None:
        self._fds: list[int] = []
        super().__init__(process)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process: Any) -> None:
        asked_ns = time.monotonic_ns()
        command = self._command()
        try:
            seen = _native.look()
            keeper = self._keeper = keeper_client.ensure(zygote=True, credentials=seen[0])
            payload = self._pickle(process, seen[2] is not None)
            opened: list[int] = []
            try:
                header, fds = self._header(keeper, command, seen, opened)
                self._send_to_spare(process, keeper, asked_ns, header, payload, fds)
            finally:
                for fd in opened:
                    os.close(fd)
        except StartError:
            raise
        except OSError as error:
            raise keeper_client.refused(error) from error
        exit_hooks.install()
        if self.method == "forkserver" and heirs.is_due(keeper):
            heirs.ask(keeper, header, _STANDARD[header["std"]])

    def _command(self) -> tuple[bytes, list[bytes]] | None:
        """Program and arguments that the spare is to execute; ``None``: it goes on as it is."""
        return None

    def _pickle(self, process: Any, here: bool) -> bytes:
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            main = main_module.plan()
            return pickling.dump_start(process, _prepared(process, main.kind, here), main)
        finally:
            context.set_spawning_popen(None)

    def _header(
        self,
        keeper: Keeper,
        command: Any,
        seen: tuple[bytes, bytes, bytes | None, int],
        opened: list[int],
    ) -> tuple[dict[str, Any], list[int]]:
        """The start frame's header and descriptors: what of our state the child must share."""
        _, surroundings, directory, std = seen
        fds = _STANDARD[std]
        moved = directory != keeper.directory
        if moved:
            opened.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            fds = [*fds, opened[0]]
        tracker = _tracker()
        if tracker is not None:
            fds = [*fds, tracker]
        if self._fds:
            fds = [*fds, *self._fds]
        variables = environ()
        changed = variables != keeper.environ
        filters = warnings.filters
        pickled = None
        if filters != keeper.warning_filters:
            import pickle

            pickled = pickle.dumps(list(filters))
        header = {
            "exec": command,
            "std": std,
            "cwd": moved,
            "tracker": tracker is not None,
            "environ": dict(variables) if changed or command else None,
            "warnings": pickled,
            "surroundings": surroundings,
            "credentials": keeper.credentials,
            "owner": (keeper.owner_pid, keeper.index, keeper.generation),
            "default_method": _current.fixed_method(),
            "comm": _comm(),
            "replaced": replacement.installed,
            "name": self.name,
            "debugger": debugger.invitation(),
        }
        return header, fds

    def _send_to_spare(
        self,
        process: Any,
        keeper: Keeper,
        asked_ns: int,
        header: dict[str, Any],
        payload: bytes,
        fds: list[int],
    ) -> None:
        flags = _native.FLAG_DAEMON if process.daemon else 0
        name, target = self.name.encode("utf-8", "replace"), describe_target(process)
        for _ in range(_ATTEMPTS):
            pid, index, generation, stream = keeper.take_spare()
            try:
                if not keeper.table.ask(
                    index,
                    generation,
                    keeper.owner_id,
                    self._method_number,
                    flags,
                    asked_ns,
                    name,
                    target,
                ):
                    continue  # somebody killed it while it was waiting
                self.pid, self._index, self._generation = pid, index, generation
                try:
                    channel.send_frame(stream, header, payload, fds)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # killed since it was asked: a start that ended at once
                return
            finally:
                os.close(stream)
        raise StartError(None, f"{_ATTEMPTS} processes in turn were killed before they could start")


class SpawnHandle(KeptHandle):
    """A fresh interpreter, executed by a spare."""

    method = "spawn"
    _method_number = _native.SPAWN

    def _command(self) -> tuple[bytes, list[bytes]]:
        program = spawn.get_executable()
        if not program:
            raise StartError(None, "there is no interpreter to execute (sys.executable is not set)")
        path = os.fsencode(program)
        if not os.access(path, os.X_OK, effective_ids=True):
            raise StartError(
                2, f"the interpreter {program!r} cannot be executed (any more); set_executable()"
            )
        arguments = [
            path,
            *keeper_client.interpreter_flags(),
            b"-c",
            messages.SPAWN_BOOT.encode(),
            os.fsencode(keeper_client.PACKAGE_FOLDER),
        ]
        return path, arguments


def _tracker() -> int | None:
    """The descriptor of the standard library's resource tracker, if it has one running."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return None if module is None else module._resource_tracker._fd


def describe_target(process: Any) -> bytes:
    """What the process is to run, in a word for the ledger."""
    target = getattr(process, "_target", None)
    if target is None:
        kind = type(process)
        return f"{kind.__module__}.{kind.__qualname__}.run".encode("utf-8", "replace")
    while hasattr(target, "func"):  # functools.partial
        target = target.func
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    module = getattr(target, "__module__", None) or ""
    return f"{module}.{name}".encode("utf-8", "replace")


def _prepared(process: Any, kind: str, here: bool) -> bytes:
    try:
        return preparation.dump(process._name, kind, here)
    except FileNotFoundError as error:
        raise StartError(
            error.errno, "this process's working directory is gone; change to one that exists first"
        ) from error


_own_comm: str | None = None


def _comm() -> str:
    """This process's name in ps, which its children take as a forked child would."""
    global _own_comm
    if _own_comm is None:
        try:
            with open("/proc/self/comm", encoding="utf-8", errors="replace") as file:
                _own_comm = file.read().rstrip("\n")
        except OSError:
            _own_comm = os.path.basename(sys.executable or "python")[:15]
    return _own_comm
