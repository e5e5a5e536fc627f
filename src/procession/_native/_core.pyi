"""What each operation promises; the layout it works on is described in src/format.h."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Self, final

FREE: Final = 0
CLAIMED: Final = 1
SPARE: Final = 2
ASKED: Final = 3
RUNNING: Final = 4
ENDED: Final = 5
HOW_NONE: Final = 0
RETURNED: Final = 1
RAISED: Final = 2
EXITED: Final = 3
FORKSERVER: Final = 1
SPAWN: Final = 2
FORK: Final = 3
FLAG_DAEMON: Final = 1
FLAG_RELEASED: Final = 2
FLAG_LOST: Final = 4
FLAG_OOM: Final = 8
FLAG_GUEST: Final = 16
ALIVE: Final = 0
DYING: Final = 1
DEAD: Final = 2
LIFE_FREE: Final = 0
LIFE_HELD: Final = 1
LIFE_DIED: Final = 2
TABLE_NAME: Final[str]
RING_SIZE: Final[int]
EXTENTS: Final[int]

@final
class Table:
    """The table of processes of one program, mapped into this process."""

    @classmethod
    def create(cls, slots: int, /) -> Self:
        """A new table in a sealed memfd; its descriptor is close-on-exec and the table's own."""
    @classmethod
    def attach(cls, fd: int, /) -> Self:
        """Map another process's table; the descriptor stays the caller's.

        ValueError: it is no table, or one of another version of procession.
        """
    def fileno(self) -> int:
        """The memfd's descriptor, or -1 when it was closed (and its number reused, maybe)."""
    def id(self) -> bytes:
        """16 random bytes: the same table, whoever maps it."""
    def me(self) -> tuple[int, int]:
        """This process's slot and generation; as a guest where nobody made a slot for it.

        OSError(ENOSPC): none is free.
        """
    def renew(self, index: int, /) -> int:
        """Take this very slot, also from a process that is proved dead: its new generation.

        OSError(EBUSY): somebody has it who lives, or may live.
        """
    def fate(self, index: int, generation: int, /) -> int:
        """ALIVE (or in doubt), DYING (its first thread has ended) or DEAD (proved)."""
    def close_fd(self) -> None:
        """Close the memfd if this object opened it, and forget it; the mapping stays."""
    def claim(self) -> tuple[int, int]:
        """Take a free slot: its index and its new generation, which is never 0.

        OSError(ENOSPC): none is free.
        """
    def enter(self, index: int, state: int = ..., /) -> None:
        """Sit down in a slot: pid, start time and, in the first thread, the life word.

        The state is raised to the given one, never lowered.
        ProcessLookupError: the slot is free, or was ended already. OSError(EBUSY): another
        thread that lives has its life word.
        """
    def set_pid(self, index: int, pid: int, /) -> None:
        """Say whose slot it is, before the process itself could."""
    def ask(
        self,
        index: int,
        generation: int,
        owner: int,
        method: int,
        flags: int,
        asked_ns: int,
        name: bytes,
        target: bytes,
        /,
    ) -> bool:
        """Ask a spare to become a child; false when it has ended meanwhile. Texts are cut where a
        character begins: name and target to 95 bytes.
        """
    def withdraw(self, index: int, generation: int, /) -> bool:
        """Let a spare be asked for no more; false when somebody has asked, or it does not live."""
    def run(self, index: int, /) -> None:
        """Say that the user's code begins; of no effect on what was ended already."""
    def finish(self, index: int, how: int, exit_code: int, text: bytes, /) -> None:
        """Leave last words, cut to 191 bytes; those that count are the last ones."""
    def end(
        self,
        index: int,
        wait_status: int,
        utime_ns: int,
        stime_ns: int,
        max_rss_kib: int,
        flags: int = ...,
        /,
    ) -> bool:
        """Say that the process has ended, and wake who waits; true for the first to say so.

        Safe at any instruction: whoever is killed in here has either ended it or done nothing,
        and the next one to call wakes the waiters in any case.
        """
    def blame(self, index: int, pid: int, signal: int, /) -> None:
        """Note who is about to send which signal."""
    def set_flags(self, index: int, generation: int, bits: int, /) -> int:
        """Set flags; all that are set then, or -1 when the slot is another's."""
    def wait(self, index: int, generation: int, timeout_ns: int, /) -> bool:
        """Wait until it has ended, or the slot is another's; false when the time was over, in
        nanoseconds, -1 is no limit. Signal handlers run meanwhile.
        """
    def state(self, index: int, generation: int, /) -> int:
        """State of the process, FREE when the slot is another's."""
    def read(
        self, index: int, /
    ) -> tuple[
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        bytes,
        bytes,
        bytes,
    ]:
        """state, generation, pid, start_time, owner, method, flags, how, exit_code, wait_status,
        asked_ns, running_ns, ended_ns, utime_ns, stime_ns, max_rss_kib, killer_pid,
        killer_signal, name, target, text; as they were at one moment. wait_status is -1 before
        the end and for a status that was lost.
        """
    def free(self, index: int, generation: int, /) -> bool:
        """Give back the slot of a process that has ended; false when it has not, or when a process
        given up as lost still lives in it.
        """
    def pids(self) -> list[tuple[int, int, int]]:
        """(index, pid, state) of every slot in use."""
    def ended_count(self) -> int:
        """Ends so far."""
    def begin_wait(self, index: int, whom: int, /) -> int:
        """Note in one's own slot for whose end one waits (generation << 32 | index): the note's
        place, or -1 when more threads wait than are noted.
        """
    def end_wait(self, index: int, place: int, given_up: int = ..., /) -> None:
        """Take a note back (nothing for place -1), and of a wait that was given up the other
        process's, too.
        """
    def joined_since(self, index: int, /) -> int:
        """When the wait for its end began that lasted until it, or lasts yet; 0 for none."""
    def waits(self, index: int, /) -> list[tuple[int, int]]:
        """(whom, since_ns) of the waits noted."""
    def code_ended(self, index: int, at_ns: int = ..., /) -> int:
        """When its code had ended and it began to exit, 0 for not yet; set if a time is given."""
    def full(self) -> bool:
        """Whether the guard has no room for one more forked child."""
    def set_full(self, on: bool, /) -> None:
        """Say so, or take it back."""
    def recorded(self) -> bool:
        """Whether the guard writes a recording, so that it is to be told more."""
    def set_recorded(self, on: bool, /) -> None:
        """Say so, or that it no longer does."""
    def life(self, index: int, /) -> int:
        """LIFE_FREE, LIFE_HELD or LIFE_DIED, by the kernel's own mark."""
    def drop_life(self, index: int, /) -> None:
        """Put the life word down before executing another program."""
    def watch_life(self, index: int, eventfd: int, /) -> None:
        """Have a thread write 1 to an eventfd when the holder of the life word died.

        The thread knows no Python and lives as long as the process; so must the eventfd.
        """

