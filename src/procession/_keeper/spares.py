"""Spares: children forked ahead of their call, everything they need imported, all signals blocked.

A spare waits on its stream. A start frame makes it a child; the end of the stream, which comes
when its owner ends or never wanted it, makes it go without a trace.
"""

from __future__ import annotations

import gc
import importlib
import os

from procession import _native
from procession._child import bootstrap
from procession._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from procession._wire import channel


_pages = b""
"""Those that every child writes to, once they are known."""


class ThreadFound(OSError):
    """The zygote has a second thread, so a fork of it could deadlock; it must be replaced."""


def warm_up(main_path: str | None, modules: Sequence[str]) -> None:
    """Make ready what children need: modules, and main's file compiled, not run.

    Args:
        main_path: Where children will find their `__main__`, if that is a file.
        modules: Those of `multiprocessing` that main had imported: its children will want them,
            and without need they would only make every fork dearer.
    """
    import multiprocessing.spawn  # noqa: F401

    import procession._child.ending  # noqa: F401
    from procession._child import main_module

    # by name: the rooms above are loaded for the children, never used by the keeper
    for name in ("procession.context", *modules):
        importlib.import_module(name)
    if main_path is not None:
        main_module.compile_ahead(main_path)
    settle()


def rehearse(rounds: int = 10) -> Iterator[None]:
    """Go a child's way in this process, so that children find it gone (`rehearsal`).

    In steps of a millisecond or two: between them there may be more urgent work.

    Args:
        rounds: How often; Python 3.11 specialises code from its eighth call on.
    """
    global _pages
    from procession._keeper import __main__ as entry
    from procession._keeper import rehearsal

    try:
        for _ in range(rounds):
            rehearsal.go_once()
            yield
        settle()
        yield
        require_one_thread()
        _pages = rehearsal.scout()
    except Exception:  # whatever it is, each child can do all of it itself
        entry.report()


def settle() -> None:
    """Let forks share the memory of what is there now: no collection will write to it."""
    gc.collect()
    gc.freeze()


def threads() -> int:
    """How many threads this process has, also those that Python does not know of."""
    try:
        # links of a directory: its own, its parent's entry, and one for each thread
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 1  # no /proc: what is not known is not held against anybody


def require_one_thread() -> None:
    """Refuse to fork a process that has threads (G9).

    Raises:
        ThreadFound: There is another thread than this one.
    """
    if threads() > 1:
        raise ThreadFound("a preloaded module left a thread in the zygote")


def live(
    table: _native.Table,
    door: channel.Socket,
    stream: channel.Socket,
    bell: int,
    index: int,
    generation: int,
) -> NoReturn:
    """A spare's life; ends the process."""
    code = 1
    try:
        _native.copy_pages(_pages)
        table.enter(index, _native.SPARE)
        _native.set_process_name(messages.COMM_SPARE)
        _native.set_subreaper(True)  # what is below this process stays below it, also if orphaned
        _native.close_all_but([0, 1, 2, table.fileno(), door.fileno(), stream.fileno(), bell])
        code = bootstrap.serve(bootstrap.Seat(table, door, index, generation), stream, bell)
    except BaseException:
        _report()
    finally:
        os._exit(code)


def _report() -> None:
    import traceback

    traceback.print_exc()
