"""Threads over one mapping, under the thread sanitizer where the compiler has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.building import build


@pytest.mark.parametrize(("driver", "rounds"), [("race", 300), ("race_locks", 400)])
def test_threads_do_not_race(driver: str, rounds: int, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    try:
        program = build(driver, tmp_path, "-fsanitize=thread", "-Wno-tsan")
    except subprocess.CalledProcessError:
        program = build(driver, tmp_path)
    done = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
