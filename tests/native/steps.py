"""Drivers that kill themselves at every instruction."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.native import building


def build(folder: Path, name: str, core: Sequence[str]) -> Path:
    """The program made of a driver and the files of the core that it needs."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    flags = ["-O2", "-fomit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
    return building.build(name, folder, *flags, core=core)


def assert_survived(
    driver: Path, operation: str, least: int, stride: int | None = None, limit: float = 110
) -> None:
    """Every death in an operation is survived, and there were so many of them at least.

    Args:
        driver: The program.
        operation: Its name there.
        least: How many instructions it has, by the stride.
        stride: Only at every so many; ``None``: as the driver thinks fit, which is mostly all.
        limit: Seconds for the whole.
    """
    strides = [] if stride is None else [str(stride)]
    done = subprocess.run(
        [driver, operation, *strides], capture_output=True, text=True, timeout=limit
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"killed at (\d+) instructions", done.stdout)
    assert found
    assert int(found[1]) >= least // (stride or 1), "it was not stepped through"
