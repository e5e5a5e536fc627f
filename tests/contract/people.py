"""Processes that have a part in a test of what processes share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import procession

PATIENCE = 60.0  # seconds; a wait of a test that takes longer has hung


class Speaker:
    """A process that says what it comes to.

    Args:
        method: Its start method.
        act: What it does; called with what it says things by, and the arguments.
        name: Its name.
    """

    def __init__(self, method: str, act: Callable[..., object], *args: Any, name: str) -> None:
        context = procession.get_context(method)
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=act, args=(sender, *args), name=name)
        self.process.start()
        sender.close()

    def said(self) -> Any:
        """What it says next."""
        assert self.receiver.poll(PATIENCE), "it says nothing: it waits for ever"
        return self.receiver.recv()

    def is_silent(self) -> bool:
        """Whether it has nothing to say for a while."""
        return not self.receiver.poll(0.05)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join(PATIENCE)
        self.process.close()
        self.receiver.close()


@pytest.fixture
def people() -> Iterator[list[Speaker]]:
    """Those who are in here are ended with the test."""
    started: list[Speaker] = []
    yield started
    for one in started:
        one.close()


def in_copy(act: Callable[[], object]) -> int:
    """Do something in a raw fork of this process; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except BaseException as error:
            print(f"in a copy: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
