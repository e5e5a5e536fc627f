"""Reads a recording, also one that was cut at any byte or is still being written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from procession import events
from procession._recording.writer import FORMAT, MARK
from procession.errors import RecordingError

_FURTHEST = 1e12  # seconds; no clock of ours shows more


def read(contents: bytes) -> Iterator[events.Event]:
    """The events in the order in which they were told.

    A line without its end, and what is no event of this version, are left out: a file may be cut
    anywhere, and a newer procession may have told more.

    Args:
        contents: A recording, whole or cut. One cut in its first line has no events.

    Raises:
        RecordingError: It is no recording, or one in a format of a later version.
    """
    _check_head(contents)
    return _events(contents)


def _events(contents: bytes) -> Iterator[events.Event]:
    begin = 0
    while (end := contents.find(b"\n", begin)) >= 0:
        event = _event(contents[begin:end])
        begin = end + 1
        if event is not None:
            yield event


def _check_head(contents: bytes) -> None:
    if not contents.startswith(MARK):
        if MARK.startswith(contents):
            return
        raise RecordingError("this is no recording of procession: its first line is another")
    digits = contents[len(MARK) : len(MARK) + 12].split(b",")
    if len(digits) > 1 and digits[0] != str(FORMAT).encode():
        raise RecordingError(
            f"this recording has format {digits[0].decode('ascii', 'replace')}, and this version "
            f"of procession reads format {FORMAT}: show it with the version that made it"
        )


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no time")


_decode = json.JSONDecoder(parse_constant=_no_number).decode


def _event(line: bytes) -> events.Event | None:
    try:
        told = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    if type(told) is not dict or type(name := told.get("event")) is not str:
        return None
    kind = _KINDS.get(name)
    if kind is None:
        return None
    make, fields = kind
    known: dict[str, Any] = {}
    for field, convert in fields:
        if field in told:
            value = convert(told[field])
            if value is None:
                return None
            known[field] = value
    try:
        return make(**known)
    except TypeError:  # a field that it must have is not there
        return None


# --- what a field may hold; None is no answer -------------------------------------------------


def _time(value: object) -> float | None:
    if type(value) is float or type(value) is int:
        return float(value) if -_FURTHEST < value < _FURTHEST else None
    return None


def _whole(value: object) -> int | None:
    return value if type(value) is int and -(1 << 64) < value < 1 << 64 else None


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def _truth(value: object) -> bool | None:
    return value if type(value) is bool else None


def _texts(value: object) -> tuple[str, ...] | None:
    if type(value) is list and all(type(item) is str for item in value):
        return tuple(value)
    return None


_CONVERT: dict[str, Callable[[object], Any]] = {
    "float": _time,
    "int": _whole,
    "str": _text,
    "bool": _truth,
    "tuple[str, ...]": _texts,
}
_KINDS = {
    name: (kind, [(field.name, _CONVERT[str(field.type)]) for field in dataclasses.fields(kind)])
    for name, kind in events.BY_NAME.items()
}
