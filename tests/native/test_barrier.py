"""Barrier: death at every instruction of every operation, by the driver barrier_step.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native import steps

CORE = ["table", "slot", "life", "kernel", "death", "identity", "mutex", "wait", "barrier"]
OPERATIONS = {
    "come": 150,
    "meet": 300,
    "act": 400,
    "fail": 300,
    "time_out": 300,
    "abort": 150,
    "reset": 200,
    "leave": 100,
    "settle": 200,
}
"""And how many instructions they have at least."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.build(tmp_path_factory.mktemp("driver"), "barrier_step", CORE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_many_instructions(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation], stride=29)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation], limit=300)
