"""Shared values and arrays: the standard behaviour, on memory that no death can spoil (G4, G5)."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import multiprocessing.sharedctypes
import os
import pickle
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import procession
from procession import heap, sharedctypes
from tests import witness
from tests.contract.programs import (
    each_kept_method,
    each_method,
    fork_beside_pytests_threads,
    run_text,
    start,
)

pytestmark = fork_beside_pytests_threads

TYPECODES = {
    "b": -7,
    "B": 200,
    "h": -300,
    "H": 60000,
    "i": -70000,
    "I": 4_000_000_000,
    "l": -(2**40),
    "L": 2**63,
    "q": -(2**50),
    "Q": 2**64 - 1,
    "f": 0.5,
    "d": 0.1,
    "c": b"x",
    "u": "ß",
}


class Place(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


class NamedPlace(Place):
    _fields_ = [("name", ctypes.c_char * 8)]


def arenas() -> int:
    """Mappings of shared memory in this process, as the kernel counts them."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:procession-arena")


# --- values ------------------------------------------------------------------------------------


def write_all(values: dict[str, Any], place: Any, array: Any, text: Any, wanted: Any) -> None:
    for code, value in wanted.items():
        values[code].value = value
    place.x, place.y, place.name = 3, 4.5, b"here"
    array[1:6:2] = [7, 8, 9]
    text.value = b"hello"


@each_method
@pytest.mark.parametrize("lock", [True, False])
def test_all_types_are_seen_from_both_sides(method: str, lock: bool) -> None:
    ctx = procession.get_context(method)
    values = {code: ctx.Value(code, lock=lock) for code in TYPECODES}
    assert not any(value.value for code, value in values.items() if code not in "cu")
    assert values["c"].value == b"\0"
    assert values["u"].value == "\0"
    place = ctx.Value(NamedPlace, 1, 2.5, lock=lock)
    array = ctx.Array("d", 8, lock=lock)
    text = ctx.Array("c", 16, lock=lock)
    process = start(method, write_all, values, place, array, text, TYPECODES)
    process.join()
    assert process.exitcode == 0
    assert {code: value.value for code, value in values.items()} == TYPECODES
    assert (place.x, place.y, place.name) == (3, 4.5, b"here")
    assert array[:] == [0, 7, 0, 8, 0, 9, 0, 0]
    assert text.value == b"hello"


