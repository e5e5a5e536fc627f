"""Descriptors that the guard keeps while they are on their way from one process to another."""

from __future__ import annotations

import os

from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class _Deposit:
    __slots__ = ("fd", "holders", "sent")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.holders: set[int] = set()
        self.sent = 0


class Deposits:
    """Token → descriptor, kept while a sender holds its object or a claim is still to come."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Deposit] = {}

    def keep(self, token: bytes, sender: int, fds: Sequence[int]) -> None:
        """Somebody sends it; with the descriptor where it has not sent it to us before."""
        deposit = self._kept.get(token)
        if deposit is None:
            if not fds:
                return  # it was lost on its way here: who claims it is told
            deposit = self._kept[token] = _Deposit(fds[0])
        else:
            channel.close_all(fds)
        deposit.holders.add(sender)
        deposit.sent += 1

    def claim(self, asker: channel.Socket, token: bytes) -> None:
        """Somebody received it."""
        deposit = self._kept.get(token)
        try:
            channel.send(asker, (messages.CLAIM,), [deposit.fd] if deposit else [])
        except OSError:
            pass  # the asker is gone, and the item in its hands with it
        finally:
            asker.close()
        self.arrived(token)

    def arrived(self, token: bytes) -> None:
        """One less is on its way."""
        deposit = self._kept.get(token)
        if deposit is not None:
            deposit.sent = max(0, deposit.sent - 1)  # one pickle may be loaded twice
            self._settle(token, deposit)

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

    def _settle(self, token: bytes, deposit: _Deposit) -> None:
        if not deposit.holders and not deposit.sent:
            os.close(deposit.fd)
            del self._kept[token]
