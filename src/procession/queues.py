"""Queue, JoinableQueue, SimpleQueue: rings in shared memory, without a feeder thread.

An item is in the queue when `put` returns, whatever becomes of the process that put it; a process
that is killed at any instruction leaves the queue whole, with at most the one item lost that it had
in its hands (G4). `put` blocks only where ``maxsize`` says so.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import pickle
import queue
import warnings
from collections.abc import Iterator
from multiprocessing import queues as _standard
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from queue import Empty, Full
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from procession import _native
from procession._kernel import memory
from procession._shared import parcels
from procession._shared.descriptor import Descriptor
from procession._shared.memory import Region, allocate
from procession._shared.pickling import ItemReducers, dumps, dumps_item
from procession._sync import deaths
from procession.ending import Ending
from procession.errors import ItemLostWarning, ProcessionError, TakersGone, WritersGone
from procession.process import active_children

if TYPE_CHECKING:
    _ShutDownBase = Exception
else:  # new in 3.13: what handles `queue.ShutDown` there handles ours
    _ShutDownBase = getattr(queue, "ShutDown", Exception)

__all__ = [
    "Empty",
    "Full",
    "JoinableQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "TakersGone",
    "WritersGone",
]

_MODES = ("proved", "raise", "wait")
_HOOK = "_on_queue_feeder_error"
"""What a subclass may override to see to items that cannot be pickled."""


class ShutDown(ProcessionError, _ShutDownBase):
    """The queue was shut down: nothing more goes in; for `get`: and it is empty."""


_native.set_queue_types(Empty, Full, ShutDown)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def _only_waits() -> bool:
    """Whether nothing in this process can happen while its one thread waits, but for Ctrl-C."""
    if len(os.listdir("/proc/self/task")) != 1:
        return False
    handlers = map(_signal.getsignal, range(1, _signal.NSIG))  # without an enum for each
    return all(one is _signal.default_int_handler or not callable(one) for one in handlers)


# --- the ends, as others see them ---------------------------------------------------------------


class _End:
    """One end of a queue, as `multiprocessing`'s queues have them under private names.

    Args:
        queue: The queue; it makes its ends anew whenever they are asked for.
    """

    _name = ""
    readable = writable = False

    def __init__(self, queue: _Ring) -> None:
        self._queue = queue

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._queue is self._queue

    def __hash__(self) -> int:
        return hash((self._name, id(self._queue)))

    def _open(self) -> _Ring:
        if self.closed:
            raise OSError("handle is closed")
        return self._queue

    @property
    def closed(self) -> bool:
        """Whether this process has closed this end."""
        return self._name in self._queue._closed_ends or not self._queue._is_open()

    def close(self) -> None:
        """Close this end in this process."""
        self._queue._closed_ends.add(self._name)

    def fileno(self) -> int:
        """A descriptor for `connection.wait`: always writable, readable while there are items."""
        return self._open()._arm()


class _Reader(_End):
    _name = "reader"
    readable = True

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is an item, at the latest after ``timeout`` seconds."""
        queue = self._open()
        return "drained" not in queue._closed_ends and queue._wait_item(timeout)

    def recv(self) -> Any:
        """Take an item; waits for one."""
        return self._open().get()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Take an item, pickled."""
        pickled = dumps(self._open().get())
        assert isinstance(pickled, bytes)
        return pickled


class _Writer(_End):
    _name = "writer"
    writable = True

    def send(self, item: object) -> None:
        """Put an item."""
        self._open().put(item)

    def send_bytes(self, pickled: Any) -> None:
        """Put an item that is pickled already."""
        self._open().put(pickle.loads(pickled))


class _ReadingLock:
    """What `multiprocessing.pool` takes before it drains its workers' queue at its end.

    It does so for the thread that may wait for room in the pipe. Here none does: so its process
    sees no items any more, and there is nothing to drain, nor to take away from a worker between
    its look and its `recv`.
    """

    def __init__(self, queue: _Ring) -> None:
        self._queue = queue

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Let this process's reader see no items."""
        self._queue._closed_ends.add("drained")
        return True

    def release(self) -> None:
        """Let it see them again."""
        self._queue._closed_ends.discard("drained")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


