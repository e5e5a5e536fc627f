"""Processes: starts, bursts, many of them, memory, first use, and the end of main."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import targets
from benchmarks.bench import AtMost, Benchmark, Beyond, Side, Versus
from benchmarks.runner import ROOT

REST = 0.005  # seconds between two starts, in which a keeper makes its next spare
BALLAST = 500_000_000
LIMIT = 60.0  # seconds for what takes milliseconds


# --- starts -----------------------------------------------------------------------------------


def start_alone(mp: Any, _: int) -> Iterator[float]:
    """`start()` and nothing else, now and then."""
    while True:
        process = mp.Process(target=targets.nothing)
        began = time.perf_counter()
        process.start()
        took = time.perf_counter() - began
        process.join()
        time.sleep(REST)
        yield took


def start_alone_in_a_big_main(mp: Any, size: int) -> Iterator[float]:
    """The same with so many bytes in main, all of them touched."""
    ballast = bytearray(b"x") * size
    yield from start_alone(mp, 1)
    del ballast


def start_and_join(mp: Any, live: int) -> Iterator[float]:
    """One after the other, while others live."""
    allow_descriptors()
    others = [mp.Process(target=targets.sleep, args=(3600,), daemon=True) for _ in range(live)]
    for process in others:
        process.start()
    while True:
        process = mp.Process(target=targets.nothing)
        began = time.perf_counter()
        process.start()
        process.join()
        yield time.perf_counter() - began


def burst(mp: Any, size: int) -> Iterator[float]:
    """So many starts without a pause; the time of one."""
    while True:
        processes = [mp.Process(target=targets.nothing) for _ in range(size)]
        began = time.perf_counter()
        for process in processes:
            process.start()
        took = time.perf_counter() - began
        for process in processes:
            process.join()
        yield took / size


def start_all_join_all(mp: Any, size: int) -> Iterator[float]:
    """So many started, then all joined."""
    allow_descriptors()
    while True:
        began = time.perf_counter()
        processes = [mp.Process(target=targets.nothing) for _ in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        yield time.perf_counter() - began


def allow_descriptors() -> None:
    """Whatever a side needs descriptors for, it may have them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


Benchmark(
    "process.start",
    "`start()` with a spare ready",
    start_alone,
    goals=[AtMost(100e-6), Versus("fork", 8), Versus("forkserver", 15)],
    batch=10,
    seconds=12,
)
Benchmark(
    "process.start_big_main",
    "`start()` with 500 MB in main",
    start_alone_in_a_big_main,
    goals=[Versus("fork", 100), Versus("forkserver")],
    size=BALLAST,
    quick_size=1000,
    batch=5,
    seconds=15,
)
Benchmark(
    "process.start_join",
    "start and join, one at a time",
    start_and_join,
    goals=[Versus("fork", 2.5), Versus("forkserver", 15), Versus("spawn", 40)],
    size=0,
    batch=10,
    seconds=15,
)
Benchmark(
    "process.start_join_2000_live",
    "start and join while 2000 children live",
    start_and_join,
    goals=[Versus("1 lives", 0.85)],
    size=2000,
    quick_size=10,
    batch=20,
    seconds=5,
    sides={"1 lives": Side("procession.forkserver", size=1)},
)
Benchmark(
    "process.burst",
    "one of 200 starts in a burst",
    burst,
    goals=[Versus("fork", 1.5), Versus("forkserver", 8)],
    size=200,
    quick_size=5,
    seconds=15,
)
Benchmark(
    "process.many",
    "1000 children started, then joined",
    start_all_join_all,
    goals=[Versus("fork", 1.5), Versus("forkserver", 8)],
    size=1000,
    quick_size=5,
    seconds=10,
    rounds=1,
)


# --- memory -----------------------------------------------------------------------------------


def memory_of_an_idle_child(mp: Any, size: int) -> Iterator[float]:
    """Mean proportional set size of so many children that wait."""
    reading, writing = mp.Pipe(duplex=False)
    processes = [
        mp.Process(target=targets.wait_for_end, args=(reading,), daemon=True) for _ in range(size)
    ]
    for process in processes:
        process.start()
    reading.close()
    for process in processes:
        wait_until_asleep(process.pid)
    try:
        while True:
            yield sum(proportional_size(process.pid) for process in processes) / size
    finally:
        for process in processes:
            process.kill()
            process.join()
        writing.close()


