"""Pages that a forked process copies ahead of its first write to them."""

from __future__ import annotations

import mmap
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

from procession import _native

PAGES = 256


def in_child(memory: mmap.mmap, pages: bytes) -> int:
    """Page faults of a forked child while it writes to each page of some memory."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _native.copy_pages(pages)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 2
        after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        os.write(writing, struct.pack("q", after - before))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        (faults,) = struct.unpack("q", file.read())
    os.waitpid(pid, 0)
    return int(faults)


def written_by_a_child(memory: mmap.mmap) -> bytes:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        for page in range(0, PAGES, 2):
            memory[page * mmap.PAGESIZE] = 2
        os.write(writing, _native.written_pages())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        pages = file.read()
    os.waitpid(pid, 0)
    return pages


def test_what_one_child_wrote_to_the_next_has_at_hand(no_strays: None) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=flags) as memory:
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
        pages = written_by_a_child(memory)
        without, ahead = in_child(memory, b""), in_child(memory, pages)
        assert without >= PAGES
        assert without - ahead >= PAGES // 2  # every other page was written to
        assert memory[0] == 1


def test_what_is_no_longer_mapped_is_passed_over(no_strays: None) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=flags) as memory:
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
        pages = written_by_a_child(memory)
    _native.copy_pages(pages)


REHEARSAL = """
import os
from procession._keeper import spares

def descriptors():
    return len(os.listdir("/proc/self/fd"))

spares.warm_up(None, ())
before = descriptors()
for _ in spares.rehearse():
    pass
print(descriptors() - before, len(spares._pages) > 0)
"""


def test_the_rehearsal_finds_the_pages_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where it fails nothing else does, so that nobody else would notice."""
    said = tmp_path / "said"
    debug = {**os.environ, "PROCESSION_DEBUG": str(said)}
    command = [sys.executable, "-c", REHEARSAL]
    done = subprocess.run(command, env=debug, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"0 {bool(_native.written_pages())}\n", "")
    assert not said.exists()
