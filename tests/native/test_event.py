"""Event: death at every instruction of every operation, by the driver event_step.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native import steps

CORE = ["table", "slot", "life", "kernel", "death", "identity", "wait", "event"]
OPERATIONS = {"set": 25, "set_and_clear": 30, "clear": 10, "wait": 80, "wait_set": 60}
"""And how many instructions they have at least."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.build(tmp_path_factory.mktemp("driver"), "event_step", CORE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    steps.assert_survived(driver, operation, OPERATIONS[operation])
