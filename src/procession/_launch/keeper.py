"""A program's keeper as a process of the program sees it: what is asked of guard and zygote."""

from __future__ import annotations

import errno
import marshal
import os
import select
import sys
import threading
import warnings

from procession import _native
from procession._kernel.polling import is_readable
from procession._wire import channel, messages
from procession.errors import KeeperLost, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

Spare = tuple[int, int, int, int]
"""A process that waits for its start frame: pid, slot, generation, and where the frame goes."""

SLICE_NS = 1_000_000_000  # a wait looks this often whether there is still a keeper to end it
_ROOM_LIMIT_MS = 1000
_WAITING = (_native.CLAIMED, _native.SPARE)


class Keeper:
    """A keeper as its user sees it.

    Args:
        table: The program's table of processes.
        door: The door's writing end.
        index: This process's own slot.
        generation: The generation of that slot.
        guard_generation: The generation of the guard's slot.
        give_up: What is called with a keeper that turns out to be of no use any more.
    """

    def __init__(
        self,
        table: _native.Table,
        door: channel.Socket,
        index: int,
        generation: int,
        guard_generation: int,
        give_up: Callable[[Keeper], None],
    ) -> None:
        self.table = table
        self.door = door
        self.index = index
        self.generation = generation
        self.guard_generation = guard_generation
        self.keeper_pid = 0
        """The keeper's pid where it is a child of this process."""
        self.owner_pid = os.getpid()
        self.owner_id = generation << 32 | index
        self.credentials, _, self.directory, _ = _native.look()
        self.environ = dict(environ())
        self.warning_filters: list[Any] = list(warnings.filters)
        self.closed = False
        self.starts = 0
        """Children so far of start method forkserver."""
        self.preloads_main = False
        """Whether main's file may be run once for all children (`heirs`)."""
        self._give_up = give_up
        self._link: channel.Socket | None = None
        self._lock = threading.Lock()
        self._inodes: dict[int, int] = {}
        self._remember(door)

    def descriptors(self) -> list[int]:
        """Those that it holds in this process."""
        return list(self._inodes)

    def _remember(self, sock: channel.Socket) -> None:
        self._inodes[sock.fileno()] = os.fstat(sock.fileno()).st_ino

    # --- spares ----------------------------------------------------------------------------

    def take_spare(self) -> Spare:
        """A process to become the next child; its descriptor is the caller's.

        Raises:
            StartError: The keeper could not fork one; the kernel's errno is in it.
            KeeperLost: The keeper was killed.
        """
        with self._lock:
            self._check()
            if self._link is None:
                self.open_link()
            link = self._link
            assert link is not None
            fd = link.fileno()
            while True:
                received = _native.receive_spare(fd)
                if isinstance(received, tuple):
                    _, index, generation, stream = received
                    if self.table.state(index, generation) in _WAITING:
                        return received
                    os.close(stream)  # its zygote has retired, and taken it back
                elif received is None:
                    break
                else:
                    self._refused(received, told=False)
            while True:
                self._say(link, messages.WAIT)
                self._wait_for_word(link)
                received = _native.receive_spare(fd)
                if isinstance(received, tuple):
                    return received
                if received is not None:
                    self._refused(received, told=True)

    def open_link(self, pair: tuple[channel.Socket, channel.Socket] | None = None) -> None:
        """Be one whom the zygote makes spares for."""
        ours, theirs = pair or channel.message_pair()
        try:
            channel.send(self.door, (messages.HELLO, self.owner_id), [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise self.lost() from error
        finally:
            theirs.close()
        self._link = ours
        self._remember(ours)

    def _say(self, link: channel.Socket, word: bytes) -> None:
        try:
            link.send(word)
        except OSError as error:
            raise self.lost() from error

    def _refused(self, word: bytes, *, told: bool) -> None:
        """What came was no spare. Of an earlier time, when nobody waited for one, a refusal means
        nothing: it is asked again.
        """
        if not word:
            raise self.lost()
        _, *rest = marshal.loads(word)
        if told:
            raise StartError(*_refusal(*rest))

    def _wait_for_word(self, link: channel.Socket) -> None:
        while not is_readable(link.fileno(), SLICE_NS // 1_000_000):
            self._check()

    # --- is it there? ----------------------------------------------------------------------

    def guard_is_dead(self) -> bool:
        """Whether the guard's life word says that it died; false while it is only starting."""
        slot = messages.GUARD_SLOT
        return (
            self.table.life(slot) == _native.LIFE_DIED
            or self.table.state(slot, self.guard_generation) == _native.FREE  # there is a new one
        )

    def require(self) -> None:
        """Raise the one error of a keeper that is of no use any more; nothing where it is."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        if not _native.same_files(self._inodes):
            raise self.lost(
                "this program closed the descriptors that led to its keeper (as code that "
                "daemonises does)"
            )
        if self.guard_is_dead():
            raise self.lost()

    def lost(self, why: str = "") -> KeeperLost | StartError:
        """Give the keeper up; the exception that says so, once."""
        self._give_up(self)
        if (
            not why
            and self.keeper_pid
            and self.table.life(messages.GUARD_SLOT) == _native.LIFE_FREE
            and self.table.read(messages.GUARD_SLOT)[1]
            == self.guard_generation  # not the next one's
        ):
            status = _reap(self.keeper_pid)
            return StartError(
                None,
                f"the keeper could not be started: {sys.executable!r} ended with status {status}. "
                "Set PROCESSION_DEBUG to a file's name to see what it says.",
            )
        return KeeperLost(
            f"{why or 'the keeper of this program was killed'}; the processes that it held have "
            "been ended, as nobody could contain them any more. The next start() gets a new keeper."
        )

    def close(self, *, keep_door: bool = False) -> None:
        """Let go of what this process holds; the keeper goes on for others."""
        self.closed = True
        sockets = []
        if self._link is not None:
            sockets.append(self._link)
            self._link = None
        if not keep_door:
            sockets.append(self.door)
        for sock in sockets:
            fd = sock.fileno()
            if self._inodes.get(fd) == inode_of(fd):
                sock.close()
            else:
                sock.detach()  # the number belongs to somebody else by now

    # --- what is asked of the guard ---------------------------------------------------------

    def tell(self, *message: Any, fds: Sequence[int] = ()) -> bool:
        """Tell the guard something that it need not answer; false when it could not be told.

        What the guard is too busy to hear for a second, or no longer there to hear, is dropped: no
        program waits for its recording.
        """
        door = self.door.fileno()
        if self.closed or door < 0 or inode_of(door) != self._inodes[door]:
            return False  # the program closed it, and somebody else has the number by now
        for last in (False, True):
            try:
                channel.send(self.door, message, fds, channel.DONT_WAIT)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.door.fileno(), select.POLLOUT)
                if last or not poll.poll(_ROOM_LIMIT_MS):
                    return False
            except OSError:
                return False
            else:
                return True
        return False

    def fetch_outcome(self, index: int, generation: int) -> bytes | None:
        """What a process returned or raised, as it pickled it; ``None`` for nothing.

        Raises:
            KeeperLost: There is no guard left that could know.
        """
        (_, outcome), fds = self.ask((messages.FETCH, index, generation))
        if not fds:
            return None if outcome is None else bytes(outcome)
        with open(fds[0], "rb") as file:
            file.seek(0)
            return file.read()

    def ask(self, question: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[int]]:
        """Say something to the guard that it answers.

        Raises:
            KeeperLost: There is no guard left that could know.
            OSError: It has no descriptor left to answer by; it may have one later.
        """
        ours, theirs = channel.message_pair()
        with ours:
            try:
                with theirs:
                    channel.send(self.door, question, [theirs.fileno()])
                answer = channel.receive(ours)
            except OSError as error:
                raise KeeperLost("the keeper that held what was asked for was killed") from error
        if answer is None:
            if not self.guard_is_dead():
                raise OSError(
                    errno.EMFILE,
                    "the keeper of this program has no free descriptor to answer by (its limit is "
                    "the hard one, ulimit -Hn); ask again when it holds less",
                )
            raise KeeperLost("the keeper that held what was asked for was killed")
        return answer

    def hand(self, message: tuple[Any, ...], fds: Sequence[int]) -> None:
        """Give the guard something that must not be lost.

        Raises:
            KeeperLost: It is gone; the next call gets a new keeper.
        """
        self._check()
        try:
            channel.send(self.door, message, fds)
        except OSError as error:
            raise self.lost() from error

    def say_goodbye(self, limit: float, how: str) -> None:
        """Tell the guard that this program came to Python's own end, and wait for it to finish.

        Args:
            limit: Longest wait in seconds; the guard needs milliseconds.
            how: "normal", or "interrupted": then nothing below is let go.
        """
        try:
            self._check()
            ours, theirs = channel.message_pair()
            with ours:
                with theirs:
                    channel.send(self.door, (messages.GOODBYE, how), [theirs.fileno()])
                is_readable(ours.fileno(), limit * 1000)
        except (OSError, KeeperLost, StartError):
            pass  # it is gone already, and with it all that it held
        self.close()
        if self.keeper_pid:
            _reap(self.keeper_pid, limit)


# --- small facts ------------------------------------------------------------------------------


def inode_of(fd: int) -> int | None:
    """The inode behind a descriptor; ``None`` where none is open."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def environ() -> dict[bytes, bytes]:
    """The environment as os.environ holds it: comparing the mapping itself takes 40 µs."""
    data: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
    return data


def _refusal(number: int | None, text: str) -> tuple[int | None, str]:
    advice = {
        errno.EAGAIN: "; the limit of processes (ulimit -u, or the pids cgroup) is reached",
        errno.ENOMEM: "; there is no memory for another process",
        errno.EMFILE: "; the keeper has no free descriptor",
    }.get(number or 0, "")
    return number or None, f"the keeper could not start a process: {text}{advice}"


def _reap(pid: int, limit: float = 1.0) -> int | None:
    """The exit status of the keeper, a child of ours that has ended or is about to."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        is_readable(pidfd, limit * 1000)
        done, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None
    except ChildProcessError:
        return None
    finally:
        os.close(pidfd)
