"""What the two tables' pages in docs have in common."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pools import PEERS

DOCS = Path(__file__).parent.parent / "docs"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the head first."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def versions(libraries: Sequence[str]) -> str:
    """What was compared: this interpreter and the peers."""
    peers = [f"{name} {importlib.metadata.version(name)}" for name in libraries if name in PEERS]
    return ", ".join([f"CPython {platform.python_version()}", *peers])
