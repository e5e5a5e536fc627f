"""SIGKILL at any moment in put, get, task_done and shutdown: no hang, nothing corrupt, nothing out
of order, of all items only those lost that a victim had in its hands (G4), no memory kept (G5).

`nox -s chaos` runs the same for longer.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import time

import pytest

import procession
from procession.queues import ShutDown
from tests.chaos import queue_workers

SHRUNK = 1 << 20  # bytes; an empty ring that is larger gives its memory back (src/ring_room.c)
SLOW = (pytest.mark.slow, pytest.mark.timeout(900))
PATIENCE = 30.0  # seconds without any item coming through: a hang


class Chaos:
    """Producers and consumers of one queue, each of them replaced when it is killed."""

    def __init__(self, method: str, seed: int, *, maxsize: int, large: bool) -> None:
        self.ctx = procession.get_context(method)
        self.queue = self.ctx.Queue(maxsize)
        self.ledger = queue_workers.Ledger()
        self.chance = random.Random(seed)
        self.large = large
        self.producers: list = []
        self.consumers: list = []
        self.rows = 0  # of producers so far
        self.readers: list[tuple[int, int]] = []  # log ranges of consumers so far
        self.lost = 0  # items that killed consumers may have had in their hands

    def add_producer(self) -> None:
        process = self.ctx.Process(
            target=queue_workers.produce,
            args=(self.queue, self.ledger, self.rows, self.large),
        )
        self.rows += 1
        process.start()
        self.producers.append(process)

    def add_consumer(self) -> None:
        first = len(self.readers) * (queue_workers.SHARE)
        last = first + queue_workers.SHARE
        process = self.ctx.Process(
            target=queue_workers.consume,
            args=(self.queue, self.ledger, len(self.readers), first, last, self.large),
        )
        self.readers.append((first, last))
        process.start()
        self.consumers.append(process)

    def received(self) -> int:
        return sum(
            max(0, self.ledger.marks[row] - first) for row, (first, _) in enumerate(self.readers)
        )

    def wait_progress(self, before: int) -> None:
        """Wait until an item more has come through."""
        deadline = time.monotonic() + PATIENCE
        while self.received() <= before:
            for full in [one for one in self.consumers if one.exitcode == 77]:
                self.consumers.remove(full)
                self.add_consumer()
            assert time.monotonic() < deadline, f"no item comes through: {self.picture()}"
            time.sleep(0.0005)

    def picture(self) -> str:
        return (
            f"{self.queue.qsize()} items in the queue, "
            f"producers {[str(one.ending) for one in self.producers]}, "
            f"consumers {[str(one.ending) for one in self.consumers]}"
        )

    def kill_one(self) -> None:
        crew = self.chance.choice((self.producers, self.consumers))
        victim = self.chance.choice(crew)
        time.sleep(self.chance.random() * 0.004)
        victim.kill()
        victim.join(PATIENCE)
        assert victim.exitcode in (-signal.SIGKILL, 77), victim.exitcode
        crew.remove(victim)
        if crew is self.consumers:
            self.lost += 1
            self.add_consumer()
        else:
            self.add_producer()

    def finish(self) -> None:
        """Let no producer live on, drain the queue, and end the consumers."""
        for process in self.producers:
            process.kill()
            process.join(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not self.queue.empty():
            for full in [one for one in self.consumers if one.exitcode == 77]:
                self.consumers.remove(full)
                self.add_consumer()
            assert time.monotonic() < deadline, f"the rest does not come: {self.picture()}"
            time.sleep(0.001)
        for _ in self.consumers:
            self.queue.put(None)
        for process in self.consumers:
            process.join(PATIENCE)
            assert process.exitcode in (0, 77), f"a consumer failed: {self.picture()}"
        for process in self.consumers:
            if process.exitcode == 77:  # its log was full before its word to end came
                assert self.queue.get(timeout=PATIENCE) is None

    def judge(self) -> None:
        seen: dict[int, set[int]] = {}
        for row, (first, _) in enumerate(self.readers):
            newest: dict[int, int] = {}
            for entry in self.ledger.got[first : max(first, self.ledger.marks[row])]:
                producer, number = (entry >> 32) - 1, entry & 0xFFFFFFFF
                assert number > newest.get(producer, -1), "out of order, or twice"
                newest[producer] = number
                numbers = seen.setdefault(producer, set())
                assert number not in numbers, "twice"
                numbers.add(number)
        missing = 0
        for producer in range(self.rows):
            numbers = seen.get(producer, set())
            assert not numbers or max(numbers) < self.ledger.asked[producer], "never put"
            missing += len(set(range(self.ledger.done[producer])) - numbers)
        assert missing <= self.lost, f"{missing} lost, {self.lost} consumers killed"
        assert self.queue.lost <= self.lost, "more reported than there were deaths"
        assert any(self.is_given_back() for _ in range(10)), "memory is kept for nothing"

    def is_given_back(self) -> bool:
        """Whether an empty queue has no more memory than one has, when nothing comes for a second;
        on a loaded machine the time may be over before."""
        with pytest.raises(queue.Empty):
            self.queue.get(timeout=1.5)
        return os.fstat(self.queue._shared[2].fd).st_blocks * 512 <= SHRUNK

    def close(self) -> None:
        for process in self.producers + self.consumers:
            if process.exitcode is None:
                process.kill()
            process.join(PATIENCE)
            process.close()
        self.queue.close()
        self.ledger.close()


@pytest.mark.filterwarnings("ignore::procession.ForkedThreadsWarning")
@pytest.mark.filterwarnings("ignore::procession.ItemLostWarning")  # in forked copies, too
@pytest.mark.parametrize(
    ("method", "producers", "consumers", "maxsize", "large", "kills"),
    [
        ("fork", 1, 1, 0, False, 60),
        ("forkserver", 4, 2, 0, False, 60),
        ("forkserver", 4, 2, 3, False, 60),
        ("forkserver", 2, 2, 0, True, 40),
        pytest.param("fork", 1, 1, 0, False, 600, marks=SLOW),
        pytest.param("forkserver", 4, 2, 0, False, 600, marks=SLOW),
        pytest.param("forkserver", 4, 2, 3, False, 300, marks=SLOW),
        pytest.param("fork", 1, 1, 0, True, 150, marks=SLOW),
        pytest.param("forkserver", 4, 2, 0, True, 300, marks=SLOW),
    ],
)
def test_kills_in_put_and_get(method, producers, consumers, maxsize, large, kills, seed):
    chaos = Chaos(method, seed, maxsize=maxsize, large=large)
    try:
        for _ in range(producers):
            chaos.add_producer()
        for _ in range(consumers):
            chaos.add_consumer()
        for _ in range(kills):
            before = chaos.received()
            chaos.kill_one()
            chaos.wait_progress(before)
        chaos.finish()
        chaos.judge()
    finally:
        chaos.close()


class Workers:
    """Processes with one target, any of which may be killed; each has a row of the ledger."""

    def __init__(self, method: str, seed: int, target, *args) -> None:
        self.ctx = procession.get_context(method)
        self.chance = random.Random(seed)
        self.ledger = queue_workers.Ledger()
        self.target, self.args = target, args
        self.living: dict = {}
        self.rows = 0

    def add(self) -> None:
        process = self.ctx.Process(target=self.target, args=(*self.args, self.ledger, self.rows))
        process.start()
        self.living[self.rows] = process
        self.rows += 1

    def kill_one(self) -> None:
        """Kill one that is in the middle of its work."""
        row = self.chance.choice(list(self.living))
        victim = self.living.pop(row)
        deadline = time.monotonic() + PATIENCE
        while self.ledger.asked[row] == 0:
            assert time.monotonic() < deadline, "it does not begin"
            time.sleep(0.0005)
        time.sleep(self.chance.random() * 0.004)
        victim.kill()
        victim.join(PATIENCE)
        assert victim.exitcode == -signal.SIGKILL, victim.exitcode
        victim.close()

    def end_well(self) -> None:
        for process in self.living.values():
            process.join(PATIENCE)
            assert process.exitcode == 0, process.ending

    def close(self) -> None:
        for process in self.living.values():
            process.kill()
            process.join(PATIENCE)
            process.close()
        self.ledger.close()


@pytest.mark.filterwarnings("ignore::procession.ForkedThreadsWarning")
@pytest.mark.filterwarnings("ignore::procession.ItemLostWarning")  # in forked copies, too
@pytest.mark.parametrize(
    ("method", "kills"),
    [("fork", 30), pytest.param("forkserver", 150, marks=SLOW)],
)
def test_kills_in_get_and_task_done(method, kills, seed):
    tasks = procession.get_context(method).JoinableQueue()
    workers = Workers(method, seed, queue_workers.do_tasks, tasks)
    put = 0
    try:
        for _ in range(3):
            workers.add()
        for _ in range(kills):
            while tasks.qsize() < 2 * queue_workers.AHEAD:
                tasks.put(put)
                put += 1
            workers.kill_one()
            workers.add()
        for _ in workers.living:
            tasks.put(None)
            put += 1
        workers.end_well()
        reported = sum(workers.ledger.done[: workers.rows])
        left = tasks._stat()[1]  # a victim may have taken without reporting, or without noting it
        assert 0 <= put - reported <= left + kills, (put, reported, left)
        assert left <= kills
        for _ in range(left):
            tasks.task_done()
        tasks.join()
        with pytest.raises(ValueError, match="too many times"):
            tasks.task_done()
    finally:
        workers.close()


@pytest.mark.filterwarnings("ignore::procession.ForkedThreadsWarning")
@pytest.mark.filterwarnings("ignore::procession.ItemLostWarning")  # in forked copies, too
@pytest.mark.parametrize(
    ("immediate", "rounds"),
    [(False, 8), (True, 8), pytest.param(True, 100, marks=SLOW)],
)
def test_kills_in_shutdown(immediate, rounds, seed):
    for number in range(rounds):
        it = procession.get_context("fork").Queue(4)
        takers = Workers("fork", seed + number, queue_workers.take_until_shut, it)
        closers = Workers("fork", seed + number, queue_workers.shut_down, it, immediate)
        try:
            for _ in range(3):
                takers.add()
            closers.add()
            closers.kill_one()
            it.shutdown()  # if that was too early
            takers.end_well()
            with pytest.raises(ShutDown):
                it.put(1)
            with pytest.raises(ShutDown):
                it.get()
        finally:
            takers.close()
            closers.close()