# --- the queues ---------------------------------------------------------------------------------


class _Ring(_native.Ring):
    """What the three queues share.

    Args:
        ctx: The context that it belongs to.
        maxsize: Items at most; 0 or less: no limit.
        max_bytes: Bytes of memory that its items may take; ``None``: a quarter of the memory that
            this program has. A put beyond that raises MemoryError and loses nothing.
        on_writers_gone: When `get` raises WritersGone instead of waiting on. ``"proved"``: when
            it would wait for ever, since it was given no timeout, all other processes that had
            the queue have ended, it is on its way to nobody, and this process has no other thread
            and no signal handler that might put. ``"raise"``: when no other process has it, nor
            is to get it, whatever this process has. ``"wait"``: never. The same for `join`, which
            raises TakersGone.
    """

    _closed_error: type[Exception] = ValueError

    if TYPE_CHECKING:
        _maxsize: int
        _closed: bool

    def _make(self, maxsize: int, max_bytes: int | None, on_writers_gone: str) -> None:
        if on_writers_gone not in _MODES:
            modes = ", ".join(map(repr, _MODES))
            raise ValueError(f"on_writers_gone must be one of {modes}, got {on_writers_gone!r}")
        if max_bytes is None:
            max_bytes = memory.limit() // 4
        elif max_bytes < 4096:
            raise ValueError(f"max_bytes must be at least 4096, got {max_bytes!r}")
        region, offset = allocate(_native.RING_SIZE)
        fd, bell = self._create(region.memory, offset, max_bytes, max(maxsize, 0))
        self._begin(maxsize, on_writers_gone, region, offset, Descriptor(fd), Descriptor(bell))

    def _begin(
        self,
        maxsize: int,
        on_writers_gone: str,
        region: Region,
        offset: int,
        data: Descriptor,
        bell: Descriptor,
    ) -> None:
        self._open(region.table, region.memory, offset, data.fd, bell.fd)
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._on_writers_gone = on_writers_gone
        self._shared = (region, offset, data, bell)
        self._reducers = ItemReducers(parcels.Carrier(data.fd))
        self._closed_ends: set[str] = set()
        self._closed = False

    @property
    def _reader(self) -> _Reader:
        return _Reader(self)

    @property
    def _writer(self) -> _Writer:
        return _Writer(self)

    def __getstate__(self) -> Any:
        if not self._is_open():
            raise ValueError(f"Queue {self!r} is closed")
        return self._maxsize, self._on_writers_gone, *self._shared

    def __setstate__(self, state: Any) -> None:
        self._begin(*state)

    def _dumps(self, item: object, large_apart: bool = True) -> Any:
        return dumps_item(item, large_apart, self._reducers)

    def _settle(self, item: bytes, number: int) -> None:
        parcels.place(item, number)

    def _lose(self, first: int, last: int) -> None:
        parcels.lose(self._reducers.carrier, first, last)

    def _loads(self, pickled: Any, buffers: list[Any] | None = None) -> Any:
        return pickle.loads(pickled, buffers=buffers)

    def empty(self) -> bool:
        """Whether there was no item a moment ago."""
        return self.qsize() == 0

    @property
    def lost(self) -> int:
        """Items that died in the hands of a process which was taking them."""
        self._report_lost()
        return self._stat()[5]

    def _report_lost(self) -> None:
        while (found := self._reap()) is not None:
            count, index, generation, number = found
            if number:
                self._lose(number, number)
            name, pid, ending = self._who(index, generation)
            warnings.warn(
                f"{deaths.person(name, pid)} {deaths.past(ending)} while it took "
                f"{'an item' if count == 1 else f'{count} items'} of this queue: lost",
                ItemLostWarning,
                stacklevel=3,
            )

    def _idle(self, forever: bool) -> None:
        """A get has waited for a while."""
        if self._has_only_itself(forever, joining=False):
            raise WritersGone(self._others())

    def _idle_in_join(self, forever: bool) -> None:
        """And a join."""
        if self._has_only_itself(forever, joining=True):
            raise TakersGone(self._others())

    def _has_only_itself(self, forever: bool, joining: bool) -> bool:
        self._report_lost()
        if self._on_writers_gone == "wait" or not (
            self._on_writers_gone == "raise" or (forever and _only_waits())
        ):
            return False
        return self._is_alone(joining)

    def _others(self) -> list[tuple[str, int, Ending]]:
        me = self._shared[0].table.me()
        others = [self._who(*user) for user in self._users() if user != me]
        return [other for other in others if other[1]]

    def _who(self, index: int, generation: int) -> tuple[str, int, Ending]:
        active_children()  # what was forked from here is reaped by us
        return deaths.who(self._shared[0].table, index, generation)

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing in any more: `put` raises ShutDown, and `get` does once it is empty.

        Args:
            immediate: Drop what is in the queue, too; each item counts as done.
        """
        kept, dropped = self._shut(immediate)
        if dropped > kept:
            self._lose(kept + 1, dropped)

    def __iter__(self) -> Iterator[Any]:
        """Take items until the queue is shut down and empty."""
        while True:
            try:
                item = self.get()
            except ShutDown:
                return
            yield item

    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]


class Queue(_Ring, _standard.Queue):  # type: ignore[type-arg]
    """A queue between processes, first in, first out."""

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: Any,
        max_bytes: int | None = None,
        on_writers_gone: str = "proved",
    ) -> None:
        self._make(maxsize, max_bytes, on_writers_gone)

    def _dumps(self, item: object, large_apart: bool = True) -> Any:
        try:
            return super()._dumps(item, large_apart)
        except Exception as error:
            hook: Any = getattr(type(self), _HOOK)
            if hook is getattr(_standard.Queue, _HOOK):
                raise
            getattr(self, _HOOK)(error, item)  # a subclass sees to it
            return None

    def empty(self) -> bool:
        """Whether there was no item a moment ago.

        Raises:
            OSError: This process has put something into the queue, and then closed it.
        """
        if self._closed and self._has_put():
            raise OSError("handle is closed")  # as after the feeder thread's end
        return super().empty()

    def full(self) -> bool:
        """Whether there were ``maxsize`` items a moment ago."""
        return self.qsize() >= self._maxsize

    def close(self) -> None:
        """This process uses the queue no more."""
        self._close(False)
        self._closed = True

    def join_thread(self) -> None:
        """Nothing to wait for: what was put is in the queue."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Nothing to cancel: what was put is in the queue."""


class JoinableQueue(Queue, _standard.JoinableQueue):  # type: ignore[type-arg]
    """A queue that counts what was put and not yet reported as done."""

    def task_done(self) -> None:
        """Report that an item that was taken is done.

        Raises:
            ValueError: As many were reported as were put.
        """
        self._task_done()

    def join(self) -> None:
        """Wait until all that was put is done.

        Raises:
            TakersGone: It would wait for ever, as ``on_writers_gone`` of the queue understands it.
        """
        self._join()


class SimpleQueue(_Ring, _standard.SimpleQueue):  # type: ignore[type-arg]
    """A queue with `put`, `get`, `empty` and `close`."""

    _closed_error = OSError

    def __init__(
        self, *, ctx: Any, max_bytes: int | None = None, on_writers_gone: str = "proved"
    ) -> None:
        self._make(0, max_bytes, on_writers_gone)

    def _poll(self, timeout: float | None = 0.0) -> bool:
        return self._wait_item(timeout)

    @property
    def _rlock(self) -> _ReadingLock:
        return _ReadingLock(self)

    def close(self) -> None:
        """This process uses the queue no more; its descriptors are closed."""
        self._close(True)
        vars(self).pop("_shared", None)
