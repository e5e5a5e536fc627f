"""One look at one descriptor (poll(2))."""

from __future__ import annotations

import select


def is_readable(fd: int, milliseconds: float = 0) -> bool:
    """Whether there is something to read, or an end to see, now or within some milliseconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(milliseconds))
