"""The benchmarks, a module for each room; `load` imports those that are needed."""

from __future__ import annotations

import importlib
import pkgutil


def load(name: str | None = None) -> None:
    """Import the module of one benchmark ("room.thing"), or all."""
    rooms = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for room in rooms:
        if name is None or room == name.partition(".")[0]:
            importlib.import_module(f"{__name__}.{room}")
