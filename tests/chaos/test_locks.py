"""SIGKILL at any moment of a lock's life: nobody hangs, and two are never inside (G4)."""

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
STALL = 30.0  # seconds without anybody getting the lock: a hang
INSIDE, VISITS, VIOLATIONS = 64, 72, 80  # offsets of words: a pid, and two counts


class Board:
    """Words that all see, without any lock of their own."""

    def __init__(self) -> None:
        self.region = Region.create(4096)
        self.view = memoryview(self.region.memory)

    def get(self, at: int) -> int:
        return int(struct.unpack_from("q", self.view, at)[0])

    def put(self, at: int, value: int) -> None:
        struct.pack_into("q", self.view, at, value)


def is_going(pid: int) -> bool:
    """Whether a process is dead or on its way out, by the kernel's own flags."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & 0x404)


def visit(lock: Any, board: Board, seed: int) -> None:
    """Take the lock again and again, and look who else is inside."""
    chance = random.Random(seed)
    me = os.getpid()
    while True:
        kind = chance.randrange(4)
        if kind == 0 and not lock.acquire(timeout=chance.random() / 100):
            continue
        if kind == 1 and not lock.acquire(False):
            continue
        if kind >= 2:
            lock.acquire()
        other = board.get(INSIDE)
        if other and not is_going(other):
            board.put(VIOLATIONS, board.get(VIOLATIONS) + 1)
        board.put(INSIDE, me)
        for _ in range(chance.randrange(200)):
            if board.get(INSIDE) != me:
                board.put(VIOLATIONS, board.get(VIOLATIONS) + 1)
        board.put(VISITS, board.get(VISITS) + 1)
        board.put(INSIDE, 0)
        lock.release()


def start(lock: Any, board: Board, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore", OwnerDiedWarning)
        visit(lock, board, seed)
    finally:
        os._exit(1)


def wait_progress(board: Board, before: int) -> float:
    """How long it takes until somebody was inside again."""
    begun = time.monotonic()
    while board.get(VISITS) == before:
        assert time.monotonic() - begun < STALL, "nobody gets the lock any more"
        time.sleep(0.0005)
    return time.monotonic() - begun


def ordeal(kind: str, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    board, lock = Board(), getattr(procession, kind)()
    people = [start(lock, board, seed + n) for n in range(PEOPLE)]
    gaps = []
    try:
        for n in range(kills):
            time.sleep(chance.random() / 500)
            victim = chance.randrange(PEOPLE)
            if n % 10 == 9:  # a stopped one, who may be inside: the others wait, and take nothing
                os.kill(people[victim], signal.SIGSTOP)
                time.sleep(0.005)
            before = board.get(VISITS)
            os.kill(people[victim], signal.SIGKILL)
            gaps.append(wait_progress(board, before))
            os.waitpid(people[victim], 0)
            people[victim] = start(lock, board, seed + PEOPLE + n)
        wait_progress(board, board.get(VISITS))
    finally:
        for pid in people:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    gaps.sort()
    print(
        f"{kind}: {kills} kills, {board.get(VISITS)} visits, {lock.recovered} recovered; gap p50 "
        f"{gaps[kills // 2] * 1e3:.1f} p99 {gaps[kills * 99 // 100] * 1e3:.1f} max "
        f"{gaps[-1] * 1e3:.1f} ms"
    )
    assert board.get(VIOLATIONS) == 0
    assert lock.recovered > 0, "nobody was ever killed inside"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OwnerDiedWarning)
        assert lock.acquire(timeout=STALL)
    board.view.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_kills_at_any_moment(kind: str, seed: int) -> None:
    ordeal(kind, 150, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_thousand_kills_at_any_moment(kind: str, seed: int) -> None:
    ordeal(kind, 1000, seed)
