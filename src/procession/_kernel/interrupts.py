"""Ctrl-C: which thread it comes to, and what to leave to it there."""

from __future__ import annotations

import threading


def may_come() -> bool:
    """Whether this thread is the one that interrupts come to; in a forked copy that is another."""
    return threading.get_ident() == threading.main_thread().ident


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception that the user's code was left by is for whoever waits here."""
    return isinstance(error, KeyboardInterrupt) and may_come()


__all__ = ["is_interrupt", "may_come"]
