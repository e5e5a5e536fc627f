"""A child's way from its frame to its last words, gone in the zygote ahead of all children.

What Python and the C library make at the first use of something (specialised code, attribute
caches, bound symbols) is made in the zygote then, and shared. Each page that a child writes to is
copied for it, which takes longer than anything that it does itself: which pages those are is found
out by a scout, so that spares have copies before they are asked for. No user's code runs here.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

from procession import _identity, _native
from procession._child import bootstrap, ending, inherited, main_module
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCOUT_LIMIT = 1.0  # seconds; it needs a few milliseconds


def go_once() -> None:
    """Go the way once; this process is afterwards what it was."""
    with _Stage() as stage:
        stage.go(stage.payload())


def scout() -> bytes:
    """The pages that every child writes to, as `_native.copy_pages` wants them.

    Empty where the kernel does not tell.
    """
    reading, writing = os.pipe()
    try:
        # all is laid out before it is forked: what it writes to is then what a child writes to
        with _Stage() as stage, stage.frame(stage.payload()) as stream:
            try:
                pid = os.fork()
                if pid == 0:
                    _be_scout(stage, stream, writing)
            finally:
                os.close(writing)
        pages = _read_to_the_end(reading, time.monotonic() + SCOUT_LIMIT)
    finally:
        os.close(reading)
    if pages is None:
        os.kill(pid, signal.SIGKILL)  # somebody stopped it
    os.waitpid(pid, 0)
    return pages or b""


def _read_to_the_end(fd: int, deadline: float) -> bytes | None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = bytearray()
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if not (more := os.read(fd, 65536)):
            return bytes(found)
        found += more
    return None


def _be_scout(stage: _Stage, stream: channel.Socket, answer: int) -> None:
    try:
        stage.serve(stream)
        os.write(answer, _native.written_pages())
    finally:
        os._exit(0)


def nothing() -> None:
    """What the rehearsed child does."""


class _Stage:
    """All that a child's first and last steps change is put back behind it."""

    def __init__(self) -> None:
        import multiprocessing.context
        import multiprocessing.process
        import multiprocessing.util

        process: Any = multiprocessing.process
        util: Any = multiprocessing.util
        default: Any = multiprocessing.context._default_context
        ours: Any = sys.modules["procession.context"]
        self._process, self._util, self._ours = process, util, ours
        self._kept = [
            (owner, name, getattr(owner, name))
            for owner, names in (
                (process, "_current_process _parent_process _process_counter _children"),
                (process, "ORIGINAL_DIR"),
                (util, "_exiting _finalizer_registry _afterfork_registry"),
                (sys, "stdin stdout stderr __stdin__ __stdout__ __stderr__ argv path"),
                (threading, "_shutdown"),
                (bootstrap, "seat"),
                (inherited, "fds"),
                (ending, "prepare_exit_functions run_exit_functions"),
                (_identity, "_home _tables"),
                (default, "_actual_context"),
                (ours._default_context, "_actual_context"),
            )
            for name in names.split()
        ]

    def __enter__(self) -> _Stage:
        # what preloaded modules left there is their children's
        self._util._finalizer_registry, self._util._afterfork_registry = {}, {}
        _identity._tables, inherited.fds = {}, []
        sys.argv = list(sys.argv)
        sys.stdin = sys.__stdin__ = None  # type: ignore[misc]  # it would be closed
        setattr(threading, "_shutdown", nothing)  # noqa: B010  # there is no way back from it
        if main_module.standing():  # main's own: its children's, too
            ending.prepare_exit_functions = ending.run_exit_functions = nothing
        me = self._process._current_process
        stand_in = object.__new__(type(me))
        stand_in.__dict__.update(me.__dict__)
        self._process._current_process = stand_in
        self._table = _native.Table.create(messages.GUARD_SLOT + 1)
        self._index, self._generation = self._table.claim()
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, value in self._kept:
            setattr(owner, name, value)

    def payload(self) -> bytes:
        """What a starter would send."""
        from multiprocessing import context, reduction, spawn

        process = self._ours.ForkServerProcess(target=nothing)
        preparation: dict[str, Any] = spawn.get_preparation_data(process.name)
        for name in ("dir", "name", "init_main_from_name", "init_main_from_path"):
            preparation.pop(name, None)
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            preparation.update(main_module.standing())
            parts = [("path", preparation), process]
            return b"".join(bytes(reduction.ForkingPickler.dumps(part)) for part in parts)
        finally:
            context.set_spawning_popen(None)

    def go(self, payload: bytes) -> None:
        """From a fork to the last words."""
        after_fork = getattr(threading, "_after_fork", None)
        if after_fork is not None:
            after_fork()
        self._util._exiting = False
        self._process._parent_process = None
        with self.frame(payload) as stream:
            self.serve(stream)
        parent = self._process._parent_process
        if parent is not None:
            os.close(parent._sentinel)

    def frame(self, payload: bytes) -> channel.Socket:
        """A spare's stream with its start frame in it."""
        header = {
            "exec": None,
            "std": 0b111,
            "cwd": False,
            "tracker": False,
            "environ": None,
            "warnings": None,
            "surroundings": _native.read_surroundings(),
            "credentials": b"",
            "owner": (os.getppid(), self._index, self._generation),
            "default_method": None,
            "comm": messages.COMM_ZYGOTE,
            "replaced": False,
            "name": "rehearsal",
            "debugger": None,
        }
        starter, stream = channel.stream_pair()
        with starter:
            channel.send_frame(starter.fileno(), header, payload, [0, 1, 2])
        return stream

    def serve(self, stream: channel.Socket) -> None:
        """From the frame to the last words."""
        place: Any = bootstrap.Seat(self._table, _NOBODY, self._index, self._generation)
        bootstrap.serve(place, stream, os.eventfd(0, os.EFD_CLOEXEC))


_NOBODY: Any = None  # nothing is said over this door
