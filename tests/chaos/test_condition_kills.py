"""SIGKILL at any moment at a condition or a barrier: nobody waits for the dead (G4, G6)."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
import warnings
from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Any

import pytest

import procession
from procession import OwnerDiedWarning
from procession._shared.memory import Region

PEOPLE = 5
STALL = 30.0  # seconds without a step forward: a hang
SOON = 3.0  # who lost its wake-up would look by itself only later


class Board:
    """Words that all see, without any lock of their own."""

    def __init__(self) -> None:
        self.region = Region.create(4096)
        self.view = memoryview(self.region.memory)

    def get(self, at: int) -> int:
        return int(struct.unpack_from("q", self.view, 64 + 8 * at)[0])

    def put(self, at: int, value: int) -> None:
        struct.pack_into("q", self.view, 64 + 8 * at, value)


def start(act: Callable[..., None], *args: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore", OwnerDiedWarning)
        act(*args)
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def say(what: str, kills: int, gaps: list[float], more: str) -> None:
    gaps.sort()
    print(
        f"{what}: {kills} kills, {more}: p50 {gaps[len(gaps) // 2] * 1e3:.1f} "
        f"p99 {gaps[len(gaps) * 99 // 100] * 1e3:.1f} max {gaps[-1] * 1e3:.1f} ms"
    )
    assert gaps[-1] < SOON, "a wake-up was lost"


# --- condition ------------------------------------------------------------------------------------

ITEMS, TAKEN = 0, 1


def consume(condition: Any, board: Board) -> None:
    """Take an item whenever there is one."""
    with condition:
        while True:
            while board.get(ITEMS) == 0:
                condition.wait()
            board.put(TAKEN, board.get(TAKEN) + 1)
            board.put(ITEMS, board.get(ITEMS) - 1)


def produce(condition: Any, board: Board, seed: int) -> None:
    """Make some items whenever there are none, and notify as many, or all."""
    chance = random.Random(seed)
    while True:
        if board.get(ITEMS) == 0:
            if chance.randrange(10) == 0:
                time.sleep(0.05)  # until those who wait sleep long
            many = chance.randrange(1, PEOPLE)
            with condition:
                board.put(ITEMS, many)
                if chance.randrange(3):
                    condition.notify(many)
                else:
                    condition.notify_all()
        time.sleep(0.0002)


def condition_ordeal(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    condition, board = procession.Condition(), Board()
    lock = condition._lock
    people = [start(consume, condition, board) for _ in range(PEOPLE)]
    producer = start(produce, condition, board, seed)
    gaps, seen = [], 0
    try:
        for n in range(kills):
            time.sleep(chance.random() / 300)
            victim = chance.randrange(PEOPLE + 1)
            begun, before = time.monotonic(), board.get(TAKEN)
            if victim == PEOPLE:
                kill(producer)
                producer = start(produce, condition, board, seed + n)
            else:
                kill(people[victim])
            while board.get(TAKEN) < before + 2 * PEOPLE:
                assert time.monotonic() - begun < STALL, "all wait, and there is something to take"
                time.sleep(0.0005)
                if lock.acquire(timeout=0.001):
                    if lock.recovered != seen:
                        # one died between wait() and wait(), or before notify(): its part is the
                        # next one's who has the lock, as that one is told
                        seen = lock.recovered
                        condition.notify_all()
                    lock.release()
            gaps.append(time.monotonic() - begun)
            if victim != PEOPLE:  # only now: who comes looks before it waits
                people[victim] = start(consume, condition, board)
    finally:
        for pid in (*people, producer):
            kill(pid)
    say(
        "Condition",
        kills,
        gaps,
        f"{board.get(TAKEN)} items, {lock.recovered} locks recovered; ten items, naps included",
    )
    board.view.release()


# --- barrier --------------------------------------------------------------------------------------

GO = PEOPLE  # which try it is; before it, of each person, the last try that was broken
NAMED = PEOPLE + 1  # of each person, who was said to have died, or 0


def meet(barrier: Any, board: Board, who: int) -> None:
    """Meet the others again and again, until it is broken; then wait for the next try."""
    rounds = 2 * PEOPLE + 1
    while True:
        turn = board.get(GO)
        try:
            while True:
                barrier.wait()
                board.put(rounds, board.get(rounds) + 1)
        except BrokenBarrierError as error:
            board.put(NAMED + who, getattr(error, "pid", 0))
        board.put(who, turn)
        while board.get(GO) == turn:
            time.sleep(0.0005)


def barrier_ordeal(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    barrier, board = procession.Barrier(PEOPLE), Board()
    board.put(GO, 1)
    people = [start(meet, barrier, board, who) for who in range(PEOPLE)]
    gaps, named = [], 0
    try:
        for turn in range(1, kills + 1):
            before = board.get(2 * PEOPLE + 1)
            begun = time.monotonic()
            while board.get(2 * PEOPLE + 1) < before + PEOPLE:
                assert time.monotonic() - begun < STALL, "they do not meet"
                time.sleep(0.0005)
            time.sleep(chance.random() / 300)
            victim = chance.randrange(PEOPLE)
            pid = people[victim]
            begun = time.monotonic()
            kill(pid)
            others = [who for who in range(PEOPLE) if who != victim]
            while any(board.get(who) != turn for who in others):
                assert time.monotonic() - begun < STALL, "somebody waits for the dead"
                if barrier.n_waiting == PEOPLE - 1:
                    barrier.abort()  # it died between two waits: nobody can know
                time.sleep(0.0005)
            gaps.append(time.monotonic() - begun)
            said = {board.get(NAMED + who) for who in others}
            assert said <= {0, pid}, "somebody else was named"
            named += said == {pid}
            barrier.reset()
            board.put(GO, turn + 1)
            people[victim] = start(meet, barrier, board, victim)
    finally:
        for pid in people:
            kill(pid)
    assert named > 0, "nobody was ever killed while it waited"
    say(
        "Barrier",
        kills,
        gaps,
        f"{board.get(2 * PEOPLE + 1)} waits, {named} named; until all are told",
    )
    board.view.release()


ORDEALS = pytest.mark.parametrize("ordeal", [condition_ordeal, barrier_ordeal])


@ORDEALS
@pytest.mark.filterwarnings("ignore::procession.OwnerDiedWarning")
def test_kills_at_any_moment(ordeal: Callable[[int, int], None], seed: int) -> None:
    ordeal(100, seed)


@pytest.mark.slow
@pytest.mark.timeout(500)
@ORDEALS
@pytest.mark.filterwarnings("ignore::procession.OwnerDiedWarning")
def test_a_thousand_kills_at_any_moment(ordeal: Callable[[int, int], None], seed: int) -> None:
    ordeal(1000, seed)
