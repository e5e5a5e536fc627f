"""Locks: taken and let go, waited for, and taken over from the dead."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import targets
from benchmarks.bench import AtMost, Benchmark, Versus
from benchmarks.cases.shared import of_each

PEER = "forkserver"  # which start method makes no difference to what is measured here
MB = 1_000_000
LIMIT = 60.0  # seconds for what takes milliseconds


# --- nobody else wants it -----------------------------------------------------------------------


def alone(kind: str) -> Callable[[Any, int], Iterator[float]]:
    """`acquire()` and `release()`."""

    def samples(mp: Any, rounds: int) -> Iterator[float]:
        lock = getattr(mp, kind)()
        acquire, release = lock.acquire, lock.release

        def once() -> None:
            acquire()
            release()

        yield from of_each(once, rounds)

    return samples


def alone_with(kind: str) -> Callable[[Any, int], Iterator[float]]:
    """`with lock: pass`."""

    def samples(mp: Any, rounds: int) -> Iterator[float]:
        lock = getattr(mp, kind)()
        while True:
            began = time.perf_counter()
            for _ in range(rounds):
                with lock:
                    pass
            yield (time.perf_counter() - began) / rounds

    return samples


def read_value(mp: Any, rounds: int) -> Iterator[float]:
    """`value.value` of a value with its lock."""
    value = mp.Value("i")
    yield from of_each(lambda: value.value, rounds)


def is_set(mp: Any, rounds: int) -> Iterator[float]:
    """`is_set()` of an event."""
    yield from of_each(mp.Event().is_set, rounds)


for _name, _title, _measure, _least in (
    ("alone", "`Lock.acquire()` and `release()`, uncontended", alone("Lock"), 1.0),
    ("alone_rlock", "`RLock.acquire()` and `release()`, uncontended", alone("RLock"), 1.0),
    ("with", "`with lock: pass`, uncontended", alone_with("Lock"), 2.0),
    ("with_rlock", "`with rlock: pass`, uncontended", alone_with("RLock"), 2.0),
    (
        "semaphore",
        "`Semaphore.acquire()` and `release()`, uncontended",
        alone("Semaphore"),
        0.7,
    ),
    ("with_semaphore", "`with semaphore: pass`, uncontended", alone_with("Semaphore"), 1.2),
    ("is_set", "`Event.is_set()`", is_set, 5.0),
    ("value", "`value.value` of a `Value` with its lock", read_value, 1.0),
):
    Benchmark(
        f"locks.{_name}",
        _title,
        _measure,
        goals=[Versus(PEER, _least)],
        size=50_000,
        quick_size=100,
        batch=3,
        seconds=4.0,
    )


# --- others want it too -------------------------------------------------------------------------


def in_turn(people: int) -> Callable[[Any, int], Iterator[float]]:
    """One `acquire()` and `release()` while so many processes do nothing else."""

    def samples(mp: Any, rounds: int) -> Iterator[float]:
        lock = mp.Lock()
        pairs = [mp.Pipe() for _ in range(people)]
        processes = [mp.Process(target=targets.take_turns, args=(b, lock)) for _, b in pairs]
        for process in processes:
            process.start()
        for _, there in pairs:
            there.close()
        connections = [here for here, _ in pairs]
        try:
            while True:
                began = time.perf_counter()
                for connection in connections:
                    connection.send(rounds)
                for connection in connections:
                    connection.recv()
                yield (time.perf_counter() - began) / (rounds * people)
        finally:
            for connection in connections:
                connection.close()
            for process in processes:
                process.join()

    return samples


for _people in (2, 4):
    Benchmark(
        f"locks.contended_{_people}",
        f"one `acquire()` and `release()` while {_people} processes want the lock",
        in_turn(_people),
        goals=[Versus(PEER, None)],
        size=50_000,
        quick_size=100,
        seconds=6.0,
    )


def wake_up(mp: Any, rounds: int) -> Iterator[float]:
    """From a `set()` until who waits goes on; half of there and back."""
    there, back = mp.Event(), mp.Event()
    process = mp.Process(target=targets.answer_events, args=(there, back), daemon=True)
    process.start()
    try:
        while True:
            began = time.perf_counter()
            for _ in range(rounds):
                there.set()
                back.wait()
                back.clear()
            yield (time.perf_counter() - began) / rounds / 2
    finally:
        process.terminate()
        process.join()


Benchmark(
    "locks.event_wake_up",
    "from `Event.set()` until a process that waits goes on",
    wake_up,
    goals=[Versus(PEER, 1.0)],
    size=2_000,
    quick_size=20,
    seconds=4.0,
)


def idle(mp: Any, people: int) -> Iterator[float]:
    """CPU time that so many waiters take in a second; after a while, when nothing is young."""
    lock = mp.Lock()
    lock.acquire()
    pairs = [mp.Pipe(duplex=False) for _ in range(people)]
    processes = [
        mp.Process(target=targets.wait_for_lock, args=(sender, lock), daemon=True)
        for _, sender in pairs
    ]
    for process in processes:
        process.start()
    try:
        for receiver, _ in pairs:
            receiver.recv()
        time.sleep(1)
        while True:
            before, began = cpu_of(processes), time.perf_counter()
            time.sleep(10)
            yield (cpu_of(processes) - before) / (time.perf_counter() - began)
    finally:
        lock.release()
        for process in processes:
            process.join()


def cpu_of(processes: list[Any]) -> float:
    """Seconds of CPU that they have taken so far, of all their threads."""
    total = 0
    for process in processes:
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with open(f"/proc/{process.pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
    return total / 1e9


Benchmark(
    "locks.idle",
    "CPU time in a second of 100 processes that wait for a lock",
    idle,
    goals=[AtMost(0.001)],
    size=100,
    quick_size=2,
    seconds=20.0,
    rounds=1,
)


# --- conditions and barriers --------------------------------------------------------------------


def ping_pong(mp: Any, rounds: int) -> Iterator[float]:
    """Give the turn to another process by a condition, and get it back."""
    condition, turn = mp.Condition(), mp.Value("i", 0, lock=False)
    here, there = mp.Pipe()
    process = mp.Process(target=targets.play, args=(there, condition, turn))
    process.start()
    there.close()
    try:
        while True:
            here.send(rounds)
            began = time.perf_counter()
            with condition:
                for _ in range(rounds):
                    turn.value = 1
                    condition.notify()
                    while turn.value != 0:
                        condition.wait()
            yield (time.perf_counter() - began) / rounds
    finally:
        here.close()
        process.join()


def meeting(mp: Any, parties: int) -> Iterator[float]:
    """Meet at a barrier, all of them processes but one."""
    rounds = 100
    barrier = mp.Barrier(parties)
    pairs = [mp.Pipe() for _ in range(parties - 1)]
    processes = [mp.Process(target=targets.meet, args=(there, barrier)) for _, there in pairs]
    for process in processes:
        process.start()
    for _, there in pairs:
        there.close()
    try:
        while True:
            for here, _ in pairs:
                here.send(rounds)
            barrier.wait()
            began = time.perf_counter()
            for _ in range(rounds - 1):
                barrier.wait()
            yield (time.perf_counter() - began) / (rounds - 1)
    finally:
        for here, _ in pairs:
            here.close()
        for process in processes:
            process.join()


Benchmark(
    "locks.condition",
    "a turn given to another process by a `Condition`, and got back",
    ping_pong,
    goals=[Versus(PEER, None)],
    size=500,
    quick_size=10,
    seconds=5.0,
)
Benchmark(
    "locks.barrier",
    "four processes meet at a `Barrier`",
    meeting,
    goals=[Versus(PEER, None)],
    size=4,
    quick_size=2,
    seconds=5.0,
)


# --- its holder is killed -----------------------------------------------------------------------


def gaps(mp: Any, kills: int, size: int, threads: int) -> list[float]:
    """For each SIGKILL of a holder, the time until main, who waits, has the lock."""
    found = []
    for _ in range(kills):
        lock = mp.Lock()
        here, there = mp.Pipe()
        holder = mp.Process(target=targets.die_with_lock, args=(there, lock, size, threads))
        holder.start()
        here.recv()
        killed = []

        def kill(pid: int = holder.pid, killed: list[float] = killed) -> None:
            time.sleep(random.uniform(0.0, 0.06))  # young waits and old ones
            killed.append(time.perf_counter())
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        if not lock.acquire(timeout=LIMIT):
            raise RuntimeError("the lock of a killed process was never taken over")
        found.append(time.perf_counter() - killed[0])
        lock.release()
        killer.join()
        holder.join()
        here.close()
        there.close()
    return sorted(found)


def gaps_of_watchers(mp: Any, kills: int) -> list[float]:
    """The same for the next of ten waiters, two of whom are killed with the holder."""
    found = []
    for _ in range(kills):
        lock = mp.Lock()
        here, there = mp.Pipe()
        holder = mp.Process(target=targets.die_with_lock, args=(there, lock, 0, 0))
        holder.start()
        here.recv()
        pairs = [mp.Pipe(duplex=False) for _ in range(10)]
        waiters = [mp.Process(target=targets.wait_for_lock, args=(b, lock)) for _, b in pairs]
        for waiter in waiters:  # the first ones take the offices of those who watch
            waiter.start()
        for receiver, _ in pairs:
            receiver.recv()
        time.sleep(0.1)
        killed = time.perf_counter()
        for process in (waiters[0], waiters[1], holder):
            os.kill(process.pid, signal.SIGKILL)
        found.append(min(receiver.recv() for receiver, _ in pairs[2:]) - killed)
        for process in (holder, *waiters):
            process.join()
        for end in (here, there, *(end for pair in pairs for end in pair)):
            end.close()
    return sorted(found)


def part(
    fraction: float, measure: Callable[[Any, int], list[float]]
) -> Callable[[Any, int], Iterator[float]]:
    """A percentile of so many gaps; 1.0 is the longest."""

    def samples(mp: Any, kills: int) -> Iterator[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while True:
                found = measure(mp, kills)
                yield found[min(len(found) - 1, int(fraction * len(found)))]

    return samples


for _name, _title, _measure, _kills in (
    ("1mb", "1 MB in use", lambda mp, kills: gaps(mp, kills, MB, 0), 200),
    ("threads", "32 threads", lambda mp, kills: gaps(mp, kills, MB, 32), 200),
    ("500mb", "500 MB in use", lambda mp, kills: gaps(mp, kills, 500 * MB, 0), 30),
    ("watchers", "two of ten waiters killed as well", gaps_of_watchers, 30),
):
    for _part, _fraction, _most in (("p99", 0.99, 0.025), ("max", 1.0, 0.050)):
        Benchmark(
            f"locks.gap_{_name}_{_part}",
            f"SIGKILL of a lock's holder until a waiter has it, {_title}: {_part} of {_kills}",
            part(_fraction, _measure),
            goals=[AtMost(_most)],
            size=_kills,
            quick_size=1,
            seconds=5.0,
            rounds=1,
        )
