"""Every wake that must come does, and who watches over the sleepers is replaced when killed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.building import build

CHECKS = (
    "release",
    "unlock",
    "gate",
    "event",
    "condition",
    "barrier",
    "mark_stays",
    "mark_stays_in_take_over",
    "given_up",
    "passed_on",
    "ended",
    "comes_back",
    "watched",
    "listened",
    "sentry_killed",
    "both_killed",
    "told",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    return build("wakes", tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("check", CHECKS)
def test_wakes(driver: Path, check: str) -> None:
    done = subprocess.run([driver, check], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
