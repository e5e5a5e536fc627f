"""How a process ended: one answer, the same from every thread (G8)."""

from __future__ import annotations

import enum
import os
import signal as _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class _Fact:
    """Immutable, and equal to what has the same fields.

    Not a dataclass: those import `inspect`, which takes longer than a hundred starts.
    """

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def _set(self, *values: object) -> None:
        for name, value in zip(self.__match_args__, values, strict=True):
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot assign to {name!r}: a {type(self).__name__} is a fact")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"cannot delete {name!r}: a {type(self).__name__} is a fact")

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        pairs = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()


class Rusage(_Fact):
    """What a process used, itself and what it waited for (getrusage(2)).

    Attributes:
        user: CPU time in user mode, seconds.
        system: CPU time in the kernel, seconds.
        max_rss: Peak resident memory, bytes.
    """

    __slots__ = __match_args__ = ("user", "system", "max_rss")

    user: float
    system: float
    max_rss: int

    def __init__(self, user: float, system: float, max_rss: int) -> None:
        self._set(user, system, max_rss)


class Ending(_Fact):
    """How a process ended.

    Attributes:
        how: Which way it went.
        exitcode: As ``Process.exitcode``: the exit status, or minus the signal's number.
        text: The exception in a few words, where one was raised.
        killed_by: Pid of the process of this program that sent the fatal signal, if one did.
        core_dumped: Whether the kernel wrote a core file.
    """

    __slots__ = __match_args__ = ("how", "exitcode", "text", "killed_by", "core_dumped")

    how: How
    exitcode: int
    text: str
    killed_by: int | None
    core_dumped: bool

    def __init__(
        self,
        how: How,
        exitcode: int,
        text: str = "",
        killed_by: int | None = None,
        core_dumped: bool = False,
    ) -> None:
        self._set(how, exitcode, text, killed_by, core_dumped)

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
