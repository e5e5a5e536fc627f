"""Descriptors that came with the start frame, as pickled objects find them."""

from __future__ import annotations

fds: list[int] = []
"""In the order in which the starter's `duplicate_for_child` gave out their places."""


class InheritedDescriptor:
    """Stands in a pickle for a descriptor that travels beside it.

    Args:
        place: Its place among the descriptors of the start frame.
    """

    def __init__(self, place: int) -> None:
        self.place = place

    def detach(self) -> int:
        """The descriptor's number in this process; it belongs to the caller now."""
        return fds[self.place]
