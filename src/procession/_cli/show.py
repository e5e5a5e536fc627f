"""`procession show`: draws a recording again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from procession import lifeline
from procession._cli.words import fail, plain
from procession._recording import reader
from procession._report import terminal
from procession.errors import RecordingError


def show(path: str, *, verbose: bool) -> int:
    """Draw a recording on stdout; the exit code."""
    try:
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        fail(f"cannot read {path!r}: {error.strerror}")
    try:
        draw(contents, sys.stdout, verbose=verbose)
    except RecordingError as error:
        fail(f"cannot show {path!r}: {error}")
    return 0


def draw(
    contents: bytes, stream: TextIO, *, path: str | None = None, verbose: bool = False
) -> None:
    """Write the picture of a recording, and last the next command.

    Args:
        contents: The recording.
        stream: Where to.
        path: The recording's file where it is to be shown again.
        verbose: Also say what stayed standard.
    """
    timeline = lifeline.Timeline.from_events(reader.read(contents))
    look = terminal.Look.of(stream)
    stream.write(terminal.picture(timeline, look, verbose=verbose))
    if (command := next_command(timeline, path)) and stream is sys.stderr:
        stream.write(f"\n{command}\n")


def next_command(timeline: lifeline.Timeline, path: str | None) -> str:
    """What to type next, ready to paste: show the file, or run again and keep it."""
    if path is not None:
        return plain(["procession", "show", path])
    flags, program = _split(timeline.command)
    if not program or program[0] in ("-", ""):
        return ""
    stem = os.path.splitext(os.path.basename(timeline.main.name))[0].lstrip("-.") or "program"
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem)
    us = ["procession"]
    if flags:  # they belong to the interpreter, and procession takes none of them
        us = [os.path.basename(sys.executable), *flags, "-m", *us]
    return plain([*us, "run", "-o", f"{stem}.plr", *program])


def _split(command: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The interpreter's options, one to a word, and the program."""
    at = 0
    while command[at : at + 1] and command[at].startswith("-"):
        if command[at] in ("-", "-m", "-c"):
            break
        at += 2 if command[at] in ("-W", "-X") or command[at].startswith("--") else 1
    return command[:at], command[at:]
