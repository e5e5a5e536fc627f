"""Pool and executor: memory of large arguments and results, and workers that cannot start."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import procession
from procession._launch import stopping
from procession._launch.own_thread import OwnThread
from procession.pool import Pool
from tests.contract import calls
from tests.contract.programs import fork_beside_pytests_threads, limited, wait_until
from tests.contract.test_pool import LIMIT

pytestmark = fork_beside_pytests_threads

SIZE = 4 << 20


def memory_of(pid: int) -> int:
    """Bytes of the memory that a worker shares with its pool, as the kernel counts them."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        if "procession-slate" in os.readlink(f"{folder}/{name}"):
            return os.stat(f"{folder}/{name}").st_blocks * 512
    raise AssertionError("it has none")


def test_memory_of_arrays_is_used_again_and_given_back(pool: Any) -> None:
    numpy = pytest.importorskip("numpy")
    (worker,) = pool._pool
    array = numpy.ones(SIZE, dtype="uint8")
    for _ in range(12):
        assert pool.apply(calls.plus_one, (array,)).sum() == 2 * SIZE
    assert memory_of(worker.pid) < 6 * SIZE  # the last ones may be held still
    kept = pool.apply(calls.plus_one, (array,))
    others = pool.map(calls.plus_one, [array] * 4)
    assert kept.sum() == 2 * SIZE  # while somebody has it, nothing else comes there
    del others
    gc.collect()
    assert wait_until(lambda: memory_of(worker.pid) < 2 * SIZE)
    assert kept.sum() == 2 * SIZE
    del kept
    gc.collect()
    assert wait_until(lambda: memory_of(worker.pid) < SIZE)


def test_a_killed_worker_leaves_no_memory_but_what_somebody_has(pool: Any) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(SIZE, dtype="uint8")
    kept = pool.apply(calls.plus_one, (array,))
    (worker,) = pool._pool
    ours = f"/proc/self/fd/{pool._crew.hands[0].slate.fd}"
    inode = os.stat(ours).st_ino
    dying = pool.apply_async(calls.kill_holding, (array,))
    with pytest.raises(procession.WorkerDied):
        dying.get(LIMIT)
    assert kept.sum() == 2 * SIZE  # it outlives who made it
    assert pool.apply(calls.plus_one, (array,)).sum() == 2 * SIZE
    del kept, dying
    gc.collect()
    assert inode not in open_files()
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert f" {inode} " not in maps.read()
    assert worker.exitcode == -signal.SIGKILL


