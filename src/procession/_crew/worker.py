"""A worker: takes calls from its channel one after the other, and notes on its slate what it does.

Runs in the child. Whatever ends the worker, its owner finds on the slate which call it had begun,
and the outcomes of those before.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import marshal
import os
import pickle
import select
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from procession._crew import encoding, slate
from procession._crew.encoding import NOTHING, Channel, Mapping, Packer, Undelivered, Unsent
from procession._wire import channel
from procession._wire.outcome import dump_outcome

KNOWN_FUNCTIONS = 8  # functions that a worker keeps; owner and worker forget by the same rule
FLUSH_NS = 5_000_000  # outcomes wait no longer for others while calls go on
IDLE_MS = 1000  # and so long without a message, memory that might be used again is given back

ITEM, STAR, WHOLE = range(3)
"""Shapes of a call: ``f(entry)``, ``f(*entry)``, and an entry that holds function and arguments."""


class Passed:
    """A descriptor on its way into a child, by whatever start method."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        from multiprocessing import reduction

        return _received, (reduction.DupFd(self.fd),)


def _received(passed: Any) -> Passed:
    return Passed(passed.detach())


def work(
    sock: Passed,
    memory: Passed,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """What a worker process runs."""
    notes = slate.Slate(memory.fd)
    line = Channel(channel.adopt(sock.fd), *notes.ends(owner=False))
    Worker(line, notes).run(initializer, initargs)


class Worker:
    """The worker in its own process."""

    def __init__(self, line: Channel, notes: slate.Slate) -> None:
        self._channel = line
        self._slate = notes
        self._packer = Packer()
        self._functions: OrderedDict[int, Any] = OrderedDict()
        self._calling = False
        self._entries: list[Any] = []
        self._first = 1
        self._flushed_ns = 0
        self._is_copy = False
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        """In a copy that a call has forked: the worker's channel is none of its business."""
        self._is_copy = True
        self._channel.close()

    def run(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        """Initialize, then work until the owner says that it is enough, or is gone."""
        self._watch_for_crashes()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        words = self._slate.words
        try:
            if initializer is not None:
                words[slate.STAGE] = slate.INITIALIZING
                if not self._initialize(initializer, initargs):
                    return
            words[slate.STAGE] = slate.WORKING
            self._channel.send((encoding.READY,))
            while (received := self._receive()) is not None:
                message, mapping = received
                self._channel.taken()
                if message[0] == encoding.END:
                    break
                self._run_calls(message, mapping)
                del received, message, mapping
        except (BrokenPipeError, ConnectionResetError):
            pass  # the owner is gone, and with it all who could want an outcome

    def _receive(self) -> tuple[Any, Mapping] | None:
        """The next message; memory that nobody uses is given back while there is none."""
        if not self._channel.room.is_empty():
            poll = select.poll()
            poll.register(self._channel.fileno(), select.POLLIN)
            while not poll.poll(IDLE_MS) and self._channel.room.trim():
                pass
        try:
            return self._channel.receive()
        except Undelivered as error:
            refusal = _Unloadable(error.told("its arguments"))
            return (encoding.CALLS, error.first, ITEM, refusal, None, [None] * error.count), NOTHING

    def _watch_for_crashes(self) -> None:
        """The stack of a crash goes to whoever waits for the call, and not to stderr."""
        os.lseek(self._slate.fd, slate.LIMIT, os.SEEK_SET)
        faulthandler.enable(self._slate.fd)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Ctrl-C reaches the call, never the worker's own steps between calls."""
        if self._calling:
            self._calling = False
            raise KeyboardInterrupt

    def _initialize(self, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> bool:
        try:
            self._calling = True
            initializer(*initargs)
            self._calling = False
        except BaseException as error:
            self._calling = False
            self._channel.send((encoding.INITIALIZER_FAILED, dump_outcome(error=error)))
            return False
        return True

    # --- calls -----------------------------------------------------------------------------

    def _run_calls(self, message: tuple[Any, ...], mapping: Mapping) -> None:
        _, first, shape, key, blob, entries = message
        words = self._slate.words
        begun, revoked_to, revoked_from = slate.BEGUN, slate.REVOKED_TO, slate.REVOKED_FROM
        clock = time.perf_counter_ns
        words[slate.RECEIVED] += 1
        self._first = first
        words[slate.FIRST] = first
        revoked = False
        self._flushed_ns = clock()
        function = None
        if shape != WHOLE:
            words[begun] = first  # a crash while the function arrives is the first call's
            function = self._function(key, blob)
        last = first + len(entries) - 1
        for number, entry in enumerate(entries, first):
            words[begun] = number  # before the look: who stops us in between believes this word
            if words[revoked_to] >= number > words[revoked_from]:
                self._flush()
                self._first = words[slate.FIRST] = number + 1
                revoked = True
                continue
            outcome = self._call(function, shape, entry, mapping)
            if self._is_copy:
                _end_copy()
            if number == last:  # it is sent at once
                self._entries.append(outcome)
            else:
                self._note(outcome, clock())
        self._flush(always=revoked)

    def _function(self, key: Any, blob: bytes | None) -> Any:
        if blob is not None:
            remember(self._functions, key)
            try:
                self._calling = True
                self._functions[key] = pickle.loads(blob)
                self._calling = False
            except BaseException as error:
                self._calling = False
                self._functions[key] = _Unloadable(error)
        if key.__class__ is _Unloadable:
            return key
        if key not in self._functions:  # it came with a message that could not be received
            return _Unloadable(OSError(errno.EMFILE, "the function could not be received"))
        return self._functions[key]

    def _call(self, function: Any, shape: int, entry: Any, mapping: Mapping) -> Any:
        """Run one call; the entry that is its outcome."""
        try:
            self._calling = True
            if entry.__class__ is bytes or entry.__class__ is tuple:
                entry = encoding.unpack(entry, mapping)
            if shape == ITEM:
                value = function(entry)
            elif shape == STAR:
                value = function(*entry)
            else:
                function, args, kwargs = entry
                value = function(*args, **kwargs)
            self._calling = False
        except BaseException as error:
            self._calling = False
            return _failure(error)
        finally:
            entry = function = args = kwargs = None
        try:
            self._calling = True
            outcome = self._packer.pack(value)
            self._calling = False
            return outcome
        except SystemExit as error:
            self._calling = False
            return _failure(error)
        except BaseException as error:
            self._calling = False
            return encoding.UNSENDABLE, _short(value), dump_outcome(error=error)

    def _note(self, outcome: Any, now: int) -> None:
        """Put an outcome where a SIGKILL cannot take it back, and send what is due."""
        self._entries.append(outcome)
        notes = self._slate
        if not self._packer.buffers:
            data = marshal.dumps(outcome)
            end = notes.words[slate.END] or slate.AREA
            after = end + len(data)
            if after <= slate.LIMIT:
                notes.memory[end:after] = data
                notes.words[slate.END] = after
                if now - self._flushed_ns < FLUSH_NS:
                    return
        self._flush()

    def _flush(self, always: bool = False) -> None:
        """Send the outcomes that were not sent yet, and the time that their calls took.

        Args:
            always: Be heard, even without any: some calls are revoked, and those behind are past.
        """
        if not self._entries and not always:
            return
        used_ns = time.perf_counter_ns() - self._flushed_ns
        entries, self._entries = self._entries, []
        self._send(self._first, entries, self._packer.take_buffers(), used_ns)
        words = self._slate.words
        words[slate.END] = 0  # before the other: a kill in between leaves nothing, or the same
        self._first = words[slate.BEGUN] + 1
        words[slate.FIRST] = self._first
        self._flushed_ns = time.perf_counter_ns()

    def _send(
        self, first: int, entries: list[Any], buffers: list[memoryview], used_ns: int
    ) -> None:
        """Send outcomes; one that cannot be sent is a failure of its call alone."""
        try:
            self._channel.send((encoding.OUTCOMES, first, entries, used_ns), buffers)
            return
        except Unsent as error:
            if len(entries) == 1:
                failure = _failure(error.told("its result"))
        if len(entries) == 1:
            self._channel.send((encoding.OUTCOMES, first, [failure], used_ns))
            return
        half = len(entries) // 2  # the buffers are all the last one's
        self._send(first, entries[:half], [], used_ns // 2)
        self._send(first + half, entries[half:], buffers, used_ns // 2)


class _Unloadable:
    """Stands for a function that could not be unpickled: each of its calls says why."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *_: Any) -> Any:
        raise self._error


def remember(functions: OrderedDict[int, Any], key: int) -> None:
    """Make room for a function; the rule by which both sides forget."""
    if len(functions) >= KNOWN_FUNCTIONS:
        functions.popitem(last=False)
    functions[key] = None


def _end_copy() -> None:
    """End a copy of the worker that came back from its call: the outcome is not its to tell."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


def _failure(error: BaseException) -> Any:
    kind = encoding.EXITED if isinstance(error, SystemExit) else encoding.RAISED
    return kind, dump_outcome(error=error)


def _short(value: Any) -> str:
    try:
        return repr(value)[:200]
    except BaseException:
        return f"<{type(value).__name__}>"
