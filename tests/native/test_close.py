"""Closing descriptors where the kernel, or a sandbox, does not know close_range(2)."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os, resource, struct
from procession import _native

CLOSE_RANGE, EPERM = 436, 1
words = [(0x20, 0, 0, 0), (0x15, 0, 1, CLOSE_RANGE)]  # which call is it?
words += [(6, 0, 0, 0x50000 | EPERM), (6, 0, 0, 0x7FFF0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in words))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no_new_privs
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(words), ctypes.addressof(text)), 0, 0) == 0
assert libc.syscall(CLOSE_RANGE, 900, 900, 0) == -1
nothing = os.open("/dev/null", os.O_RDONLY)
for fd in [*range(10, 200), 600, 601]:
    os.dup2(nothing, fd)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
pid = _native.anchor(os.getpgrp())
print(*os.listdir(f"/proc/{pid}/fd"))
_native.weigh_anchor(pid)
_native.close_all_but([0, 1, 2, 150, 600])
print(*[fd for fd in range(1024) if os.path.exists(f"/proc/self/fd/{fd}")])
"""


def test_without_close_range() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["", "0 1 2 150 600"], done
