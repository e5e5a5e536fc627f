"""Shared memory travels: at a start, through queues and pipes, and is freed with its last user."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import _identity, _native
from procession._shared.memory import Region, allocate
from procession.errors import SharedObjectLost
from tests import witness
from tests.contract.programs import fork_beside_pytests_threads, run_text

pytestmark = fork_beside_pytests_threads

METHODS = ("forkserver", "spawn", "fork")
PATIENCE = 30.0
each_method = pytest.mark.parametrize("method", METHODS)


def put_word(region: Region, offset: int, text: bytes) -> None:
    with memoryview(region.memory) as view:
        view[offset : offset + len(text)] = text


def get_word(region: Region, offset: int, size: int) -> bytes:
    with memoryview(region.memory) as view:
        return bytes(view[offset : offset + size])


def answer(region: Region, offset: int, sender: Any) -> None:
    """Say what is in the region, change it, and send another one back."""
    assert region.table is _identity.home(), "the program has one table"
    mine, place = allocate(5)
    put_word(mine, place, get_word(region, offset, 5))
    put_word(region, offset, b"heard")
    sender.send((mine, place, region))
    sender.close()


@each_method
def test_memory_goes_along_with_a_start_and_comes_back_by_a_pipe(method: str) -> None:
    context = procession.get_context(method)
    region, offset = allocate(5)
    put_word(region, offset, b"hello")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(region, offset, sender))
    process.start()
    sender.close()
    assert receiver.poll(PATIENCE)
    theirs, place, same = receiver.recv()
    process.join(PATIENCE)
    receiver.close()
    assert process.exitcode == 0
    assert same is region
    assert get_word(region, offset, 5) == b"heard"
    assert get_word(theirs, place, 5) == b"hello", "its sender has ended, it has not"


def test_what_nobody_holds_any_more_cannot_be_had() -> None:
    region = Region.create(4096)
    text = pickle.dumps(region)
    assert pickle.loads(text) is region
    del region
    process = procession.Process(target=int)  # whoever starts or claims is heard after the drop
    process.start()
    process.join(PATIENCE)
    with pytest.raises(SharedObjectLost, match="all that held it are gone"):
        pickle.loads(text)


def test_it_is_freed_with_its_last_user() -> None:
    region = Region.create(4096, "procession-test-freed")
    fd = region.fileno()
    assert "procession-test-freed" in witness.descriptors()[fd]
    del region
    with open("/proc/self/maps") as file:
        assert "procession-test-freed" not in file.read()
    assert "procession-test-freed" not in witness.descriptors().get(fd, "")


def test_small_objects_share_a_region_and_never_a_cache_line() -> None:
    places = [allocate(8) for _ in range(3000)]
    regions = {region.memory.id() for region, _ in places}
    assert len(regions) <= 4
    assert len({(region.memory.id(), offset // 64) for region, offset in places}) == 3000
    assert all(get_word(region, offset, 8) == bytes(8) for region, offset in places)


def test_a_raw_copy_is_somebody_else() -> None:
    table = _identity.home()
    mine = table.me()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            index, generation = table.me()
            os.write(writing, b"%d %d" % (index, generation))
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    theirs = tuple(map(int, os.read(reading, 100).split()))
    os.close(reading)
    assert theirs != mine
    assert table.fate(*theirs) == _native.ALIVE
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert table.fate(*theirs) == _native.DEAD
    assert table.me() == mine


def test_what_lives_as_long_as_the_interpreter_goes_without_a_word(tmp_path: Path) -> None:
    """Its modules are gone before it."""
    program = """
    import builtins, procession, sys

    if __name__ == "__main__":
        kept = [procession.Queue(), procession.Value("i")]
        away = procession.SimpleQueue()
        for one in kept:
            away.put(one)
        builtins.kept = [kept, *sys.modules.values()]
        print("put")
    """
    finished = run_text(tmp_path, program)
    assert (finished.out, finished.err) == ("put\n", "")
