"""Descriptors that the guard keeps while they are on their way from one process to another.

One that lies in an item of a queue is let go of with the item. The guard maps no queue; it is told
which items went in, as which, and which of them nobody will have. And it finds out by itself when
nobody has a queue any more, as a `get` finds out that it is alone (src/users.h): it holds a
descriptor of the queue's data as long as something lies in there, and looks at it now and then.
What it cannot find out it keeps.
"""

from __future__ import annotations

import os
import time

from procession import _native
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOON = 0.1  # seconds until the next look, where something has happened
LATE = 6.4  # and at most; what a dropped queue holds may stay in memory for so long
REST = 50  # times what a look took, until the next
MANY = 256  # items that come between two looks, at most, or as many as there were


class _Deposit:
    __slots__ = ("fd", "holders", "sent")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.holders: set[int] = set()
        self.sent = 0


class _Item:
    """An item of a queue that takes something along, until all of it was claimed."""

    __slots__ = ("number", "queue", "tokens")

    def __init__(self, queue: int) -> None:
        self.queue = queue
        self.tokens: list[bytes] = []
        self.number = 0
        """Which put it was; 0: that is not known yet."""


class _Queue:
    """A queue with such items."""

    __slots__ = ("fd", "items", "lost")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.items: set[bytes] = set()
        self.lost: list[tuple[int, int]] = []


class Deposits:
    """Token → descriptor, kept while a sender holds its object or a claim is still to come."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Deposit] = {}
        self._items: dict[bytes, _Item] = {}
        self._queues: dict[int, _Queue] = {}
        """Inode of its data → queue."""
        self._pause = SOON
        self._next_look = 0.0
        self._many = MANY

    def keep(
        self,
        fds: Sequence[int],
        token: bytes,
        sender: int,
        item: bytes | None = None,
        queue: int = 0,
    ) -> None:
        """Somebody sends it; with the descriptor where it has not sent it to us before."""
        data, fds = list(fds[: bool(queue)]), fds[bool(queue) :]
        try:
            if self._keep(fds, token, sender) and item is not None:
                self._take_along(item, queue, data, token)
        finally:
            channel.close_all(data)  # with it, we ourselves have the queue

    def _keep(self, fds: Sequence[int], token: bytes, sender: int) -> bool:
        deposit = self._kept.get(token)
        if deposit is None:
            if not fds:
                return False  # it was lost on its way here: who claims it is told
            deposit = self._kept[token] = _Deposit(fds[0])
        else:
            channel.close_all(fds)
        deposit.holders.add(sender)
        deposit.sent += 1
        return True

    def _take_along(self, name: bytes, queue: int, data: list[int], token: bytes) -> None:
        item = self._items.get(name)
        if item is None:
            if len(self._items) >= self._many:
                self._look()
            item = self._items[name] = _Item(queue)
            if data and queue not in self._queues:
                try:
                    self._queues[queue] = _Queue(_native.Ring._watch(data[0]))
                except OSError:
                    pass  # whether anybody has it will be in doubt
            if queue in self._queues:
                self._queues[queue].items.add(name)
                self._look_soon()
        item.tokens.append(token)

    def claim(self, asker: channel.Socket, token: bytes, item: bytes | None) -> None:
        """Somebody received it."""
        deposit = self._kept.get(token)
        try:
            channel.send(asker, (messages.CLAIM,), [deposit.fd] if deposit else [])
        except OSError:
            pass  # the asker is gone, and the item in its hands with it
        finally:
            asker.close()
        self.arrived(token, item)

    def arrived(self, token: bytes, name: bytes | None) -> None:
        """One less is on its way."""
        if name is not None:
            item = self._items.get(name)
            if item is None or token not in item.tokens:
                return  # one pickle may be loaded twice
            item.tokens.remove(token)
            if not item.tokens:
                self._forget(name)
        self._less(token)

    def placed(self, name: bytes, number: int) -> None:
        """An item is in its queue, as which; 0: it is not, and will not be."""
        item = self._items.get(name)
        if item is None:
            return
        item.number = number
        queue = self._queues.get(item.queue)
        lost = queue is not None and any(first <= number <= last for first, last in queue.lost)
        if number == 0 or lost:
            self._drop_item(name)

    def lost(self, number: int, first: int, last: int) -> None:
        """Nobody will have some items of a queue."""
        queue = self._queues.get(number)
        if queue is None:
            return
        queue.lost.append((first, last))  # some may not have said yet which they are
        for name in list(queue.items):
            if first <= self._items[name].number <= last:
                self._drop_item(name)

    def drop(self, token: bytes, sender: int) -> None:
        """A sender has no use for it any more."""
        deposit = self._kept.get(token)
        if deposit is not None:
            deposit.holders.discard(sender)
            self._settle(token, deposit)

    def ended(self, sender: int) -> None:
        """A process has ended."""
        for token, deposit in list(self._kept.items()):
            if sender in deposit.holders:
                deposit.holders.discard(sender)
                self._settle(token, deposit)
        self._look_soon()

    # --- queues that nobody has any more ----------------------------------------------------

    def _look_soon(self) -> None:
        self._pause = SOON
        self._next_look = min(self._next_look, time.monotonic() + SOON)

    def patience(self) -> float | None:
        """Seconds until the next look around; ``None``: there is nothing to look at."""
        return max(0.0, self._next_look - time.monotonic()) if self._queues else None

    def look_around(self) -> None:
        """Look, if it is time to, for queues that nobody has; let go of what lies in them."""
        if self._queues and time.monotonic() >= self._next_look:
            self._look()

    def _look(self) -> None:
        began = time.monotonic()
        queues = list(self._queues.values())
        while gone := [one for one in queues if one.items and not _native.Ring._is_had(one.fd)]:
            for queue in gone:
                for name in list(queue.items):
                    self._drop_item(name)
            queues = list(self._queues.values())  # one may have lain in an item of another
        now = time.monotonic()
        self._next_look = now + max(self._pause, REST * (now - began))
        self._pause = min(2 * self._pause, LATE)
        self._many = max(MANY, 2 * len(self._items))

    # --- let go -----------------------------------------------------------------------------

    def _drop_item(self, name: bytes) -> None:
        tokens = self._items[name].tokens
        self._forget(name)
        for token in tokens:
            self._less(token)

    def _forget(self, name: bytes) -> None:
        number = self._items.pop(name).queue
        queue = self._queues.get(number)
        if queue is not None:
            queue.items.discard(name)
            if not queue.items:
                del self._queues[number]
                os.close(queue.fd)

    def _less(self, token: bytes) -> None:
        deposit = self._kept.get(token)
        if deposit is not None:
            deposit.sent = max(0, deposit.sent - 1)  # one pickle may be loaded twice
            self._settle(token, deposit)

    def _settle(self, token: bytes, deposit: _Deposit) -> None:
        if not deposit.holders and not deposit.sent:
            os.close(deposit.fd)
            del self._kept[token]
