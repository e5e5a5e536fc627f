"""The workers of a crew: started, watched, replaced, and what of their memory is given back.

All of it with the crew's lock held.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
import weakref
from collections.abc import Callable
from multiprocessing import util
from typing import Any

from procession._crew import encoding, worker
from procession._crew.encoding import Channel
from procession._crew.hand import Hand
from procession._crew.slate import Slate
from procession._kernel import memory

IDLE = 1.0  # seconds without use, after which memory that might be used again is given back
LONG_IDLE = 60.0  # and so many between two looks at what somebody goes on using
RECEIVE_LIMIT = 1  # seconds in which who waits for a worker directly looks whether it lives
HIRE_PAUSE = 0.05  # seconds until a start that failed is tried again; twice as long each time
LONGEST_PAUSE = 5.0
ATTEMPTS = 3  # starts in a row that fail while nobody is there: there will be nobody

lines: weakref.WeakSet[Channel] = weakref.WeakSet()
"""Our ends of all channels, that of one being hired as well."""


class Staff:
    """Workers.

    Args:
        size: How many at most.
        start: Starts a worker process that runs ``target(*args)``.
        initializer: Called by each worker before its first call.
        initargs: Its arguments.
        tasks: After so many tasks a worker is replaced; ``None``: never.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[Callable[..., None], tuple[Any, ...]], Any],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        tasks: int | None,
    ) -> None:
        self.size = size
        self.owner = os.getpid()
        self.hands: list[Hand] = []
        self.epoll = select.epoll()
        self.hires_at = math.inf
        """When a start that failed is to be tried again."""
        self.trims_at = math.inf
        """When memory may be given back."""
        self._start_process = start
        self._initializer = initializer
        self._initargs = initargs
        self._tasks = tasks
        self._by_fd: dict[int, Hand] = {}
        self._failed = 0
        self._causes: set[tuple[Any, ...]] = set()
        self._trim_pause = IDLE
        self.untold: list[str] = []
        """Why starts failed that are tried again; `tell` logs it, without the crew's lock."""

    # --- started ---------------------------------------------------------------------------

    def fill(self) -> None:
        """Start all.

        Raises:
            Exception: Why one cannot be started; those that were are there.
        """
        while len(self.hands) < self.size:
            self._seat(*self._start())

    def hire(self) -> Hand | None:
        """Start one more; ``None`` where that is to be tried again later (`hires_at`).

        Raises:
            Exception: Why none can be started, when nobody is left either.
        """
        if time.monotonic() < self.hires_at < math.inf:
            return None
        try:
            hand = self._seat(*self._start())
        except Exception as error:
            self._failed += 1
            self.hires_at = math.inf
            if not self.hands and self._failed >= ATTEMPTS:
                raise
            self._note_cause(error)
            self.hires_at = time.monotonic() + min(HIRE_PAUSE * 2.0**self._failed, LONGEST_PAUSE)
            return None
        self._failed = 0
        self._causes.clear()
        self.hires_at = math.inf
        return hand

    def _note_cause(self, error: Exception) -> None:
        """Each cause is told once until a start succeeds, however often it is tried again."""
        cause = type(error), getattr(error, "errno", None)
        if cause not in self._causes:
            self._causes.add(cause)
            self.untold.append(
                f"a worker cannot be started ({type(error).__name__}: {error}); "
                f"{len(self.hands)} of {self.size} are there, and it is tried again"
            )

    def tell(self) -> None:
        """Log what went wrong with starts."""
        while self.untold:
            util.get_logger().warning("%s", self.untold.pop(0))

    def _start(self) -> tuple[Any, Channel, Slate]:
        ours, theirs = encoding.pair()
        theirs_fd = theirs.detach()  # in a forked worker no object of ours may close it
        notes = Slate(room=memory.limit() // 4 // (2 * self.size))
        line = Channel(ours, *notes.ends(owner=True), patience=RECEIVE_LIMIT)
        lines.add(line)
        passed = worker.Passed(theirs_fd), worker.Passed(notes.fd)
        try:
            process = self._start_process(worker.work, (*passed, self._initializer, self._initargs))
        except BaseException:
            line.close()
            notes.close()
            raise
        finally:
            if os.getpid() == self.owner:
                os.close(theirs_fd)
        return process, line, notes

    def _seat(self, process: Any, line: Channel, notes: Slate) -> Hand:
        hand = Hand(process, line, notes, self._tasks)
        self.hands.append(hand)
        self._by_fd[line.fileno()] = self._by_fd[hand.sentinel] = hand
        self.epoll.register(line.fileno(), select.EPOLLIN)
        self.epoll.register(hand.sentinel, select.EPOLLIN)
        return hand

    # --- watched ---------------------------------------------------------------------------

    def find(self, fd: int) -> Hand | None:
        """Whose descriptor that is."""
        return self._by_fd.get(fd)

    def watch(self, hand: Hand) -> None:
        """Let the dispatcher hear what it says."""
        if not hand.is_watched and hand in self.hands:
            hand.is_watched = True
            self._ask_for(hand, select.EPOLLIN)

    def look_away(self, hand: Hand) -> None:
        """Let it say what it says to somebody else; its end is seen all the same."""
        if hand.is_watched:
            hand.is_watched = False
            self._ask_for(hand, 0)

    def _ask_for(self, hand: Hand, events: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # its end was heard already
            self.epoll.modify(hand.channel.fileno(), events)

    def heard_all(self, hand: Hand) -> None:
        """Nothing more will come from it."""
        self._unregister(hand.channel.fileno())

    def dismissed(self, hand: Hand) -> None:
        """It has ended."""
        self._unregister(hand.channel.fileno())
        self._unregister(hand.sentinel)
        self.hands.remove(hand)

    def _unregister(self, fd: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.epoll.unregister(fd)
        self._by_fd.pop(fd, None)

    def close(self) -> None:
        """Let go of all."""
        for hand in self.hands:
            hand.close()
        self.hands.clear()
        self._by_fd.clear()
        self.epoll.close()

    # --- their memory ----------------------------------------------------------------------

    def note_memory(self, hand: Hand) -> None:
        """It was given something; memory for that is to be given back some time."""
        if not hand.channel.room.is_empty():
            self._trim_pause = IDLE
            self.trims_at = time.monotonic() + IDLE

    def trim(self) -> None:
        """Give back what nobody uses."""
        in_use = [hand.channel.room.trim() for hand in self.hands]
        if any(in_use):
            self.trims_at = time.monotonic() + self._trim_pause
            self._trim_pause = min(2 * self._trim_pause, LONG_IDLE)
        else:
            self.trims_at = math.inf


__all__ = ["Staff", "lines"]
