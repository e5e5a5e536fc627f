"""Slots: death at every instruction of every operation, by the driver single_step.c."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.building import build


@pytest.mark.parametrize(
    "operation", ["end", "end_crowded", "claim", "ask", "finish", "take", "drop", "free"]
)
def test_death_at_every_instruction(slots: Path, operation: str) -> None:
    done = subprocess.run([slots, operation], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    return build("single_step", tmp_path_factory.mktemp("driver"))
