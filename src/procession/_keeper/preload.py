"""Importing what children are to find imported, in the zygote."""

from __future__ import annotations

import importlib
import os
import sys

from procession._keeper.spares import threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class LeftThread(Exception):
    """A module left a thread behind: a process with threads must not be forked (G9)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Failed(Exception):
    """A module could not be imported, and the user wants to know."""


def load(names: Sequence[str], on_error: str, output: Sequence[int], replaced: bool) -> None:
    """Import modules; what they print goes to main's output.

    Args:
        names: As in an import statement.
        on_error: "ignore", "warn" or "fail".
        output: Descriptors of main's stdout and stderr; may be fewer than two.
        replaced: Whether the program's `multiprocessing` is served by us, and so is theirs.

    Raises:
        LeftThread: One of them left a thread.
        Failed: One could not be imported and ``on_error`` is "fail".
    """
    for number, fd in enumerate(output, start=1):
        os.dup2(fd, number)
    if replaced:  # by name: that room stands above this one, and is only loaded from here
        importlib.import_module("procession._launch.replacement").install()
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except Exception as error:
                _failed(name, error, on_error)
            if threads() > 1:
                if on_error != "ignore":
                    _say(f"preloaded module {name!r} left a thread; children import it themselves")
                raise LeftThread(name)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(null, number)
        os.close(null)


def _failed(name: str, error: Exception, on_error: str) -> None:
    text = f"cannot preload {name!r}: {type(error).__name__}: {error}"
    if on_error == "fail":
        raise Failed(text) from error
    if on_error == "warn":
        _say(text)


def _say(text: str) -> None:
    sys.stderr.write(f"procession: {text}\n")
