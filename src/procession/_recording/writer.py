"""One event, one line, one write: what was written is whole, whoever is killed next.

The events are those of `procession.events`. Its classes are not used here: their module costs a
guard, and `procession run` before its program runs, more time than all the rest of their start.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FORMAT = 1
MARK = b'{"event":"recording.started","format":'
"""How every recording begins, of whatever version."""


def line(name: str, at: float, keeper: int, **fields: Any) -> bytes:
    """An event as a line (RFC 8259).

    Args:
        name: Its dotted name.
        at: When, in seconds on the monotonic clock.
        keeper: Pid of the guard that tells it, or 0.
        fields: What else there is to say.
    """
    event = {"event": name, "at": round(at, 6), "keeper": keeper, **fields}
    return (_encode()(event) + "\n").encode()


def head(at: float, wall: float, version: str, command: bytes = b"[]") -> bytes:
    """The first line of a recording.

    Args:
        at: When it begins, in seconds on the monotonic clock.
        wall: The same moment in seconds since the epoch.
        version: Version of procession.
        command: The command as a list in JSON; see `argument_list`.
    """
    rest = f'{FORMAT},"at":{at:.6f},"keeper":0,"wall":{wall:.6f},"version":"{version}","command":'
    return MARK + rest.encode() + command + b"}\n"


def argument_list(arguments: list[str]) -> bytes:
    """A list of texts in JSON, without importing what `line` needs."""
    return ("[" + ",".join(f'"{_escaped(argument)}"' for argument in arguments) + "]").encode()


def _escaped(text: str) -> str:
    return "".join(
        character
        if " " <= character < "\x7f" and character not in '"\\'
        else "".join(f"\\u{unit:04x}" for unit in _utf16(character))
        for character in text
    )


def _utf16(character: str) -> tuple[int, ...]:
    code = ord(character)
    if code < 0x10000:
        return (code,)
    return 0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF)


def append(fd: int, lines: bytes) -> bool:
    """Append whole lines; false when there is no room for them (or no file) any more.

    After that a line may be there that has no end: begin the next one with a line feed.
    """
    try:
        written = os.write(fd, lines)
        while written < len(lines):  # the rest fails with the reason, or fits by now
            written += os.write(fd, lines[written:])
    except OSError:
        return False
    return True


_encoder: Callable[[Any], str] | None = None


def _encode() -> Callable[[Any], str]:
    global _encoder
    if _encoder is None:
        import json  # 3 ms that only a recorded program's guard pays

        _encoder = json.JSONEncoder(separators=(",", ":")).encode
    return _encoder
