"""Where the keeper's process begins: `python -c "…"` with the numbers of three descriptors.

It is started with all signals blocked and 0-2 on /dev/null, in a process group of its own: a
`kill -9 -pgid` of main's group spares it, and no Ctrl-C reaches it.
"""

from __future__ import annotations

import os
import select
import sys

from procession import _native
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._keeper.marks import Marks


LOOK_AGAIN_MS = 100  # main says its first word within a millisecond of our start


def main() -> None:
    """Become the guard of the program that started this process."""
    table_fd, door_fd, writer_fd = map(int, sys.argv[1:4])
    _native.set_process_name(messages.COMM_GUARD)
    _native.close_all_but([0, 1, 2, table_fd, door_fd, writer_fd])
    _native.set_subreaper(True)
    try:
        os.getcwd()
    except OSError:  # gone: no child is started from there, and Python 3.13.0 trips over it
        os.chdir("/")
    code = 1
    try:
        table = _native.Table.attach(table_fd)
        for fd in (table_fd, door_fd, writer_fd):
            os.set_inheritable(fd, False)
        door, writer = channel.adopt(door_fd), channel.adopt(writer_fd)
        received = channel.receive(door) if _begins(table, door) else None
        if received is not None and received[0][0] == messages.BEGIN:
            config: dict[str, Any] = received[0][1]
            pidfd, *more = received[1]
            config["recording"] = more.pop(0) if config["recording"] else -1
            config["output"] = more
            config["skip"] = []
            guard(table, door, writer, config, pidfd)
        code = 0
    except BaseException:
        report()
    finally:
        os._exit(code)


def _begins(table: _native.Table, door: channel.Socket) -> bool:
    """Wait for main's first word; false when main is killed before it says any.

    This process holds the door's other end itself, so that its end tells nothing.
    """
    generation = table.read(messages.MAIN_SLOT)[1]
    poll = select.poll()
    poll.register(door.fileno(), select.POLLIN)
    while not poll.poll(LOOK_AGAIN_MS):
        if table.fate(messages.MAIN_SLOT, generation) == _native.DEAD:
            return bool(poll.poll(0))
    return True


def guard(
    table: _native.Table,
    door: channel.Socket,
    writer: channel.Socket,
    config: dict[str, Any],
    main_pidfd: int,
) -> None:
    """Run the guard to its end."""
    from procession._keeper.guard import Guard

    table.enter(messages.GUARD_SLOT, _native.RUNNING)
    sys.path[:] = config["sys_path"]
    Guard(table, door, writer, config, main_pidfd).run()


def be_zygote(
    table: _native.Table,
    writer: channel.Socket,
    guard: channel.Socket,
    guard_pidfd: int,
    marks: Marks,
    names: Sequence[str],
    config: dict[str, Any],
) -> None:
    """Run the zygote to its end, in a fork of the guard.

    Args:
        table: The program's table of processes.
        writer: The door's writing end.
        guard: The channel to the guard.
        guard_pidfd: A pidfd of it.
        marks: What is below no zygote.
        names: What is to be preloaded.
        config: What main said in BEGIN.
    """
    from procession._keeper import preload
    from procession._keeper.zygote import Zygote

    _native.set_process_name(messages.COMM_ZYGOTE)
    refusal = ""
    if names:
        try:
            preload.load(names, config["on_error"], config["output"], config["replaced"])
        except preload.LeftThread as left:
            channel.send(guard, (messages.RETIRED, left.name))
            return
        except preload.Failed as failed:
            refusal = str(failed)
    channel.close_all(config["output"])
    zygote = Zygote(
        table,
        writer,
        guard,
        guard_pidfd,
        marks,
        config["main_path"],
        config["modules"],
        config["pgid"],
        refusal,
    )
    zygote.run()


def report() -> None:
    """Tell what went wrong in the keeper, where PROCESSION_DEBUG names a file."""
    path = os.environ.get("PROCESSION_DEBUG")
    if path:
        import traceback

        with open(path, "a", encoding="utf-8") as file:
            file.write(f"keeper process {os.getpid()}:\n{traceback.format_exc()}\n")


if __name__ == "__main__":
    main()
