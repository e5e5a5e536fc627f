"""A bar for `map(progress=True)`, drawn by what the program has for that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any


def shown(results: Iterator[Any], total: int | None) -> Iterator[Any]:
    """The results, with a bar that counts them; silent where nobody would see it."""
    if _in_notebook():
        bar: Any = _imported("tqdm.notebook", "tqdm")
        if bar is not None:
            yield from bar(results, total=total)
            return
    elif sys.stderr is not None and sys.stderr.isatty():
        track: Any = _imported("rich.progress", "track")
        if track is not None:
            console: Any = importlib.import_module("rich.console").Console(stderr=True)
            yield from track(results, description="", total=total, console=console)
            return
    yield from results


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None
