"""A mix of everything with random kills: nothing may grow.

    python -m benchmarks.soak              an hour
    python -m benchmarks.soak --quick      two minutes

Memory, descriptors, processes and shared memory of the whole program are taken between rounds, from
/proc alone; the first third warms up. Exit status 1 where the last third has more than the second.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil

import procession

HOUR, QUICK = 3600.0, 120.0
METHODS = ("forkserver", "forkserver", "spawn", "fork")  # as often as they are used
LIMIT = 120.0  # seconds for whatever a round waits for
MARK = "PROCESSION_SOAK"  # in the environment of all that main starts, and not in its own
MEMORY = 4.0  # MB that the medians of two thirds may differ by: the allocator's own play
DESCRIPTORS = 2  # the same: the keeper's own play; a leak in each round is a multiple of it


class Sample(NamedTuple):
    """What the program has at one moment."""

    memory: float
    descriptors: int
    processes: int
    segments: int


def everyone() -> list[psutil.Process]:
    """This process and all that carries its mark, whoever the parents are: a keeper is nobody's
    child where start method fork came first, and an orphan would not be ours any more."""
    found = [psutil.Process()]
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == os.environ[MARK]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def sample() -> Sample:
    """The least of a few looks, when what was ended is gone: what a keeper has in passing (a pidfd,
    a spare that has no name yet) is nothing that grows."""
    gc.collect()
    looks = [look()]
    for _ in range(4):
        time.sleep(0.02)
        looks.append(look())
    return Sample(*(min(values) for values in zip(*looks, strict=True)))


def look() -> Sample:
    """What the whole program has now."""
    memory, descriptors, processes = 0.0, 0, 0
    for being in everyone():
        try:
            if being.name() == "pn-spare":  # a stock of them is kept, and is larger after a burst
                continue
            held, opened = being.memory_info().rss / 1e6, being.num_fds()
        except psutil.Error:
            continue
        memory, descriptors, processes = memory + held, descriptors + opened, processes + 1
    # by the name that SharedMemory gives: others on the machine have theirs in there, too
    segments = sum(name.startswith("psm_") for name in os.listdir("/dev/shm"))
    return Sample(memory, descriptors, processes, segments)


# --- what children do -----------------------------------------------------------------------------


def hold(lock: Any, ready: Any) -> None:
    """Die with a lock in the hands."""
    lock.acquire()
    ready.set()
    time.sleep(LIMIT)


def put(queue: Any, count: int) -> None:
    """Put items, and die at any of them."""
    for number in range(count):
        queue.put((number, b"x" * 1000))


def work(number: int) -> int:
    """A call that may kill its worker."""
    if number % 17 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


# --- rounds ---------------------------------------------------------------------------------------


def ends_of_processes(ctx: Any, chance: random.Random) -> None:
    """Processes that end in all ways."""
    targets: list[tuple[Callable[..., object], tuple[Any, ...]]] = [
        (abs, (1,)),
        (time.sleep, (LIMIT,)),
        (sys.exit, (3,)),
        (os._exit, (4,)),
    ]
    processes = []
    for _ in range(6):
        target, args = chance.choice(targets)
        process = ctx.Process(target=target, args=args)
        process.start()
        processes.append((process, target is time.sleep))
    for process, endless in processes:
        if endless:
            chance.choice([process.kill, process.terminate, lambda p=process: p.stop(0.5)])()
        process.join(LIMIT)
        assert process.exitcode is not None
        process.close()


def dead_holders(ctx: Any, chance: random.Random) -> None:
    """A lock whose holder is killed."""
    lock, ready = ctx.Lock(), ctx.Event()
    process = ctx.Process(target=hold, args=(lock, ready))
    process.start()
    assert ready.wait(LIMIT)
    process.kill()
    assert lock.acquire(timeout=LIMIT)
    lock.release()
    process.join(LIMIT)
    process.close()


def dead_putters(ctx: Any, chance: random.Random) -> None:
    """A queue whose putter is killed at any moment."""
    queue = ctx.Queue()
    process = ctx.Process(target=put, args=(queue, 1_000_000))
    process.start()
    for _ in range(chance.randrange(1, 200)):
        queue.get(timeout=LIMIT)
    process.kill()
    process.join(LIMIT)
    while not queue.empty():
        queue.get(timeout=LIMIT)
    queue.close()
    process.close()


def dead_workers(ctx: Any, chance: random.Random) -> None:
    """A pool of which some calls kill their worker."""
    with ctx.Pool(2) as pool:
        first = chance.randrange(100)
        results = [pool.apply_async(work, (number,)) for number in range(first, first + 30)]
        for number, result in enumerate(results, start=first):
            try:
                assert result.get(LIMIT) == number
            except procession.WorkerDied:
                assert number % 17 == 3


def dead_managers(ctx: Any, chance: random.Random) -> None:
    """A manager whose server is killed, or not."""
    with ctx.Manager() as manager:
        words = manager.dict(a=1)
        if chance.random() < 0.5:
            os.kill(manager._process.pid, signal.SIGKILL)
            try:
                words["a"]
            except procession.ManagerDied:
                return
            raise AssertionError("a dead server answered")
        assert words["a"] == 1


def segment(name: str) -> None:
    """Attach to a segment, and die."""
    from procession.shared_memory import SharedMemory

    attached = SharedMemory(name)
    attached.buf[0] = 7
    os.kill(os.getpid(), signal.SIGKILL)


def dead_users_of_memory(ctx: Any, chance: random.Random) -> None:
    """Named memory, values and arrays, of which users are killed."""
    from procession.shared_memory import SharedMemory

    named, value = SharedMemory(create=True, size=1 << 20), ctx.Array("i", 1000)
    process = ctx.Process(target=segment, args=(named.name,))
    process.start()
    process.join(LIMIT)
    assert named.buf[0] == 7
    named.close()
    named.unlink()
    process.close()
    del value


ROUNDS = (
    ends_of_processes,
    dead_holders,
    dead_putters,
    dead_workers,
    dead_managers,
    dead_users_of_memory,
)


def soak(seconds: float, chance: random.Random) -> list[Sample]:
    """Play rounds for so long; a sample after each time through all of them."""
    samples = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for play in ROUNDS:
            play(procession.get_context(chance.choice(METHODS)), chance)
        samples.append(sample())
    return samples


def verdict(samples: list[Sample]) -> list[str]:
    """What grew, in words: medians of the last third against those of the second."""
    third = len(samples) // 3
    grown = []
    for field, play in zip(Sample._fields, (MEMORY, DESCRIPTORS, 0, 0), strict=True):
        values = [getattr(each, field) for each in samples]
        before = statistics.median(values[third : 2 * third])
        after = statistics.median(values[2 * third :])
        print(f"{field:12} {before:10.1f} → {after:10.1f}   (most {max(values):.1f})")
        if after > before + play:
            grown.append(field)
    return grown


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    seconds = options.seconds or (QUICK if options.quick else HOUR)
    print(f"seed {options.seed}, {seconds:.0f} s", flush=True)
    os.environ[MARK] = str(os.getpid())
    warnings.simplefilter("ignore")  # locks of the dead are told of, and threads beside a fork
    samples = soak(seconds, random.Random(options.seed))
    print(f"{len(samples)} times through {len(ROUNDS)} kinds of rounds")
    if len(samples) < 6:
        print("too few to judge: give it more time")
        return 2
    grown = verdict(samples)
    print(f"GREW: {', '.join(grown)}" if grown else "nothing grew")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
