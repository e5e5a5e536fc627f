"""What a crew works on: single calls, and the calls of a map."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from procession._crew.encoding import PLAIN, Packer
from procession._crew.feeder import Feeder
from procession._crew.worker import ITEM, STAR, WHOLE
from procession._wire import pickling


class Crew(Protocol):
    """What a job asks of its crew."""

    def packer(self) -> contextlib.AbstractContextManager[Packer]:
        """A packer that nobody else uses at the moment."""

    def later(self, what: Callable[[], object]) -> None:
        """Do something when the lock is free."""

    def kick(self) -> None:
        """There is something new."""


BATCH_NS = 2_000_000  # work that goes out in one message; a message costs a fiftieth of it
MOST = 2000  # calls of a batch
MOST_BYTES = 32 * 1024  # pickles of a batch; what is larger goes alone
GROWTH = 8  # how much larger than the last one a batch may be, until its time was seen

_keys = itertools.count(1)


@dataclasses.dataclass(slots=True)
class Batch:
    """Calls that go to a worker together; one of them is run at a time.

    Attributes:
        job: Whose they are.
        ids: What the job calls them.
        entries: Their arguments, encoded.
        items: Their arguments.
        buffers: Position → large buffers of an entry.
        first: The number of the first, once it was sent.
        done: How many of them have ended.
    """

    job: Job
    ids: Sequence[Any]
    entries: list[Any]
    items: Sequence[Any]
    buffers: dict[int, list[memoryview]]
    first: int = 0
    done: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def tasks(self, count: int | None = None) -> int:
        """How many tasks of the user's its first calls are, all if none are named."""
        return -(-(len(self) if count is None else count) // self.job.chunk)

    def all_buffers(self) -> list[memoryview]:
        """The buffers in the order of the entries."""
        if not self.buffers:
            return []
        return [one for at in sorted(self.buffers) for one in self.buffers[at]]

    def head(self, count: int) -> Batch:
        """So many of its first calls, not sent yet."""
        buffers = {at: found for at, found in self.buffers.items() if at < count}
        return Batch(self.job, self.ids[:count], self.entries[:count], self.items[:count], buffers)

    def tail(self, start: int) -> Batch:
        """The calls from a position on, not sent yet."""
        buffers = {at - start: found for at, found in self.buffers.items() if at >= start}
        return Batch(self.job, self.ids[start:], self.entries[start:], self.items[start:], buffers)


class Sink(Protocol):
    """Where a map's outcomes go. Called from any thread, without a lock held."""

    def values(self, ids: Sequence[int], values: list[Any]) -> None:
        """Some calls returned."""

    def failed(self, index: int, error: BaseException) -> None:
        """A call failed."""

    def counted(self, total: int) -> None:
        """So many calls there are."""

    def source_failed(self, index: int, error: BaseException) -> None:
        """The input raised where this call's argument should have come from."""

    def abandoned(self, error: BaseException) -> None:
        """No call that has not ended ever will."""


class Job:
    """Calls that a crew takes batches of. All methods but `text` are called with its lock held.

    Args:
        shape: `ITEM`, `STAR` or `WHOLE`.
        function: The function, for the words about a call.
        blob: The function pickled; ``None`` for `WHOLE`.
        chunk: How many calls the user wants together, at least.
        timeout: Seconds for one call.
    """

    def __init__(
        self,
        shape: int,
        function: Any = None,
        blob: bytes | None = None,
        chunk: int = 1,
        timeout: float | None = None,
    ) -> None:
        self.key = next(_keys)
        self.shape = shape
        self.function = function
        self.blob = blob
        self.chunk = chunk
        self.timeout = timeout
        self.call_ns: float | None = None
        self.cancelled = False
        self._returned: collections.deque[Batch] = collections.deque()
        self._last = 1

    def measured(self, used_ns: int, count: int) -> None:
        """Some calls took so long. A slower one counts at once, a faster one by and by."""
        now = used_ns / count
        if self.call_ns is None or now > self.call_ns:
            self.call_ns = now
        else:
            self.call_ns += (now - self.call_ns) / 4

    def is_timed(self) -> bool:
        """Whether the next call has a limit, so that its worker must have nothing else to do."""
        return self.timeout is not None

    def is_quick(self) -> bool:
        """Whether calls are so short that a worker should have its next ones at hand."""
        return self.call_ns is not None and self.call_ns < BATCH_NS

    def size(self, workers: int, budget: int | None = None) -> int:
        """How many calls the next batch should have.

        Args:
            workers: How many workers share them.
            budget: How many tasks (chunks) its worker may still take.
        """
        if self.timeout is not None:
            return 1  # its clock runs from the moment that it is sent
        wanted = self.chunk
        if self.call_ns is not None:
            wanted = max(wanted, min(int(BATCH_NS / (self.call_ns + 1)), self._last * GROWTH))
        left = self.left()
        if left is not None and wanted > self.chunk:
            left += sum(len(batch) for batch in self._returned)
            wanted = max(self.chunk, min(wanted, math.ceil(left / (2 * workers))))
        self._last = max(1, min(wanted, max(MOST, self.chunk)))
        return self._last if budget is None else min(self._last, budget * self.chunk)

    def put_back(self, batch: Batch) -> None:
        """Calls that a worker was given and did not begin."""
        self._returned.appendleft(batch)

    def take(self, count: int, crew: Crew) -> Batch | None:
        """A batch of at most so many calls; ``None`` when there is none at the moment."""
        if self._returned:
            batch = self._returned.popleft()
            if len(batch) > count:
                self._returned.appendleft(batch.tail(count))
                return batch.head(count)
            return batch
        return self._take(count, crew)

    def left(self) -> int | None:
        """How many calls are left; ``None`` where nobody knows."""
        raise NotImplementedError

    def is_exhausted(self) -> bool:
        """Whether no call will come any more, unless one is put back."""
        raise NotImplementedError

    def _take(self, count: int, crew: Crew) -> Batch | None:
        raise NotImplementedError

    def text(self, item: Any) -> str:
        """A call and its arguments, in short."""
        if self.shape == WHOLE:
            function, args, kwargs = item
            return describe(function, args, kwargs)
        return describe(self.function, tuple(item) if self.shape == STAR else (item,), {})


class Call:
    """One call of its own.

    Args:
        function: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        finish: Called once with ``(ok, value or exception)``, from any thread.
        begin: Asked before the call goes to a worker; false: it is not wanted any more.
        timeout: Seconds that it may take.
        drop: Called where it is dropped before it was given to a worker.
    """

    __slots__ = (
        "args",
        "begin",
        "buffers",
        "drop",
        "entry",
        "finish",
        "function",
        "kwargs",
        "timeout",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        finish: Callable[[bool, Any], object],
        begin: Callable[[], bool] | None = None,
        timeout: float | None = None,
        drop: Callable[[], object] | None = None,
    ) -> None:
        self.drop = drop
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.finish = finish
        self.begin = begin
        self.timeout = timeout
        self.entry: Any = None
        self.buffers: list[memoryview] = []

    def text(self) -> str:
        """The call and its arguments, in short."""
        return describe(self.function, self.args, self.kwargs)


class Calls(Job):
    """All the single calls of a crew."""

    def __init__(self) -> None:
        super().__init__(WHOLE)
        self.waiting: collections.deque[Call] = collections.deque()

    def is_timed(self) -> bool:
        if self._returned:
            return self._returned[0].ids[0].timeout is not None
        return bool(self.waiting) and self.waiting[0].timeout is not None

    def left(self) -> int | None:
        return len(self.waiting)

    def is_exhausted(self) -> bool:
        return not self.waiting and not self._returned

    def _take(self, count: int, crew: Crew) -> Batch | None:
        calls: list[Call] = []
        size = 0
        while self.waiting and len(calls) < count and size < MOST_BYTES:
            if self.waiting[0].timeout is not None:
                if calls:
                    break
                count = 1  # with nothing before it, so that its clock is its own
            call = self.waiting.popleft()
            if call.begin is not None and not call.begin():
                continue
            calls.append(call)
            if type(call.entry) is bytes:
                size += len(call.entry)
        if not calls:
            return None
        buffers = {at: call.buffers for at, call in enumerate(calls) if call.buffers}
        items = [(call.function, call.args, call.kwargs) for call in calls]
        return Batch(self, calls, [call.entry for call in calls], items, buffers)

    def forget(self, call: Call) -> bool:
        """Take out a call that no worker has; false where it is not here."""
        if call in self.waiting:
            self.waiting.remove(call)
            return True
        for batch in self._returned:
            if call in batch.ids:
                self._returned.remove(batch)
                at = batch.ids.index(call)
                for part in (batch.tail(at + 1), batch.head(at)):
                    if len(part):
                        self._returned.appendleft(part)
                return True
        return False


class MapJob(Job):
    """The calls of a map.

    Args:
        sink: Where the outcomes go.
        items: The arguments.
        limit: How many items may be on their way, from the input to whoever takes the results.
    """

    def __init__(
        self,
        shape: int,
        function: Any,
        blob: bytes | None,
        sink: Sink,
        items: Iterable[Any],
        *,
        chunk: int = 1,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(shape, function, blob, chunk, timeout)
        self.sink = sink
        self.raw = False
        self._next = 0
        self._feeder: Feeder | None = None
        self._items: Sequence[Any] = ()
        if isinstance(items, list | tuple | range) and limit is None:
            self._items = items
            sink.counted(len(items))
        else:
            self._feeder = Feeder(self, iter(items), chunk, limit)

    def start(self, crew: Crew) -> None:
        """Begin to take the input; called without the crew's lock."""
        if self._feeder is not None:
            self._feeder.start(crew)

    def consumed(self) -> None:
        """Somebody took a result: there may be room for another item."""
        if self._feeder is not None:
            self._feeder.consumed()

    def lift_limit(self) -> None:
        """Somebody waits for the end of it all: go on without waiting for results to be taken."""
        if self._feeder is not None:
            self._feeder.lift_limit()

    def cancel(self) -> None:
        """Take no more input, give out no more calls."""
        self.cancelled = True
        self._items = ()
        self._returned.clear()
        if self._feeder is not None:
            self._feeder.stop()

    def left(self) -> int | None:
        if self._feeder is not None:
            return None
        return max(0, len(self._items) - self._next)

    def is_exhausted(self) -> bool:
        if self._returned:
            return False
        if self.cancelled:
            return True
        if self._feeder is not None:
            return self._feeder.is_empty()
        return self._next >= len(self._items)

    def _take(self, count: int, crew: Crew) -> Batch | None:
        while items := self._next_items(count):
            ids = range(self._next, self._next + len(items))
            self._next += len(items)
            if self.raw or PLAIN.issuperset(map(type, items)):
                return Batch(self, ids, list(items), items, {})
            batch = self._packed(ids, items, crew)
            if batch is not None:
                return batch
        return None

    def _next_items(self, count: int) -> Sequence[Any]:
        if self._feeder is not None:
            return self._feeder.take(count)
        items = self._items[self._next : self._next + count]
        if self._next + count >= len(self._items):
            self._items = ()  # the arguments are the user's again when their calls are done
        return items

    def _packed(self, ids: Sequence[int], items: Sequence[Any], crew: Crew) -> Batch | None:
        good: list[int] = []
        entries: list[Any] = []
        buffers: dict[int, list[memoryview]] = {}
        with crew.packer() as packer:
            for index, item in zip(ids, items, strict=True):
                try:
                    entry = pack(packer, item)
                except BaseException as error:
                    crew.later(functools.partial(self.sink.failed, index, error))
                    continue
                if packer.buffers:
                    buffers[len(entries)] = packer.take_buffers()
                good.append(index)
                entries.append(entry)
        if not good:
            return None
        if len(good) < len(items):
            start = ids[0]
            return Batch(self, good, entries, [items[n - start] for n in good], buffers)
        return Batch(self, ids, entries, items, buffers)


def pack(packer: Packer, value: Any) -> Any:
    """The entry for an argument: by value where pickle cannot name it.

    Raises:
        Exception: What pickle, or the value's own code, raised.
    """
    try:
        return packer.pack(value)
    except pickling.FAILURES as error:
        packer.take_buffers()
        try:
            return pickling.dump_by_value(value)
        except Exception:
            raise error from error.__cause__


def describe(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call in short: ``shrink('a.png', quality=3)``."""
    import reprlib

    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    words = [_repr(short, value) for value in args]
    words += [f"{key}={_repr(short, value)}" for key, value in kwargs.items()]
    text = ", ".join(words)
    return f"{name}({text[:200]}…)" if len(text) > 200 else f"{name}({text})"


def _repr(short: Any, value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        value = value[: short.maxother]  # not megabytes of escapes, to be cut afterwards
    try:
        text: str = short.repr(value)
    except BaseException:
        return f"<{type(value).__name__}>"
    return text


__all__ = ["ITEM", "STAR", "WHOLE", "Batch", "Call", "Calls", "Job", "MapJob", "Sink", "describe"]
