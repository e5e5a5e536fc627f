"""A child's last words: how it ends, written where a later SIGKILL cannot take them back."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys

from procession import _native
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from procession._child.bootstrap import Seat

_HONOURS_ATEXIT = sys.version_info >= (3, 13)

_keeps = False
interrupted = False
"""Whether a KeyboardInterrupt that nothing caught ends this child."""

_TEXT = 120  # characters of an exception that the table has room for
_LOOKED_AT = 50 * _TEXT  # and those of it in which they are found


class LastWords:
    """Watches a process object's ``run()`` and tells the table and the guard how it ended.

    Args:
        seat: The process's place in its program, or ``None`` where it has none.
    """

    def __init__(self, seat: Seat | None) -> None:
        self._seat = seat
        self._how = _native.HOW_NONE
        self._text = ""
        self._outcome: bytes | None = None
        self._said: int | None = None

    def watch(self, process: Any) -> None:
        """Let the process's next ``run()`` be seen; it is called by ``_bootstrap`` as ever.

        The wrapper removes itself first, so that ``run`` inside the user's code is the user's.
        """
        original = _returning_run(process)

        def run() -> None:
            process.__dict__.pop("run", None)
            try:
                value = original()
                outcome = None if value is None else _dump(value=value)
            except SystemExit:
                self._how = _native.EXITED
                raise
            except KeyboardInterrupt as interrupt:
                self.raised(interrupt)
                sys.exit(1)  # the exit code of an uncaught one, without its traceback (G10)
            except BaseException as error:
                self.raised(error)
                raise
            self._how, self._outcome = _native.RETURNED, outcome

        process.__dict__["run"] = run

    def raised(self, error: BaseException | None) -> None:
        """Note the exception that ends this process; another Ctrl-C does not take its place."""
        global interrupted
        with _undisturbed():
            interrupted = isinstance(error, KeyboardInterrupt)
            self._how = _native.RAISED
            self._text = describe(error)
            self._outcome = _dump(error=error)

    def say(self, code: int) -> int:
        """Tell everybody, once; returns the exit status as the kernel will keep it.

        Ctrl-C, or a group that stops its members, waits for that: it would leave half of it.
        """
        code &= 0xFF  # more would be an OverflowError of os._exit(), in a frame of the starter's
        if self._seat is None:
            return code
        if self._said is None:
            with _undisturbed():
                self._said = self._say(self._seat, code)
        return self._said

    def _say(self, seat: Seat, code: int) -> int:
        how = self._how or _native.EXITED
        if how == _native.RETURNED and code != 0:
            how, self._text = _native.RAISED, self._text or "an exception after its code returned"
        shared: Any = sys.modules.get("procession._sync.shared")
        if shared is not None:  # what this process holds it leaves held, and says so
            shared.leave_held()
        if self._outcome is not None:  # first: who is killed in between has not raised for nothing
            _deliver(seat, self._outcome)
        seat.table.finish(seat.index, how, code, self._text.encode())
        return code


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without an exception out of a handler of SIGINT."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        signal.signal(signal.SIGINT, _too_late)
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)


def _too_late(number: int, frame: Any) -> None:
    """Ctrl-C while the last words are said."""


def describe(error: BaseException | None) -> str:
    """An exception in one short line: ``ValueError: bad header``."""
    name = type(error).__name__
    try:
        text = " ".join(str(error)[:_LOOKED_AT].split())
    except Exception:
        text = ""
    return f"{name}: {text}"[:_TEXT] if text else name


def _returning_run(process: Any) -> Callable[[], Any]:
    """``process.run``, but with the target's value where the standard ``run()`` drops it."""
    from multiprocessing.process import BaseProcess

    if type(process).run is BaseProcess.run and process._target is not None:
        return lambda: process._target(*process._args, **process._kwargs)
    run: Callable[[], Any] = process.run
    return run


def _dump(**outcome: Any) -> bytes:
    from procession._wire.outcome import dump_outcome

    return dump_outcome(**outcome)


def _deliver(seat: Seat, outcome: bytes) -> None:
    """Hand the outcome to the guard, who keeps it until the owner asks for it."""
    inline, fds = outcome, []
    try:
        if len(outcome) > messages.INLINE_OUTCOME:
            memfd = os.memfd_create("procession-outcome", os.MFD_CLOEXEC)
            with open(memfd, "wb", closefd=False) as file:
                file.write(outcome)
            inline, fds = b"", [memfd]
        channel.send(seat.door, (messages.OUTCOME, seat.index, seat.generation, inline), fds)
    except OSError:
        pass  # without a guard there is nobody to keep it, and this process ends anyway
    finally:
        channel.close_all(fds)


def prepare_exit_functions() -> None:
    """What the starter registered with atexit is not this process's; a child's own is.

    Up to 3.12 a forked child runs no exit functions at all; since 3.13 `_bootstrap` leaves even
    multiprocessing's own to atexit.
    """
    global _keeps
    if _keeps:
        _keeps = False  # once: what this process registers is no forked child's of its own
    elif _HONOURS_ATEXIT:
        from multiprocessing import util

        atexit._clear()
        atexit.register(util._exit_function)  # type: ignore[attr-defined]


def keep_exit_functions() -> None:
    """What is registered now is a child's own: main's file was run ahead, and registered it."""
    global _keeps
    _keeps = True


def run_exit_functions() -> None:
    """Run what the child registered, where this Python's children do; what it prints is kept.

    Python 3.13 itself loses that, with the output of finalizers, where stdout is no terminal.
    """
    if _HONOURS_ATEXIT:
        from multiprocessing import util

        atexit._run_exitfuncs()
        try:
            util._flush_std_streams()  # type: ignore[attr-defined]
        except OSError:
            pass  # nobody reads it any more
