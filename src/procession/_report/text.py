"""Text that others wrote, in columns of a terminal."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Without anything that a terminal would obey, or that turns the direction of writing."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def width_of(text: str) -> int:
    """Columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, width: int, mark: str = "…") -> str:
    """The text, or as much of its beginning as fits with a mark that there is more."""
    if width_of(text) <= width:
        return text
    room = width - len(mark)
    end = 0
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        end += 1
    return text[:end] + mark


def padded(text: str, width: int) -> str:
    """The text with spaces after it."""
    return text + " " * (width - width_of(text))


def wrapped(parts: list[str], width: int, between: str, indent: str, mark: str) -> list[str]:
    """Parts in as few lines as they fit in; what is too long for one is cut.

    Args:
        parts: What is not to be torn.
        width: Columns of a line.
        between: What stands between two parts of one line.
        indent: What every line but the first begins with.
        mark: The sign that something was cut.
    """
    lines: list[str] = []
    for part in parts:
        joined = lines[-1] + between + part if lines else part
        if lines and width_of(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(fitted((indent if lines else "") + part, width, mark))
    return lines


def duration(seconds: float) -> str:
    """``850 ms``, ``3.42 s``, ``12 min 5 s``, ``3 h 20 min``, ``5 d 2 h``."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days} d {hours_left} h"
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s"
