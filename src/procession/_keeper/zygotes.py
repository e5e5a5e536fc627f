"""The guard's zygotes: the one that serves, its predecessors while they last, and its heir.

The last one started serves. An *heir* is forked from it and runs main's file, once for all
children; if that left nothing that a fork would share or lose (`traces`), the zygote is told to
retire: it reads no link any more, and stays without serving until its children have ended. Then the
guard tells every owner to the heir, as it does when a zygote was killed.
"""

from __future__ import annotations

import os
import select
import signal
import time

from procession._kernel.polling import is_readable
from procession._kernel.tree import Tree
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from procession import _native
    from procession._keeper.marks import Marks
    from procession._keeper.room import Room
    from procession._keeper.watch import Watch

FINISH_LIMIT = 1.0  # seconds for a zygote to finish; then it is killed and the guard does it


class _Heir:
    """A zygote to be.

    Attributes:
        channel: To it.
        parent: The channel's descriptor of the zygote that it is forked from.
        deadline: Until when it has to be ready, on the monotonic clock.
        pid: Its pid, 0 until it said so.
        pidfd: A pidfd of it, -1 until then.
        is_ready: Whether it has run main, and may be forked from.
    """

    def __init__(self, link: channel.Socket, parent: int, deadline: float) -> None:
        self.channel = link
        self.parent = parent
        self.deadline = deadline
        self.pid = 0
        self.pidfd = -1
        self.is_ready = False


