"""Whether a signal went to the whole process group, or to one process alone."""

from __future__ import annotations

import _socket
import os
import select
import signal

from procession import _native
from procession._wire import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMM = "pn-witness"
PATIENCE_MS = 2000  # it answers within a millisecond, unless it is stopped


class Witness:
    """A process of this process's group that gets what the whole group gets, and nothing else.

    What somebody sent to the group has reached the program already, and passed on it would be there
    twice; the kernel does not say which of the two it was. The witness blocks all signals and tells
    which are pending. It ends with this process at the latest.

    Raises:
        OSError: It cannot be forked.
    """

    def __init__(self) -> None:
        self._ours, theirs = channel.message_pair()
        with theirs:
            before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
            try:
                self.pid = os.fork()
                if self.pid == 0:
                    _testify(theirs)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def saw(self, number: int) -> bool:
        """Whether it got this signal, too, since it was last asked; false where it is gone.

        One that does not answer (somebody stopped it) is given up: a signal that comes twice is
        better than one that never comes.
        """
        poll = select.poll()
        poll.register(self._ours.fileno(), select.POLLIN)
        try:
            channel.send(self._ours, (number,), flags=channel.DONT_WAIT)
            answer = channel.receive(self._ours) if poll.poll(PATIENCE_MS) else None
            if answer is None:
                self._ours.shutdown(_socket.SHUT_RDWR)  # a late answer is none to the next question
        except OSError:
            return False
        return answer is not None and bool(answer[0][0])

    def end(self) -> None:
        """End it, and reap it where nobody did."""
        self._ours.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass  # somebody killed it


def _testify(asker: channel.Socket) -> NoReturn:
    try:
        _native.set_process_name(COMM)
        _native.close_all_but([asker.fileno()])
        while (question := channel.receive(asker)) is not None:
            (number,), _ = question
            pending = number in signal.sigpending()
            while pending and signal.sigtimedwait({number}, 0) is not None:
                pass
            channel.send(asker, (pending,))
    finally:
        os._exit(0)
