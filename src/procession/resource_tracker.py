"""`multiprocessing.resource_tracker`; named shared memory is tracked by us, without a process.

Whoever made a segment is the one to register it: to attach is not to own (gh-82300). The calls that
programs make against the standard tracker's doing so are accepted, and have nothing to undo.
"""

from __future__ import annotations

import os
from multiprocessing import resource_tracker as _standard
from typing import TYPE_CHECKING, Any

from procession._kernel import segments as _files
from procession._launch import segments as _account

if TYPE_CHECKING:  # at run time by __getattr__, with all that is private
    from multiprocessing.resource_tracker import ensure_running

__all__ = ["ensure_running", "register", "unregister"]

_tracker: Any = _standard._resource_tracker
_SHARED_MEMORY = "shared_memory"
_LONGEST = 255  # bytes of a file's name


def register(name: str, rtype: str) -> None:
    """Let a resource go with this program.

    Args:
        name: Its name; a segment's with or without the slash before it.
        rtype: ``"shared_memory"``, or a kind of resource that is the standard library's.

    Raises:
        ValueError: No segment can have the name.
        OSError: The segment is another user's.
    """
    if rtype != _SHARED_MEMORY:
        _tracker.register(name, rtype)
        return
    file = _file_name(name)
    folder = _files.open_folder()
    try:
        fd = _files.open_file(folder, file)
    except FileNotFoundError:
        return  # there is nothing to remove, then
    finally:
        os.close(folder)
    try:
        _account.track(file, fd)
    finally:
        os.close(fd)


def unregister(name: str, rtype: str) -> None:
    """Let a resource outlive this program.

    Args:
        name: As for `register`. A segment that another process made is that process's affair.
        rtype: As for `register`.

    Raises:
        ValueError: No segment can have the name.
    """
    if rtype != _SHARED_MEMORY:
        _tracker.unregister(name, rtype)
        return
    file = _file_name(name)
    if not _account.made_here(file):
        return
    _account.forget(file)
    folder = _files.open_folder()
    try:
        fd = _files.open_file(folder, file)
    except FileNotFoundError:
        return  # unlinked already
    finally:
        os.close(folder)
    try:
        _files.unmark(fd)
    finally:
        os.close(fd)


def _file_name(name: str) -> str:
    if len(os.fsencode(name)) > _LONGEST:
        raise ValueError(
            f"a name of at most {_LONGEST} bytes is needed, got {len(os.fsencode(name))}"
        )
    try:
        return _files.file_name(name)
    except OSError:
        raise ValueError(f"no shared memory can have the name {name!r}") from None


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
