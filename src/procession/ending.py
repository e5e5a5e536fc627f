"""How a process ended: one answer, the same from every thread (G8)."""

from __future__ import annotations

import dataclasses
import enum
import os
import signal as _signal

__all__ = ["Ending", "How", "Rusage"]


class How(enum.StrEnum):
    """The ways in which a process can end."""

    RETURNED = "returned"
    """Its code came to its end."""
    RAISED = "raised"
    """An exception was not caught."""
    EXITED = "exited"
    """``sys.exit``, ``os._exit``, or an exit of a program that it executed."""
    SIGNALED = "signaled"
    """A signal ended it."""
    OUT_OF_MEMORY = "out_of_memory"
    """Inferred: a SIGKILL that was not ours while its cgroup counted an out-of-memory kill."""
    LOST = "lost"
    """It is gone and nobody is left who could know how."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rusage:
    """What a process used, itself and what it waited for (getrusage(2)).

    Attributes:
        user: CPU time in user mode, seconds.
        system: CPU time in the kernel, seconds.
        max_rss: Peak resident memory, bytes.
    """

    user: float
    system: float
    max_rss: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    Attributes:
        how: Which way it went.
        exitcode: As ``Process.exitcode``: the exit status, or minus the signal's number.
        text: The exception in a few words, where one was raised.
        killed_by: Pid of the process of this program that sent the fatal signal, if one did.
        core_dumped: Whether the kernel wrote a core file.
    """

    how: How
    exitcode: int
    text: str = ""
    killed_by: int | None = None
    core_dumped: bool = False

    @property
    def signal(self) -> int | None:
        """Number of the signal that ended it, or ``None``."""
        return -self.exitcode if self.exitcode < 0 else None

    def __str__(self) -> str:
        match self.how:
            case How.RETURNED:
                return "returned"
            case How.RAISED:
                return f"raised {self.text}" if self.text else "raised an exception"
            case How.EXITED:
                return f"exited {self.exitcode}"
            case How.OUT_OF_MEMORY:
                return f"was killed by {signal_name(-self.exitcode)} (out of memory, inferred)"
            case How.SIGNALED:
                by = f", sent by pid {self.killed_by}" if self.killed_by else ""
                return f"was killed by {signal_name(-self.exitcode)}{by}"
            case _:
                return "was lost: its keeper was gone before its end was known"


LOST_EXITCODE = 255  # what the standard fork server's client says of a child it lost


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 70`` where there is no name."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def from_status(
    status: int, how: How | None, text: str, *, lost: bool, oom: bool, killer: int
) -> Ending:
    """The Ending told by a wait status and by the process's own last words.

    Args:
        status: Wait status as of wait(2); ignored where ``lost``.
        how: What the process itself said before it ended, or ``None``.
        text: Its exception in a few words.
        lost: Nobody could collect the status.
        oom: The SIGKILL is taken to be the out-of-memory killer's.
        killer: Pid of ours that sent the last fatal signal, 0 for none.
    """
    if lost:
        return Ending(How.LOST, LOST_EXITCODE)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ending(
            How.OUT_OF_MEMORY if oom else How.SIGNALED,
            -number,
            killed_by=killer or None,
            core_dumped=os.WCOREDUMP(status),
        )
    code = os.WEXITSTATUS(status)
    return Ending(how or How.EXITED, code, text)
