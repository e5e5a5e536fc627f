"""Descriptors on their way to another process of the program.

At a start they travel in the start frame. Anywhere else (a queue, a pipe, a pool's call, a manager)
the pickle holds a token only, random and of 128 bits, under which the guard keeps the descriptor:
while somebody who sent it holds its object, and while it was sent and has not arrived. So an item
may outlive its sender, and nothing is left when the program ends.

What lies in an item of a queue is let go of with it, too: when nobody has the queue any more, when
the item did not go in, and when it was dropped or died in the hands of who took it.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from procession._launch import keeper_client
from procession._launch.keeper import Keeper
from procession._wire import messages
from procession.errors import SharedObjectLost


def for_child(popen: Any, token: bytes, fd: int) -> Any:
    """What stands in the pickle of a starting process for a descriptor; its ``detach()`` there
    gives the number. The same for every object that goes along with this start.
    """
    places: dict[bytes, Any] = popen.__dict__.setdefault("_parcels", {})
    if token not in places:
        places[token] = popen.DupFd(popen.duplicate_for_child(fd))
    return places[token]


class Carrier:
    """A queue, as what its items take along knows it.

    Args:
        fd: The descriptor of its data.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.queue = os.fstat(fd).st_ino
        self._items: dict[int, bytes] = {}
        """Thread → the item it is pickling, if that takes something along."""

    def item(self) -> bytes:
        """The item that this thread is pickling."""
        thread = threading.get_ident()
        if thread not in self._items:
            self._items[thread] = os.urandom(8)
        return self._items[thread]

    def take(self) -> bytes | None:
        """The same, if there is one, and no longer: it is pickled, or another one comes between."""
        return self._items.pop(threading.get_ident(), None) if self._items else None

    def resume(self, item: bytes) -> None:
        """Go on with an item."""
        self._items[threading.get_ident()] = item

    def fd(self) -> int:
        """The descriptor; -1 where this program closed it and somebody else may have the number."""
        try:
            return self._fd if os.fstat(self._fd).st_ino == self.queue else -1
        except OSError:
            return -1


def deposit(
    token: bytes, fd: int, last: Keeper | None = None, carrier: Carrier | None = None
) -> Keeper:
    """Leave a descriptor with the guard, to be claimed once more.

    Args:
        token: Its name.
        fd: The descriptor.
        last: What this returned the last time: then the guard has it already.
        carrier: What takes it along.

    Raises:
        KeeperLost, StartError: There is no guard to keep it.
    """
    keeper = keeper_client.ensure(zygote=False)
    fds = [] if keeper is last else [fd]
    if carrier is None:
        keeper.hand((messages.DEPOSIT, token, keeper.owner_id), fds)
    else:
        data = carrier.fd()
        queue = 0 if data < 0 else carrier.queue
        message = messages.DEPOSIT, token, keeper.owner_id, carrier.item(), queue
        keeper.hand(message, fds if data < 0 else [data, *fds])
    return keeper


def place(item: bytes, number: int) -> None:
    """Say which put of its queue an item was that took something along; 0: it was none."""
    keeper = keeper_client.present()
    if keeper is not None:
        keeper.tell(messages.PLACED, item, number)


def lose(carrier: Carrier, first: int, last: int) -> None:
    """Say that nobody will ever have some items of a queue, by their numbers."""
    keeper = keeper_client.present()
    if keeper is not None:
        keeper.tell(messages.LOST, carrier.queue, first, last)


def claim(token: bytes, item: bytes | None = None) -> int:
    """A descriptor that somebody deposited; it belongs to the caller.

    Args:
        token: Its name.
        item: The item of a queue that brought it.

    Raises:
        SharedObjectLost: The guard does not have it.
    """
    _, fds = keeper_client.ensure(zygote=False).ask((messages.CLAIM, token, item))
    if not fds:
        raise SharedObjectLost(
            "a shared object (lock, event, shared memory, ...) that was sent here cannot be had "
            "any more: all that held it are gone, or it was sent by another program. Send it to "
            "processes of its own program, and keep it until it has arrived."
        )
    return fds[0]


def arrived(token: bytes, item: bytes | None = None) -> None:
    """Say that an object came which this process has already."""
    keeper_client.ensure(zygote=False).tell(messages.ARRIVED, token, item)


def let_go(token: bytes, keeper: Keeper) -> None:
    """This process, which deposited it with that keeper, has no use for it any more."""
    if keeper.owner_pid == os.getpid():
        keeper.tell(messages.DROP, token, keeper.owner_id)
