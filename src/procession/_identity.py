"""Which process of which program this is: the tables of processes that it maps.

Words in shared memory name processes by their slot in a table. The *home* table is this process's
own program's; it is made by whoever needs it first, a lock or the first start, and the program's
keepers serve the same one. A process that was given an object of another program maps that
program's table too, and takes a guest's slot there (src/identity.h).
"""

from __future__ import annotations

import _thread
import os
import sys
import time

from procession import _native
from procession._wire import messages

_home: _native.Table | None = None
_tables: dict[bytes, _native.Table] = {}
"""By their ids; a table that words of shared memory refer to is never unmapped."""
_making = _thread.allocate_lock()


def home() -> _native.Table:
    """The table of this process's program, made now where there is none yet.

    Raises:
        OSError: It cannot be made; the text says why.
    """
    if _home is None:
        with _making:
            if _home is None:
                return _make()
    return _home


def main_table() -> _native.Table:
    """The home table where this process is its main, or else a new one of which it is.

    A raw `os.fork()` copy is a guest of the table that it grew up with; when it starts processes
    itself it is the main of a program of its own.
    """
    with _making:
        if _home is not None and _home.me()[0] == messages.MAIN_SLOT and _home.fileno() >= 0:
            return _home
        return _make()


def new_main_table() -> _native.Table:
    """A new home table, for a program whose old one is in another keeper's hands."""
    with _making:
        return _make()


def _make() -> _native.Table:
    table = _native.Table.create(messages.SLOTS)
    table.claim()  # main's slot, then the guard's
    table.claim()
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    generation = table.read(messages.MAIN_SLOT)[1]
    asked_ns = time.monotonic_ns()  # for `procession ps`, as is the name
    shown = name.encode("utf-8", "replace")
    table.ask(messages.MAIN_SLOT, generation, 0, 0, 0, asked_ns, shown, b"")
    table.enter(messages.MAIN_SLOT, _native.RUNNING)
    settle(table)
    return table


def settle(table: _native.Table) -> None:
    """From now on this is the home table; this process sits in it already."""
    global _home
    _home = table
    _tables[table.id()] = table


def known(table_id: bytes) -> _native.Table | None:
    """A table that this process maps, by its id."""
    return _tables.get(table_id)


def attach(fd: int) -> _native.Table:
    """Map a table that came as a descriptor, which belongs to the table from now on."""
    table = _native.Table.attach(fd)
    return _tables.setdefault(table.id(), table)


def _in_copy() -> None:
    global _making
    _making = _thread.allocate_lock()


os.register_at_fork(after_in_child=_in_copy)
