"""SIGKILL at any moment of an event's life: whoever waits goes on once it is set (G4)."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from typing import Any

import pytest

import procession
from procession._shared.memory import Region

PEOPLE = 6
CONDUCTOR = PEOPLE  # who comes after them
STALL = 30.0  # seconds without a step forward: a hang


class Board:
    """Words that all see, one for each person, without any lock of their own."""

    def __init__(self) -> None:
        self.region = Region.create(4096)
        self.view = memoryview(self.region.memory)

    def get(self, who: int) -> int:
        return int(struct.unpack_from("q", self.view, 64 + 8 * who)[0])

    def put(self, who: int, value: int) -> None:
        struct.pack_into("q", self.view, 64 + 8 * who, value)

    def slowest(self) -> int:
        """The round that not all have left."""
        return min(self.get(who) for who in range(PEOPLE))


def be_person(events: list[Any], board: Board, who: int) -> None:
    """Go on from round to round, each time when its event is set; the rounds take turns."""
    while True:
        count = board.get(who)
        events[count % 2].wait()
        board.put(who, count + 1)


def be_conductor(events: list[Any], board: Board, seed: int) -> None:
    """Set each round's event once all have come to it; what a dead one began is done again."""
    chance = random.Random(seed)
    while True:
        turn = board.slowest()
        events[(turn + 1) % 2].clear()
        if chance.randrange(10) == 0:
            time.sleep(0.05)  # until those who wait sleep long
        events[turn % 2].set()
        while board.slowest() == turn:
            time.sleep(0.0002)


def start(events: list[Any], board: Board, who: int, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if who == CONDUCTOR:
            be_conductor(events, board, seed)
        else:
            be_person(events, board, who)
    finally:
        os._exit(1)


def wait_rounds(board: Board, rounds: int) -> float:
    """How long it takes until all have gone on so often."""
    begun, wanted = time.monotonic(), board.slowest() + rounds
    while board.slowest() < wanted:
        assert time.monotonic() - begun < STALL, "somebody waits for what was set"
        time.sleep(0.0005)
    return time.monotonic() - begun


def ordeal(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    board, events = Board(), [procession.Event(), procession.Event()]
    people = [start(events, board, who, seed + who) for who in range(PEOPLE + 1)]
    gaps = []
    try:
        for n in range(kills):
            time.sleep(chance.random() / 500)
            victim = chance.choice((CONDUCTOR, chance.randrange(PEOPLE)))
            os.kill(people[victim], signal.SIGKILL)
            os.waitpid(people[victim], 0)
            people[victim] = start(events, board, victim, seed + PEOPLE + n)
            gaps.append(wait_rounds(board, 2))
    finally:
        for pid in people:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    gaps.sort()
    print(
        f"Event: {kills} kills, {board.slowest()} rounds; two rounds "
        f"p50 {gaps[kills // 2] * 1e3:.1f} p99 {gaps[kills * 99 // 100] * 1e3:.1f} "
        f"max {gaps[-1] * 1e3:.1f} ms"
    )
    # one that lost its wake would look by itself after 5 s
    assert gaps[-1] < 3.0, "a wake was lost"
    board.view.release()


def test_kills_at_any_moment(seed: int) -> None:
    ordeal(150, seed)


@pytest.mark.slow
def test_a_thousand_kills_at_any_moment(seed: int) -> None:
    ordeal(1000, seed)
