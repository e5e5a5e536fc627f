"""What happens to children when their starter comes to Python's own end (G2, G10).

`multiprocessing`'s exit function does the rest: it waits for the children that are no daemons.
"""

from __future__ import annotations

import os
import sys
import time

from procession._launch import keeper_client, stopping
from procession._launch.handle import Handle
from procession._wire import messages

GOODBYE_LIMIT = 2.0  # seconds main waits for its keeper to finish; it needs milliseconds

FIRST = 1 << 30  # exit priority before that of anything else

_installed_in = 0


def install() -> None:
    """Register this process's hooks with multiprocessing's exit function, once.

    The first runs before every other finalizer, the second after all that are due before the
    daemons are terminated (pools, managers), the third after the last child was joined.
    """
    global _installed_in
    if _installed_in != os.getpid():
        from multiprocessing import util

        _installed_in = os.getpid()
        util.Finalize(None, _note_code_ended, exitpriority=FIRST)
        util.Finalize(None, _end_children, exitpriority=0)
        util.Finalize(None, _say_goodbye, exitpriority=-1000)


def _note_code_ended() -> None:
    """This process's own code has ended: from here on it waits for what it started (G13)."""
    keeper = keeper_client.existing()
    if keeper is not None and not keeper.closed:
        now_ns = time.monotonic_ns()
        keeper.table.code_ended(keeper.index, now_ns)
        if keeper.table.recorded():
            keeper.tell(messages.CODE_ENDED, keeper.owner_id, now_ns)


def _end_children() -> None:
    from multiprocessing import process

    children = [child for child in process._children if isinstance(child._popen, Handle)]  # type: ignore[attr-defined]
    interrupted = was_interrupted()
    ours: list[Handle] = [child._popen for child in children if interrupted or child.daemon]
    if ours:
        steps = stopping.after_interrupt if interrupted else stopping.terminating
        stopping.end_trees(ours, steps(stopping.GRACE))


def _say_goodbye() -> None:
    keeper_client.say_goodbye(GOODBYE_LIMIT, "interrupted" if was_interrupted() else "normal")


def was_interrupted() -> bool:
    """Whether this process is ending by a KeyboardInterrupt that nothing caught."""
    ending = sys.modules.get("procession._child.ending")
    if ending is not None and ending.interrupted:
        return True
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return False  # at a prompt it is only the last line that was interrupted
    return getattr(sys, "last_type", None) is KeyboardInterrupt
