"""Named shared memory as files in /dev/shm: made whole or not at all, used, kept and swept.

Three facts of the kernel tell who has a segment, without pids, which other containers may count
otherwise:

- a *mark*, an extended attribute of the file, says that it is to go with the program that made it;
- a *hold*, a read lock on the byte of the folder /dev/shm whose number is the file's inode, says
  that this program is alive. It lasts until the last process that has the open folder is gone, and
  takes no descriptor for each segment and none of its memory;
- a *use*, a shared flock on the file itself, says that somebody has it open.

Only what is marked, not held, not used, and ours is ever swept: nothing of a stranger's.
Source: fcntl(2), "Open file description locks"; flock(2); open(2), O_TMPFILE; xattr(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "/dev/shm"  # where shm_open(3) has them

_DESCRIPTORS = "/proc/self/fd"
_MARK = "user.procession"
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENOSYS)  # tmpfs has them since Linux 6.6
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
_LOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_BYTES = (1 << 63) - 2  # what a lock can begin at


def open_folder() -> int:
    """A descriptor of the folder.

    Raises:
        OSError: There is none; the message says what it is for.
    """
    try:
        return os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(
            error.errno,
            f"named shared memory needs the folder {FOLDER}, which this system does not give "
            f"({error.strerror}); Value, Array and queues do without it",
            FOLDER,
        ) from None


def file_name(name: str) -> str:
    """The name of the file that a segment's name means.

    Raises:
        OSError: No segment can have the name.
    """
    file = name.lstrip("/")
    if not file or "/" in file or file in (".", ".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    return file


def create(folder: int, name: str, mode: int) -> tuple[int, bool]:
    """A new empty file, and whether it has its name yet.

    It has none until `give_name`, where the kernel can and /proc is there: killed before that,
    nothing is left. Elsewhere the dead leave a file without a mark, which nobody sweeps.

    Raises:
        FileExistsError: It has to be made with its name, which is taken.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    if os.path.exists(_DESCRIPTORS):
        try:
            return os.open(".", flags | os.O_TMPFILE, mode, dir_fd=folder), False
        except OSError as error:
            if error.errno not in _NO_NAMELESS:
                raise
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(name, flags, mode, dir_fd=folder), True


def give_name(folder: int, name: str, fd: int) -> None:
    """Put a nameless file into the folder.

    Raises:
        FileExistsError: The name is taken.
    """
    # open(2): without a capability, only this way leads from a descriptor to a name
    os.link(f"{_DESCRIPTORS}/{fd}", name, src_dir_fd=folder, dst_dir_fd=folder)


def open_file(folder: int, name: str) -> int:
    """A descriptor of an existing file."""
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)


def exists(folder: int, name: str) -> bool:
    """Whether the name is taken, by whatever it is."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def is_named(folder: int, name: str, inode: int) -> bool:
    """Whether the name still means this file."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino == inode
    except OSError:
        return False


# --- mark, hold, use --------------------------------------------------------------------------


def mark(fd: int) -> bool:
    """Mark a file as one that goes with its program; false where the kernel has no place for it.

    Raises:
        OSError: It may not be marked by this process.
    """
    try:
        os.setxattr(fd, _MARK, b"1")
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return False
        raise
    return True


def unmark(fd: int) -> None:
    """Take the mark away, if it has one."""
    try:
        os.removexattr(fd, _MARK)
    except OSError as error:
        if error.errno not in (*_NO_ATTRIBUTES, errno.ENODATA):
            raise


def is_marked(fd: int) -> bool:
    """Whether it is marked."""
    try:
        return os.getxattr(fd, _MARK) == b"1"
    except OSError:
        return False


def hold(folder: int, inode: int) -> None:
    """Say that the program which made a file is alive, until the open folder is closed."""
    fcntl.fcntl(folder, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, inode))


def let_go(folder: int, inode: int) -> None:
    """Take back what `hold` said."""
    fcntl.fcntl(folder, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, inode))


def is_held(folder: int, inode: int) -> bool:
    """Whether anybody but this open folder holds it; true where that cannot be found out."""
    try:
        found = fcntl.fcntl(folder, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, inode))
    except OSError:
        return True
    kind: int = _LOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def _lock(kind: int, inode: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, inode % _BYTES, 1, 0)


def use(fd: int) -> bool:
    """Say that a file is in use, until its last descriptor is closed; false while it is swept."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without flock: it is used all the same
    return True


# --- removing ---------------------------------------------------------------------------------


def remove(folder: int, name: str, inode: int) -> bool:
    """Take a file out of the folder if the name still means it."""
    if not is_named(folder, name, inode):
        return False
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def remove_if_left(folder: int, name: str, fd: int) -> bool:
    """Remove a file that the dead have left, and that nobody uses; whether it is gone now."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or not is_marked(fd) or is_held(folder, status.st_ino):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    # somebody may have said that it is alive before it was locked
    if is_marked(fd) and not is_held(folder, status.st_ino):
        return remove(folder, name, status.st_ino)
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def sweep(folder: int) -> Iterator[bool]:
    """Remove what dead programs of this user left, one file at each step."""
    me = os.geteuid()
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode) or status.st_uid != me:
                    continue
                fd = open_file(folder, entry.name)
            except OSError:
                continue
            try:
                gone = remove_if_left(folder, entry.name, fd)
            finally:
                os.close(fd)
            yield gone
