"""What the processes of the queue's chaos do, and the ledger that judges them.

The ledger is plain shared memory, written by each process alone in its own row, so that it tells
the truth whenever the process is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import random
import time
from multiprocessing import reduction
from typing import Any

from procession.queues import ShutDown

ROWS = 4096  # producers and consumers that one run may have
LOG = 3_000_000  # items that one run may have
SHARE = 1000  # of them for one consumer
AHEAD = 300  # items in the queue at most, about
SIZES = (0, 1, 7, 64, 300, 5_000)
LARGE = (150_000, 400_000, 1_500_000)


class Ledger:
    """Who has put and got what."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("chaos-ledger")
        os.ftruncate(self._fd, 8 * (3 * ROWS + LOG))
        self._map()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._fd, 8 * (3 * ROWS + LOG))
        words = memoryview(self._memory).cast("Q")
        self.asked = words[:ROWS]  # by producer: puts begun
        self.done = words[ROWS : 2 * ROWS]  # by producer: puts returned
        self.marks = words[2 * ROWS : 3 * ROWS]  # by consumer: its last log entry
        self.got = words[3 * ROWS :]  # producer + 1 << 32 | number, as they came
        self._views = [words, self.asked, self.done, self.marks, self.got]

    def __getstate__(self) -> Any:
        return reduction.DupFd(self._fd)

    def __setstate__(self, state: Any) -> None:
        self._fd = state.detach()
        self._map()

    def close(self) -> None:
        """Let the memory go."""
        for view in reversed(self._views):
            view.release()
        self._memory.close()
        os.close(self._fd)


def payload(producer: int, number: int, large: bool) -> bytes:
    """An item's bytes, which tell whether they are its own."""
    chance = random.Random(producer << 32 | number)
    size = chance.choice(LARGE if large and chance.random() < 0.3 else SIZES)
    return (b"%d.%d." % (producer, number)) * (size // 8)


def produce(queue: Any, ledger: Ledger, row: int, large: bool) -> None:
    """Put items until it is killed, and not too many ahead of who takes them."""
    for number in itertools.count():
        while queue.qsize() > AHEAD:
            time.sleep(0.001)
        item = payload(row, number, large)
        ledger.asked[row] = number + 1
        queue.put((row, number, item) if number % 3 else {"k": (row, number, item)})
        ledger.done[row] = number + 1


def consume(queue: Any, ledger: Ledger, row: int, first: int, last: int, large: bool) -> None:
    """Take items and log them from `first` up to `last` of the log; ``None`` ends it."""
    for at in range(first, last):
        item = queue.get()
        if item is None:
            return
        producer, number, content = item["k"] if isinstance(item, dict) else item
        assert content == payload(producer, number, large), "what came is not what was put"
        ledger.got[at] = (producer + 1) << 32 | number
        ledger.marks[row] = at + 1
    os._exit(77)  # the log is full


def do_tasks(tasks: Any, ledger: Ledger, row: int) -> None:
    """Take tasks and report them until there is a ``None``."""
    while True:
        ledger.asked[row] = 1
        task = tasks.get()
        tasks.task_done()
        ledger.done[row] += 1
        if task is None:
            return


def take_until_shut(it: Any, ledger: Ledger, row: int) -> None:
    """Take items until the queue is shut down."""
    ledger.asked[row] = 1
    for _ in it:
        pass


def shut_down(it: Any, immediate: bool, ledger: Ledger, row: int) -> None:
    """Put some, then shut down, again and again, until it is killed."""
    with contextlib.suppress(ShutDown):
        for number in range(20):
            it.put(number)
    ledger.asked[row] = 1
    while True:
        it.shutdown(immediate)