def count_up(value: Any, array: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1
        with array:
            array[0] += 1


@each_method
def test_counting_with_the_lock_misses_nothing(method: str) -> None:
    ctx = procession.get_context(method)
    value, array = ctx.Value("i"), ctx.Array("q", 1)
    processes = [start(method, count_up, value, array, 300) for _ in range(3)]
    for process in processes:
        process.join()
    assert value.value == array[0] == 900


def test_lock_may_be_given_made_or_left_out() -> None:
    lock = procession.RLock()
    assert procession.Value("i", lock=lock).get_lock() is lock
    assert procession.Array("i", 2, lock=lock).get_lock() is lock
    assert procession.Value("i", lock=None).get_lock() is not lock
    assert not hasattr(procession.Value("i", lock=False), "get_lock")
    assert not hasattr(procession.RawArray("i", 2), "get_obj")
    with pytest.raises(AttributeError, match="lock must be True, False, None or a lock, got 'no'"):
        procession.Value("i", lock="no")
    with pytest.raises(AttributeError, match="no method 'acquire'"):
        procession.Array("i", 1, lock=3)
    with pytest.raises(AssertionError, match="already synchronized"):
        sharedctypes.synchronized(procession.Value("i"))


def test_libraries_that_check_the_standard_classes_are_served() -> None:
    standard = multiprocessing.sharedctypes
    assert isinstance(procession.Value("i"), standard.Synchronized)
    assert isinstance(procession.Array("i", 1), standard.SynchronizedArray)
    assert isinstance(procession.Array("c", 1), standard.SynchronizedString)
    assert isinstance(procession.Value(Place), standard.SynchronizedBase)
    assert repr(procession.Value("i", 5)) == "<Synchronized wrapper for c_int(5)>"


def test_copy_is_a_shared_object_of_its_own() -> None:
    original = Place(2, 0.5)
    twin = sharedctypes.copy(original)
    original.x = 9
    assert (twin.x, twin.y) == (2, 0.5)
    assert twin._wrapper is not None
    assert sharedctypes.copy(procession.RawArray("i", [1, 2, 3]))[:] == [1, 2, 3]


@pytest.mark.parametrize("code", ["z", str, None, object])
def test_no_such_type_is_named(code: Any) -> None:
    for make in (sharedctypes.RawValue, lambda code: sharedctypes.RawArray(code, 2)):
        with pytest.raises(TypeError, match="a ctypes type or one of the letters c u b B"):
            make(code)


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least 0 items, got -1"):
        sharedctypes.RawArray("i", -1)
    with pytest.raises(ValueError, match="at least 0 bytes, got -1"):
        heap.BufferWrapper(-1)
    with pytest.raises(OverflowError, match="less than"):
        heap.BufferWrapper(1 << 63)
    assert len(sharedctypes.RawArray("i", 0)) == 0
    assert heap.BufferWrapper(0).create_memoryview().nbytes == 0


# --- on the way to another process ----------------------------------------------------------------


def answer(queue: Any, conn: Any) -> None:
    value, array, again = queue.get()
    assert again is value
    value.value += 1
    array[:] = b"from the child  "
    more = sharedctypes.RawArray("i", 200_000)
    conn.send((value, more))
    conn.recv()
    conn.send(more[-1])


@each_method
def test_shared_objects_go_through_queues_and_pipes(method: str) -> None:
    ctx = procession.get_context(method)
    queue, (here, there) = ctx.Queue(), ctx.Pipe()
    value, array = ctx.RawValue("i", 5), ctx.RawArray("c", 16)
    process = start(method, answer, queue, there)
    queue.put((value, array, value))
    back, large = here.recv()
    assert value.value == back.value == 6
    back.value = 7
    assert value.value == 7
    assert array.raw == b"from the child  "
    large[-1] = 99
    here.send("look")
    assert here.recv() == 99
    process.join()
    large[0] = 1  # its maker is gone
    here.send(array)
    assert there.recv()[:] == array[:]
    queue.close()
    queue.join_thread()
    here.close()
    there.close()


def test_what_is_sent_and_dropped_arrives(tmp_path: Path) -> None:
    """The sender has neither the object nor itself any more when it is received."""
    finished = run_text(
        tmp_path,
        """
        import procession

        def send(conn):
            conn.send(procession.RawArray("i", [1, 2, 3]))

        if __name__ == "__main__":
            here, there = procession.Pipe()
            process = procession.Process(target=send, args=(there,))
            process.start()
            process.join()
            print(here.recv()[:])
        """,
    )
    assert finished.lines == ["[1, 2, 3]"], finished.err


def test_plain_pickle_refuses_and_private_objects_go_by_value() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(procession.RawValue("i"))
    dumped = multiprocessing.reduction.ForkingPickler.dumps(ctypes.c_int(5))
    assert pickle.loads(dumped).value == 5


def look(arrays: Any, conn: Any) -> None:
    maps = Path("/proc/self/maps").read_text().splitlines()
    conn.send(sum("memfd:procession-arena" in line for line in maps))
    conn.send([array[0] for array in arrays])


@each_kept_method
def test_many_small_values_share_one_memfd(method: str) -> None:
    ctx = procession.get_context(method)
    arrays = [ctx.RawArray("i", [n]) for n in range(100)]
    assert len({array._wrapper._block.arena.key for array in arrays}) <= 2
    here, there = ctx.Pipe()
    process = start(method, look, arrays, there)
    assert here.recv() <= 2
    assert here.recv() == list(range(100))
    process.join()
    here.close()
    there.close()


def pass_on(method: str, value: Any, array: Any) -> None:
    process = start(method, write_to, value, array)
    process.join()


def write_to(value: Any, array: Any) -> None:
    value.value = 5
    array[-1] = 6


@each_method
def test_a_child_passes_on_what_it_got(method: str) -> None:
    ctx = procession.get_context(method)
    value, array = ctx.Value("i"), ctx.RawArray("b", 3 << 20)
    process = start(method, pass_on, method, value, array)
    process.join()
    assert (value.value, array[-1]) == (5, 6)


def write_when_told(value: Any, conn: Any) -> None:
    conn.recv()
    value.value = 77
    conn.send([value.value, value._wrapper._block.start])


@each_method
def test_what_a_child_uses_is_not_given_to_another_when_its_maker_lets_go(method: str) -> None:
    ctx = procession.get_context(method)
    here, there = ctx.Pipe()
    value = ctx.RawValue("i", 1)
    process = start(method, write_when_told, value, there)
    del value
    gc.collect()
    others = [ctx.RawValue("i") for _ in range(50)]
    here.send("go")
    assert here.recv()[0] == 77
    assert not any(other.value for other in others)
    process.join()
    here.close()
    there.close()


@each_method
def test_memory_outlives_its_killed_maker(method: str, tmp_path: Path) -> None:
    """The grandchild's parent is killed; the memory is the grandchild's as long as it lives."""
    finished = run_text(
        tmp_path,
        f"""
        import os, signal, procession

        def use(array, conn):
            conn.recv()
            array[:] = range(1000)
            conn.send(sum(array))

        def make(conn):
            array = procession.RawArray("i", 1000)
            procession.Process(target=use, args=(array, conn)).start()
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            procession.set_start_method({method!r})
            here, there = procession.Pipe()
            process = procession.Process(target=make, args=(there,))
            process.start()
            process.join()
            here.send("go")
            print(here.recv())
        """,
    )
    assert finished.lines == ["499500"], finished.err


def write_until_killed(array: Any, value: Any, conn: Any) -> None:
    """Allocate, free and write without an end, and tell when it is in full swing."""
    rng, kept, told = random.Random(os.getpid()), [], False
    while True:
        kept.append(procession.RawArray("i", [1] * rng.randrange(1, 500)))
        if len(kept) > 20:
            del kept[rng.randrange(len(kept))]
        for index in range(len(array)):
            array[index] += 1
        value.value += 1
        if not told:
            conn.send("swing")
            told = True


@each_method
def test_killed_while_it_allocates_and_writes_leaves_a_whole_arena(method: str, seed: int) -> None:
    rng = random.Random(seed)
    ctx = procession.get_context(method)
    array, value = ctx.RawArray("q", 64), ctx.RawValue("q")
    before = ctx.RawArray("i", [7] * 100)
    for _ in range(8 if method == "fork" else 3):
        here, there = ctx.Pipe()
        process = start(method, write_until_killed, array, value, there)
        assert here.recv() == "swing"
        for _ in range(rng.randrange(2000)):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        mine = [ctx.RawArray("i", rng.randrange(1, 300)) for _ in range(20)]
        assert not any(map(any, mine))
        for each in mine:
            each[:] = [3] * len(each)
        here.close()
        there.close()
    assert before[:] == [7] * 100
    assert value.value >= 3


# --- memory ------------------------------------------------------------------------------------


def test_a_freed_block_is_used_again_and_is_zero() -> None:
    first = procession.RawArray("i", [5] * 10)
    place = ctypes.addressof(first)
    del first
    again = procession.RawArray("i", 10)
    assert ctypes.addressof(again) == place
    assert again[:] == [0] * 10


def test_a_large_array_is_freed_at_once() -> None:
    before, maps = witness.descriptors(), arenas()
    array = procession.RawArray("b", 5 << 20)
    assert arenas() == maps + 1
    del array
    assert arenas() == maps
    assert witness.descriptors() == before


def test_an_arena_goes_with_its_last_block() -> None:
    allocator = heap.Heap()
    before = arenas()
    blocks = [allocator.malloc(50_000) for _ in range(40)]
    full = arenas() - before
    assert 2 <= full <= 8
    for block in blocks:
        allocator.free(block)
    del blocks, block
    last = allocator.malloc(100)
    assert arenas() - before == 1
    del last, allocator
    assert arenas() == before


def test_what_was_passed_on_does_not_pile_up() -> None:
    """A program that makes a value for each child for ever stays as large as it is."""
    allocator = heap.Heap()
    before = arenas()
    for _ in range(3000):
        block = allocator.malloc(20_000)
        block.passed_on = True
        allocator.free(block)
        del block
    assert arenas() - before <= 2
    del allocator


def test_the_allocator_is_used_by_threads_and_by_the_collector() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.wrapper = heap.BufferWrapper(64)

    def churn() -> None:
        for n in range(300):
            Cycle()
            mine = heap.BufferWrapper(64)
            memory = mine.create_memoryview()
            assert bytes(memory) == bytes(64)
            memory[:] = bytes([n % 255 + 1]) * 64
            assert bytes(memory) == bytes([n % 255 + 1]) * 64

    failed: list[Any] = []
    hook, threading.excepthook = threading.excepthook, failed.append
    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        gc.set_threshold(*threshold)
        threading.excepthook = hook
    assert not failed


def test_a_forked_copy_allocates_for_itself(seed: int) -> None:
    value = procession.RawArray("i", [1] * 10)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = [procession.RawArray("i", [2] * 10) for _ in range(50)]
            del value, mine[::2]
            more = [procession.RawArray("i", [3] * 10) for _ in range(50)]
            ours = heap._heap._spaces
            assert all(array._wrapper._block.space in ours for array in more)
            os.write(writing, b"done")
            os.close(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    later = [procession.RawArray("i", [4] * 10) for _ in range(50)]
    with open(reading, "rb") as file:
        assert file.read() == b"done"
    assert os.waitpid(child, 0)[1] == 0
    assert value[:] == [1] * 10
    assert all(array[:] == [4] * 10 for array in later)


def test_memory_is_sealed_and_not_dumped() -> None:
    import fcntl

    array = procession.RawArray("b", 100)
    arena = array._wrapper._block.arena
    for size in (arena.size // 2, arena.size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)
    assert fcntl.fcntl(arena.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
    smaps = Path("/proc/self/smaps").read_text().split("memfd:procession-arena")[1:]
    flags = [text.split("VmFlags:")[1].splitlines()[0].split() for text in smaps]
    assert all("dd" in each for each in flags)


LIMITS = """
import ctypes, errno, json, os, resource, procession
said = {}
kept = procession.Value("i", 5, lock=False)

def attempt(name, limit, value, size):
    old = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, old[1]))
    try:
        array = procession.RawArray("b", size)
        said[name] = len(array)
    except OSError as error:
        said[name] = [errno.errorcode[error.errno], str(error)]
    resource.setrlimit(limit, old)

attempt("small beside file size", resource.RLIMIT_FSIZE, 90_000, 66_000)
before = sorted(os.listdir("/proc/self/fd"))
attempt("file size", resource.RLIMIT_FSIZE, 1 << 20, 8 << 20)
attempt("address space", resource.RLIMIT_AS, 300 << 20, 1 << 30)
attempt("descriptors", resource.RLIMIT_NOFILE, len(before) - 1, 8 << 20)
said["kept"] = kept.value
said["same"] = before == sorted(os.listdir("/proc/self/fd"))
later = procession.RawArray("b", 8 << 20)
said["later"] = len(later)
print(json.dumps(said))
"""


def test_limits_are_errors_and_leave_nothing_behind(tmp_path: Path) -> None:
    said = run_text(tmp_path, LIMITS).said
    assert said.pop("kept") == 5
    assert said.pop("same") is True
    assert said.pop("later") == 8 << 20
    assert said.pop("small beside file size") == 66_000
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {"file size": "EFBIG", "address space": "ENOMEM", "descriptors": "EMFILE"}
    assert "RLIMIT_FSIZE" in said["file size"][1]
    assert "RLIMIT_AS" in said["address space"][1]
    assert "RLIMIT_NOFILE" in said["descriptors"][1]
    assert all("no shared memory of" in text for _, text in said.values())


def malloc_nine(allocator: heap.Heap, size: int) -> None:
    blocks = [allocator.malloc(size) for _ in range(9)]
    del blocks


def test_memory_that_is_refused_is_an_error_and_the_next_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Full memory shows at the reservation, before anybody touches it: no SIGBUS."""
    allocator = heap.Heap()
    kept = allocator.malloc(100)
    before = witness.descriptors()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for size in (8 << 20, 40 << 10, 70 << 10):
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(
                OSError, match=r"no shared memory of \d+ bytes: .* is full"
            ) as caught:
                malloc_nine(allocator, size)
            assert caught.value.errno == errno.ENOSPC
    block = allocator.malloc(70 << 10)
    assert not any(block.arena.buffer[block.start : block.start + block.size])
    del block, kept, allocator, caught
    gc.collect()
    assert witness.descriptors().items() <= before.items()


# --- the allocator against a model ------------------------------------------------------------


class AllocatorModel(RuleBasedStateMachine):
    """Blocks never overlap, are zero when they are new, and keep what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.heap = heap.Heap()
        self.blocks: list[tuple[Any, int]] = []
        self.known: set[tuple[Any, int]] = set()
        self.mark = 0

    @rule(size=st.one_of(st.integers(0, 300), st.sampled_from([4096, 70_000, 1 << 20, 1 << 21])))
    def allocate(self, size: int) -> None:
        block = self.heap.malloc(size)
        assert block.size >= max(size, 1)
        assert block.start % 16 == 0
        assert block.start + block.size <= block.arena.size
        memory = block.arena.buffer
        assert not any(memory[block.start : block.start + block.size])
        assert (block.arena.key, block.start) not in self.known
        self.mark = self.mark % 255 + 1
        memory[block.start : block.start + block.size] = bytes([self.mark]) * block.size
        self.blocks.append((block, self.mark))

    @rule(choice=st.randoms(use_true_random=False))
    def free(self, choice: random.Random) -> None:
        if self.blocks:
            block, _ = self.blocks.pop(choice.randrange(len(self.blocks)))
            self.heap.free(block)

    @rule(choice=st.randoms(use_true_random=False))
    def pass_on(self, choice: random.Random) -> None:
        if self.blocks:
            block, _ = choice.choice(self.blocks)
            block.passed_on = True
            self.known.add((block.arena.key, block.start))

    @rule()
    def fork(self) -> None:
        self.heap._before_fork()
        self.heap._after_fork_in_parent()
        self.known |= {(block.arena.key, block.start) for block, _ in self.blocks}

    @invariant()
    def nothing_overlaps(self) -> None:
        places = sorted((id(b.arena), b.start, b.start + b.size) for b, _ in self.blocks)
        for one, other in itertools.pairwise(places):
            assert one[0] != other[0] or one[2] <= other[1]
        for block, mark in self.blocks:
            memory = block.arena.buffer
            assert memory[block.start] == memory[block.start + block.size - 1] == mark


AllocatorModel.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, database=None
)
TestAllocator = AllocatorModel.TestCase