def open_files() -> set[int]:
    """The inodes of what this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the list, or of another thread
            found.add(os.stat(f"/proc/self/fd/{name}").st_ino)
    return found


def test_a_worker_without_a_free_descriptor_takes_and_gives_large_things(pool: Any) -> None:
    pid = pool.apply(calls.use_up_descriptors)
    assert pool.apply(len, (bytes(SIZE),)) == SIZE
    assert len(pool.apply(calls.big, (SIZE,))) == SIZE
    assert pool.apply(calls.pid) == pid


def test_a_large_result_that_cannot_be_sent_fails_its_call_alone() -> None:
    """No room in the shared memory, and no descriptor for memory of its own."""
    first = procession.get_context("forkserver").Process(target=int)
    first.start()  # the keeper needs more than what follows
    first.join()
    with limited(resource.RLIMIT_FSIZE, SIZE // 2):
        pool = procession.get_context("forkserver").Pool(1)
        pool.apply(calls.pid)
    try:
        assert len(pool.apply(calls.big, (SIZE // 8,))) == SIZE // 8
        results = [pool.apply_async(calls.big, (size,)) for size in (8, SIZE, 9)]
        assert [len(result.get(LIMIT)) for result in results[::2]] == [8, 9]
        with pytest.raises(OSError, match="its result could not be sent: File too large"):
            results[1].get(LIMIT)
        pid = pool.apply(calls.use_up_descriptors)
        with pytest.raises(OSError, match="its result could not be sent") as caught:
            pool.apply(calls.big, (SIZE // 8,))
        assert caught.value.errno == errno.EMFILE
        with pytest.raises(OSError, match="its arguments could not be received") as caught:
            pool.apply(len, (bytes(SIZE // 8),))
        assert caught.value.errno == errno.EMFILE
        assert pool.apply(calls.pid) == pid
    finally:
        pool.terminate()
        pool.join()


def test_an_argument_that_cannot_be_sent_fails_its_call_alone(pool: Any) -> None:
    (hand,) = pool._crew.hands
    hand.channel.room._size = 0
    with limited(resource.RLIMIT_FSIZE, SIZE // 2):
        results = pool.imap(len, [b"1", bytes(SIZE), b"2"], chunksize=3)
        assert results.next(LIMIT) == 1
        with pytest.raises(OSError, match=r"len\(.*could not be sent: File too large"):
            results.next(LIMIT)
        assert results.next(LIMIT) == 1
        with pytest.raises(OSError, match="could not be sent: File too large"):
            pool.apply(len, (bytes(SIZE),))
    assert pool.apply(len, (bytes(SIZE),)) == SIZE


# --- starts that fail ------------------------------------------------------------------------


class Refusing(Pool):
    """A pool whose workers cannot be started at times."""

    refuses = 0

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        if Refusing.refuses:
            Refusing.refuses -= 1
            raise OSError(errno.EAGAIN, "no more processes")
        return ctx.Process(*args, **kwds)


@pytest.mark.parametrize("size", [1, 2])
def test_a_start_that_failed_is_tried_again(size: int) -> None:
    pool = Refusing(size, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        Refusing.refuses = 2
        with pytest.raises(procession.WorkerDied):
            pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
        assert pool.apply_async(calls.square, (3,)).get(LIMIT) == 9
        assert wait_until(lambda: len(pool._pool) == size)
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()


def test_why_no_worker_can_be_started_is_logged_once_while_others_are_there() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = procession.get_logger()
    logger.addHandler(handler)
    pool = Refusing(2, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        for times in (1, 2):
            Refusing.refuses = 3
            with pytest.raises(procession.WorkerDied):
                pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
            assert wait_until(lambda: len(pool._pool) == 2 and not Refusing.refuses)
            assert len(heard) == times  # not at each of the three
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()
        logger.removeHandler(handler)
    assert heard[0] == (
        "a worker cannot be started (BlockingIOError: [Errno 11] no more processes); "
        "1 of 2 are there, and it is tried again"
    )


def test_a_pool_that_can_start_no_worker_says_so() -> None:
    pool = Refusing(1, context=procession.get_context("forkserver"))
    try:
        pool.apply(calls.pid)
        Refusing.refuses = 1000
        with pytest.raises(procession.WorkerDied):
            pool.apply_async(calls.kill_holding, (None,)).get(LIMIT)
        with pytest.raises(OSError, match="no more processes"):
            pool.apply_async(calls.square, (3,)).get(LIMIT)
    finally:
        Refusing.refuses = 0
        pool.terminate()
        pool.join()


def stubborn(path: str) -> None:
    """An initializer that does not end by SIGTERM, nor by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).touch()
    time.sleep(600)


class Half(Pool):
    """A pool of which only the first worker can be started; by then it is in its initializer."""

    started: Path

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        if Half.started.parent.joinpath("asked").exists():
            wait_until(Half.started.exists)
            raise OSError(errno.EAGAIN, "no more processes")
        Half.started.parent.joinpath("asked").touch()
        return ctx.Process(*args, **kwds)


def test_a_pool_that_cannot_start_all_ends_those_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_strays: None
) -> None:
    monkeypatch.setattr(stopping, "GRACE", 0.2)
    Half.started = tmp_path / "started"
    context = procession.get_context("forkserver")
    with pytest.raises(OSError, match="no more processes"):
        Half(2, stubborn, (str(Half.started),), context=context)
    assert not procession.active_children()


@pytest.mark.parametrize("kind_of", [RuntimeError, KeyboardInterrupt])
def test_a_pool_whose_thread_does_not_start_ends_the_workers_that_it_has(
    kind_of: type[BaseException], monkeypatch: pytest.MonkeyPatch, no_strays: None
) -> None:
    start = OwnThread.start

    def fail(thread: OwnThread) -> None:
        if kind_of is KeyboardInterrupt:  # it comes to who waits for the thread's first word
            start(thread)
        raise kind_of("as told")

    context = procession.get_context("forkserver")
    with context.Pool(1) as pool:  # whatever the first one brings along is there
        pool.apply(calls.pid)
    before = open_files()
    monkeypatch.setattr(OwnThread, "start", fail)
    with pytest.raises(kind_of, match="as told"):
        context.Pool(2)
    assert not procession.active_children()
    gc.collect()
    assert wait_until(lambda: open_files() <= before)
