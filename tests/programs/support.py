"""What the tests of foreign programs share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "samples"
RUN = [sys.executable, "-m", "procession", "run"]
LIMIT = 300.0  # seconds; the slowest takes ten on a quiet machine


def needs(*names: str, session: str = "programs") -> None:
    """Skip a test without its packages; not by an import, which may leave threads."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: nox -s {session}")


def home(folder: Path) -> dict[str, str]:
    """An environment for a program that keeps files in its user's home."""
    names = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    return dict.fromkeys(names, str(folder))
