"""Process: start, wait for, stop and see one process; and who is running, and who started it."""

from __future__ import annotations

import os
from multiprocessing import process as _standard
from multiprocessing.process import (  # type: ignore[attr-defined]
    AuthenticationString,
    active_children,
    current_process,
    parent_process,
)

from procession import _current
from procession.ending import Ending, How, Rusage
from procession.errors import ProcessDied, StartError, StillRunning

TYPE_CHECKING = False  # `typing` would double what this module costs to import
if TYPE_CHECKING:
    from builtins import property as _answer
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from procession._launch.handle import Handle

__all__ = [
    "AuthenticationString",
    "BaseProcess",
    "Process",
    "active_children",
    "current_process",
    "parent_process",
]

BaseProcess = _standard.BaseProcess

_SHARED = (
    "_children",
    "_cleanup",
    "_dangling",
    "_current_process",
    "_parent_process",
    "_process_counter",
    "_exitcode_to_name",
    "_ParentProcess",
    "ORIGINAL_DIR",
)


def __getattr__(name: str) -> Any:
    """State that lives in `multiprocessing.process`, so that there is one of it."""
    if name in _SHARED:
        return getattr(_standard, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:

    class _answer:
        """A property that subclasses and instances may shadow: many have such names already."""

        def __init__(self, function):
            self._function = function
            self.__doc__ = function.__doc__

        def __get__(self, process, owner):
            return self if process is None else self._function(process)


class Group:
    """What a process may belong to from its start: `ProcessGroup` is one."""

    def _joined_by(self, process: Process, start: Callable[[], Handle]) -> Handle:
        """Start a process of the group; may refuse by raising."""
        raise NotImplementedError


class Process(BaseProcess):
    """A process of its own that runs ``target(*args, **kwargs)``.

    Args:
        group: The `ProcessGroup` that it belongs to, if any.
        target: What to run; ``None`` runs nothing (or a subclass's ``run()``).
        name: Its name; ``None`` makes one: ``Process-1``, ``Process-1:2`` for a child's child.
        args: Positional arguments of the target.
        kwargs: Keyword arguments of the target; ``None`` is the same as none.
        daemon: Whether it ends when its starter does; ``None`` takes the starter's own flag.

    Raises:
        TypeError: The target cannot be called.
        AssertionError: The group is none.
    """

    _start_method: str | None = None
    _method: str | None = None

    if TYPE_CHECKING:  # what multiprocessing's class has, and its stubs do not tell
        _popen: Any
        _target: Any
        _args: tuple[Any, ...]
        _kwargs: dict[str, Any]
        _parent_pid: int | None
        _closed: bool
        _group: Group

        def _check_closed(self) -> None: ...

    def __init__(
        self,
        group: Group | None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        if target is not None and not callable(target):
            raise TypeError(
                f"target must be callable or None, got {type(target).__name__!r}: {target!r}"
                " (pass the function itself and its arguments in args, not a call of it)"
            )
        assert group is None or isinstance(group, Group), (
            f"group argument must be None or a ProcessGroup, got {group!r}"
        )
        super().__init__(None, target, name, args, {} if kwargs is None else kwargs, daemon=daemon)
        if group is not None:
            self._group = group

    @staticmethod
    def _Popen(process: Process) -> Handle:
        handle: Handle = _current.popen(process)
        return handle

    def run(self) -> Any:
        """Call the target. A subclass may override it; what it returns is `result`'s answer."""
        if self._target:
            return self._target(*self._args, **self._kwargs)
        return None

    def start(self) -> None:
        """Start the process; returns as soon as it exists.

        Raises:
            StartError: It could not be started; its errno and text say why.
            KeeperLost: The program's keeper was killed from outside since the last start; the
                next call gets a new one.
        """
        self._check_closed()
        assert self._popen is None, "cannot start a process twice"
        assert self._parent_pid == os.getpid(), (
            "can only start a process object created by current process"
        )
        try:
            _forget_the_ended()
        except OSError as error:  # the first start loads modules, which takes a descriptor
            raise StartError(
                error.errno, f"what a start needs cannot be loaded: {error}"
            ) from error
        group: Group | None = self.__dict__.pop("_group", None)  # it does not go to the child
        if group is None:
            self._popen = self._Popen(self)
        else:
            self._popen = self._start_in(group)
        # the target may hold this object: without a cycle it is freed at once (bpo-30775)
        del self._target, self._args, self._kwargs
        _standard._children.add(self)  # type: ignore[attr-defined]

    def interrupt(self) -> None:
        """Send SIGINT: KeyboardInterrupt in the process, so that its ``finally`` blocks run."""
        self._check_closed()
        self._popen.interrupt()

    def stop(self, grace: float = 5.0) -> Ending:
        """End the process and everything below it: interrupt, terminate, then kill (G3).

        Args:
            grace: Seconds in which it may end by itself, half of them after SIGINT, half after
                SIGTERM. ``0`` kills at once.

        Returns:
            How it ended.

        Raises:
            StillRunning: The kernel could not end it (uninterruptible sleep, another user's).
        """
        from procession._launch import stopping

        if not grace >= 0:
            raise ValueError(f"grace must be at least 0 seconds, got {grace!r}")
        handle = self._started()
        stopping.end_trees([handle], stopping.gently(grace))
        self.join(0)
        return self._ended(0)

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process has ended.

        It is opened at the first use and closed by `close`.
        """
        self._check_closed()
        if self._popen is None:
            raise ValueError("process not started")
        sentinel: int = self._popen.sentinel
        return sentinel

    def close(self) -> None:
        """Let go of what the object holds; it cannot be used afterwards.

        Raises:
            ValueError: The process still runs.
        """
        if self._popen is not None:
            if self._popen.poll() is None:
                raise ValueError(
                    "Cannot close a process while it is still running. "
                    "You should first call join() or terminate()."
                )
            self._popen.close()
            self._popen = None
            _standard._children.discard(self)  # type: ignore[attr-defined]
        self._closed = True

    @_answer
    def ending(self) -> Ending | None:
        """How it ended, or ``None`` while it runs or was not started (G8)."""
        return self._ending()

    @_answer
    def rusage(self) -> Rusage | None:
        """CPU time and peak memory, or ``None`` while it runs or where nobody could know."""
        return self._popen.rusage if self._ending() is not None else None

    def result(self, timeout: float | None = None) -> Any:
        """What the target (or ``run()``) returned.

        Args:
            timeout: Longest wait for its end in seconds; ``None`` has no limit.

        Raises:
            StillRunning: The time was over.
            ProcessDied: It ended by a signal, an exit, or was lost.
            BaseException: What the target raised, with its traceback.
        """
        ending, outcome = self._outcome(timeout)
        if ending.how is How.RAISED and outcome is not None and outcome.error is not None:
            raise outcome.error
        if ending.how is not How.RETURNED:
            raise ProcessDied(self.name, self.pid or 0, ending)
        if outcome is None:
            return None
        if outcome.error is not None:  # it returned what cannot be pickled
            raise outcome.error
        return outcome.value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the target raised, or ``None`` when it returned.

        Args:
            timeout: Longest wait for its end in seconds; ``None`` has no limit.

        Raises:
            StillRunning: The time was over.
            ProcessDied: It ended by a signal, an exit, or was lost.
        """
        ending, outcome = self._outcome(timeout)
        if ending.how is How.RETURNED:
            return None
        if ending.how is How.RAISED and outcome is not None and outcome.error is not None:
            error: BaseException = outcome.error
            return error
        raise ProcessDied(self.name, self.pid or 0, ending)

    # --- behind ----------------------------------------------------------------------------

    def _start_in(self, group: Group) -> Handle:
        try:
            return group._joined_by(self, lambda: self._Popen(self))
        except BaseException:
            self._group = group
            raise

    def _ending(self) -> Ending | None:
        self._check_closed()
        if self._popen is None or self._popen.poll() is None:
            return None
        ending: Ending | None = self._popen.ending
        return ending

    def _started(self) -> Handle:
        self._check_closed()
        if self._popen is None:
            raise ValueError("process not started")
        handle: Handle = self._popen
        return handle

    def _ended(self, timeout: float | None) -> Ending:
        handle = self._started()
        if handle.wait(timeout) is None:
            raise StillRunning(f"process {self.name!r} (pid {handle.pid}) is still running")
        _standard._children.discard(self)  # type: ignore[attr-defined]
        assert handle.ending is not None
        return handle.ending

    def _outcome(self, timeout: float | None) -> tuple[Ending, Any]:
        ending = self._ended(timeout)
        if ending.how not in (How.RETURNED, How.RAISED):
            return ending, None
        return ending, self._started().load_outcome()

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self._start_method is None and self._method is not None:
            _current.adopt(self._method)
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return code


def _forget_the_ended() -> None:
    """Let go of children that have ended, as every `start()` of multiprocessing does.

    Costs nothing to speak of at any number of children: they are looked through only after a
    number of ends that makes up for it.
    """
    global _reap
    if _reap is None:
        from procession._launch.forked import reap

        _reap = reap
    _reap()
    children = _standard._children  # type: ignore[attr-defined]
    _sweeps.countdown -= 1
    if _sweeps.countdown <= 0:
        for child in list(children):
            if (popen := child._popen) is not None and popen.poll() is not None:
                children.discard(child)
        _sweeps.countdown = len(children) // 4


_reap: Callable[[], None] | None = None  # looked up once: an import statement takes its time


class _Sweeps:
    countdown = 0


_sweeps = _Sweeps()
