"""`multiprocessing.util`: what is shared with it, and what newer Pythons added.

Its state is one for both: finalizers, what runs after a fork, the logger.
"""

from __future__ import annotations

from multiprocessing import util as _standard
from typing import Any

__all__ = list(_standard.__all__)
__all__ += ["warn"]


def warn(msg: object, *args: object) -> None:
    """Log a warning of the library's."""
    logger: Any = _standard._logger  # type: ignore[attr-defined]
    if logger:
        import logging

        logger.log(logging.WARNING, msg, *args, stacklevel=2)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_standard)})
