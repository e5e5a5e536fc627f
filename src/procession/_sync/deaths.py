"""Who died with what in its hands, in words."""

from __future__ import annotations

import time
import warnings

from procession import _native
from procession._launch import keeper_client
from procession._wire import messages
from procession.ending import Ending, How, from_status
from procession.errors import OwnerDied, OwnerDiedWarning

MODES = ("warn", "raise")
"""What ``on_owner_death`` may be."""

_REAPING_NS = 5_000_000  # what a reaper gets to say how a process ended, for the words of a warning
_HOWS = {
    _native.RETURNED: How.RETURNED,
    _native.RAISED: How.RAISED,
    _native.EXITED: How.EXITED,
}


def check_mode(mode: str) -> None:
    """Refuse what ``on_owner_death`` cannot be.

    Raises:
        ValueError: It is none of MODES.
    """
    if mode not in MODES:
        raise ValueError(f"on_owner_death must be 'warn' or 'raise', got {mode!r}")


def tell_of_owner(
    what: str, table: _native.Table, mode: str, left: bool, index: int, generation: int
) -> None:
    """Say whose death gave a lock back, or who ended and left it held."""
    name, pid, ending = who(table, index, generation)
    if left:
        warnings.warn(
            f"this {what} was left held by {person(name, pid)}, which {ending}: it stays held "
            "until somebody releases it",
            OwnerDiedWarning,
            stacklevel=2,
        )
        return
    if table.recorded():
        _tell_recording(what, table, generation << 32 | index)
    if mode == "raise":
        raise OwnerDied(what, name, pid, ending)
    warnings.warn(
        f"this {what} was held by {person(name, pid)}, which {past(ending)}: it is yours now, and "
        "what it guards may be half done",
        OwnerDiedWarning,
        stacklevel=2,
    )


def tell_of_holder(what: str, table: _native.Table, mode: str, index: int, generation: int) -> None:
    """Say whose death gave a permit back."""
    name, pid, ending = who(table, index, generation)
    if mode == "raise":
        raise OwnerDied(what, name, pid, ending)
    warnings.warn(
        f"a permit of this {what} was held by {person(name, pid)}, which {past(ending)}: it is "
        "back, and what it was for may be half done",
        OwnerDiedWarning,
        stacklevel=2,
    )


def _tell_recording(what: str, table: _native.Table, owner: int) -> None:
    keeper = keeper_client.present()
    if keeper is not None and keeper.table is table:
        now_ns = time.monotonic_ns()
        keeper.tell(messages.OWNER_DIED, owner, keeper.owner_id, what, now_ns)


def person(name: str, pid: int) -> str:
    """A process as a sentence names it."""
    return f"process {name!r} (pid {pid})" if pid else "a process that is long gone"


def past(ending: Ending) -> str:
    """What became of it, after "which"."""
    return "died" if ending.how is How.LOST else f"{ending}"


def who(table: _native.Table, index: int, generation: int) -> tuple[str, int, Ending]:
    """Name, pid and ending of a process that is dead; what nobody knows any more is empty."""
    row = table.read(index)
    if row[1] == generation and row[0] != _native.ENDED and row[5] != _native.FORK:
        table.wait(index, generation, _REAPING_NS)  # a forked one is reaped when its parent likes
        row = table.read(index)
    if row[1] != generation:
        return "", 0, Ending(How.LOST, 255)
    flags, how, code, status = row[6:10]
    ended = row[0] == _native.ENDED and not flags & _native.FLAG_LOST
    if not ended and how != _native.HOW_NONE:
        status, ended = code << 8, True
    ending = from_status(
        status,
        _HOWS.get(how),
        row[20].decode("utf-8", "replace"),
        lost=not ended,
        oom=bool(flags & _native.FLAG_OOM),
        killer=0,
    )
    return row[18].decode("utf-8", "replace"), row[2], ending
