"""One event, one line, one write: what was written is whole, whoever is killed next."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def line(event: dict[str, Any]) -> bytes:
    """An event as a line of JSON (RFC 8259), to be appended by a single write(2)."""
    import json  # 3 ms that only a recorded program's guard pays

    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
