"""ProcessGroup: processes that live within a block, and fail as one (structured concurrency)."""

from __future__ import annotations

import collections
import contextvars
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from procession import process as _process
from procession._launch import stopping
from procession._launch.handle import Handle
from procession._launch.own_thread import OwnThread
from procession.ending import How
from procession.errors import (
    GroupCancelled,
    GroupTimeout,
    KeeperLost,
    ProcessDied,
    StartError,
    StillRunning,
)

__all__ = ["ProcessGroup"]

_LONGEST_POLL_MS = 3_600_000.0  # poll takes no more than 24 days
_RESERVE = 4  # descriptors that stopping takes: at that moment there may be none left
_AGAIN_MS = 50.0  # until it is tried again where somebody else took them

_current: contextvars.ContextVar[tuple[int, ProcessGroup] | None] = contextvars.ContextVar(
    "procession_group", default=None
)


class ProcessGroup(_process.Group):
    """Processes that have all ended when the block is left::

        with ProcessGroup() as group:
            a = group.start(fetch, "a")
            b = group.start(fetch, "b")
        print(a.result(), b.result())

    The first process that fails has the others stopped, each with everything below it, within the
    grace time; so has an exception in the block. The block is left by an `ExceptionGroup` of all
    failures, the block's own first; KeyboardInterrupt and SystemExit leave it as they are. A
    process fails when it raises, when a signal ends it, or when it exits with another status
    than 0, unless that is the answer to having been stopped.

    Args:
        timeout: Seconds, from the entering of the block, after which all are stopped and
            `GroupTimeout` is raised; ``None`` has no limit.
        grace: Seconds that a stopped process gets to end by itself, half of them after SIGINT,
            half after SIGTERM; ``0`` kills at once.
        context: The context whose processes `start` makes; ``None`` takes the default one.

    Raises:
        ValueError: A time is negative.
    """

    def __init__(
        self,
        *,
        timeout: float | None = None,
        grace: float = stopping.GRACE,
        context: Any = None,
    ) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be at least 0 seconds or None, got {timeout!r}")
        if not grace >= 0:
            raise ValueError(f"grace must be at least 0 seconds, got {grace!r}")
        self._timeout = timeout
        self._grace = grace
        self._context = context
        self._changed = threading.Condition()
        self._members: dict[_process.Process, Handle] = {}
        self._living: dict[int, _process.Process] = {}
        self._ended: collections.deque[_process.Process] = collections.deque()
        self._inner: set[ProcessGroup] = set()
        self._being_started = 0
        self._pid = 0  # of the process that is inside the block
        self._left = False
        self._stop: stopping.Steps | None = None
        self._stopped: set[_process.Process] = set()
        self._failed = False
        self._timed_out = False
        self._cancelled_from_outside = False
        self._deadline: float | None = None
        self._wake = -1
        self._reserve: list[int] = []
        self._watcher: OwnThread | None = None

    def __reduce__(self) -> Any:
        raise TypeError("a ProcessGroup belongs to its process and cannot be pickled")

    def __repr__(self) -> str:
        state = "left" if self._left else "open" if self._pid else "not entered"
        return (
            f"<ProcessGroup {state}, {len(self._living)} of {len(self._members)} processes running>"
        )

    # --- within the block ------------------------------------------------------------------

    def start(self, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> _process.Process:
        """Start a process that calls ``fn(*args, **kwargs)``.

        Raises:
            RuntimeError: The block was not entered, was left, or the group is being stopped.
            StartError: The process could not be started.
        """
        kind = _process.Process if self._context is None else self._context.Process
        process: _process.Process = kind(group=self, target=fn, args=args, kwargs=kwargs)
        process.start()
        return process

    def cancel(self) -> None:
        """Stop all processes of the group, and those of groups inside it; the block is left
        without an exception on that account. Returns at once.
        """
        self._check_owner()
        self._stop_all(stopping.gently(self._grace))

    @property
    def cancelled(self) -> bool:
        """Whether the group is being stopped, or was."""
        return self._stop is not None

    @property
    def processes(self) -> tuple[_process.Process, ...]:
        """All processes of the group, in the order in which they were started."""
        with self._changed:
            return tuple(self._members)

    def as_completed(self, timeout: float | None = None) -> Iterator[_process.Process]:
        """The group's processes in the order in which they end, each once, failed or not.

        Those started meanwhile come, too. Processes that `wait_any` has returned do not.

        Args:
            timeout: Longest time in seconds, from the first ``next()`` on; ``None`` has no limit.

        Raises:
            StillRunning: The time was over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            process = self.wait_any(rest)
            if process is None:
                return
            yield process

    def wait_any(self, timeout: float | None = None) -> _process.Process | None:
        """The next process of the group that has ended, each once.

        Args:
            timeout: Longest wait in seconds; ``None`` has no limit.

        Returns:
            The process; ``None`` when all that were started have been returned.

        Raises:
            StillRunning: The time was over.
        """
        self._check_owner()

        def something() -> bool:
            return bool(self._ended) or not (self._living or self._being_started)

        with self._changed:
            if not self._changed.wait_for(something, timeout):
                raise StillRunning(f"{len(self._living)} processes of the group are still running")
            return self._ended.popleft() if self._ended else None

    # --- the block -------------------------------------------------------------------------

    def __enter__(self) -> ProcessGroup:
        if self._pid:
            raise RuntimeError("a ProcessGroup can be entered once; make a new one")
        self._pid = os.getpid()
        if self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        around = _current.get()
        self._outer = around[1] if around is not None and around[0] == self._pid else None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            if self._deadline is not None:
                self._ensure_watcher()
        except BaseException:  # the block is not entered: what the group has goes now
            with self._changed:
                self._left = True
                self._wake_watcher()
            self._close()
            raise
        while self._outer is not None and not self._outer._admit(self):
            self._outer = self._outer._outer  # generators leave blocks in any order
        _current.set((self._pid, self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        if self._pid != os.getpid():
            return False  # a forked copy of the block: none of the processes is its own
        around = _current.get()
        if around is not None and around[1] is self:  # elsewhere a generator may be closed
            _current.set(None if self._outer is None else (self._pid, self._outer))
        interrupt = self._wait_for_the_end(error)
        self._close()
        if interrupt is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            raise interrupt
        return self._leave(error)

    def _leave(self, error: BaseException | None) -> bool:
        """Raise what the block is to be left by; true where its own exception is not that."""
        own = None if error is None or self._is_consequence(error) else error
        if own is not None and not isinstance(own, Exception):
            return False  # KeyboardInterrupt, SystemExit and their like are nobody else's business
        failures: list[BaseException] = [] if own is None else [own]
        for failure in self._failures():
            if all(failure is not other for other in failures):
                failures.append(failure)
        if self._timed_out:
            late = GroupTimeout(
                f"the group was stopped, as it did not end within {self._timeout} s"
            )
            if not failures:
                raise late from None
            failures.append(late)
        if failures:
            raise BaseExceptionGroup(self._summary(len(failures)), failures) from None
        if self._cancelled_from_outside:
            raise GroupCancelled("the group was stopped with the group around it") from None
        return error is not None

    def _summary(self, failures: int) -> str:
        count = len(self._members)
        of = f"{count} process" if count == 1 else f"{count} processes"
        return f"{failures} {'failure' if failures == 1 else 'failures'} in a group of {of}"

    def _wait_for_the_end(self, own: BaseException | None) -> BaseException | None:
        """Wait until every process has ended, and stop them first where the block failed.

        An interrupt meanwhile stops them, too, and another one kills.
        """
        interrupted = isinstance(own, KeyboardInterrupt)
        interrupt: BaseException | None = None
        steps: stopping.Steps | None = None
        while True:
            try:
                if steps is None and own is not None and not self._is_consequence(own):
                    steps = self._steps_after(own)
                if steps is not None:
                    self._stop_all(steps)
                if steps == ():  # the user is out of patience
                    with self._changed:
                        living = [self._members[one] for one in self._living.values()]
                    stopping.end_trees(living, ())
                with self._changed:
                    self._left = True
                    self._wake_watcher()
                    self._changed.wait_for(lambda: not (self._living or self._being_started))
                return interrupt
            except BaseException as error:  # Ctrl-C, or another signal handler's exception
                steps = () if interrupted else self._steps_after(error)
                interrupt, interrupted = interrupt or error, True

    def _close(self) -> None:
        if self._outer is not None:
            with self._outer._changed:
                self._outer._inner.discard(self)
        if self._watcher is not None:
            self._watcher.join()
        with self._changed:  # another thread may be about to cancel
            os.close(self._wake)
            self._wake = -1
            self._free_reserve()

    def _free_reserve(self) -> None:
        while self._reserve:
            os.close(self._reserve.pop())

    def _steps_after(self, error: BaseException) -> stopping.Steps:
        if isinstance(error, KeyboardInterrupt):
            return stopping.after_interrupt(self._grace)
        return stopping.gently(self._grace)

    # --- what failed -----------------------------------------------------------------------

    def _failures(self) -> Iterator[BaseException]:
        for process, handle in self._members.items():
            if not _has_failed(handle) or (process in self._stopped and _obeyed(handle)):
                continue
            yield _failure(handle)

    def _is_consequence(self, error: BaseException) -> bool:
        """Whether an exception of the block only says that this group was stopped."""
        if self._stop is None:
            return False
        if isinstance(error, GroupCancelled):
            return True
        for process in self._stopped:
            handle = self._members[process]
            if handle.poll() is None or not _obeyed(handle):
                continue
            if isinstance(error, ProcessDied) and error.pid == handle.pid:
                return True
            if _raised(handle) is error:
                return True
        return False

    # --- members ---------------------------------------------------------------------------

    def _check_owner(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                "the group belongs to another process"
                if self._pid
                else "the group's block was not entered: use `with ProcessGroup() as group:`"
            )

    def _joined_by(self, process: _process.Process, start: Callable[[], Handle]) -> Handle:
        self._check_owner()
        with self._changed:
            if self._stop is not None:
                raise RuntimeError("the group is being stopped; no process can be started in it")
            if self._left and not (self._living or self._being_started):
                raise RuntimeError("the group's block was left; no process can be started in it")
            try:
                self._ensure_watcher()
            except OSError as error:
                raise StartError(error.errno, f"a group cannot watch a process: {error}") from error
            self._being_started += 1
        try:
            handle = start()
            with self._changed:
                try:
                    sentinel = handle.open_sentinel()
                except OSError:  # it is in no group, and so it is not to be
                    stopping.end_trees([handle], ())
                    raise
                self._members[process] = handle
                self._living[sentinel] = process
            return handle
        finally:
            with self._changed:
                self._being_started -= 1
                self._wake_watcher()
                self._changed.notify_all()

    def _admit(self, inner: ProcessGroup) -> bool:
        """Take a group in; false where the block was left."""
        with self._changed:
            if self._wake < 0:
                return False
            self._inner.add(inner)
            stopped = self._stop
        if stopped is not None:
            inner._stop_from_outside(stopped)
        return True

    # --- the watcher -----------------------------------------------------------------------

    def _stop_all(self, steps: stopping.Steps) -> None:
        with self._changed:
            if self._wake < 0:
                return  # all have ended
            if self._stop is None:
                self._stop = steps
            inner = list(self._inner)
            self._wake_watcher()
            self._changed.notify_all()
        for group in inner:
            group._stop_from_outside(steps)

    def _stop_from_outside(self, steps: stopping.Steps) -> None:
        if self._stop is None:
            self._cancelled_from_outside = True
        self._stop_all(steps)

    def _wake_watcher(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _ensure_watcher(self) -> None:
        if self._watcher is None:
            while len(self._reserve) < _RESERVE:
                self._reserve.append(os.dup(self._wake))
            self._watcher = OwnThread("procession-group", self._watch)
            try:
                self._watcher.start()
            except RuntimeError:  # there is no thread to be had
                self._watcher = None
                raise

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        known: set[int] = set()
        while True:
            with self._changed:
                if self._left and not (self._living or self._being_started):
                    return
                for sentinel in self._living.keys() - known:
                    poll.register(sentinel, select.POLLIN)
                    known.add(sentinel)
                stop = self._stop
                fresh = [one for one in self._living.values() if one not in self._stopped]
                if stop is not None:
                    self._stopped.update(fresh)
            rest = self._rest() if stop is None else None
            if stop is not None and fresh and not self._end(fresh, stop):
                rest = _AGAIN_MS
            for fd, _ in poll.poll(rest):
                if fd == self._wake:
                    os.eventfd_read(fd)
                else:
                    poll.unregister(fd)
                    known.discard(fd)
                    self._note_end(fd)
            if self._stop is None and self._rest() == 0:
                self._timed_out = True
                self._stop_all(stopping.gently(self._grace))

    def _rest(self) -> float | None:
        """Milliseconds to the deadline."""
        if self._deadline is None:
            return None
        return min(max(0.0, (self._deadline - time.monotonic()) * 1000), _LONGEST_POLL_MS)

    def _end(self, processes: list[_process.Process], steps: stopping.Steps) -> bool:
        """End some of the group, with all below them; false where that cannot be done now."""
        with self._changed:
            self._free_reserve()
        try:
            stopping.end_trees([self._members[one] for one in processes], steps)
        except OSError:  # others took the descriptors
            with self._changed:
                self._stopped.difference_update(processes)
            return False
        return True

    def _note_end(self, sentinel: int) -> None:
        process = self._living[sentinel]
        handle = self._members[process]
        handle.wait(None)
        _process._children.discard(process)  # as a join would
        failed = _has_failed(handle) and process not in self._stopped
        if failed:
            self._stop_all(stopping.gently(self._grace))
        with self._changed:
            del self._living[sentinel]
            os.close(sentinel)  # not before: the number may be the next one's at once
            self._ended.append(process)
            self._changed.notify_all()


def _has_failed(handle: Handle) -> bool:
    ending = handle.ending
    return ending is not None and ending.how is not How.RETURNED and ending.exitcode != 0


def _obeyed(handle: Handle) -> bool:
    """Whether a stopped process ended as one does that was told to."""
    ending = handle.ending
    if ending is None or ending.how is How.RAISED:
        return ending is not None and ending.text.partition(":")[0] == "KeyboardInterrupt"
    return ending.how is not How.LOST


def _raised(handle: Handle) -> BaseException | None:
    """What an ended process raised, if it did and somebody still has it."""
    if handle.ending is None or handle.ending.how is not How.RAISED:
        return None
    try:
        outcome = handle.load_outcome()
    except KeeperLost:
        return None
    error: BaseException | None = outcome and outcome.error
    return error


def _failure(handle: Handle) -> BaseException:
    """The exception that tells of a failed process."""
    assert handle.ending is not None
    return _raised(handle) or ProcessDied(handle.name, handle.pid, handle.ending)