class Zygotes:
    """Starts zygotes, hears them, and sees to it that there is one that serves.

    Args:
        table: The program's table of processes.
        door_writer: The door's writing end, for a zygote and its children.
        config: What main said in BEGIN.
        room: The guard's limit of descriptors.
        marks: What is below no zygote.
        watch: What the guard sleeps on.
        note: Called with what a zygote has to say of processes.
        adopt: Called when a zygote is gone, and its children are the guard's.
    """

    def __init__(
        self,
        table: _native.Table,
        door_writer: channel.Socket,
        config: dict[str, Any],
        room: Room,
        marks: Marks,
        watch: Watch,
        note: Callable[[tuple[Any, ...]], None],
        adopt: Callable[[], None],
    ) -> None:
        self._table = table
        self._door_writer = door_writer
        self._config = config
        self._room = room
        self._marks = marks
        self._watch = watch
        self._note = note
        self._adopt = adopt
        self._owners: dict[int, tuple[channel.Socket, int]] = {}
        self._running: dict[int, tuple[int, channel.Socket]] = {}
        """Channel's descriptor → (pid, channel); the last one started serves."""
        self._heir: _Heir | None = None
        self._had_heir = False
        self._preloads: bool = config["zygote"]
        """Whether somebody starts processes from the zygote; without, it has nothing to preload."""

    # --- starting --------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the first."""
        if self._preloads:
            self._start()  # main waits for it
        else:
            self.have_second()

    def have_second(self) -> None:
        """Have a zygote also where it has nothing to fork: it is there if this process is killed.

        Where none can be forked now, it is tried again with the next child.
        """
        if not self._running:
            try:
                self._start()
            except OSError:
                pass

    def welcome(self, owner: int, link: channel.Socket) -> None:
        """Somebody wants to start processes."""
        self._owners[link.fileno()] = (link, owner)
        if not self._running or (self._config["preload"] and not self._preloads):
            self._preloads = True
            self._start()
        else:
            _say(self._running[self._serving()][1], (messages.OWNER, owner), [link.fileno()])

    def pids(self) -> set[int]:
        """Of those that run."""
        return {pid for pid, _ in self._running.values()}

    def _serving(self) -> int:
        return next(reversed(self._running))

    def _start(self) -> None:
        ours, theirs = channel.message_pair()
        me = os.pidfd_open(os.getpid())
        try:
            pid = os.fork()
            if pid == 0:
                self._become_zygote(theirs, me)
        finally:
            theirs.close()
            os.close(me)
        self._let_serve(pid, ours)

    def _let_serve(self, pid: int, zygote: channel.Socket) -> None:
        fd = zygote.fileno()
        self._running[fd] = (pid, zygote)
        self._watch.add(fd, lambda: self._hear(fd))
        for link, owner in self._owners.values():
            _say(zygote, (messages.OWNER, owner), [link.fileno()])

    def _become_zygote(self, channel_to_guard: channel.Socket, me: int) -> None:
        from procession import _native
        from procession._keeper import __main__ as entry

        code = 1
        try:
            keep = [0, 1, 2, self._table.fileno(), self._door_writer.fileno()]
            keep += self._config["output"]
            _native.close_all_but([*keep, channel_to_guard.fileno(), me])
            self._room.restore()  # preloaded modules and children have main's, not the guard's
            names = self._config["preload"] if self._preloads else []
            entry.be_zygote(
                self._table,
                self._door_writer,
                channel_to_guard,
                me,
                self._marks,
                [name for name in names if name not in self._config["skip"]],
                self._config,
            )
            code = 0
        except BaseException:
            entry.report()
        finally:
            os._exit(code)

    # --- hearing ---------------------------------------------------------------------------

    def _hear(self, fd: int) -> bool:
        received = channel.receive(self._running[fd][1])
        if received is None:
            self._watch.remove(fd)  # it is dying; SIGCHLD says when it is gone
            return True
        self._heard(received[0])
        return True

    def _heard(self, message: tuple[Any, ...]) -> None:
        if message[0] == messages.RETIRED:
            self._config["skip"] += message[1:]
        elif message[0] == messages.STEPPED_DOWN:
            if self._heir is None or not self._take_over(self._heir):
                self._start()
        else:
            self._note(message)

    def _drain(self, sock: channel.Socket) -> None:
        """What a zygote that is gone had said; a reset comes before it, and is no end of it."""
        for _ in range(2):
            while (received := channel.receive_now(sock)) is not None:
                self._heard(received[0])

    def reap(self, *, forked: bool) -> None:
        """Look which have ended, and have another one where that is needed.

        Args:
            forked: Whether there are children of start method fork.
        """
        for fd, (pid, _) in list(self._running.items()):
            if _has_ended(pid):
                os.waitpid(pid, 0)
                self._ended(fd, forked)

    def _ended(self, fd: int, forked: bool) -> None:
        """A zygote is gone: adopt what it had, and have another if it was the one that serves."""
        _, sock = self._running[fd]
        self._drain(sock)
        served = fd == self._serving()
        del self._running[fd]
        self._watch.remove(fd)
        sock.close()
        self._adopt()
        if self._heir is not None and self._heir.parent == fd and self._take_over(self._heir):
            return
        if served and self._owners:
            self._start()
        elif forked:
            self.have_second()

    # --- the heir --------------------------------------------------------------------------

    def make_heir(self, order: dict[str, Any], main: dict[str, Any], fds: Sequence[int]) -> None:
        """Have main's file run once, by a zygote that serves then. It is tried once.

        Args:
            order: How (`procession._launch.heirs`).
            main: What children prepare themselves with, and the file is a part of.
            fds: Those of main's descriptors 0-2 that are open.
        """
        try:
            if self._had_heir or not self._running or not self._owners:
                return
            self._had_heir = True
            parent = self._serving()
            ours, theirs = channel.message_pair()
            with theirs:
                ask = (messages.HEIR, order, main)
                if not _say(self._running[parent][1], ask, [theirs.fileno(), *fds]):
                    ours.close()
                    return
            self._heir = _Heir(ours, parent, time.monotonic() + order["limit"])
            self._watch.add(ours.fileno(), self._hear_heir)
        except OSError:
            pass  # no descriptor for it: children run main themselves
        finally:
            channel.close_all(fds)

    def patience(self) -> float | None:
        """Seconds until an heir has to be ready; ``None`` where there is none to wait for."""
        if self._heir is None or self._heir.is_ready:
            return None
        return max(0.0, self._heir.deadline - time.monotonic())

    def look_around(self) -> None:
        """Drop an heir that takes too long."""
        if self._heir is not None and self.patience() == 0:
            self.drop_heir()

    def _hear_heir(self) -> bool:
        heir = self._heir
        assert heir is not None
        received = channel.receive(heir.channel)
        if received is None:  # it died, or main left something
            self.drop_heir()
            return True
        (kind, *rest), fds = received
        if kind == messages.BORN:
            heir.pid, heir.pidfd = rest[0], fds[0]
        elif kind == messages.READY:
            heir.is_ready = True
            # it is told of the owners when the zygote has let go: they'd take each other's words
            _say(self._running[heir.parent][1], (messages.RETIRE,))
        return True

    def drop_heir(self) -> None:
        """There will be none: it ends, with all below it, and the zygote serves on."""
        heir, self._heir = self._heir, None
        if heir is None:
            return
        self._watch.remove(heir.channel.fileno())
        heir.channel.close()
        if heir.pidfd >= 0:
            if not is_readable(heir.pidfd):
                _end_tree(heir.pid, heir.pidfd)
            os.close(heir.pidfd)
        if heir.parent in self._running and not heir.is_ready:
            _say(self._running[heir.parent][1], (messages.NO_HEIR,))

    def _take_over(self, heir: _Heir) -> bool:
        """Let the heir serve; false if it cannot."""
        try:
            alive = heir.is_ready and not os.waitid(
                os.P_PIDFD, heir.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT
            )
        except ChildProcessError:
            alive = False
        if not alive:
            self.drop_heir()
            return False
        self._heir = None
        self._watch.remove(heir.channel.fileno())
        os.close(heir.pidfd)
        self._let_serve(heir.pid, heir.channel)
        return True

    # --- the end ---------------------------------------------------------------------------

    def kill(self) -> None:
        """End them at once; what was below them is the guard's then."""
        self.drop_heir()
        for pid, _ in self._take_all():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def finish(self, word: str) -> None:
        """Tell each to go, and hear what it says until then; kill it after a limit, or at once
        where it never had anything to do.
        """
        self.drop_heir()
        for pid, zygote in self._take_all():
            self._finish(pid, zygote, word)

    def _take_all(self) -> Iterator[tuple[int, channel.Socket]]:
        yield from self._running.values()
        self._running.clear()

    def _finish(self, pid: int, zygote: channel.Socket, word: str) -> None:
        if not self._owners:
            os.kill(pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(zygote.fileno(), select.POLLIN)
        deadline = time.monotonic() + FINISH_LIMIT
        try:
            channel.send(zygote, (word,), flags=channel.DONT_WAIT)
            while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                received = channel.receive(zygote)
                if received is None:
                    break
                self._heard(received[0])
            else:
                os.kill(pid, signal.SIGKILL)
        except BlockingIOError:
            os.kill(pid, signal.SIGKILL)  # it reads nothing any more
        except (BrokenPipeError, ConnectionResetError):
            pass
        os.waitpid(pid, 0)
        self._drain(zygote)


def _say(zygote: channel.Socket, message: tuple[Any, ...], fds: Sequence[int] = ()) -> bool:
    """Tell a zygote something; false where it is dying. Its successor is told of all owners."""
    try:
        channel.send(zygote, message, fds)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _end_tree(pid: int, pidfd: int) -> None:
    try:
        with Tree() as tree:
            tree.hold(pid, pidfd)
            tree.scan(freeze=True)
            tree.kill()
    except OSError:  # no descriptor even to look at it
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