def wait_until_asleep(pid: int) -> None:
    """Until a child waits in the read that is all it does."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
            if "pipe" in file.read():
                return
        time.sleep(0.01)
    raise TimeoutError(f"child {pid} does not wait")


def proportional_size(pid: int) -> int:
    """PSS in bytes, from /proc/<pid>/smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no PSS")


Benchmark(
    "process.memory",
    "memory of an idle child (PSS)",
    memory_of_an_idle_child,
    goals=[Versus("fork", 1), Versus("forkserver"), Versus("spawn")],
    size=20,
    quick_size=2,
    unit="B",
    seconds=3,
)


# --- first use --------------------------------------------------------------------------------


def in_fresh_interpreters(*arguments: str) -> Iterator[float]:
    """What a program prints, run anew for each sample."""
    command = [sys.executable, "-P", *arguments]
    while True:
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=LIMIT)
        yield float(answer.stdout)


def first_start(library: str) -> Any:
    """The first start of a fresh interpreter."""
    script = os.path.join(ROOT, "benchmarks", "first.py")
    return lambda _mp, _size: in_fresh_interpreters(script, library)


def first_import(statement: str) -> Any:
    """An import by a fresh interpreter."""
    code = (
        f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    )
    return lambda _mp, _size: in_fresh_interpreters("-c", code)


Benchmark(
    "process.first_start",
    "first `start()` with all that it starts",
    first_start("procession"),
    goals=[Versus("forkserver", 1)],
    ours=Side(""),
    sides={"forkserver": Side("", first_start("multiprocessing"))},
    batch=2,
    seconds=12,
)
Benchmark(
    "process.import",
    "`import procession`",
    first_import("import procession"),
    goals=[Beyond("import multiprocessing", 0.005)],
    ours=Side(""),
    sides={"import multiprocessing": Side("", first_import("import multiprocessing"))},
    batch=3,
    seconds=6,
)
Benchmark(
    "process.import_process",
    "`from procession import Process`",
    first_import("from procession import Process"),
    goals=[Beyond("from multiprocessing import Process", 0.005)],
    ours=Side(""),
    sides={
        "from multiprocessing import Process": Side(
            "", first_import("from multiprocessing import Process")
        )
    },
    batch=3,
    seconds=6,
)


# --- the end of main --------------------------------------------------------------------------


def opened(pids: Iterable[int]) -> Iterator[int]:
    """Pidfds of those that are still there: a keeper's process may have gone meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def main_killed(_: Any, size: int) -> Iterator[float]:
    """From SIGKILL of main to the end of the last of so many descendants.

    Half of them are children, half what each of those started, in a session of its own.
    """
    allow_descriptors()
    script = os.path.join(ROOT, "benchmarks", "tree.py")
    while True:
        main = subprocess.Popen(
            [sys.executable, "-P", script, str(size // 2)], stdout=subprocess.PIPE
        )
        assert main.stdout is not None
        main.stdout.readline()  # all of them are there
        pidfds = list(opened(below(main.pid)))
        if len(pidfds) < size:
            raise RuntimeError(f"found {len(pidfds)} descendants instead of {size}")
        poll = select.epoll()
        for fd in pidfds:
            poll.register(fd, select.EPOLLIN)
        began = time.perf_counter()
        main.send_signal(signal.SIGKILL)
        while pidfds:
            ready = poll.poll(LIMIT)
            if not ready:
                raise TimeoutError(f"{len(pidfds)} descendants are still there")
            for fd, _ in ready:
                poll.unregister(fd)
                os.close(fd)
                pidfds.remove(fd)
        took = time.perf_counter() - began
        poll.close()
        main.wait()
        main.stdout.close()
        yield took


def below(root: int) -> list[int]:
    """All descendants of a process, as /proc tells."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    left = [root]
    while left:
        more = children.get(left.pop(), [])
        found += more
        left += more
    return found


for _count, _most, _seconds in ((8, 0.010, 5), (100, 0.050, 8), (1000, 0.600, 20)):
    Benchmark(
        f"process.main_killed_{_count}",
        f"SIGKILL of main until nothing is left of {_count} descendants",
        main_killed,
        goals=[AtMost(_most)],
        ours=Side(""),
        size=_count,
        quick_size=4,
        seconds=_seconds,
    )
