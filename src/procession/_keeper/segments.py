"""The guard holds named shared memory while the program lives, and removes it afterwards."""

from __future__ import annotations

import os

from procession._kernel import segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Segments:
    """The segments that are to go with this program, and the sweep of what others left."""

    def __init__(self) -> None:
        self._folders: dict[int, int] = {}
        """Device → an open folder of ours: a child may have a /dev/shm of its own."""
        self._names: dict[tuple[int, int], str] = {}
        """Device and inode → the file's name."""
        self._sweep: Iterator[bool] | None = self._begin_sweep()

    @property
    def sweeping(self) -> bool:
        """Whether there is more to look at."""
        return self._sweep is not None

    def sweep_on(self) -> None:
        """Look at one more file."""
        if self._sweep is not None and next(self._sweep, None) is None:
            self._sweep = None

    def _begin_sweep(self) -> Iterator[bool]:
        try:
            folder = segments.open_folder()
        except OSError:
            return  # a system without it has nothing to sweep
        try:
            yield from segments.sweep(folder)
        except OSError:
            pass  # it may not be listed
        finally:
            os.close(folder)

    def keep(self, name: str, inode: int, folder: int) -> None:
        """Hold a segment from now on.

        Args:
            name: Its file's name.
            inode: Its inode.
            folder: The open folder through which its maker holds it; it is closed here.
        """
        try:
            device = os.fstat(folder).st_dev
            ours = self._folders.get(device)
            if ours is None:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                ours = self._folders[device] = os.open(".", flags, dir_fd=folder)
            segments.hold(ours, inode)
            self._names[device, inode] = name
        finally:
            os.close(folder)

    def forget(self, name: str, inode: int) -> None:
        """It is gone, or is to stay."""
        for key, kept in list(self._names.items()):
            if key[1] == inode and kept == name:
                del self._names[key]
                segments.let_go(self._folders[key[0]], inode)

    def remove_all(self) -> None:
        """The program is over."""
        for (device, inode), name in self._names.items():
            segments.remove(self._folders[device], name, inode)
        self._names.clear()
