"""Locks: death at every instruction of every operation, by the driver lock_step.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native import steps

CORE = ["table", "slot", "life", "kernel", "death", "identity", "mutex", "wait", "lock"]
OPERATIONS = {
    "try": 30,
    "take": 100,
    "release": 40,
    "take_over": 100,
    "poll": 100,
    "wait": 100,
    "leave": 30,
    "mutex": 40,
    "mutex_take_over": 100,
    "visit": 5,
}
"""And how many instructions they have at least."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.build(tmp_path_factory.mktemp("driver"), "lock_step", CORE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation])


@pytest.mark.slow
def test_death_at_every_instruction_of_becoming_somebody(driver: Path) -> None:
    steps.assert_survived(driver, "visit", OPERATIONS["visit"], stride=7)
