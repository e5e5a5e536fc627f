"""Shared data: values, arrays, and named segments."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.bench import Benchmark, Versus

PEER = "forkserver"  # which start method makes no difference to what is measured here


def of_each(action: Callable[[], Any], rounds: int) -> Iterator[float]:
    """The time of one call, of many in a row."""
    while True:
        began = time.perf_counter()
        for _ in range(rounds):
            action()
        yield (time.perf_counter() - began) / rounds


def module(mp: Any, name: str) -> Any:
    """A flat module of the library that a context is of."""
    return importlib.import_module(f"{type(mp).__module__.partition('.')[0]}.{name}")


# --- values and arrays --------------------------------------------------------------------------


def make_value(mp: Any, rounds: int) -> Iterator[float]:
    """A value with its lock, made and dropped."""
    yield from of_each(lambda: mp.Value("i"), rounds)


def make_raw_array(mp: Any, rounds: int) -> Iterator[float]:
    """An array of 1000 numbers, made and dropped, beside one that stays."""
    kept = mp.RawArray("d", 10)
    yield from of_each(lambda: mp.RawArray("d", 1000), rounds)
    del kept


def count_up(mp: Any, rounds: int) -> Iterator[float]:
    """`with value.get_lock(): value.value += 1`."""
    value = mp.Value("i")

    def count() -> None:
        with value.get_lock():
            value.value += 1

    yield from of_each(count, rounds)


def slice_of_array(mp: Any, rounds: int) -> Iterator[float]:
    """1000 numbers read and written back as a slice."""
    array = mp.Array("d", 4000)

    def there_and_back() -> None:
        array[1000:2000] = array[2000:3000]

    yield from of_each(there_and_back, rounds)


Benchmark(
    "shared.make_value",
    "`Value('i')`, made and dropped",
    make_value,
    goals=[Versus(PEER, 1.0)],
    size=500,
    quick_size=10,
    seconds=4.0,
)
Benchmark(
    "shared.make_array",
    "`RawArray('d', 1000)`, made and dropped",
    make_raw_array,
    goals=[Versus(PEER, 1.0)],
    size=2000,
    quick_size=10,
    seconds=4.0,
)
Benchmark(
    "shared.value",
    "`with value.get_lock(): value.value += 1`",
    count_up,
    goals=[Versus(PEER, 1.0)],
    size=20000,
    quick_size=100,
    seconds=4.0,
)
Benchmark(
    "shared.slice",
    "1000 numbers of an `Array` read and written back by slices",
    slice_of_array,
    goals=[Versus(PEER, None)],
    size=1000,
    quick_size=10,
    seconds=4.0,
)


# --- named segments -----------------------------------------------------------------------------


def segment(mp: Any, size: int) -> Iterator[float]:
    """Made, closed and unlinked, with none of it touched."""
    make = module(mp, "shared_memory").SharedMemory

    def whole_life() -> None:
        shared = make(create=True, size=size)
        shared.close()
        shared.unlink()

    yield from of_each(whole_life, 200)


def segment_in_use(mp: Any, size: int) -> Iterator[float]:
    """Made, filled, read by somebody who attaches, closed and unlinked."""
    make = module(mp, "shared_memory").SharedMemory
    data = os.urandom(size)

    def whole_life() -> None:
        shared = make(create=True, size=size)
        shared.buf[:] = data
        other = make(shared.name)
        bytes(other.buf)
        other.close()
        shared.close()
        shared.unlink()

    yield from of_each(whole_life, 5)


def attach(mp: Any, rounds: int) -> Iterator[float]:
    """Attached and closed."""
    make = module(mp, "shared_memory").SharedMemory
    shared = make(create=True, size=4096)
    try:
        yield from of_each(lambda: make(shared.name).close(), rounds)
    finally:
        shared.close()
        shared.unlink()


Benchmark(
    "shared.segment",
    "`SharedMemory` of 4 KiB made, closed and unlinked",
    segment,
    goals=[Versus(PEER, None)],
    size=4096,
    seconds=4.0,
)
Benchmark(
    "shared.segment_in_use",
    "`SharedMemory` of 8 MiB made, filled, attached, read, closed and unlinked",
    segment_in_use,
    goals=[Versus(PEER, 1.0)],
    size=8 << 20,
    quick_size=1 << 20,
    seconds=6.0,
)
Benchmark(
    "shared.attach",
    "`SharedMemory` attached and closed",
    attach,
    goals=[Versus(PEER, None)],
    size=500,
    quick_size=10,
    seconds=4.0,
)
