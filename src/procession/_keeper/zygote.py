"""The zygote: a warm process with one thread, from which spares are forked, and their reaper.

It hands each owner a few spares ahead of time, so that a start is one write from the owner to
the spare. It is itself a subreaper: if the guard above it is killed, everything below the zygote
is ended from here; if the zygote is killed, the guard adopts all of it and nothing is lost.
"""

from __future__ import annotations

import os
import select
import signal
import time

from procession import _native
from procession._keeper import shutdown, spares
from procession._keeper.reaper import Reaper
from procession._kernel.polling import is_readable
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

    from procession._keeper.marks import Marks

STOCK = 2  # spares an owner holds when it starts a process now and then
MOST = 8  # spares it holds while it starts one after the other
AT_ONCE = 4  # spares forked in a row: they share what the zygote writes to in between
UNUSED = (_native.CLAIMED, _native.SPARE)
BURST_NS = 200_000_000  # two starts within this time are one burst


class Owner:
    """A process that starts processes, seen from here."""

    def __init__(self, link: channel.Socket, index: int) -> None:
        self.link = link
        self.index = index
        self.stock: set[tuple[int, int]] = set()
        """(index, generation) of the spares that it holds."""
        self.target = 1
        self.waiting = True
        self.last_took_ns = 0

    def look(self, table: _native.Table) -> None:
        """See in the table which spares were used; hold more for who starts quickly."""
        used = {place for place in self.stock if table.state(*place) not in UNUSED}
        if used:
            self.stock -= used
            now = time.monotonic_ns()
            if now - self.last_took_ns < BURST_NS:
                self.target = min(MOST, max(STOCK, self.target * 2))
            else:
                self.target = STOCK
            self.last_took_ns = now

    @property
    def lacks(self) -> bool:
        return self.waiting or len(self.stock) * 2 <= self.target > 0

    @property
    def wants(self) -> int:
        """How many spares to fork for it now."""
        return max(1, min(AT_ONCE, self.target - len(self.stock)))


