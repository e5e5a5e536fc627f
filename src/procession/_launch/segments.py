"""The named shared memory that is to go with this program (G5).

main keeps what it made itself, and removes it at Python's own end. What a child made goes on after
the child: its program's guard keeps that, and removes all of it at any other end of main. Where
both are killed, nobody holds it any more, and the next program's sweep finds it.
"""

from __future__ import annotations

import os
import sys
import threading

from procession._kernel import segments
from procession._launch import keeper_client
from procession._launch.keeper import Keeper, inode_of
from procession._wire import messages

_made: dict[str, int] = {}
"""File name → inode of what this process made and nobody unlinked."""
_folder = -1
"""The open folder through which main holds what it made."""
_identity: int | None = None
"""Its inode, by which the number is known for the same descriptor."""
_installed_in = 0
_swept = False
_lock = threading.Lock()


def track(name: str, fd: int) -> None:
    """Let a segment go with this program; best before it has its name.

    Raises:
        OSError: It belongs to somebody else.
    """
    inode = os.fstat(fd).st_ino
    keeper = keeper_client.present()
    told = keeper is not None and _tell_to_keep(keeper, name, inode)
    with _lock:
        if _is_main() or not told:
            _hold(inode)
        if _is_main():
            _install()
        _made[name] = inode
    if not segments.mark(fd) and keeper is None:
        _get_a_guard()


def forget(name: str, inode: int | None = None) -> None:
    """A segment was unlinked, or is to outlive this program."""
    with _lock:
        if inode is None:
            inode = _made.get(name)
        if inode is None:
            return
        if _made.get(name) == inode:
            del _made[name]
            _let_go(inode)
    keeper = keeper_client.present()
    if keeper is not None:
        keeper.tell(messages.SEGMENT_GONE, name, inode)


def hand_over(name: str) -> None:
    """Leave a segment to the guard alone: another process of this program will unlink it."""
    with _lock:
        if keeper_client.present() is not None and name in _made:
            _let_go(_made.pop(name))


def made_here(name: str) -> bool:
    """Whether this process made a segment that is to go with the program."""
    return name in _made


def sweep_once() -> None:
    """Remove what dead programs left, unless this process or its keeper has done so."""
    global _swept
    if _swept or keeper_client.present() is not None:
        return
    _swept = True
    folder = segments.open_folder()
    try:
        for _ in segments.sweep(folder):
            pass
    finally:
        os.close(folder)


def _is_main() -> bool:
    """Whether this process is no child of a program's."""
    return getattr(sys.modules.get("procession._child.bootstrap"), "seat", None) is None


def _hold(inode: int) -> None:
    global _folder, _identity
    if _folder >= 0 and _identity != inode_of(_folder):
        _folder = -1  # closed by code that daemonises; the number is somebody else's
    if _folder < 0:
        _folder = segments.open_folder()
        _identity = inode_of(_folder)
        for other in _made.values():
            segments.hold(_folder, other)
    segments.hold(_folder, inode)


def _let_go(inode: int) -> None:
    if _folder >= 0 and _identity == inode_of(_folder):
        segments.let_go(_folder, inode)
        if not _made:
            _close()


def _close() -> None:
    global _folder
    if _folder >= 0 and _identity == inode_of(_folder):
        os.close(_folder)
    _folder = -1


def _tell_to_keep(keeper: Keeper, name: str, inode: int) -> bool:
    """Hand a segment to the guard, with a hold that lasts until the guard has its own."""
    folder = segments.open_folder()
    try:
        segments.hold(folder, inode)
        return keeper.tell(messages.SEGMENT, name, inode, fds=[folder])
    finally:
        os.close(folder)


def _get_a_guard() -> None:
    """Without marks no sweep can find what a killed main left: a guard has to see it end."""
    try:
        keeper_client.ensure(zygote=False)  # it is told of all that was made
    except OSError:
        pass  # then it is removed at Python's own end only


def _install() -> None:
    global _installed_in
    if _installed_in != os.getpid():
        from multiprocessing import util

        _installed_in = os.getpid()
        # after the last child was joined, and before the guard is told goodbye
        util.Finalize(None, _remove_all, exitpriority=-500)


def _remove_all() -> None:
    """Python's own end of main: what it made and nobody unlinked goes."""
    _close()
    if not _made:
        return
    folder = segments.open_folder()
    for name, inode in _made.items():
        # a raw fork of this process may live on: what became a daemon has it to itself then
        if keeper_client.present() is not None or not segments.is_held(folder, inode):
            segments.remove(folder, name, inode)
    os.close(folder)
    _made.clear()


def _tell_new_keeper(keeper: Keeper) -> None:
    if _is_main():
        for name, inode in list(_made.items()):
            _tell_to_keep(keeper, name, inode)


def _after_fork_in_child() -> None:
    """What the parent made is the parent's to remove.

    The open folder stays open: as long as the copy lives, which may be all that is left of a
    program that became a daemon, nothing of it is swept.
    """
    global _folder, _lock
    _lock = threading.Lock()
    _made.clear()
    _folder = -1


keeper_client.on_start.append(_tell_new_keeper)
os.register_at_fork(after_in_child=_after_fork_in_child)
