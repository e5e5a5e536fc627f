"""What can happen to the processes of a program: the events of a recording, as frozen dataclasses.

Names are dotted and in the past tense. Times are seconds on the monotonic clock of the machine that
ran the program. A process is named by its `keeper` (the pid of the guard that tells of it) together
with an id that this guard never uses twice; `MAIN` is the program's main process.

A field added later has a default, so that older recordings can still be read; readers leave out
fields and events that they do not know. What would be misread by an older reader raises `FORMAT`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

__all__ = [
    "BY_NAME",
    "FORMAT",
    "MAIN",
    "Event",
    "LockOwnerDied",
    "ProcessAsked",
    "ProcessCodeEnded",
    "ProcessContinued",
    "ProcessEnded",
    "ProcessLetGo",
    "ProcessReaped",
    "ProcessStarted",
    "ProcessStopped",
    "ProcessUnkillable",
    "ProgramEnded",
    "ProgramExited",
    "ProgramStarted",
    "RecordingStarted",
    "StandardKept",
    "WaitBegan",
    "WaitEnded",
]

FORMAT = 1
"""Version of the recording, in its first line."""
MAIN = 0
"""Id of a program's main process."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: When.
        keeper: Pid of the guard that tells it; 0: told by `procession run`.
    """

    name: ClassVar[str] = ""
    at: float
    keeper: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted(Event):
    """The head of a recording.

    Attributes:
        format: `FORMAT` of who wrote it.
        wall: The same moment in seconds since the epoch.
        version: Version of procession.
        command: What follows `procession run`, or empty.
    """

    name: ClassVar[str] = "recording.started"
    format: int
    wall: float = 0.0
    version: str = ""
    command: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStarted(Event):
    """A program's main process is on the record from now on.

    Attributes:
        pid: Its process id.
        parent_pid: Its parent's.
        program: The program's name.
    """

    name: ClassVar[str] = "program.started"
    pid: int
    parent_pid: int = 0
    program: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnded(Event):
    """Main has come to its end, as its guard saw it, and nothing of the program is left.

    Attributes:
        pid: Main's process id.
        how: "normal" (return, sys.exit, an exception), "interrupted", "killed" (without Python's
            own end), or "closed": the recording ends, the program goes on.
    """

    name: ClassVar[str] = "program.ended"
    pid: int
    how: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramExited(Event):
    """Main was reaped by `procession run`.

    Attributes:
        pid: Main's process id.
        exitcode: Exit status, or minus a signal's number.
        cpu: CPU seconds.
        max_rss: Peak resident memory, bytes.
    """

    name: ClassVar[str] = "program.exited"
    pid: int
    exitcode: int
    cpu: float = 0.0
    max_rss: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessAsked(Event):
    """A process was asked for by `start()`.

    Attributes:
        id: The process.
        parent: Who started it.
        pid: Its process id.
        title: Its name.
        target: What it runs, ``module.function``.
        method: Start method.
        daemon: Whether it is a daemon.
    """

    name: ClassVar[str] = "process.asked"
    id: int
    parent: int = MAIN
    pid: int = 0
    title: str = ""
    target: str = ""
    method: str = ""
    daemon: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted(Event):
    """Its code began."""

    name: ClassVar[str] = "process.started"
    id: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCodeEnded(Event):
    """Its code has ended, and it waits at exit for the processes that it started."""

    name: ClassVar[str] = "process.code_ended"
    id: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopped(Event):
    """It was stopped (SIGSTOP, SIGTSTP …)."""

    name: ClassVar[str] = "process.stopped"
    id: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContinued(Event):
    """It goes on after a stop."""

    name: ClassVar[str] = "process.continued"
    id: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded(Event):
    """It has ended, and is a zombie until it is reaped."""

    name: ClassVar[str] = "process.ended"
    id: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReaped(Event):
    """It was reaped: how it ended is known.

    Attributes:
        id: The process.
        how: A value of `procession.How`.
        exitcode: Exit status, or minus a signal's number; 255 where it was lost.
        text: The exception in a few words.
        by: Pid of the process of the program that sent the fatal signal, 0: none did.
        cpu: CPU seconds, of itself and of what it waited for.
        max_rss: Peak resident memory, bytes.
    """

    name: ClassVar[str] = "process.reaped"
    id: int
    how: str
    exitcode: int
    text: str = ""
    by: int = 0
    cpu: float = 0.0
    max_rss: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLetGo(Event):
    """It was still there when the program had ended, and goes on.

    Attributes:
        pid: Its process id.
        comm: Its name in ps.
    """

    name: ClassVar[str] = "process.let_go"
    pid: int
    comm: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUnkillable(Event):
    """It should have been ended and could not be (D state, frozen, another user's).

    Attributes:
        pid: Its process id.
        comm: Its name in ps.
    """

    name: ClassVar[str] = "process.unkillable"
    pid: int
    comm: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaitBegan(Event):
    """A process waits for another one's end; told when it has blocked for a moment already.

    Attributes:
        waiter: Who waits.
        whom: For whose end.
    """

    name: ClassVar[str] = "wait.began"
    waiter: int
    whom: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnded(Event):
    """A wait for another one's end is over.

    Attributes:
        waiter: Who waited.
        whom: For whose end.
        began: When the wait began.
    """

    name: ClassVar[str] = "wait.ended"
    waiter: int
    whom: int
    began: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockOwnerDied(Event):
    """A lock was passed on from an owner that was killed.

    Attributes:
        owner: Who was killed.
        taker: Who has the lock now.
        lock: What the lock is called.
    """

    name: ClassVar[str] = "lock.owner_died"
    owner: int
    taker: int
    lock: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StandardKept(Event):
    """Under `procession run`, something of `multiprocessing` was left as it was.

    Attributes:
        what: Its name.
        why: The reason.
    """

    name: ClassVar[str] = "standard.kept"
    what: str
    why: str = ""


BY_NAME: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        RecordingStarted,
        ProgramStarted,
        ProgramEnded,
        ProgramExited,
        ProcessAsked,
        ProcessStarted,
        ProcessCodeEnded,
        ProcessStopped,
        ProcessContinued,
        ProcessEnded,
        ProcessReaped,
        ProcessLetGo,
        ProcessUnkillable,
        WaitBegan,
        WaitEnded,
        LockOwnerDied,
        StandardKept,
    )
}
"""Every event by its name."""
