"""The heir: a fork of the zygote that runs main's file, once for all children, and then serves.

The zygote serves meanwhile, unharmed by whatever the file does. What speaks against forking from
here (`traces`), an exception, a crash, or a run that takes too long, ends the heir without a word,
and children run main's file themselves, as ever.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from procession import _native
from procession._child import bootstrap, ending, main_module
from procession._keeper import shutdown, spares, traces
from procession._keeper.reaper import Reaper
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def be_born(guard: channel.Socket, between: int, guards_pid: int) -> None:
    """Say so, in the fork; it dies with the guard until it can serve itself.

    Args:
        guard: The heir's channel to the guard.
        between: The pid of who forked it, and is about to go.
        guards_pid: The guard's pid.
    """
    while os.getppid() == between:  # it only has to exit, and a parent's end wakes nobody
        time.sleep(0.0002)
    _native.set_death_signal(signal.SIGKILL)
    if os.getppid() != guards_pid:
        os._exit(0)
    _native.set_process_name(messages.COMM_HEIR)
    _native.set_subreaper(True)  # whatever main's file starts is seen, and ends with it
    me = os.pidfd_open(os.getpid())
    try:
        channel.send(guard, (messages.BORN, os.getpid()), [me])
    finally:
        os.close(me)


def run_main(order: dict[str, Any], main: dict[str, Any], std: Sequence[int]) -> str:
    """Run main's file as a child would; this process can be forked from afterwards.

    Args:
        order: How main stands: `std`, a bit for each of 0-2 that is open, `surroundings`,
            `replaced`.
        main: What a child prepares itself with.
        std: Descriptors for those of 0-2.

    Returns:
        Why nothing may be forked from here, or nothing.
    """
    own = _native.read_surroundings()
    streams = {name: getattr(sys, name) for name in _STREAMS}
    bootstrap.is_heir = True
    try:
        ending.prepare_exit_functions()
        bootstrap.restore_standard_descriptors({**order, "exec": None}, list(std))
        bootstrap.take_surroundings(order["surroundings"])
        refusal = _run(order, main)
    finally:
        bootstrap.is_heir = False
    for number in range(3):
        _open_nothing(number)
    for name, stream in streams.items():
        setattr(sys, name, stream)
    bootstrap.take_surroundings(own)
    if not refusal and _native.read_surroundings() != own:
        return "this process cannot have its limits back"
    return refusal


def _run(order: dict[str, Any], main: dict[str, Any]) -> str:
    import importlib
    from multiprocessing import process, spawn

    if order["replaced"]:  # by name: that room stands above this one, and is only loaded from here
        importlib.import_module("procession._launch.replacement").install()
    bootstrap.reseed()
    others = {name: main[name] for name in main.keys() - main_module.standing_keys}
    others.pop("log_to_stderr", None)  # each child adds a handler of its own
    spawn.prepare(others)
    before = traces.Traces()
    me = process.current_process()
    me._inheriting = True  # type: ignore[attr-defined]  # nothing is started from in there
    try:
        main_module.run_for_others(main)
        refusal = before.left()
    except main_module.NotRun as error:
        refusal = str(error)
    except BaseException as error:
        refusal = f"it raised {type(error).__name__}"
    finally:
        del me._inheriting  # type: ignore[attr-defined]
        _flush()
    return refusal


def _flush() -> None:
    """What main's file printed is main's output, now; a fork would print it again."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _open_nothing(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, number)
        os.close(null)


def say_ready(guard: channel.Socket) -> None:
    """From now on the guard may let the zygote go."""
    ending.keep_exit_functions()
    spares.settle()
    _native.set_process_name(messages.COMM_ZYGOTE)
    _native.set_death_signal(0)
    channel.send(guard, (messages.READY,))


def give_up(table: _native.Table, refusal: str) -> None:
    """End what main's file started, and say why where PROCESSION_DEBUG names a file."""
    path = os.environ.get("PROCESSION_DEBUG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"each child runs main's file itself: run once, {refusal}\n")
    shutdown.end_everything(Reaper(table, _nothing, _nothing))


def _nothing(*_: object) -> None:
    pass
