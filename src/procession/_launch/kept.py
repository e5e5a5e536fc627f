"""Start methods `forkserver` and `spawn`: a spare of the keeper's becomes the child."""

from __future__ import annotations

import os
import stat
import sys
import time
import warnings
from multiprocessing import context, spawn

from procession import _current, _native
from procession._child.inherited import InheritedDescriptor
from procession._launch import debugger, exit_hooks, keeper_client, replacement
from procession._launch.handle import Handle
from procession._wire import channel, main_module, messages, pickling
from procession.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ATTEMPTS = 8  # spares that may be found dead, one after the other, before a start gives up


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
        keeper = keeper_client.ensure(zygote=True)
        self._keeper = keeper
        payload = self._pickle(process)
        opened: list[int] = []
        try:
            header, fds = self._header(keeper, command, opened)
            self._send_to_spare(process, keeper, asked_ns, header, payload, fds)
        except OSError as error:
            raise keeper_client.refused(error) from error
        finally:
            for fd in opened:
                os.close(fd)
        exit_hooks.install()

    def _command(self) -> tuple[bytes, list[bytes]] | None:
        """Program and arguments that the spare is to execute; ``None``: it goes on as it is."""
        return None

    def _pickle(self, process: Any) -> bytes:
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            return pickling.dump_start(process, self._preparation(process), main_module.plan())
        finally:
            context.set_spawning_popen(None)

    def _preparation(self, process: Any) -> dict[str, Any]:
        """What `multiprocessing` tells a child to prepare, as others may have extended it."""
        default: Any = context._default_context
        actual = default._actual_context  # asking for the start method would fix it for ever
        try:
            preparation: dict[str, Any] = spawn.get_preparation_data(process._name)
        except FileNotFoundError as error:
            raise StartError(
                error.errno,
                "this process's working directory is gone; change to one that exists first",
            ) from error
        finally:
            default._actual_context = actual
        del preparation["dir"]  # goes by descriptor, and only when it changed
        del preparation["name"]  # in the header, so that the rest is the same for every child
        return preparation

    def _header(
        self, keeper: keeper_client.Keeper, command: Any, opened: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """The start frame's header and descriptors: what of our state the child must share."""
        fds: list[int] = []
        std = 0
        for number in range(3):
            if _is_open(number):
                std |= 1 << number
                fds.append(number)
        directory = keeper_client._directory()
        moved = directory != keeper.directory
        if moved:
            opened.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            fds.append(opened[-1])
        tracker = _tracker()
        if tracker is not None:
            fds.append(tracker)
        fds += self._fds
        environ = keeper_client.environ()
        changed = environ != keeper.environ
        filters = warnings.filters
        pickled = None
        if list(filters) != keeper.warning_filters:
            import pickle

            pickled = pickle.dumps(list(filters))
        header = {
            "exec": command,
            "std": std,
            "cwd": moved,
            "tracker": tracker is not None,
            "environ": dict(environ) if changed or command else None,
            "warnings": pickled,
            "surroundings": _native.read_surroundings(),
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
        keeper: keeper_client.Keeper,
        asked_ns: int,
        header: dict[str, Any],
        payload: bytes,
        fds: list[int],
    ) -> None:
        flags = _native.FLAG_DAEMON if process.daemon else 0
        name, target = self.name.encode("utf-8", "replace"), describe_target(process)
        for _ in range(_ATTEMPTS):
            spare = keeper.take_spare()
            with spare.stream:
                if not keeper.table.ask(
                    spare.slot,
                    spare.generation,
                    keeper.owner_id,
                    self._method_number,
                    flags,
                    asked_ns,
                    name,
                    target,
                ):
                    continue  # somebody killed it while it was waiting
                self.pid, self._index, self._generation = spare.pid, spare.slot, spare.generation
                try:
                    channel.send_frame(spare.stream, header, payload, fds)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # killed since it was asked: a start that ended at once
                return
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


def _is_open(fd: int) -> bool:
    try:
        stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        return False
    return True


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
