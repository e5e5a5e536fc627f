"""Semaphores against a model of one number: main, a thread of it, and another process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procession

PATIENCE = 60.0
OPERATIONS = ("poll", "no time", "enter", "exit", "release", "value")
steps = st.lists(st.tuples(st.booleans(), st.sampled_from(OPERATIONS)), max_size=30)


def do(semaphore: Any, operation: str) -> Any:
    """An operation's answer, or its error."""
    try:
        if operation == "poll":
            return semaphore.acquire(False)
        if operation == "no time":
            return semaphore.acquire(True, -1)
        if operation == "enter":
            return semaphore.get_value() > 0 and semaphore.__enter__()
        if operation == "exit":
            return semaphore.__exit__(None, None, None)
        if operation == "release":
            return semaphore.release()
        return semaphore.get_value(), semaphore.locked()
    except ValueError as error:
        return str(error)


def obey(connection: Any) -> None:
    """What another process does with one semaphore after the other."""
    semaphore: Any = None
    while (order := connection.recv()) is not None:
        if isinstance(order, str):
            connection.send(do(semaphore, order))
        else:
            semaphore = order


def expect(value: int, bound: float, operation: str) -> tuple[Any, int]:
    """What an operation answers, and what the value is then."""
    if operation in ("poll", "no time", "enter"):
        return value > 0, value - (value > 0)
    if operation in ("exit", "release"):
        if value >= bound:
            return "semaphore or lock released too many times", value
        return None, value + 1
    return (value, value == 0), value


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_it_counts_as_a_number_does(kind: str) -> None:
    context = procession.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=obey, args=(there,))
    process.start()

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.integers(0, 3), st.booleans(), steps)
    def check(first: int, reclaim: bool, orders: list[tuple[bool, str]]) -> None:
        semaphore = getattr(context, kind)(first, reclaim=reclaim)
        here.send(semaphore)
        value, bound = first, first if kind == "BoundedSemaphore" else float("inf")
        for other, operation in orders:
            answer, value = expect(value, bound, operation)
            if other:
                here.send(operation)
                assert here.poll(PATIENCE)
                assert here.recv() == answer
            else:
                assert do(semaphore, operation) == answer
        assert semaphore.recovered == 0

    try:
        check()
    finally:
        here.send(None)
        process.join(PATIENCE)
        for end in (here, there):
            end.close()
