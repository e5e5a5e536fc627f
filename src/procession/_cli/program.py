"""The program's main process, as its parent sees it: signals go to it, and nothing that it leaves
escapes.

This process is a subreaper, so that what main starts by `subprocess` becomes its child when main
has ended: ended after an abnormal end of main, let go after a normal one (G2).
"""

from __future__ import annotations

import os
import signal
import time

from procession import _native
from procession._cli.witness import Witness
from procession._kernel import procfs
from procession._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
GUARD_LIMIT = 5.0  # seconds that a guard gets to end what its main left
KILL_LIMIT = 2.0  # seconds until what does not end is reported instead of waited for
YOUNG = 1.0  # seconds; a keeper that has just been started may not have its recording yet
LOOK_AGAIN = 0.02  # seconds, for what no signal tells: a guard that loses its parent, say

OWN_END = "PROCESSION_OWN_END"
"""Environment variable with the descriptor by which main says that it came to Python's own end."""


class MainProcess:
    """A program's main process, started below this one, which must have one thread.

    Args:
        command: What to execute, and its arguments.
        environ: Its environment.
        inherited: A descriptor that it gets under the same number.

    Raises:
        OSError: It cannot be executed.

    Attributes:
        pid: Its process id.
        ended_by_itself: Whether it has come to Python's own end: return, `sys.exit`, an exception.
    """

    def __init__(self, command: list[str], environ: Mapping[str, str], inherited: int) -> None:
        _native.set_subreaper(True)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide every status
        # what is ignored here (nohup, a shell's `&`) is ignored in main, too
        heard = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
        # blocked, they come one by one and say who sent them; a PID 1 gets them only so
        self._signals = {signal.SIGCHLD, *heard}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._own_end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._inherited = inherited
        self.pid = os.posix_spawn(
            command[0],
            command,
            {**environ, OWN_END: str(self._own_end)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, fd, fd)  # clears close-on-exec
                for fd in (inherited, self._own_end)
            ],
            setsigmask=before,
        )
        self._pidfd = os.pidfd_open(self.pid)
        self._witness: Witness | None = None
        try:
            self._witness = Witness()
        except OSError:
            pass  # what the whole group gets, main gets twice
        self.ended_by_itself = False

    def wait(self) -> tuple[int, Any]:
        """Pass signals on and reap until main has ended; its wait status and what it used."""
        while True:
            pid, status, used = _next_end()
            if pid == self.pid:
                self.ended_by_itself = os.WIFEXITED(status) and _was_told(self._own_end)
                if self._witness is not None:
                    self._witness.end()
                return status, used
            if pid == 0:
                self._hear(None)

    def _hear(self, seconds: float | None) -> None:
        """Wait for a signal; one that somebody sent to this process is meant for main.

        What the terminal or anybody else sends to the whole group, main has got already.
        """
        if seconds is None:
            heard = signal.sigwaitinfo(self._signals)
        elif (heard := signal.sigtimedwait(self._signals, seconds)) is None:  # type: ignore[assignment]
            return
        if heard.si_signo == signal.SIGCHLD:
            return
        if self._witness is not None and self._witness.saw(heard.si_signo):
            # two in quick succession are one to the witness, and may be two here; or they are two
            # to it as well: it is asked until both are at the same point
            while signal.sigtimedwait([heard.si_signo], 0) is not None:
                self._witness.saw(heard.si_signo)
        elif heard.si_code <= 0:  # the kernel's own come from the terminal, to all
            try:
                signal.pidfd_send_signal(self._pidfd, heard.si_signo)
            except ProcessLookupError:
                pass  # it has ended meanwhile

    def wait_for_guards(self) -> None:
        """Let the guard of main finish: it ends what its main left, and tells the recording."""
        deadline = time.monotonic() + GUARD_LIMIT
        file = os.fstat(self._inherited)
        while _reap() and time.monotonic() < deadline:
            # without a /proc to see it in, a guard that has something to end is waited for blindly
            blind = not procfs.is_ours() and not self.ended_by_itself
            if not blind and not any(_is_guard(pid, file) for pid in _children()):
                return
            self._hear(LOOK_AGAIN)

    def end_what_is_left(self) -> list[int]:
        """Kill what main left, and what that started; the pids of what could not be killed."""
        deadline = time.monotonic() + KILL_LIMIT
        while _reap():
            late = time.monotonic() > deadline
            if os.getpid() == 1 and not procfs.is_ours():
                _kill(-1)
            for pid in _children():
                if late or not _is_tracker(pid):
                    _kill(pid)
            if late:
                return [pid for pid in _children() if not _has_ended(pid)]
            self._hear(LOOK_AGAIN)
        return []

    def what_is_left(self) -> list[int]:
        """Pids of what main left."""
        deadline = time.monotonic() + KILL_LIMIT
        while _reap():
            left = _children()
            if time.monotonic() > deadline:
                return left
            if not any(procfs.is_ending(pid) or _is_tracker(pid) for pid in left):
                return left
            self._hear(LOOK_AGAIN)
        return []

    def close(self) -> None:
        """Take signals as ever again; those that came too late for main are dropped."""
        while signal.sigtimedwait(self._signals, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        for number in self._signals & {signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)  # no traceback of ours
        os.close(self._pidfd)
        os.close(self._own_end)


def _next_end() -> tuple[int, int, Any]:
    """Reap a child that has ended; pid 0 when none has."""
    return os.wait4(-1, os.WNOHANG)


def _reap() -> bool:
    """Reap what has ended; false when there is no child left."""
    try:
        while _next_end()[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    return procfs.children(os.getpid())


def _was_told(eventfd: int) -> bool:
    try:
        return os.eventfd_read(eventfd) > 0
    except BlockingIOError:
        return False


def _is_guard(pid: int, recording: os.stat_result) -> bool:
    """Whether a process is a guard that writes to this program's recording, or is about to.

    A guard whose main was not ours may stay as long as it likes.
    """
    status = procfs.stat(pid)
    if status is None or messages.KEEPER_BOOT.encode() not in _command_line(pid):
        return False
    folder = f"/proc/{pid}/fd"
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - status.start_time / os.sysconf("SC_CLK_TCK")
    return age < YOUNG or any(_is_file(f"{folder}/{fd}", recording) for fd in _entries(folder))


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_file(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:
        return False  # closed meanwhile


def _is_tracker(pid: int) -> bool:
    """Whether a process is the standard library's resource tracker.

    It removes what the program left in /dev/shm and then ends by itself; killed, it cannot.
    """
    return b"multiprocessing.resource_tracker import main" in _command_line(pid)


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _has_ended(pid: int) -> bool:
    status = procfs.stat(pid)
    return status is None or status.state in "ZX"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        pass  # it is reported when the time is over