class Zygote:
    """The zygote's loop.

    Args:
        table: The program's table of processes.
        door: The door's writing end, which every child inherits.
        guard: The channel to the guard.
        guard_pidfd: A pidfd of the guard.
        marks: What is below no zygote.
        main_path: The file of the program's `__main__`, if children run it again.
        modules: Modules of `multiprocessing` that main had imported.
        pgid: main's process group, which children join.
        refusal: Why no process may be started from here, or nothing.
    """

    def __init__(
        self,
        table: _native.Table,
        door: channel.Socket,
        guard: channel.Socket,
        guard_pidfd: int,
        marks: Marks,
        main_path: str | None,
        modules: Sequence[str],
        pgid: int,
        refusal: str = "",
    ) -> None:
        self._refusal = refusal
        self._table = table
        self._door = door
        self._guard = guard
        self._guard_pidfd = guard_pidfd
        self._marks = marks
        self._owners: dict[int, Owner] = {}
        self._reaper = Reaper(table, self._ended, self._stopped, self._other_ended)
        self._signals = _native.signalfd([signal.SIGCHLD])
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._main_path = main_path
        self._modules = modules
        self._pgid = pgid
        self._anchor = 0
        """Its pid; 0: to be made with the next spare; -1: none is wanted."""
        self._is_warm = False
        self._is_retired = False
        self._rehearsal: Iterator[None] | None = None
        self._postponed: Iterator[None] | None = None
        """A rehearsal that is the heir's, if there comes to be one."""

    def run(self) -> None:
        """Serve until the guard says that the program is over, or is dead."""
        _native.set_subreaper(True)
        for fd in (self._guard.fileno(), self._guard_pidfd, self._signals, self._bell):
            self._epoll.register(fd, select.EPOLLIN)
        try:
            self._serve()
        finally:
            if is_readable(self._guard_pidfd):
                self._avenge_guard()
            else:
                self._weigh_anchor()

    def _serve(self) -> None:
        while True:
            # a recording wants to know of stops, too, which are seen where the reaper looks itself
            children = None if self._table.recorded() else self._reaper.children
            timeout = 0 if self._busy() else -1
            ready, ended, left = _native.attend(
                self._table, self._epoll.fileno(), timeout, self._signals, children
            )
            for place in ended:
                self._ended(*place)
            if left:
                self._reaper.reap()
            for fd in ready:
                if fd == self._guard_pidfd:
                    return
                if fd == self._guard.fileno():
                    if not self._hear_guard():
                        return
                elif fd == self._bell:
                    os.eventfd_read(fd)
                elif fd in self._owners:
                    self._hear_owner(self._owners[fd])
            for owner in self._owners.values():
                owner.look(self._table)
            self._work()
            if self._is_retired and not self._reaper.children and not self._reaper.reap():
                return

    # --- what is heard ---------------------------------------------------------------------

    def _hear_guard(self) -> bool:
        """One message of the guard; false when it is time to go."""
        received = channel.receive(self._guard)
        if received is None:  # its end is closed, so it is dying: its pidfd says when
            self._epoll.unregister(self._guard.fileno())
            return True
        (kind, *rest), fds = received
        if kind == messages.OWNER:
            link = channel.adopt(fds[0])
            self._owners[link.fileno()] = Owner(link, rest[0])
            self._epoll.register(link.fileno(), select.EPOLLIN)
        elif kind == messages.FINISH:
            self._reaper.end_unused(self._signals)
            return False
        elif kind == messages.HEIR:
            self._make_heir(rest[0], rest[1], fds)
        elif kind == messages.NO_HEIR:
            self._rehearsal, self._postponed = self._rehearsal or self._postponed, None
        elif kind == messages.RETIRE:
            self._retire()
        elif kind == messages.END:
            shutdown.end_everything(self._reaper)
            return False
        return True

    def _hear_owner(self, owner: Owner) -> None:
        try:
            words = owner.link.recv(64, channel.DONT_WAIT)
        except BlockingIOError:
            return  # the event was of an earlier link with this number
        except ConnectionResetError:
            words = b""
        if words == messages.WAIT:
            owner.waiting = True
        else:  # it ended, closed its link or executed another program
            self._epoll.unregister(owner.link.fileno())
            del self._owners[owner.link.fileno()]
            owner.link.close()

    # --- what is done ----------------------------------------------------------------------

    def _busy(self) -> bool:
        return self._rehearsal is not None or any(owner.lacks for owner in self._owners.values())

    def _work(self) -> None:
        """One piece of work: whoever waits first, then stocks.

        One piece only, so that deaths and new owners are heard between two forks. The program's
        first spare is made cold, since main waits for it; what follows is worth warming up for,
        and then, as long as nobody waits, what follows that is worth rehearsing for.
        """
        lacking = [owner for owner in self._owners.values() if owner.lacks]
        if self._rehearsal is not None and not any(owner.waiting for owner in lacking):
            try:
                next(self._rehearsal)
            except StopIteration:
                self._rehearsal = None
        elif lacking:
            if self._reaper.children:
                self._warm_up()
            owner = max(lacking, key=lambda o: (o.waiting, o.target - len(o.stock)))
            self._make_spare(owner)

    def _warm_up(self) -> None:
        if not self._is_warm:
            self._is_warm = True
            spares.warm_up(self._main_path, self._modules)
            self._rehearsal = spares.rehearse()

    def _make_heir(self, order: dict[str, Any], main: dict[str, Any], fds: list[int]) -> None:
        """Fork the heir; the guard hears from it, or sees the end of its channel."""
        try:
            spares.require_one_thread()
            if self._refusal:
                return
            self._warm_up()
            self._postponed, self._rehearsal = self._rehearsal, None
            # the guard's own child, whose parent here goes at once: what loses its parent below
            # this process meanwhile goes there, too
            guard, between = os.getppid(), 0
            _native.set_subreaper(False)
            try:
                between = os.fork()
                if between == 0:
                    self._fork_heir(order, main, fds, guard)
                os.waitpid(between, 0)
            finally:
                _native.set_subreaper(True)
        except OSError:
            pass
        finally:
            channel.close_all(fds)

    def _fork_heir(
        self, order: dict[str, Any], main: dict[str, Any], fds: list[int], guards_pid: int
    ) -> NoReturn:
        between = os.getpid()
        try:
            if os.fork() == 0:
                self._be_heir(order, main, fds, between, guards_pid)
        finally:
            os._exit(0)

    def _be_heir(
        self,
        order: dict[str, Any],
        main: dict[str, Any],
        fds: list[int],
        between: int,
        guards_pid: int,
    ) -> NoReturn:
        from procession._keeper import __main__ as entry

        code = 1
        try:
            keep = [0, 1, 2, self._table.fileno(), self._door.fileno(), self._guard_pidfd, *fds]
            _native.close_all_but(keep)
            guard = channel.adopt(fds[0])
            from procession._keeper import heir

            heir.be_born(guard, between, guards_pid)
            refusal = heir.run_main(order, main, fds[1:])
            if refusal:
                heir.give_up(self._table, refusal)
            else:
                successor = Zygote(
                    self._table,
                    self._door,
                    guard,
                    self._guard_pidfd,
                    self._marks,
                    self._main_path,
                    self._modules,
                    self._pgid,
                )
                successor._drop_anchor()
                successor._is_warm = True
                # of a rehearsal that is over only the pages are to be found anew
                successor._rehearsal = self._postponed or spares.rehearse(rounds=1)
                heir.say_ready(guard)
                successor.run()
            code = 0
        except BaseException:
            entry.report()
        finally:
            os._exit(code)

    def _retire(self) -> None:
        """Leave the owners to the heir, and stay as long as there are children."""
        _native.set_process_name(messages.COMM_RETIRED)
        for fd, owner in self._owners.items():
            self._epoll.unregister(fd)
            owner.link.close()
        self._owners.clear()
        self._weigh_anchor()  # the heir has its own
        self._reaper.end_unused(self._signals)  # the heir's have main already
        self._is_retired = True
        self._tell_guard(messages.STEPPED_DOWN)

    def _make_spare(self, owner: Owner) -> None:
        reaper = self._reaper
        try:
            if self._refusal:
                raise OSError(0, self._refusal)
            spares.require_one_thread()
            if not self._anchor:
                self._drop_anchor()
            made = _native.fork_spares(
                self._table,
                owner.link.fileno(),
                owner.wants,
                self._signals,
                reaper.children,
                not self._table.recorded(),
            )
        except OSError as error:
            owner.target = 0
            if owner.waiting:
                self._say(owner, (messages.FAILED, error.errno, error.strerror or str(error)))
                owner.waiting = False
            return
        if isinstance(made[0], int):
            index, generation, fd = made
            stream = channel.adopt(fd)
            spares.live(self._table, self._door, stream, self._bell, index, generation)
        places, ended, left = made
        owner.stock.update(places)
        owner.waiting = False
        for place in ended:
            self._ended(*place)
        if left:
            reaper.reap()

    def _drop_anchor(self) -> None:
        """Keep the children's process group from being orphaned by the end of one of them."""
        try:
            self._anchor = _native.anchor(self._pgid)
        except PermissionError:
            self._anchor = -1  # the group is no more: nobody in it to be told
        except OSError:
            pass  # no room for it: tried again with the next spare

    def _weigh_anchor(self) -> None:
        if self._anchor > 0:
            _native.weigh_anchor(self._anchor)
            self._anchor = -1

    def _say(self, owner: Owner, message: tuple[object, ...], fds: Sequence[int] = ()) -> bool:
        try:
            channel.send(owner.link, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _ended(self, index: int, generation: int) -> None:
        self._tell_guard(messages.ENDED, index, generation)

    def _other_ended(self, pid: int) -> None:
        if pid == self._anchor:
            self._anchor = 0  # killed by somebody; the pid may be another process's soon

    def _stopped(self, kind: str, index: int, generation: int, at_ns: int) -> None:
        self._tell_guard(kind, index, generation, at_ns)

    def _tell_guard(self, *message: object) -> None:
        try:
            channel.send(self._guard, message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the guard is dead: its pidfd is about to say so

    def _avenge_guard(self) -> None:
        """The guard was killed: nobody would contain these any more, so they end here and now."""
        self._reaper.lost = True
        try:
            self._marks.end()
        except OSError:
            pass  # not one free descriptor: what is below us needs none
        shutdown.end_everything(self._reaper)
