"""The future of one call: it can be stopped while it runs, and waited for without a detour."""

from __future__ import annotations

import sys
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import _base as _standard
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from procession._crew.crew import Crew
from procession._crew.jobs import Call
from procession._crew.words import again
from procession._kernel.interrupts import is_interrupt

_futures: Any = _standard


class CallFuture(Future[Any]):
    """A future whose call can be stopped while it runs."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self._crew: Crew | None = crew
        self._call: Call | None = None

    def cancel(self) -> bool:
        """Cancel the call; one that runs is stopped, and its worker with it.

        Returns:
            False when it had ended already.
        """
        if super().cancel():
            return True
        crew, call = self._crew, self._call
        if crew is None or call is None or not crew.cancel(call):
            return False
        future: Any = self
        with future._condition:
            if future._state != _futures.RUNNING:
                return False
            future._state = _futures.CANCELLED_AND_NOTIFIED
            for waiter in future._waiters:
                waiter.add_cancelled(self)
            future._condition.notify_all()
        future._invoke_callbacks()
        self._crew = self._call = None
        return True

    def result(self, timeout: float | None = None) -> Any:
        """What the call returned; without a limit it is waited for without a detour by a thread.

        Raises:
            TimeoutError: The time was over.
            CancelledError: It was cancelled.
            BaseException: What the call raised.
        """
        crew, call = self._crew, self._call
        if timeout is None and crew is not None and call is not None:
            crew.attend(call, self._take)
            if not self.done():
                crew.check_waiter()
        return super().result(timeout)

    def _take(self, ok: bool, value: Any) -> bool:
        """As `finish`, where nobody is to be called back: that is for a thread of the executor's.

        It may be interrupted anywhere, if `finish` is called then.
        """
        future: Any = self
        with future._condition:
            if future._done_callbacks or future._waiters:
                return False
            if future._state == _futures.RUNNING:
                if ok:
                    future._result = value
                else:
                    future._exception = value
                future._state = _futures.FINISHED
            future._condition.notify_all()
        self._crew = self._call = None
        return True

    def drop(self) -> None:
        """The executor was shut down before the call went to a worker."""
        if super().cancel():
            self.set_running_or_notify_cancel()

    def finish(self, ok: bool, value: Any) -> None:
        """The call has ended."""
        self._crew = self._call = None
        try:
            if ok:
                self.set_result(value)
            else:
                self.set_exception(again(value) if isinstance(value, BrokenProcessPool) else value)
        except InvalidStateError:  # it was cancelled, or somebody has waited for it directly
            with self._condition:
                self._condition.notify_all()
        except BaseException as error:  # of a callback: no other call's end is to be lost by it
            if is_interrupt(error):
                raise
            sys.excepthook(*sys.exc_info())


__all__ = ["CallFuture"]