@final
class Memory:
    """Shared memory without a name: a sealed memfd, mapped; a writable buffer of all its bytes.

    The first 64 bytes are its header.
    """

    @classmethod
    def create(cls, name: str, size: int, table_id: bytes, reserved: int = ..., /) -> Self:
        """New memory, zeroed, of which so many bytes are reserved (all, unless said).

        OSError: the kernel refused; nothing is left half-made.
        """
    @classmethod
    def attach(cls, fd: int, /) -> Self:
        """Map what another process made; the descriptor is the memory's from now on.

        ValueError: it is none, or of another version of procession.
        """
    def fileno(self) -> int:
        """The descriptor, or -1 when somebody closed it."""
    def id(self) -> bytes:
        """16 random bytes: the same memory, whoever maps it."""
    def table_id(self) -> bytes:
        """Of the table of processes that words in it name."""
    def take(self, size: int, /) -> int:
        """Take bytes for good: their offset, a multiple of 64, or 0 when it is full."""
    def reserve(self, offset: int, size: int, /) -> None:
        """Make bytes that cannot fail to be there.

        OSError: there is not so much memory; nothing was lost.
        """
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Lock:
    """A lock in shared memory, which a death gives back (src/lock.h).

    Attributes:
        recovered: How often it was taken over from the dead, in all processes.
    """

    @property
    def recovered(self) -> int: ...
    def _attach(
        self,
        memory: Memory,
        offset: int,
        table: Table,
        recursive: bool,
        on_death: Callable[[bool, int, int], object] | None,
        /,
    ) -> None:
        """Be the lock that lies there; once.

        on_death is called with (left, slot, generation): the lock is the caller's and was taken
        over from a process that died, or (left) it is not and the process that held it came to
        Python's own end. What it raises is raised, by a caller who does not have the lock.
        """
    def _leave(self) -> bool:
        """If this process holds it: it stays held when the process has ended."""
    def acquire(self, block: bool = ..., timeout: float | None = ...) -> bool:
        """As `multiprocessing.Lock.acquire`."""
    def release(self) -> None:
        """As `multiprocessing.Lock.release`, or that of RLock."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: object) -> None: ...
    def locked(self) -> bool:
        """Whether anybody has it."""
    def _is_zero(self) -> bool: ...
    def _get_value(self) -> int: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...

class Event:
    """A flag in shared memory (src/event.h)."""

    def _attach(self, memory: Memory, offset: int, table: Table, /) -> None:
        """Be the event that lies there; once."""
    def is_set(self) -> bool:
        """Whether it is set."""
    def set(self) -> None:
        """Set it, and wake all who wait."""
    def clear(self) -> None:
        """Unset it."""
    def wait(self, timeout: float | None = ...) -> bool:
        """Wait until it is set, or was since the call; false when the time, in seconds, is over.
        Signal handlers run meanwhile.
        """

class Barrier:
    """Where so many meet, in shared memory (src/barrier.h)."""

    @property
    def broken(self) -> bool: ...
    @property
    def n_waiting(self) -> int: ...
    @property
    def parties(self) -> int: ...
    def _attach(
        self,
        memory: Memory,
        offset: int,
        table: Table,
        parties: int,
        broken: Callable[[bool, int, int, int], BaseException],
        /,
    ) -> None:
        """Be the barrier that lies there; once.

        broken is called with (died, slot, generation, pid), the latter of whose death broke it,
        if it was one; what it returns is raised.
        """
    def _wait(self, timeout: float | None, action: Callable[[], object] | None, /) -> int:
        """As `multiprocessing.Barrier.wait`."""
    def abort(self) -> None:
        """As `multiprocessing.Barrier.abort`."""
    def reset(self) -> None:
        """As `multiprocessing.Barrier.reset`."""

class Condition:
    """Who waits for a condition, in shared memory (src/condition.h).

    Attributes:
        acquire, release: Those of the lock.
    """

    @property
    def _lock(self) -> Any: ...
    @property
    def acquire(self) -> Callable[..., bool]: ...
    @property
    def release(self) -> Callable[[], None]: ...
    def _attach(self, memory: Memory, offset: int, table: Table, lock: Any, /) -> None:
        """Be the condition that lies there, with a lock; once. It grows within its memory."""
    def _waiters(self) -> tuple[int, int]:
        """How many wait; how many were notified and are not back from wait() yet."""
    def wait(self, timeout: float | None = ...) -> bool:
        """As `multiprocessing.Condition.wait`.

        Whatever ends it, the lock is held afterwards as often as before; only a second exception
        while it is waited for leaves it. Who gets an exception passes a wake-up on.
        """
    def notify(self, n: int = ...) -> None:
        """As `multiprocessing.Condition.notify`; it does not wait for those it wakes."""
    def notify_all(self) -> None:
        """As `multiprocessing.Condition.notify_all`."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: object) -> None: ...

