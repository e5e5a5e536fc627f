"""Semaphore: death at every instruction of every operation, by the driver semaphore_step.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native import steps

CORE = [
    *["table", "slot", "life", "kernel", "death", "identity", "mutex", "wait", "gate"],
    "memory",
    "semaphore",
]
OPERATIONS = {
    "grow": 150,
    "try": 100,
    "take": 100,
    "poll": 100,
    "wait": 200,
    "reclaim": 150,
    "release": 100,
    "release_foreign": 80,
    "leave": 80,
}
"""And how many instructions they have at least."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.build(tmp_path_factory.mktemp("driver"), "semaphore_step", CORE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation])
