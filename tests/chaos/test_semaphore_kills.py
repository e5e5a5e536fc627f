"""SIGKILL at any moment of a semaphore's life: no permit is lost, and none is there twice (G4)."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
import warnings
from typing import Any

import pytest

import procession
from procession import OwnerDiedWarning
from procession._shared.memory import Region

PEOPLE = 5
PERMITS = 2
STALL = 30.0  # seconds without anybody getting a permit: a hang
VISITS, VIOLATIONS, INSIDE = 64, 72, 80  # offsets of words: two counts, and a mark for each person


class Board:
    """Words that all see, without any lock of their own."""

    def __init__(self) -> None:
        self.region = Region.create(4096)
        self.view = memoryview(self.region.memory)

    def get(self, at: int) -> int:
        return int(struct.unpack_from("q", self.view, at)[0])

    def put(self, at: int, value: int) -> None:
        struct.pack_into("q", self.view, at, value)

    def visitors(self) -> tuple[int, ...]:
        """The mark of each person who has a permit, or 0."""
        return struct.unpack_from(f"{PEOPLE}q", self.view, INSIDE)


def is_going(pid: int) -> bool:
    """Whether a process is dead or on its way out, by the kernel's own flags."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & 0x404)


def visit(semaphore: Any, board: Board, who: int, seed: int) -> None:
    """Take a permit again and again, and count who else has one."""
    chance = random.Random(seed)
    count = 0
    while True:
        kind = chance.randrange(4)
        if kind == 0 and not semaphore.acquire(timeout=chance.random() / 100):
            continue
        if kind == 1 and not semaphore.acquire(False):
            continue
        if kind >= 2:
            semaphore.__enter__()
        count += 1
        board.put(INSIDE + 8 * who, os.getpid() << 24 | count & 0xFFFFFF)
        # no visit has another's mark: those who are seen twice were inside at the same time
        seen = board.visitors()
        if seen == board.visitors():
            living = [mark for mark in seen if mark and not is_going(mark >> 24)]
            if len(living) > PERMITS:
                board.put(VIOLATIONS, board.get(VIOLATIONS) + 1)
        board.put(VISITS, board.get(VISITS) + 1)
        board.put(INSIDE + 8 * who, 0)
        semaphore.__exit__() if kind >= 2 else semaphore.release()


def start(semaphore: Any, board: Board, who: int, seed: int) -> int:
    board.put(INSIDE + 8 * who, 0)
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore", OwnerDiedWarning)
        visit(semaphore, board, who, seed)
    finally:
        os._exit(1)


def wait_progress(board: Board, before: int) -> float:
    """How long it takes until somebody was inside again."""
    begun = time.monotonic()
    while board.get(VISITS) == before:
        assert time.monotonic() - begun < STALL, "nobody gets a permit any more"
        time.sleep(0.0005)
    return time.monotonic() - begun


def ordeal(kind: str, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    board, semaphore = Board(), getattr(procession, kind)(PERMITS, reclaim=True)
    people = [start(semaphore, board, who, seed + who) for who in range(PEOPLE)]
    gaps = []
    try:
        for n in range(kills):
            time.sleep(chance.random() / 500)
            victim = chance.randrange(PEOPLE)
            if n % 10 == 9:  # a stopped one, who may be inside: the others take nothing of it
                os.kill(people[victim], signal.SIGSTOP)
                time.sleep(0.005)
            before = board.get(VISITS)
            os.kill(people[victim], signal.SIGKILL)
            gaps.append(wait_progress(board, before))
            os.waitpid(people[victim], 0)
            people[victim] = start(semaphore, board, victim, seed + PEOPLE + n)
    finally:
        for pid in people:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    gaps.sort()
    print(
        f"{kind}: {kills} kills, {board.get(VISITS)} visits, {semaphore.recovered} recovered; "
        f"gap p50 {gaps[kills // 2] * 1e3:.1f} p99 {gaps[kills * 99 // 100] * 1e3:.1f} "
        f"max {gaps[-1] * 1e3:.1f} ms"
    )
    assert board.get(VIOLATIONS) == 0
    assert semaphore.recovered > 0, "nobody was ever killed inside"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OwnerDiedWarning)
        assert [semaphore.acquire(timeout=STALL) for _ in range(PERMITS)] == [True] * PERMITS
        assert semaphore.acquire(False) is False, "there are more than there were"
    board.view.release()


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_kills_at_any_moment(kind: str, seed: int) -> None:
    ordeal(kind, 100, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_thousand_kills_at_any_moment(kind: str, seed: int) -> None:
    ordeal(kind, 1000, seed)
