"""Every exception of procession, by fault rather than by place.

Each class also derives from what existing ``except`` clauses around `multiprocessing` catch.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procession.ending import Ending

__all__ = [
    "CallExited",
    "CallTimeout",
    "ForkedThreadsWarning",
    "GroupCancelled",
    "GroupTimeout",
    "ItemLostWarning",
    "KeeperLost",
    "ManagerDied",
    "OwnerDied",
    "OwnerDiedWarning",
    "PoolTerminated",
    "ProcessDied",
    "ProcessionError",
    "RecordingError",
    "RemoteError",
    "ResultNotPicklable",
    "SharedObjectLost",
    "StartError",
    "StillRunning",
    "TakersGone",
    "WorkerDied",
    "WritersGone",
]


class ProcessionError(Exception):
    """Root of the exceptions that procession itself raises."""


class StartError(ProcessionError, OSError):
    """A process could not be started; nothing was left half-made and the program can go on.

    ``errno`` is the kernel's where the kernel refused, otherwise ``None``.
    """


class KeeperLost(ProcessionError, RuntimeError):
    """The keeper was killed from outside; its children were ended with it.

    Raised once, by the next ``start()``; the ``start()`` after that gets a new keeper.
    """


class RecordingError(ProcessionError, ValueError):
    """A file is no recording, or the program is recorded already; the text says which."""


class SharedObjectLost(ProcessionError, RuntimeError):
    """A shared object was sent to this process, but nobody in its program has it any more."""


class StillRunning(ProcessionError, TimeoutError):
    """The time given was over and the process still runs; nothing was changed."""


class ProcessDied(ProcessionError, RuntimeError):
    """A result was asked of a process that ended without returning or raising.

    Attributes:
        name: The process's name.
        pid: Its process id.
        ending: How it ended.
    """

    def __init__(self, name: str, pid: int, ending: Ending) -> None:
        super().__init__(name, pid, ending)
        self.name = name
        self.pid = pid
        self.ending = ending

    def __str__(self) -> str:
        return f"process {self.name!r} (pid {self.pid}) has no result: it {self.ending}"


class WorkerDied(ProcessDied):
    """The worker of a pool or executor ended with a call in its hands; that call alone is lost.

    Attributes:
        name: The worker's name.
        pid: Its process id.
        ending: How it ended.
        call: The call and its arguments, in short.
        stack: Its Python stack, where a crash (SIGSEGV, SIGABRT, …) ended it; else empty.
    """

    def __init__(self, name: str, pid: int, ending: Ending, call: str, stack: str = "") -> None:
        super().__init__(name, pid, ending)
        self.args = (name, pid, ending, call, stack)
        self.call = call
        self.stack = stack

    def __str__(self) -> str:
        text = f"worker {self.name!r} (pid {self.pid}) {self.ending} in {self.call}"
        return f"{text}\n{self.stack}" if self.stack else text


class ManagerDied(
    ProcessDied,
    EOFError,
    BrokenPipeError,
    ConnectionRefusedError,
    ConnectionResetError,
    FileNotFoundError,
):
    """The server of a manager has ended, and the objects in it are lost (G6).

    It is whatever the standard library raises at such a moment, which depends on the moment.

    Attributes:
        name: The server's name.
        pid: Its process id.
        ending: How it ended.
    """

    def __str__(self) -> str:
        return (
            f"the manager's server {self.name!r} (pid {self.pid}) {self.ending}: its objects are "
            "lost, and their proxies of no use any more"
        )

    def __reduce__(self) -> tuple[type, tuple[str, int, Ending]]:
        return type(self), (self.name, self.pid, self.ending)


class CallExited(ProcessionError, RuntimeError):
    """A call in a pool called ``sys.exit``: that ends the call, and nobody else (G7).

    Attributes:
        call: The call and its arguments, in short.
        code: What was passed to ``sys.exit``.
    """

    def __init__(self, call: str, code: object) -> None:
        super().__init__(call, code)
        self.call = call
        self.code = code

    def __str__(self) -> str:
        return f"{self.call} called sys.exit({self.code!r})"


class CallTimeout(ProcessionError, TimeoutError):
    """A call in a pool took longer than it was given; its worker was stopped and replaced.

    Attributes:
        call: The call and its arguments, in short.
        timeout: What it was given, seconds.
    """

    def __init__(self, call: str, timeout: float) -> None:
        super().__init__(call, timeout)
        self.call = call
        self.timeout = timeout

    def __str__(self) -> str:
        return f"{self.call} did not end within {self.timeout} s; its worker was stopped"


class PoolTerminated(ProcessionError, RuntimeError):
    """The result of a call was asked for that had not ended when its pool was terminated."""


class GroupCancelled(ProcessionError, RuntimeError):
    """A `ProcessGroup` inside another one was stopped together with it.

    It leaves the inner block, and the outer one swallows it.
    """


class GroupTimeout(ProcessionError, TimeoutError):
    """A `ProcessGroup` did not end in the time given; its processes were stopped."""


class OwnerDied(ProcessionError, RuntimeError):
    """The process that held a lock died otherwise than by Python's own end (G4).

    Raised where ``on_owner_death="raise"`` was asked for; the lock is free again.

    Attributes:
        what: What it held: ``"Lock"``.
        name: The process's name; empty where nobody knows it any more.
        pid: Its process id, or 0.
        ending: How it ended, as far as is known.
    """

    def __init__(self, what: str, name: str, pid: int, ending: Ending) -> None:
        super().__init__(what, name, pid, ending)
        self.what = what
        self.name = name
        self.pid = pid
        self.ending = ending

    def __str__(self) -> str:
        who = f"process {self.name!r} (pid {self.pid})" if self.pid else "a process"
        return (
            f"{who} held this {self.what} and {self.ending}: what it guards may be half done. The "
            "lock is free again."
        )


class OwnerDiedWarning(RuntimeWarning):
    """Something shared was given back by a death, or left held by a process that has ended (G4)."""


class _OthersGone(ProcessionError):
    """Nobody else is left who could end a wait at a queue.

    Attributes:
        endings: Name, pid and ending of those who had the queue, as far as they are known.
    """

    _text = ""

    def __init__(self, endings: list[tuple[str, int, Ending]]) -> None:
        super().__init__(endings)
        self.endings = endings

    def __str__(self) -> str:
        if not self.endings:
            return f"{self._text}: no other process has the queue"
        people = ", ".join(f"process {name!r} (pid {pid}) {end}" for name, pid, end in self.endings)
        return f"{self._text}: {people}"


class WritersGone(_OthersGone, EOFError):
    """Nobody is left who could put anything into the queue, so that `get` would wait for ever (G6).

    Attributes:
        endings: Name, pid and ending of those who had the queue, as far as they are known.
    """

    _text = "the queue is empty and nobody is left to put anything into it"


class TakersGone(_OthersGone):
    """Nobody is left who could report the rest as done, so that `join` would wait for ever (G6).

    Attributes:
        endings: Name, pid and ending of those who had the queue, as far as they are known.
    """

    _text = "not all items are done and nobody is left to report them"


class ItemLostWarning(RuntimeWarning):
    """A process died between taking an item out of a queue and having it: the item is lost (G4)."""


class ForkedThreadsWarning(DeprecationWarning):
    """``fork`` copied a process that has other threads: a lock one of them held stays locked.

    Shown where DeprecationWarning is shown, as CPython 3.12 and later do for ``os.fork()``;
    the message names the threads.
    """


class ResultNotPicklable(ProcessionError, TypeError):
    """A process returned something that cannot be sent; the text says what, and why."""


class RemoteError(ProcessionError, RuntimeError):
    """Stands for an exception of another process that could not travel itself (G7).

    Attributes:
        module: Module of the original's type.
        qualname: Its qualified name.
        message: The original in words.
        traceback_text: Its traceback as that process would have printed it.
        why: Why it could not come itself.
    """

    def __init__(
        self, module: str, qualname: str, message: str, traceback_text: str, why: str
    ) -> None:
        super().__init__(module, qualname, message, traceback_text, why)
        self.module = module
        self.qualname = qualname
        self.message = message
        self.traceback_text = traceback_text
        self.why = why

    def __str__(self) -> str:
        return f"{self.message} ({self.why})\n\n{self.traceback_text.rstrip()}"
