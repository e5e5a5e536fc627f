"""Queues and pipes: small items, ping-pong, arrays; what a queue keeps, and what waiting costs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.bench import AtMost, Benchmark, Goal, Side, Versus

METHOD = "fork"  # which start method makes no difference to what is measured here
PEER = f"multiprocessing {METHOD}"
ITEMS: dict[str, Any] = {
    "bytes": b"x" * 64,
    "ints": 123456,
    "tuples": (1, "two", 3.0),
    "dicts": {"id": 7, "name": "seven", "values": [1, 2, 3]},
}
Make = Callable[[Any], Any]


def standard_queue(mp: Any) -> Any:
    """What the room is about."""
    return mp.Queue()


def simple_queue(mp: Any) -> Any:
    """The one with the fewest methods."""
    return mp.SimpleQueue()


def faster_fifo(mp: Any) -> Any:
    """The peer that is a ring in shared memory, too, and pickles everything."""
    from faster_fifo import Queue

    return Queue(1 << 26)


# --- many small items ---------------------------------------------------------------------------


def _produce(it: Any, orders: Any, item: Any) -> None:
    while (count := orders.recv()) > 0:
        for _ in range(count):
            it.put(item)


def _consume(it: Any, orders: Any) -> None:
    while (count := orders.recv()) > 0:
        for _ in range(count):
            it.get()
        orders.send(count)


@contextlib.contextmanager
def crew(mp: Any, target: Any, count: int, *args: Any) -> Iterator[list[Any]]:
    """Processes that do as they are told over pipes, which are what one gets."""
    ends, processes = [], []
    for _ in range(count):
        ours, theirs = mp.Pipe()
        process = mp.Process(target=target, args=(args[0], theirs, *args[1:]))
        process.start()
        ends.append(ours)
        processes.append(process)
    try:
        yield ends
    finally:
        for end in ends:
            end.send(0)
        for process in processes:
            process.join()


def flow(item: Any, producers: int, consumers: int, make: Make) -> Any:
    """The time of one of so many items from producers to consumers."""

    def measure(mp: Any, size: int) -> Iterator[float]:
        it = make(mp)
        put, taken = size // producers, size // consumers
        with (
            crew(mp, _consume, consumers, it) as takers,
            crew(mp, _produce, producers, it, item) as givers,
        ):
            while True:
                began = time.perf_counter()
                for taker in takers:
                    taker.send(taken)
                for giver in givers:
                    giver.send(put)
                for taker in takers:
                    taker.recv()
                yield (time.perf_counter() - began) / size

    return measure


def against(
    name: str,
    title: str,
    measure: Callable[[Make], Any],
    *,
    at_least: float | None,
    ours: int,
    theirs: int,
    make: Make = standard_queue,
    faster: bool = True,
    **options: Any,
) -> None:
    """A benchmark of our queue against the standard one, and faster-fifo where it is here."""
    goals: list[Goal] = [Versus(PEER, at_least)]
    sides = {PEER: Side(f"multiprocessing.{METHOD}", measure(make), theirs)}
    if faster and importlib.util.find_spec("faster_fifo"):
        goals.append(Versus("faster-fifo", None))
        sides["faster-fifo"] = Side(f"multiprocessing.{METHOD}", measure(faster_fifo), ours // 4)
    elif faster:
        title += " (faster-fifo is not installed)"
    Benchmark(
        f"queues.{name}",
        title,
        measure(make),
        goals=goals,
        ours=Side(f"procession.{METHOD}", size=ours),
        sides=sides,
        **options,
    )


for _name, _least, _ours in (
    ("bytes", 20.0, 240_000),
    ("ints", 20.0, 240_000),
    ("tuples", 8.0, 160_000),
    ("dicts", 4.0, 80_000),
):
    against(
        _name,
        f"{'64-byte bytes' if _name == 'bytes' else _name} through a `Queue`, one to one",
        lambda make, name=_name: flow(ITEMS[name], 1, 1, make),
        at_least=_least,
        ours=_ours,
        theirs=12_000,
        seconds=9.0,
        unit="/s",
    )
for _producers, _consumers, _goal in ((4, 2, 20.0), (16, 1, None)):
    against(
        f"bytes_{_producers}_to_{_consumers}",
        f"64-byte bytes through a `Queue`, {_producers} to {_consumers}",
        lambda make, some=_producers, others=_consumers: flow(ITEMS["bytes"], some, others, make),
        at_least=_goal,
        ours=160_000,
        theirs=12_000,
        seconds=10.0,
        unit="/s",
    )
against(
    "simple",
    "64-byte bytes through a `SimpleQueue`, one to one",
    lambda make: flow(ITEMS["bytes"], 1, 1, make),
    at_least=None,
    make=simple_queue,
    faster=False,
    ours=240_000,
    theirs=24_000,
    seconds=8.0,
    unit="/s",
)


# --- there and back -----------------------------------------------------------------------------


def _answer(it: Any, orders: Any, back: Any) -> None:
    while (count := orders.recv()) > 0:
        for _ in range(count):
            back.put(it.get())


def ping_pong(make: Make) -> Any:
    """An int there and back by two queues."""

    def measure(mp: Any, size: int) -> Iterator[float]:
        there, back = make(mp), make(mp)
        with crew(mp, _answer, 1, there, back) as (other,):
            while True:
                other.send(size)
                began = time.perf_counter()
                for number in range(size):
                    there.put(number)
                    back.get()
                yield (time.perf_counter() - began) / size

    return measure


def _answer_by_pipe(it: Any, orders: Any) -> None:
    while (count := orders.recv()) > 0:
        for _ in range(count):
            it.send(it.recv())


def pipe(mp: Any, size: int) -> Iterator[float]:
    """A tuple there and back by a pipe."""
    ours, theirs = mp.Pipe()
    with crew(mp, _answer_by_pipe, 1, theirs) as (other,):
        while True:
            other.send(size)
            began = time.perf_counter()
            for _ in range(size):
                ours.send(ITEMS["tuples"])
                ours.recv()
            yield (time.perf_counter() - began) / size


against(
    "ping_pong",
    "an int there and back by two `Queue`s",
    ping_pong,
    at_least=5.0,
    ours=8000,
    theirs=2000,
    seconds=9.0,
)
Benchmark(
    "queues.pipe",
    "a small tuple there and back by a `Pipe`",
    pipe,
    goals=[Versus(PEER, None)],
    ours=Side(f"procession.{METHOD}"),
    sides={PEER: Side(f"multiprocessing.{METHOD}")},
    size=5000,
    quick_size=50,
    seconds=6.0,
)


# --- arrays -------------------------------------------------------------------------------------


def _produce_arrays(it: Any, orders: Any, size: int) -> None:
    import numpy

    array = numpy.ones(size, dtype="uint8")
    while (count := orders.recv()) > 0:
        for _ in range(count):
            it.put(array)


def arrays(array: int) -> Callable[[Make], Any]:
    """The time of one array through a queue that holds four at most; its receiver reads it."""

    def of(make: Make) -> Any:
        def measure(mp: Any, size: int) -> Iterator[float]:
            it = mp.Queue(4)
            with crew(mp, _produce_arrays, 1, it, array) as (giver,):
                while True:
                    began = time.perf_counter()
                    giver.send(size)
                    for _ in range(size):
                        assert it.get()[-1] == 1
                    yield (time.perf_counter() - began) / size

        return measure

    return of


for _mega, _least, _ours, _theirs in ((1, 10.0, 400, 60), (64, 8.0, 16, 4)):
    against(
        f"arrays_{_mega}_mb",
        f"arrays of {_mega} MB through a `Queue`",
        arrays(_mega << 20),
        at_least=_least,
        faster=False,
        ours=_ours,
        theirs=_theirs,
        seconds=10.0,
    )


# --- at rest ------------------------------------------------------------------------------------


def held(mp: Any, size: int) -> Iterator[float]:
    """Bytes that a queue keeps when arrays went through it, and then nothing for a while."""
    import numpy

    it = mp.Queue()
    while True:
        for _ in range(size):
            it.put(numpy.ones(1 << 20, dtype="uint8"))
            it.get()
        with contextlib.suppress(queue.Empty):
            it.get(timeout=1.5)
        yield float(os.fstat(it._shared[2].fd).st_blocks * 512)


def idle(mp: Any, size: int) -> Iterator[float]:
    """CPU of so many threads that wait for an item for a second."""
    it = mp.Queue()
    threads = [threading.Thread(target=it.get) for _ in range(size)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)  # the first looks are closer to each other
    try:
        while True:
            began = time.process_time()
            time.sleep(1.0)
            yield time.process_time() - began
    finally:
        for _ in threads:
            it.put(None)
        for thread in threads:
            thread.join()


Benchmark(
    "queues.held",
    "memory that a queue keeps after 20 arrays of 1 MB and a second of nothing",
    held,
    goals=[AtMost(65536)],
    size=20,
    seconds=4.0,
    unit="B",
    ours=Side(f"procession.{METHOD}"),
)
Benchmark(
    "queues.idle",
    "CPU of ten that wait in `get()` for a second",
    idle,
    goals=[AtMost(0.01)],
    size=10,
    seconds=5.0,
    ours=Side(f"procession.{METHOD}"),
)
