"""Condition: death at every instruction of every operation, by the driver condition_step.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native import steps

CORE = ["table", "slot", "life", "kernel", "death", "identity", "mutex", "wait", "condition"]
OPERATIONS = {
    "enter": 200,
    "enter_grown": 400,
    "notify": 300,
    "notify_two": 300,
    "notify_all": 200,
    "notify_idle": 200,
    "wait": 150,
    "wait_before_others": 150,
    "give_up": 200,
    "time_out": 200,
    "relieve": 300,
    "repair": 200,
}
"""And how many instructions they have at least."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.build(tmp_path_factory.mktemp("driver"), "condition_step", CORE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_many_instructions(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation], stride=29)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation], limit=300)