class Semaphore:
    """Permits in shared memory, and who has them (src/semaphore.h).

    Attributes:
        recovered: How many permits came back from the dead.
        maxvalue: How many there may be.
    """

    @property
    def recovered(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def _capacity(self) -> int: ...
    def _attach(
        self,
        memory: Memory,
        offset: int,
        table: Table,
        on_death: Callable[[int, int], object],
        /,
    ) -> None:
        """Be the semaphore that lies there; once.

        on_death is called with (slot, generation) of the process whose death gave back what was
        acquired. What it raises is raised, by a caller who does not have the permit.
        """
    def _make(self, value: int, bound: int, reclaim: bool, /) -> None:
        """Begin with so many permits; once, before anybody else has it."""
    def _leave(self) -> None:
        """What this process has stays taken when it has ended."""
    def acquire(self, block: bool = ..., timeout: float | None = ...) -> bool:
        """As `multiprocessing.Semaphore.acquire`."""
    def release(self) -> None:
        """As `multiprocessing.Semaphore.release`."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: object) -> None: ...
    def get_value(self) -> int:
        """Permits that are free."""
    def locked(self) -> bool:
        """Whether none is free."""
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...

def set_subreaper(on: bool, /) -> None:
    """Adopt orphaned descendants, or no more (PR_SET_CHILD_SUBREAPER)."""

def get_subreaper() -> bool:
    """Whether this process adopts orphaned descendants."""

def set_death_signal(number: int, /) -> None:
    """The signal that this process gets when its parent's thread ends; 0: none (PR_SET_PDEATHSIG).
    A fork has none.
    """

def fork_in_vain() -> None:
    """Fork a process that ends at once, with the C library's fork handlers and without Python's."""

def anchor(group: int, /) -> int:
    """A process without code in a process group of this session, which is no orphan with it.

    It is a child of this process, shares its memory, and ends with it. Returns its pid.

    OSError: there is no such group, or no room for a process.
    """

def weigh_anchor(pid: int, /) -> None:
    """Take it out of its group, and end it: the group notices nothing (`anchor`)."""

def set_process_name(name: str, /) -> None:
    """Name of this thread in ps, cut to 15 bytes (PR_SET_NAME)."""

def signalfd(signals: Sequence[int], /) -> int:
    """A non-blocking descriptor for signals that are blocked (signalfd(2))."""

def peek_child() -> tuple[int, int, int, int, int] | None:
    """An ended child, left unreaped: pid, wait status, user and system CPU in ns, peak KiB.

    ChildProcessError: there is no child at all.
    """

def attend(
    table: Table,
    epoll: int,
    timeout_ms: int,
    signals: int,
    children: dict[int, tuple[int, int]] | None,
    /,
) -> tuple[list[int], list[tuple[int, int]], bool]:
    """Wait for events, as a process of one thread: the GIL is kept. -1 ms has no limit.

    When the signalfd is among them it is emptied, and children that have ended are reaped: the
    table is told first. They are taken out of the dict (pid to index and generation).

    Returns:
        The other descriptors that are ready; the places of the children reaped; whether there are
        dead left to look into: who was killed by SIGKILL, who is no child of the dict, or all of
        them where there is none.
    """

def fork_spares(
    table: Table,
    link: int,
    count: int,
    signals: int,
    children: dict[int, tuple[int, int]],
    quick: bool,
    /,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], bool] | tuple[int, int, int]:
    """Fork spares for one owner, each handed over before the next is made.

    Between two of them children that have ended are reaped, as `attend` does it. Fewer are made
    where there are dead to look into, where the owner is gone, or where the kernel makes no more.

    Args:
        table: The program's table of processes.
        link: The owner's link; it is sent three numbers (pid, index, generation) and the stream.
        count: How many, at most.
        signals: The signalfd.
        children: The reaper's; those that are made are put in.
        quick: Whether to reap here. If not, no more are made once a child has ended.

    Returns:
        The places of those that were made; as of `attend`, those that were reaped, and whether
        there are dead left to look into. In a spare: its index, generation and stream.

    Raises:
        OSError: Not one could be made.
    """

def mrelease(pidfd: int, /) -> int:
    """Free the memory of a killed process (process_mrelease(2)); 0 or the errno."""

def close_all_but(keep: Sequence[int], /) -> None:
    """Close every other descriptor; at most 64 can be kept."""

def pidfd_exit_status(pidfd: int, /) -> int | None:
    """Wait status of a process that was reaped by others, where the kernel tells (6.15)."""

def spawn(path: bytes, arguments: Sequence[bytes], keep: Sequence[int], /) -> int:
    """Start a program with signals blocked, 0-2 on /dev/null, in a process group of its own.

    OSError: the kernel refused, with the path as its filename.
    """

def spawn_detached(path: bytes, arguments: Sequence[bytes], keep: Sequence[int], /) -> int:
    """As spawn, but not as a child of this process: no SIGCHLD, and no wait ever sees it."""

def written_pages() -> bytes:
    """The pages of private memory that this process has its own copy of, as copy_pages wants them.

    OSError: the kernel does not tell.
    """

def copy_pages(pages: bytes, /) -> None:
    """Have one's own copy of pages now that would be copied at the first write to them."""

def look() -> tuple[bytes, bytes, bytes | None, int]:
    """What a start has to know of this thread, in one look: credentials and surroundings as below,
    which directory it works in (``None``: one that is gone), and which of 0-2 are open, as bits.

    Raises:
        OSError: There is no descriptor or no memory to look.
    """

def same_files(inodes: dict[int, int], /) -> bool:
    """Whether each of these descriptors is still open and of that inode."""

def receive_spare(link: int, /) -> tuple[int, int, int, int] | bytes | None:
    """A spare out of a link: pid, slot, generation and its stream's descriptor, close-on-exec and
    none of 0-2; another message as it is, empty where the other end is gone; ``None``: nothing yet.

    Raises:
        OSError(EMFILE): There was no room for the descriptor, and it is lost.
    """

def send_start(
    fd: int, first: bytes | memoryview, second: bytes | memoryview, fds: list[int], /
) -> int:
    """Send two pieces as one, with at most 253 descriptors; how many bytes went."""

def read_surroundings() -> bytes:
    """Signal mask, ignored signals, umask, priority, process group, affinity and limits."""

def apply_surroundings(wanted: bytes, /) -> tuple[int, int, int]:
    """Take over all but the signals: the wanted mask, the wanted and the present ignored ones."""

def set_blocked(mask: int, /) -> None:
    """Set the signal mask, and handle what had been waiting."""

def credentials() -> bytes:
    """Users, groups, capabilities, no_new_privs, seccomp, session, namespaces, root, cgroup and
    security label of this thread; comparable.

    Raises:
        OSError: There is no descriptor or no memory to look.
    """

@final
class Extent:
    """Memory of a large item: a buffer, this process's own to write to, as long as it lives."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Holds:
    """This process's holds on memory of a file (src/extents.h); a forked copy has its own.

    OSError: there are no descriptors, or no ``/proc`` to open the file once more by.
    """

    def __new__(cls, fd: int, /) -> Holds: ...
    def map(self, extent: int, offset: int, size: int, /) -> Extent:
        """Hold an extent as long as the object lives, and map it.

        OSError: it cannot be held. MemoryError: it cannot be mapped.
        """

@final
class Line:
    """One end of a worker's channel (src/line.h): its socket, and what both ends count in a page.

    What `receive` returned it returns again until `taken` is called, so that an interrupt in
    between loses nothing.

    Args:
        fd: The socket's descriptor, which stays the caller's.
        memory: The descriptor of the memory that begins with the page.
        sent: Number of the word in it that counts what this end has sent.
        arriving: And of the one for the other end.
        room: Bytes of a packet at most.
    """

    def __new__(cls, fd: int, memory: int, sent: int, arriving: int, room: int, /) -> Line: ...
    def send(self, packet: bytes, fd: int = -1, /) -> None:
        """Send a packet, and a descriptor with it.

        OSError: the other end is gone, or there is no memory.
        """
    def receive(self, wait: bool, /) -> bytes:
        """A packet; empty when the other end is gone.

        BlockingIOError: there is none, or another thread waits for it.
        """
    def descriptor(self) -> int:
        """What came with the packet, until that is taken; -1: nothing."""
    def taken(self) -> None:
        """The packet was taken over: the next one may come."""
    def is_left(self) -> bool:
        """Whether a packet was received and not taken over."""
    def closed(self) -> None:
        """The socket was closed."""

class Ring:
    """What a queue does, but for pickling: `_dumps` and `_loads` are its subclass's, and so is
    `_idle`, which a get that waits calls from time to time.

    Layout and what a death leaves behind: src/ring.h. Once it is closed, `_closed_error` of the
    object is raised.
    """

    _closed_error: type[Exception]

    @classmethod
    def _create(
        cls, memory: Memory, offset: int, max_bytes: int, maxsize: int, /
    ) -> tuple[int, int]:
        """Make a ring of RING_SIZE zeroed bytes: the descriptors of its data and of its bell.

        OSError: there are no descriptors, or RLIMIT_FSIZE allows no data.
        """
    def _open(self, table: Table, memory: Memory, offset: int, data: int, bell: int, /) -> None:
        """Use a ring; descriptors stay the caller's, who keeps them while it is used."""
    def _close(self, release: bool, /) -> None:
        """Let no item in or out any more in this process; `release`: use its memory no more."""
    def _has_put(self) -> bool:
        """Whether something was put by this object."""
    def _is_open(self) -> bool:
        """Whether its memory is in use."""
    def put(self, obj: object, block: bool = True, timeout: float | None = None) -> None:
        """Append an item. It is in the queue when this returns.

        queue.Full: there are ``maxsize`` items, and were until the time was over. ShutDown: it
        was shut down. MemoryError: it has no room, or there is no memory; nothing was lost.
        """
    def put_nowait(self, obj: object, /) -> None:
        """As ``put(obj, False)``."""
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item.

        queue.Empty: there is none, and was none until the time was over. ShutDown: nor will there
        be one any more.
        """
    def get_nowait(self) -> Any:
        """As ``get(False)``."""
    def qsize(self) -> int:
        """Items that were in it a moment ago."""
    def _dumps(self, item: object, large_apart: bool = True) -> Any:
        """Pickle what is not plain: bytes; a tuple of the pickle and of large buffers that are not
        in it if `large_apart`; a list of one of the two and a name of the item, of which `_settle`
        is told what became of it. ``None``: it cannot be pickled, and was seen to.
        """
    def _settle(self, item: bytes, number: int) -> None:
        """Its subclass's: an item was the put of this number, from 1; 0: it did not go in."""
    def _lose(self, first: int, last: int) -> None:
        """Its subclass's: items of these numbers could not be made of their pickles."""
    def _loads(self, pickled: Any, buffers: list[Any] | None = None) -> Any:
        """And back."""
    def _wait_item(self, timeout: float | None = None, /) -> bool:
        """Wait until a get would not wait; whether it is so."""
    def _task_done(self) -> None:
        """One item less to wait for. ValueError: all were reported already."""
    def _join(self, timeout: float | None = None, /) -> bool:
        """Wait until all items are reported; whether they are."""
    def _shut(self, immediate: bool, /) -> tuple[int, int]:
        """Let nothing in any more; `immediate`: and drop what is in it. What was taken before: the
        puts up to the first number; it dropped those behind it, up to the second.
        """
    def _arm(self) -> int:
        """The bell's descriptor, which from now on is readable while there are items."""
    def _is_alone(self, joining: bool, /) -> bool:
        """Whether a get (or else a join) would wait, and no other process has the queue or is about
        to get it; in doubt: no.
        """
    def _reap(self) -> tuple[int, int, int, int] | None:
        """Items that died in somebody's hands, counted now, and whose: slot, generation; and which
        put the last of them was, 0 where that is not known.
        """
    @staticmethod
    def _watch(data: int, /) -> int:
        """A descriptor of a ring's data by which its owner is no user of it; for `_is_had`.

        OSError: none can be had; EINVAL: who has this ring cannot be found out.
        """
    @staticmethod
    def _is_had(watched: int, /) -> bool:
        """Whether anybody has the ring, or is about to get it; true in doubt."""
    def _users(self) -> list[tuple[int, int]]:
        """Slot and generation of processes that have or had it."""
    def _stat(self) -> tuple[int, int, int, int, int, int]:
        """Items, unfinished ones, flags (1: shut down), bytes of memory in use and at most, items
        that died in somebody's hands.
        """

def set_queue_types(
    empty: type[Exception],
    full: type[Exception],
    shut_down: type[Exception],
    /,
) -> None:
    """The exceptions that every Ring raises."""
