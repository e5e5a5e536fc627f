"""Locks: death at every instruction of every operation, by the driver lock_step.c."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.people import SOURCES

CORE = ["table", "slot", "life", "kernel", "death", "identity", "mutex", "wait", "lock"]
DRIVERS = Path(__file__).parent / "drivers"
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
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    program = tmp_path_factory.mktemp("driver") / "lock_step"
    subprocess.run(
        [
            *["gcc", "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"],
            f"-I{SOURCES}",
            f"-I{DRIVERS}",
            str(DRIVERS / "lock_step.c"),
            *(str(SOURCES / f"{name}.c") for name in CORE),
            *["-pthread", "-Wl,-z,now", "-o"],  # no symbol is looked up while it is stepped
            str(program),
        ],
        check=True,
        timeout=100,
    )
    return program


@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    done = subprocess.run([driver, operation], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = re.search(r"killed at (\d+) instructions", done.stdout)
    assert found
    assert int(found[1]) >= OPERATIONS[operation], "it was not stepped through"


@pytest.mark.slow
def test_death_at_every_instruction_of_becoming_somebody(driver: Path) -> None:
    done = subprocess.run([driver, "visit", "7"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
