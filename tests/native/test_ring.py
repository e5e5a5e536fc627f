"""The ring: death at every instruction of every operation, by the driver ring_step.c."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.people import SOURCES

CORE = [
    "table",
    "slot",
    "life",
    "kernel",
    "death",
    "identity",
    "mutex",
    "wait",
    "gate",
    "extents",
    "users",
    "ring_room",
    "ring",
]
DRIVERS = Path(__file__).parent / "drivers"
QUICK = ["put", "get", "wake_getter", "wake_putter", "done", "shut"]
SLOW = [
    "put_far",
    "get_far",
    "put_growing",
    "put_around",
    "put_armed",
    "get_armed",
    "get_last",
    "shut_at_once",
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    program = tmp_path_factory.mktemp("driver") / "ring_step"
    subprocess.run(
        [
            *["gcc", "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"],
            "-DPN_EXTENTS=5",
            "-DPN_USERS=3",
            f"-I{SOURCES}",
            f"-I{DRIVERS}",
            str(DRIVERS / "ring_step.c"),
            *(str(SOURCES / f"{name}.c") for name in CORE),
            *["-pthread", "-Wl,-z,now", "-o"],  # no symbol is looked up while it is stepped
            str(program),
        ],
        check=True,
        timeout=100,
    )
    return program


@pytest.mark.parametrize(
    "operation", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_death_at_every_instruction(driver: Path, operation: str) -> None:
    done = subprocess.run([driver, operation], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = re.search(r"killed at (\d+) instructions", done.stdout)
    assert found
    assert int(found[1]) > 100, "it was not stepped through"
