"""Start method `fork`: the child is a copy of its starter, and its kernel child."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
import warnings

from procession import _native
from procession._child.bootstrap import Seat
from procession._kernel import memory
from procession._launch import exit_hooks, keeper_client
from procession._launch.handle import Handle
from procession._launch.kept import describe_target
from procession._launch.own_thread import OwnThread
from procession._wire import channel, messages
from procession.errors import ForkedThreadsWarning, KeeperLost, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_living: dict[int, ForkHandle] = {}
"""Pid → child of this process that was not reaped yet."""

_DESCRIPTORS = 3
"""What a child needs to make itself known to the guard; its starter needs one of them itself."""

_FULL = (
    "the keeper of this program cannot hold one more forked child: it has no free descriptor "
    "(its limit is the hard one, ulimit -Hn). Let some children end first, or raise it"
)

_oom_kills = 0
"""The out-of-memory killer's count in our control group at the last look."""

_ALL_SIGNALS = signal.valid_signals()

_being_made: dict[int, Seat] = {}
"""Thread → the seat of the child that its next fork makes; without one the fork is not ours."""


class ForkHandle(Handle):
    """A child forked by this process, which alone can reap it."""

    method = "fork"

    def duplicate_for_child(self, fd: int) -> int:
        return fd

    def _launch(self, process: Any) -> None:
        asked_ns = time.monotonic_ns()
        reap()
        name_the_threads()
        keeper = self._keeper = keeper_client.ensure(zygote=False)
        keeper.require()
        if keeper.table.full():
            raise StartError(errno.EMFILE, _FULL)
        self._reaping = threading.Lock()
        self._index, self._generation = keeper.table.claim()
        flags = _native.FLAG_DAEMON if process.daemon else 0
        keeper.table.ask(
            self._index,
            self._generation,
            keeper.owner_id,
            _native.FORK,
            flags,
            asked_ns,
            self.name.encode("utf-8", "replace"),
            describe_target(process),
        )
        _count_oom_kills()
        exit_hooks.install()
        seat = Seat(keeper.table, keeper.door, self._index, self._generation)
        with _Uninterrupted() as mask:
            self.pid = self._fork(process, seat, mask)
            _living[self.pid] = self
            keeper.table.set_pid(self._index, self.pid)
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError as error:  # another thread took what was reserved
                self._undo(error)

    def _undo(self, error: OSError) -> NoReturn:
        """End a child that cannot be watched, as if it had never been."""
        with self._reaping:
            if self.pid in _living:  # so it was not reaped, and the number is its own
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self._reap(0)
        self._keeper.table.set_flags(self._index, self._generation, _native.FLAG_RELEASED)
        raise StartError(
            error.errno, f"the kernel refused to watch the child: {error.strerror}"
        ) from error

    def _fork(self, process: Any, seat: Seat, mask: set[int]) -> int:
        keeper = self._keeper
        seat.credentials = keeper.credentials
        owner = (keeper.owner_pid, keeper.index, keeper.generation)
        me = threading.get_ident()
        _being_made[me] = seat
        reserved: list[int] = []
        doing = "give descriptors for a child (ulimit -n)"
        try:
            for _ in range(_DESCRIPTORS):
                reserved.append(os.eventfd(0, os.EFD_CLOEXEC))
            doing = "fork"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # said better by us already
                pid = os.fork()
        except OSError as error:
            keeper.table.end(self._index, -1, 0, 0, 0, _native.FLAG_LOST)
            keeper.table.set_flags(self._index, self._generation, _native.FLAG_RELEASED)
            raise StartError(
                error.errno, f"the kernel refused to {doing}: {error.strerror}"
            ) from error
        finally:
            _being_made.pop(me, None)
            _close(reserved)
        if pid == 0:
            _be_child(process, seat, owner, mask)
        return pid

    # --- the end ---------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        self._reap()
        return super()._has_ended()

    def _wait_ended(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not poll.poll(deadline and _milliseconds(deadline - time.monotonic())):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        self._reap(0)
        return True

    def _reap(self, flag: int = os.WNOHANG) -> None:
        """Collect the status, or find out what it was where somebody else collected it."""
        with self._reaping:
            if self.pid not in _living:
                return
            try:
                pid, status, used = os.wait4(self.pid, flag)
            except ChildProcessError:
                self._find_out()
            else:
                if pid == 0:
                    return
                killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
                self._keeper.table.end(
                    self._index,
                    status,
                    round(used.ru_utime * 1e9),
                    round(used.ru_stime * 1e9),
                    used.ru_maxrss,
                    _native.FLAG_OOM if killed and _count_oom_kills() else 0,
                )
            del _living[self.pid]

    def _find_out(self) -> None:
        """Somebody else waited for our child: its own last words, or the kernel's, or nobody's."""
        table = self._keeper.table
        how, exit_code = table.read(self._index)[7:9]
        status = _native.pidfd_exit_status(self._pidfd)
        if status is None and how != _native.HOW_NONE:
            status = exit_code << 8
        flags = _native.FLAG_LOST if status is None else 0
        table.end(self._index, -1 if status is None else status, 0, 0, 0, flags)

    def close(self) -> None:
        if self._pidfd >= 0 and self.returncode is None:
            return  # not before it is reaped
        super().close()


def _close(fds: list[int]) -> None:
    """Close descriptors, in the child too, where nothing may raise and somebody's handler of the
    fork may have closed them all.
    """
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass


def _count_oom_kills() -> bool:
    """Whether the out-of-memory killer has been here since the last look.

    Looked at before each fork, so that what it did to others is not taken for our child's end.
    """
    global _oom_kills
    before, _oom_kills = _oom_kills, memory.oom_kills()
    return _oom_kills > before


def reap() -> None:
    """Reap what has ended of the children of this process (G1)."""
    while _living:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            dead = None
        if dead is None:
            return
        ours = _living.get(dead.si_pid)
        if ours is None:  # the user's own zombie hides ours behind it
            for handle in list(_living.values()):
                handle._reap()
            return
        ours._reap()


def name_the_threads() -> None:
    """Warn of the threads that make a fork of this process risky (G9)."""
    others = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.current_thread()
        and thread.is_alive()
        and not isinstance(thread, OwnThread)
    ]
    if others:
        warnings.warn(
            f"fork copies this process (pid {os.getpid()}) while it has other threads: "
            f"{', '.join(sorted(others))}. A lock that one of them holds stays locked in the "
            "child for ever. Use start method 'forkserver' or 'spawn'.",
            ForkedThreadsWarning,
            stacklevel=5,
        )


