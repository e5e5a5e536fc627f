"""The guard: subreaper above all that a program starts, watcher of main, keeper of the ledger.

It knows that main has ended from main's life word (the kernel tells it before it tears down main's
memory), from main's pidfd, and from main's goodbye. A closed socket proves nothing: daemonising
code closes descriptors it does not know.
"""

from __future__ import annotations

import os
import signal
import time

from procession import _native
from procession._keeper import shutdown
from procession._keeper.deposits import Deposits
from procession._keeper.ledger import Ledger, identity
from procession._keeper.marks import Marks
from procession._keeper.reaper import Reaper
from procession._keeper.room import Room
from procession._keeper.segments import Segments
from procession._keeper.watch import Watch
from procession._keeper.zygotes import Zygotes
from procession._kernel import procfs
from procession._kernel.polling import is_readable
from procession._kernel.tree import Tree
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORKED_CHILDREN_LIMIT_NS = 2_000_000_000  # until what was killed and is not gone is reported
ROOM_FOR_FORKED = 8  # descriptors: two for a child's registration, and for those at the same time


class Guard:
    """The guard's loop.

    Args:
        table: The program's table of processes.
        door: The door's reading end.
        door_writer: Its writing end, for the zygote and its children.
        config: What main said in BEGIN.
        main_pidfd: A pidfd of main.
    """

    def __init__(
        self,
        table: _native.Table,
        door: channel.Socket,
        door_writer: channel.Socket,
        config: dict[str, Any],
        main_pidfd: int,
    ) -> None:
        self._table = table
        self._door = door
        self._main_pid: int = config["pid"]
        self._main_pidfd = main_pidfd
        self._config = config
        self._room = Room()
        table.set_full(False)
        self._ledger = Ledger(table, config)
        self._reaper = Reaper(table, self._ended, self._ledger.recorder.stopped)
        self._deposits = Deposits()
        self._segments = Segments()
        self._forked: dict[int, tuple[int, int, int]] = {}
        """Pidfd → (pid, index, generation) of children of start method fork."""
        self._marks = Marks(table)
        self._life = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._signals = _native.signalfd([signal.SIGCHLD])
        self._watch = Watch()
        self._zygotes = Zygotes(
            table,
            door_writer,
            config,
            self._room,
            self._marks,
            self._watch,
            self._note,
            self._adopt,
        )
        self._goodbye: tuple[str, channel.Socket] | None = None

    def run(self) -> None:
        """Serve until the program is over; nothing of it is left then, but what was let go."""
        try:
            self._serve()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Something went wrong here. As when this process is killed: nothing stays uncontained."""
        self._reaper.lost = True
        self._room.use_reserve()
        try:
            with Tree() as forked:
                self._kill_forked(forked)
        except OSError:  # what is known needs nothing more
            for pidfd in self._forked:
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except OSError:
                    pass  # it is gone
        self._zygotes.kill()
        self._adopt()
        shutdown.end_everything(self._reaper)

    def _serve(self) -> None:
        self._watch.add(self._door.fileno(), self._hear_door)
        self._watch.add(self._signals, self._reap)
        self._watch.add(self._main_pidfd, self._main_may_be_gone)
        self._watch.add(self._life, self._main_may_be_gone)
        if self._config["life"]:
            self._table.watch_life(messages.MAIN_SLOT, self._life)
        self._zygotes.begin()
        while True:
            sweeping = self._segments.sweeping
            ready = self._watch.wait(0 if sweeping else self._patience())
            if sweeping and not ready:
                self._segments.sweep_on()  # what dead programs left, while nobody asks for anything
            self._deposits.look_around()
            self._zygotes.look_around()
            if not self._watch.act(ready):
                return

    def _patience(self) -> float | None:
        """Seconds until something is to be looked at that nobody tells of."""
        limits = [self._deposits.patience(), self._zygotes.patience()]
        return min((limit for limit in limits if limit is not None), default=None)

    # --- the zygotes' children ----------------------------------------------------------------

    def _note(self, message: tuple[Any, ...]) -> None:
        """What a zygote has to say."""
        kind, *rest = message
        if kind == messages.ENDED:
            self._ended(*rest)
        elif kind in (messages.STOPPED, messages.CONTINUED):
            self._ledger.recorder.stopped(kind, *rest)

    def _adopt(self) -> None:
        """Take over the children of a zygote that is gone: they are ours by now."""
        mine = set(procfs.children(os.getpid()))
        zygotes = self._zygotes.pids()
        for index, pid, state in self._table.pids():
            if index in (messages.MAIN_SLOT, messages.GUARD_SLOT) or state == _native.ENDED:
                continue
            if not pid:
                continue  # claimed a moment ago: by main for a fork, or by who was killed then
            if any(pid == forked for forked, _, _ in self._forked.values()):
                continue
            row = self._table.read(index)
            if row[6] & _native.FLAG_GUEST:
                continue  # nobody's child here
            if (status := procfs.stat(pid)) is not None and status.parent in zygotes:
                continue  # another one's
            generation = row[1]
            if self._ledger.expects(index, generation):
                continue  # a forked child that somebody else reaps
            if pid in mine or _is_child(pid):
                self._reaper.children[pid] = (index, generation)
                self._marks.add(index, generation)  # the next zygote ends it if we are killed
            elif self._table.end(index, -1, 0, 0, 0, _native.FLAG_LOST):
                self._ended(index, generation)

    def _reap(self) -> bool:
        try:
            os.read(self._signals, 4096)
        except BlockingIOError:
            pass
        self._zygotes.reap(forked=bool(self._forked))
        self._reaper.reap()
        return True

    def _ended(self, index: int, generation: int) -> None:
        self._ledger.ended(index, generation)
        self._deposits.ended(identity(index, generation))

    # --- the door --------------------------------------------------------------------------

    def _hear_door(self) -> bool:
        self._drain_door()
        if self._goodbye is None:
            return True
        how, answer = self._goodbye
        if how == "normal":
            self._end_normally()
        else:  # interrupted: main's children have had their grace, what they left has none
            self._end_everything(how)
        try:
            channel.send(answer, ("bye",))
        except OSError:
            pass  # main did not wait for it
        return False

    def _drain_door(self) -> None:
        while (received := channel.receive_now(self._door, self._look_for_room)) is not None:
            self._act_on(*received)
        if self._table.full():
            self._look_for_room()

    def _act_on(self, message: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = message
        if kind == messages.HELLO:
            self._ledger.owner_ids.add(rest[0])
            self._zygotes.welcome(rest[0], channel.adopt(fds[0]))
        elif kind == messages.HEIR:
            self._zygotes.make_heir(rest[0], rest[1], fds)
        elif kind == messages.REGISTER:
            self._register(*rest, *fds)
        elif kind == messages.OUTCOME:
            index, generation, outcome = rest
            self._ledger.keep_outcome(index, generation, outcome, fds)
        elif kind == messages.FETCH:
            asker = channel.adopt(fds[0])
            self._drain_door()  # what the process said before it ended is in there
            self._ledger.answer(asker, *rest)
        elif kind == messages.DEPOSIT:
            self._deposits.keep(fds, *rest)
        elif kind == messages.CLAIM:
            asker = channel.adopt(fds[0])
            self._drain_door()  # it may have been deposited in there
            self._deposits.claim(asker, *rest)
        elif kind == messages.ARRIVED:
            self._deposits.arrived(*rest)
        elif kind == messages.PLACED:
            self._deposits.placed(*rest)
        elif kind == messages.LOST:
            self._deposits.lost(*rest)
        elif kind == messages.DROP:
            self._deposits.drop(*rest)
        elif kind == messages.SEGMENT:
            self._segments.keep(*rest, *fds)
        elif kind == messages.SEGMENT_GONE:
            self._segments.forget(*rest)
        elif kind == messages.GOODBYE:
            self._goodbye = (rest[0], channel.adopt(fds[0]))
        else:
            self._tell_recorder(kind, rest, fds)

    def _tell_recorder(self, kind: str, rest: list[Any], fds: list[int]) -> None:
        recorder = self._ledger.recorder
        if kind == messages.STARTED:
            recorder.seen(*rest)
        elif kind == messages.WAITED:
            recorder.waited(*rest)
        elif kind == messages.WAITS:
            recorder.waits(*rest)
        elif kind == messages.CODE_ENDED:
            recorder.code_ended(*rest)
        elif kind == messages.OWNER_DIED:
            recorder.owner_died(*rest)
        elif kind == messages.RECORD:
            recorder.begin(fds[0], *rest)
        elif kind == messages.RECORD_NO_MORE:
            self._ledger.end_recording()
            with channel.adopt(fds[0]) as asker:
                try:
                    channel.send(asker, ("written",))
                except OSError:
                    pass  # it did not wait for it

    def _register(self, index: int, generation: int, pidfd: int, answer: int) -> None:
        row = self._table.read(index)
        self._forked[pidfd] = (row[2], index, generation)
        self._ledger.owner_ids.add(row[4])  # one that only forks says no hello
        self._watch.add(pidfd, lambda: self._forked_child_ended(pidfd))
        self._marks.add(index, generation)
        self._zygotes.have_second()
        self._look_for_room()
        with channel.adopt(answer) as sock:
            try:
                channel.send(sock, ("registered",))
            except (BrokenPipeError, ConnectionResetError):
                pass  # killed while it asked

    def _forked_child_ended(self, pidfd: int) -> bool:
        """A child of start method fork ended; its own parent reaps it and says how."""
        _, index, generation = self._forked.pop(pidfd)
        self._watch.remove(pidfd)
        self._ledger.forked_child_ended(index, generation, pidfd)
        self._deposits.ended(identity(index, generation))
        if self._table.full():
            self._look_for_room()
        return True

    def _look_for_room(self) -> None:
        """Say whether one more forked child can be held, so that it need not be made in vain."""
        self._table.set_full(not self._room.has(ROOM_FOR_FORKED))

    # --- the program's end -----------------------------------------------------------------

    def _main_may_be_gone(self) -> bool:
        """Something says that main ended: find out, and if so end everything it left."""
        try:
            os.eventfd_read(self._life)
        except BlockingIOError:
            pass
        self._room.use_reserve()  # to find out takes some already
        while not self._main_is_gone():
            if not self._main_is_going():
                self._room.keep_reserve()
                return True  # a doubtful main is alive
            time.sleep(0.0005)
        self._end_everything("killed")
        return False

    def _main_is_gone(self) -> bool:
        """Whether main ended, or became another program by exec."""
        if is_readable(self._main_pidfd):
            return True
        # The kernel marks the life word of a thread that ends, and then it is on its way out, or
        # that executes another program; its memory may be the old one's for a moment yet.
        marked = self._table.life(messages.MAIN_SLOT) == _native.LIFE_DIED
        status = procfs.stat(self._main_pid, self._main_pid) if marked else None
        if status is not None and not status.flags & procfs.PF_EXITING and status.state not in "ZX":
            return True
        try:
            if procfs.is_ending(self._main_pid):
                return True
            return not procfs.maps_file(self._main_pid, _native.TABLE_NAME)
        except OSError:
            return False

    def _main_is_going(self) -> bool:
        """Whether main's first thread is on its way out while others still run."""
        status = procfs.stat(self._main_pid, self._main_pid)
        return status is not None and bool(status.flags & procfs.PF_EXITING)

    def _end_everything(self, how: str) -> None:
        self._room.use_reserve()
        with Tree() as forked:
            self._kill_forked(forked)
            # what is below a zygote ends by its hand: whichever of us is killed meanwhile, the
            # other one is there to finish it
            self._zygotes.finish(messages.END)
            self._adopt()
            left = shutdown.end_everything(self._reaper)
            left += forked.wait(time.monotonic_ns() + FORKED_CHILDREN_LIMIT_NS)
        while self._forked:
            pidfd, (_, index, generation) = self._forked.popitem()
            self._ledger.forked_child_ended(index, generation, pidfd)
        self._remove_segments()
        self._ledger.close(how, unkillable=left)

    def _kill_forked(self, tree: Tree) -> None:
        """SIGKILL to the children of start method fork, and to all that is below them."""
        for pidfd, (pid, _, _) in self._forked.items():
            tree.hold(pid, pidfd)
        tree.scan(freeze=True)
        tree.kill()

    def _end_normally(self) -> None:
        """Main said goodbye. Its own children have ended or were let go by it.

        What a killed process had started has no owner any more: that is ended. What a process
        that came to its own end left running goes on without us.
        """
        self._room.use_reserve()
        self._drain_door()
        with Tree() as ownerless:
            for pid in self._ledger.ownerless():
                ownerless.add(pid)
            if ownerless.pids:
                ownerless.scan(freeze=True)
                ownerless.kill()
                ownerless.wait(time.monotonic_ns() + FORKED_CHILDREN_LIMIT_NS)
        self._zygotes.finish(messages.FINISH)
        for pidfd in list(self._forked):
            if is_readable(pidfd):
                self._forked_child_ended(pidfd)
        self._adopt()
        self._reaper.end_unused(self._signals)
        self._reaper.reap()
        self._remove_segments()
        self._ledger.close("normal", let_go=procfs.children(os.getpid()))

    def _remove_segments(self) -> None:
        """Named shared memory goes with the program, also what was made just before its end."""
        while (received := channel.receive_now(self._door)) is not None:
            (kind, *rest), fds = received
            if kind in (messages.SEGMENT, messages.SEGMENT_GONE):
                self._act_on((kind, *rest), fds)
            else:
                channel.close_all(fds)
        self._segments.remove_all()


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
