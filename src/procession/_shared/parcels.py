"""Descriptors on their way to another process of the program.

At a start they travel in the start frame. Anywhere else (a queue, a pipe, a pool's call, a manager)
the pickle holds a token only, random and of 128 bits, under which the guard keeps the descriptor:
while somebody who sent it holds its object, and while it was sent and has not arrived. So an item
may outlive its sender, and nothing is left when the program ends.
"""

from __future__ import annotations

import os
from typing import Any

from procession._launch import keeper_client
from procession._wire import messages
from procession.errors import SharedObjectLost

_Keeper = keeper_client.Keeper


def for_child(popen: Any, token: bytes, fd: int) -> Any:
    """What stands in the pickle of a starting process for a descriptor; its ``detach()`` there
    gives the number. The same for every object that goes along with this start.
    """
    places: dict[bytes, Any] = popen.__dict__.setdefault("_parcels", {})
    if token not in places:
        places[token] = popen.DupFd(popen.duplicate_for_child(fd))
    return places[token]


def deposit(token: bytes, fd: int, last: _Keeper | None = None) -> _Keeper:
    """Leave a descriptor with the guard, to be claimed once more.

    Args:
        token: Its name.
        fd: The descriptor.
        last: What this returned the last time: then the guard has it already.

    Raises:
        KeeperLost, StartError: There is no guard to keep it.
    """
    keeper = keeper_client.ensure(zygote=False)
    keeper.hand((messages.DEPOSIT, token, keeper.owner_id), [] if keeper is last else [fd])
    return keeper


def claim(token: bytes) -> int:
    """A descriptor that somebody deposited; it belongs to the caller.

    Raises:
        SharedObjectLost: The guard does not have it.
    """
    _, fds = keeper_client.ensure(zygote=False).ask((messages.CLAIM, token))
    if not fds:
        raise SharedObjectLost(
            "a shared object (lock, event, shared memory, ...) that was sent here cannot be had "
            "any more: all that held it are gone, or it was sent by another program. Send it to "
            "processes of its own program, and keep it until it has arrived."
        )
    return fds[0]


def arrived(token: bytes) -> None:
    """Say that an object came which this process has already."""
    keeper_client.ensure(zygote=False).tell(messages.ARRIVED, token)


def let_go(token: bytes, keeper: _Keeper) -> None:
    """This process, which deposited it with that keeper, has no use for it any more."""
    if keeper.owner_pid == os.getpid():
        keeper.tell(messages.DROP, token, keeper.owner_id)