class _Uninterrupted:
    """No signal is handled meanwhile: here the child must be known before anything can raise, and
    there nothing may ever raise into frames that are its starter's.
    """

    def __enter__(self) -> set[int]:
        self._mask: set[int] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        except BaseException:  # of a handler that was due, with the mask already set
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise
        return self._mask

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _milliseconds(seconds: float) -> float:
    return min(max(0.0, seconds * 1000), 1e9)  # poll takes no more than 24 days


def _be_child(process: Any, seat: Seat, owner: tuple[int, int, int], mask: set[int]) -> NoReturn:
    """Run the child to its end, whatever happens in it.

    The status given to `os._exit()` is always one that it takes: it must not raise.
    """
    code = 1
    try:
        from procession._child import bootstrap, ending

        ending.prepare_exit_functions()
        _native.set_subreaper(True)  # what is below this child stays below it
        seat.table.enter(seat.index, _native.ASKED)
        last_words = ending.LastWords(seat)
        if not _register(seat):
            _refuse(process.name, seat, owner, last_words)
        seat.table.run(seat.index)
        bootstrap.say_started(seat)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = bootstrap.enter(seat, process, owner, last_words)
        except KeyboardInterrupt as interrupt:
            last_words.raised(interrupt)
            code = last_words.say(1)
        finally:
            ending.run_exit_functions()
    except KeyboardInterrupt:
        pass  # a second one, on the way out
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _register(seat: Seat) -> bool:
    """Put this process into the guard's hands before any user code runs in it."""
    ours, theirs = channel.message_pair()
    pidfd = os.pidfd_open(os.getpid())
    try:
        with theirs:
            channel.send(
                seat.door,
                (messages.REGISTER, seat.index, seat.generation),
                [pidfd, theirs.fileno()],
            )
        return channel.receive(ours) is not None
    except OSError:
        return False
    finally:
        os.close(pidfd)
        ours.close()


def _refuse(name: str, seat: Seat, owner: tuple[int, int, int], last_words: Any) -> NoReturn:
    """End a child that nobody would contain, and say why where somebody is left to hear it."""
    error: StartError | KeeperLost
    if seat.table.life(messages.GUARD_SLOT) != _native.LIFE_DIED:
        error = StartError(errno.EMFILE, _FULL)
    elif os.getppid() == owner[0]:
        error = KeeperLost("the keeper of this program was killed; there is none to hold a child")
    else:
        os._exit(1)  # main is gone as well
    os.write(2, f"procession: {name} was not started: {error}\n".encode("utf-8", "replace"))
    last_words.raised(error)
    os._exit(last_words.say(1))


def _after_fork_in_child() -> None:
    """Nothing of the parent's children or keeper belongs to the copy."""
    from multiprocessing import process

    seat = _being_made.pop(threading.get_ident(), None)
    _being_made.clear()
    _living.clear()
    mine = [child for child in process._children if isinstance(child._popen, Handle)]  # type: ignore[attr-defined]
    process._children.difference_update(mine)  # type: ignore[attr-defined]
    keeper_client.in_forked_copy(seat)


os.register_at_fork(after_in_child=_after_fork_in_child)
