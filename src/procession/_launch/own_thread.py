"""Threads of the library's own, told apart from the user's."""

from __future__ import annotations

import threading
from collections.abc import Callable


class OwnThread(threading.Thread):
    """A thread that holds nothing a forked copy could need: a fork beside it is safe (G9).

    Its locks guard objects that a copy lets go of. It never keeps an interpreter from ending.
    """

    def __init__(self, name: str, target: Callable[[], None]) -> None:
        super().__init__(name=name, target=target, daemon=True)
