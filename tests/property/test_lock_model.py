"""Lock and RLock against a model of three lines: two threads of main and two other processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procession

PATIENCE = 60.0
OPERATIONS = ("poll", "no time", "acquire", "release", "is mine", "locked", "count")
steps = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(OPERATIONS)), max_size=25)


def do(lock: Any, operation: str) -> Any:
    """An operation's answer, or its error."""
    try:
        if operation == "poll":
            return lock.acquire(False)
        if operation == "no time":
            return lock.acquire(True, -1)
        if operation == "acquire":
            return lock.acquire(timeout=0.0)
        if operation == "release":
            return lock.release()
        if operation == "is mine":
            return lock._semlock._is_mine()
        if operation == "count":
            return lock._semlock._count()
        return (lock._semlock._is_zero(), lock._semlock._get_value())
    except (ValueError, AssertionError) as error:
        return type(error).__name__, str(error)


def obey(lock: Any, connection: Any) -> None:
    """What another process does with it."""
    while (operation := connection.recv()) is not None:
        connection.send(do(lock, operation))


class Model:
    """Who has it, and how often."""

    def __init__(self, recursive: bool) -> None:
        self.recursive, self.holder, self.count = recursive, None, 0

    def do(self, who: int, operation: str) -> Any:
        mine = self.holder == who
        if operation in ("poll", "no time", "acquire"):
            if self.count and not (mine and self.recursive):
                return False
            self.holder, self.count = who, self.count + 1
            return True
        if operation == "release":
            if self.recursive and not mine:
                return (
                    "AssertionError",
                    "attempt to release recursive lock not owned by thread",
                )
            if not self.count:
                return "ValueError", "semaphore or lock released too many times"
            self.count -= 1
            if not self.count:
                self.holder = None
            return None
        if operation == "is mine":
            return mine
        if operation == "count":
            beside = self.holder is not None and (self.holder < 2) == (who < 2)
            return self.count if mine or (beside and who < 2) else 0
        return (self.count > 0, int(self.count == 0))


class OtherThread:
    """A thread of main that does what it is told."""

    def __init__(self, lock: Any) -> None:
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._obey, args=(lock,))
        self._thread.start()

    def _obey(self, lock: Any) -> None:
        while (operation := self._orders.get()) is not None:
            self._answers.put(do(lock, operation))

    def do(self, operation: str) -> Any:
        self._orders.put(operation)
        return self._answers.get(timeout=PATIENCE)

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join(PATIENCE)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_they_do_what_the_model_does(kind: str) -> None:
    lock = getattr(procession, kind)()
    thread = OtherThread(lock)
    pairs = [procession.Pipe() for _ in range(2)]
    processes = [procession.Process(target=obey, args=(lock, there)) for _, there in pairs]
    for process in processes:
        process.start()

    def ask(connection: Any) -> Callable[[str], Any]:
        def send(operation: str) -> Any:
            connection.send(operation)
            assert connection.poll(PATIENCE), "no answer"
            return connection.recv()

        return send

    people = [lambda operation: do(lock, operation), thread.do, *(ask(here) for here, _ in pairs)]

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=steps)
    def compare(steps: list[tuple[int, str]]) -> None:
        model = Model(kind == "RLock")
        try:
            for who, operation in steps:
                assert people[who](operation) == model.do(who, operation), (who, operation)
        finally:
            while lock.locked():
                people[model.holder or 0]("release")

    try:
        compare()
    finally:
        thread.close()
        for here, _ in pairs:
            here.send(None)
        for process in processes:
            process.join(PATIENCE)
        for end in (end for pair in pairs for end in pair):
            end.close()
