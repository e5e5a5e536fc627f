"""Building a driver that kills itself at every instruction, and running it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.native.people import SOURCES

DRIVERS = Path(__file__).parent / "drivers"


def build(folder: Path, name: str, core: Sequence[str]) -> Path:
    """The program made of a driver and the files of the core that it needs."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    program = folder / name
    subprocess.run(
        [
            *["gcc", "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"],
            f"-I{SOURCES}",
            f"-I{DRIVERS}",
            str(DRIVERS / f"{name}.c"),
            *(str(SOURCES / f"{part}.c") for part in core),
            *["-pthread", "-Wl,-z,now", "-o"],  # no symbol is looked up while it is stepped
            str(program),
        ],
        check=True,
        timeout=100,
    )
    return program


def assert_survived(
    driver: Path, operation: str, least: int, stride: int = 1, limit: float = 110
) -> None:
    """Every death in an operation is survived, and it has so many instructions at least."""
    done = subprocess.run(
        [driver, operation, str(stride)], capture_output=True, text=True, timeout=limit
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"killed at (\d+) instructions", done.stdout)
    assert found
    assert int(found[1]) >= least // stride, "it was not stepped through"
