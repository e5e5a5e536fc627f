"""One event, one line, one write: what was written is whole, whoever is killed next.

The events are those of `procession.events`. Its classes are not used here: their module costs a
guard, and `procession run` before its program runs, more time than all the rest of their start.
"""

from __future__ import annotations

import os

try:  # the module that json itself is built on, without the 3 ms that importing json costs
    from _json import encode_basestring_ascii
except ImportError:
    from json.encoder import encode_basestring_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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
    said = "".join([f',"{key}":{_shown(value)}' for key, value in fields.items()])
    return f'{{"event":"{name}","at":{at:.6f},"keeper":{keeper}{said}}}\n'.encode()


def _shown(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is bool:
        return "true" if value else "false"
    return repr(value)  # int, or a float that is a time


def head(at: float, wall: float, version: str, command: Sequence[str] = ()) -> bytes:
    """The first line of a recording.

    Args:
        at: When it begins, in seconds on the monotonic clock.
        wall: The same moment in seconds since the epoch.
        version: Version of procession.
        command: What was run.
    """
    rest = f'{FORMAT},"at":{at:.6f},"keeper":0,"wall":{wall:.6f},"version":"{version}","command":'
    arguments = ",".join(map(encode_basestring_ascii, command))
    return MARK + f"{rest}[{arguments}]}}\n".encode()


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
