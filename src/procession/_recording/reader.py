"""Reads a recording, also one that was cut at any byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def events(contents: bytes) -> Iterator[dict[str, Any]]:
    """The events in the order in which they were told.

    Args:
        contents: A recording, whole or cut: a line without its end, and what is no event, are left
            out.
    """
    for line in contents.split(b"\n")[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event
