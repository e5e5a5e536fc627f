"""What a process sleeps on, and what it does when one of these descriptors is ready."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Watch:
    """Descriptors and their handlers; a handler answers whether to go on."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], bool]] = {}

    def add(self, fd: int, handler: Callable[[], bool]) -> None:
        """Call a handler whenever there is something to read."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """No more; of no effect where it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)  # before the close: the open file may live on elsewhere

    def wait(self, timeout: float | None) -> list[int]:
        """Sleep until some are ready, or for so many seconds; ``None``: without a limit."""
        return [fd for fd, _ in self._epoll.poll(timeout)]

    def act(self, ready: Sequence[int]) -> bool:
        """Call the handlers; false as soon as one of them says that this was all."""
        for fd, handler in [(fd, self._handlers[fd]) for fd in ready]:
            # one of the handlers before may have closed it, and the number be another's by now
            if self._handlers.get(fd) is handler and not handler():
                return False
        return True
