"""Pools and executors: tiny calls, one call, arrays, futures, start and end, a worker's death."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import targets
from benchmarks.bench import Benchmark, Goal, Side, Versus
from benchmarks.pools import PEERS, Workers

WORKERS = 2
METHOD = "forkserver"
ARRAY = 8_000_000  # bytes


def tiny_calls(library: str, size: int) -> Iterator[float]:
    """One of so many calls of a map that sends them one by one."""
    with ended(library, called=False) as workers:  # mpire cannot do both
        while True:
            items = range(size)
            began = time.perf_counter()
            workers.map(targets.nothing, items)
            yield (time.perf_counter() - began) / size


def round_trip(library: str, size: int) -> Iterator[float]:
    """One call, asked for and waited for."""
    with ended(library) as workers:
        while True:
            began = time.perf_counter()
            for _ in range(size):
                if library.endswith("Pool"):
                    workers.it.apply(targets.nothing, (1,))
                else:
                    workers.submit(targets.nothing, 1)()
            yield (time.perf_counter() - began) / size


def arrays(library: str, size: int) -> Iterator[float]:
    """An array in and out; the time of one of them."""
    import numpy

    array = numpy.zeros(size, dtype="uint8")
    with ended(library) as workers:
        while True:
            began = time.perf_counter()
            for ask in [workers.submit(targets.give, array) for _ in range(4)]:
                ask()
            yield (time.perf_counter() - began) / 4


def futures(library: str, size: int) -> Iterator[float]:
    """One of so many calls that are all asked for before the first is waited for."""
    with ended(library) as workers:
        while True:
            began = time.perf_counter()
            for ask in [workers.submit(targets.nothing, n) for n in range(size)]:
                ask()
            yield (time.perf_counter() - began) / size


def start_and_end(library: str, size: int) -> Iterator[float]:
    """Start the workers, one call for each, end them."""
    while True:
        began = time.perf_counter()
        workers = Workers(library, METHOD, size)
        for ask in [workers.submit(targets.nothing, n) for n in range(size)]:
            ask()
        workers.end()
        yield time.perf_counter() - began


def death(library: str, size: int) -> Iterator[float]:
    """A worker is killed in a call; until the next call has its result, in whatever way it can."""
    workers = Workers(library, METHOD, size)
    workers.submit(targets.nothing)()
    try:
        while True:
            began = time.perf_counter()
            dying = workers.submit(targets.die)
            if library != "standard Pool":  # which waits for it for ever
                with contextlib.suppress(Exception):
                    dying()
            try:
                workers.submit(targets.nothing)()
            except Exception:  # it is broken for good: a new one is what its user is left with
                with contextlib.suppress(Exception):
                    workers.end()
                workers = Workers(library, METHOD, size)
                workers.submit(targets.nothing)()
            yield time.perf_counter() - began
    finally:
        if library == "standard Pool":
            workers.it.terminate()  # it would wait for the calls that died
        else:
            workers.end()


@contextlib.contextmanager
def ended(library: str, size: int = WORKERS, *, called: bool = True) -> Iterator[Workers]:
    """Workers that have done a call each, if wanted."""
    workers = Workers(library, METHOD, size)
    for ask in [workers.submit(targets.nothing, n) for n in range(size if called else 0)]:
        ask()
    try:
        yield workers
    finally:
        workers.end()


def against(
    name: str,
    title: str,
    measure: Any,
    *,
    ours: str = "procession Pool",
    peers: tuple[str, ...] = ("standard Pool", "standard executor", *PEERS),
    at_least: float | None,
    **options: Any,
) -> None:
    """A benchmark of ours against those peers that are here."""

    def side(library: str) -> Side:
        return Side("", lambda _, size: measure(library, size))

    here = [peer for peer in peers if peer not in PEERS or importlib.util.find_spec(peer)]
    goals: list[Goal] = [Versus(peer, at_least) for peer in here]
    sides = {peer: side(peer) for peer in here}
    Benchmark(name, title, measure, goals=goals, ours=side(ours), sides=sides, **options)


against(
    "pool.tiny_calls",
    "tiny calls one by one (chunksize 1), by the second",
    tiny_calls,
    at_least=5,
    size=5000,
    quick_size=50,
    seconds=30,
    unit="/s",
)
against(
    "pool.round_trip",
    "round trip of one call",
    round_trip,
    at_least=5,
    size=200,
    quick_size=3,
    seconds=20,
)
against(
    "pool.arrays",
    "an array of 8 MB in and out",
    arrays,
    at_least=8,
    size=ARRAY,
    quick_size=1000,
    seconds=20,
)
against(
    "pool.futures",
    "10,000 futures outstanding, by the second",
    futures,
    ours="procession executor",
    peers=("standard executor", *PEERS[:2]),
    at_least=None,
    size=10_000,
    quick_size=20,
    seconds=20,
    unit="/s",
)
against(
    "pool.start_and_end",
    "start two workers, call each, end them",
    start_and_end,
    at_least=None,
    size=WORKERS,
    seconds=15,
)
against(
    "pool.death",
    "a worker killed in its call, until its replacement has done the next",
    death,
    peers=("standard Pool", "standard executor", "loky", "pebble"),  # mpire's next call hangs
    at_least=None,
    seconds=15,
)
