"""Shared memory without a name: nothing to leak, freed by the kernel with its last user (G5)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys

STEP = 16 << 20
"""Bytes reserved by one call: a signal undoes the call it interrupts, so a large one that is
interrupted again and again would never come to its end."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MAP_OPTIONS = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else mmap keeps a copy

_ADVICE = {
    errno.ENOSPC: "the file system for shared memory is full",
    errno.ENOMEM: "there is no memory for it (RLIMIT_AS, ulimit -v, or the memory cgroup)",
    errno.EFBIG: "it is more than this process's limit of a file's size (RLIMIT_FSIZE, ulimit -f)",
    errno.EMFILE: "this process has no free descriptor for it (RLIMIT_NOFILE, ulimit -n)",
    errno.ENFILE: "the machine has no free descriptor for it",
}


def create(name: str, size: int) -> int:
    """A descriptor of new memory, all zero and sparse, whose size nobody can change any more.

    Nothing of it is reserved yet: see `reserve`.

    Raises:
        OSError: The kernel refuses; the message says what is at its end.
    """
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise refusal(error, size) from None
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise refusal(error, size) from None
    return fd


def reserve(fd: int, offset: int, length: int) -> None:
    """Take the memory for a part of the file now, so that touching it can never be a SIGBUS.

    Raises:
        OSError: There is not as much; what was reserved before stays so.
    """
    end = offset + length
    while offset < end:
        step = min(STEP, end - offset)
        try:
            os.posix_fallocate(fd, offset, step)
        except OSError as error:
            raise refusal(error, length) from None
        offset += step


def map_shared(fd: int, size: int) -> mmap.mmap:
    """Map memory, left out of core dumps: they would fill in its holes.

    Raises:
        OSError: There is no room for it.
    """
    try:
        mapping = mmap.mmap(fd, size, **_MAP_OPTIONS)
    except OSError as error:
        raise refusal(error, size) from None
    mapping.madvise(mmap.MADV_DONTDUMP)
    return mapping


def refusal(error: OSError, size: int) -> OSError:
    """The kernel's error with what was wanted, and what is at its end."""
    why = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return OSError(error.errno, f"no shared memory of {size} bytes: {why}")
