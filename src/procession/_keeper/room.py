"""How many descriptors the guard may have: it holds some for every process of the program.

A pidfd of each forked child, outcomes, deposits: all the others' limits together, not main's own.
"""

from __future__ import annotations

import os
import resource

RESERVE = 16  # descriptors for the program's end, which must be possible whatever is held by then


class Room:
    """The guard's own limit of descriptors: the hard one, less a reserve for the end."""

    def __init__(self) -> None:
        self._inherited = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.keep_reserve()

    def keep_reserve(self) -> None:
        """Leave the last few descriptors alone from now on."""
        hard = self._inherited[1]
        self._set(hard - RESERVE if hard > 2 * RESERVE else hard)

    def has(self, count: int) -> bool:
        """Whether there can be so many more. They are tried: numbers of old ones tell nothing."""
        tried: list[int] = []
        try:
            while len(tried) < count:
                tried.append(os.dup(0))
        except OSError:
            return False
        finally:
            for fd in tried:
                os.close(fd)
        return True

    def use_reserve(self) -> None:
        """All that there is may be used now."""
        self._set(self._inherited[1])

    def restore(self) -> None:
        """The limit that this process was started with, for what is forked from it."""
        self._set(self._inherited[0])

    def _set(self, soft: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, self._inherited[1]))
