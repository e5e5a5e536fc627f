"""Queues: what was put is there, nobody hangs, errors come where they were made (G4, G5, G6)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue as standard_queue
import resource
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing import queues as standard_queues
from typing import Any

import numpy
import pytest

import procession
from procession import queues
from tests.contract import queue_targets as targets
from tests.contract.programs import each_kept_method, each_method, fork_beside_pytests_threads

pytestmark = fork_beside_pytests_threads

LIMIT = 30.0
CHILD = ["fork", "forkserver"]


class Crew:
    """Processes of a test, ended with it."""

    def __init__(self) -> None:
        self.processes: list[Any] = []

    def start(self, ctx: Any, target: Any, *args: Any) -> Any:
        process = ctx.Process(target=target, args=args)
        process.start()
        self.processes.append(process)
        return process

    def ends_well(self, process: Any) -> bool:
        process.join(LIMIT)
        return process.exitcode == 0


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    for process in crew.processes:
        process.kill()
        process.join(LIMIT)
        process.close()


def hear(conn: Any) -> Any:
    """What a child says, within a limit."""
    assert conn.poll(LIMIT), "the child says nothing"
    return conn.recv()


def memory_of(queue: Any) -> int:
    """Bytes that the kernel says its data take."""
    return os.fstat(queue._shared[2].fd).st_blocks * 512


# --- as ever ------------------------------------------------------------------------------------


@each_method
def test_they_are_what_multiprocessing_has(method: str) -> None:
    ctx = procession.get_context(method)
    for made, kind in (
        (ctx.Queue(), standard_queues.Queue),
        (ctx.JoinableQueue(), standard_queues.JoinableQueue),
        (ctx.SimpleQueue(), standard_queues.SimpleQueue),
    ):
        assert isinstance(made, kind)
        assert made.empty()
        made.close()
    assert procession.Queue(3).full() is False


def test_the_default_factories_are_ours() -> None:
    assert type(procession.Queue()) is queues.Queue
    assert type(procession.JoinableQueue()) is queues.JoinableQueue
    assert type(procession.SimpleQueue()) is queues.SimpleQueue
    assert type(multiprocessing.Queue()) is standard_queues.Queue


@each_method
def test_a_child_that_put_much_can_be_joined_first(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    assert crew.ends_well(crew.start(ctx, targets.put_bytes, queue, 1_000_000, 10))
    assert [queue.get() == bytes([n]) * 1_000_000 for n in range(10)] == [True] * 10

    def is_given_back() -> bool:
        with pytest.raises(standard_queue.Empty):
            queue.get(timeout=1.5)
        return memory_of(queue) <= 65536

    # when somebody has waited for a second; on a loaded machine the time may be over before
    assert any(is_given_back() for _ in range(10)), memory_of(queue)


@pytest.mark.slow
@each_method
def test_a_child_that_put_a_gigabyte_can_be_joined_first(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue(max_bytes=3 << 30)
    assert crew.ends_well(crew.start(ctx, targets.put_bytes, queue, 10_000_000, 100))
    assert [queue.get() == bytes([n]) * 10_000_000 for n in range(100)] == [True] * 100


@each_method
def test_what_was_put_outlives_an_exit_without_goodbye(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    crew.start(ctx, targets.put_and_leave_at_once, queue, {"here": [1, 2]}).join(LIMIT)
    assert queue.get(timeout=LIMIT) == {"here": [1, 2]}


def test_an_item_that_cannot_be_pickled_is_the_callers_error() -> None:
    queue = procession.Queue()
    queue.put("before")
    with pytest.raises(pickle.PicklingError, match="not this one"):
        queue.put([targets.Unpicklable()])
    with pytest.raises((AttributeError, pickle.PicklingError)):
        queue.put(lambda: None)
    queue.put("after")
    assert [queue.get(), queue.get()] == ["before", "after"]
    assert queue.empty()


def test_a_subclass_may_see_to_what_cannot_be_pickled() -> None:
    seen = []

    class Careful(queues.Queue):
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            seen.append((type(e), type(obj)))

    queue = Careful(ctx=procession.get_context())
    queue.put(targets.Unpicklable())
    assert seen == [(pickle.PicklingError, targets.Unpicklable)]
    assert queue.empty()


def test_timeouts_and_limits() -> None:
    queue = procession.Queue(2)
    with pytest.raises(standard_queue.Empty):
        queue.get(False)
    with pytest.raises(standard_queue.Empty):
        queue.get(timeout=0.01)
    with pytest.raises(standard_queue.Empty):
        queue.get(timeout=-1)
    queue.put(1)
    queue.put(obj=2, block=True, timeout=None)
    assert (queue.qsize(), queue.full(), queue.empty()) == (2, True, False)
    with pytest.raises(standard_queue.Full):
        queue.put_nowait(3)
    with pytest.raises(standard_queue.Full):
        queue.put(3, timeout=0.01)
    assert [queue.get_nowait(), queue.get(True, 1)] == [1, 2]
    for wrong in ({"colour": 1}, {"obj": 1}):
        with pytest.raises(TypeError):
            queue.put(1, **wrong)
    with pytest.raises(TypeError):
        queue.get(timeout="soon")
    with pytest.raises(ValueError, match="nan"):
        queue.get(timeout=float("nan"))


def test_a_closed_queue_says_so() -> None:
    queue = procession.JoinableQueue()
    queue.put(1)
    queue.get()
    queue.close()
    for call in (queue.get, lambda: queue.put(1), queue.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()
    queue.task_done()  # the work on what was taken may end later
    queue.join()
    queue.join_thread()
    queue.cancel_join_thread()
    with pytest.raises(OSError, match="is closed"):
        queue.empty()
    unused = procession.Queue()
    unused.close()
    assert unused.empty()
    simple = procession.SimpleQueue()
    simple.close()
    simple.close()
    assert simple._reader.closed
    with pytest.raises(OSError, match="is closed"):
        simple.get()


def test_a_blocked_get_can_be_interrupted() -> None:
    queue = procession.Queue()
    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, lambda *_: (_ for _ in ()).throw(KeyError("handler")))
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(KeyError, match="handler"):
            queue.get()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    queue.put("still of use")
    assert queue.get() == "still of use"


def test_threads_of_one_process_share_it() -> None:
    queue = procession.JoinableQueue(5)
    got = []

    def take() -> None:
        for item in queue:
            got.append(item)
            queue.task_done()

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(500):
        queue.put(number)
    queue.join()
    queue.shutdown()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(got) == list(range(500))


# --- new ----------------------------------------------------------------------------------------


@each_kept_method
def test_it_is_iterated_until_it_is_shut_down(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue, answers = ctx.Queue(), ctx.Queue()
    child = crew.start(ctx, targets.echo, queue, answers)
    for item in (1, "two", None):
        queue.put(item)
    assert [answers.get(timeout=LIMIT) for _ in range(3)] == [1, "two", None]
    queue.shutdown()
    assert answers.get(timeout=LIMIT) == "shut down"
    assert crew.ends_well(child)
    with pytest.raises(queues.ShutDown):
        queue.put(4)
    assert issubclass(queues.ShutDown, getattr(standard_queue, "ShutDown", Exception))


@pytest.mark.parametrize("method", CHILD)
def test_a_shutdown_reaches_those_who_wait(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    full, empty = ctx.Queue(1), ctx.Queue()
    full.put("first")
    ours, theirs = ctx.Pipe()
    for queue, target in ((full, targets.wait_for_room), (empty, targets.wait_for_item)):
        child = crew.start(ctx, target, queue, theirs)
        assert hear(ours) == "begins"
        queue.shutdown()
        assert hear(ours) == "shut down"
        assert crew.ends_well(child)
    assert full.get() == "first", "what was in it stays"
    with pytest.raises(queues.ShutDown):
        full.get()
    ours.close()
    theirs.close()


def test_an_immediate_shutdown_drops_what_is_in_it() -> None:
    queue = procession.JoinableQueue()
    for number in range(3):
        queue.put(number)
    assert queue.get() == 0
    queue.shutdown(immediate=True)
    with pytest.raises(queues.ShutDown):
        queue.get()
    joined = threading.Thread(target=queue.join)
    joined.start()
    queue.task_done()
    joined.join(LIMIT)
    assert not joined.is_alive()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


@each_kept_method
def test_queues_and_locks_travel_through_queues(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    outer = ctx.Queue()
    child = crew.start(ctx, targets.use_what_comes, outer)
    inner = ctx.Queue()
    lock = ctx.Lock()
    with lock:
        outer.put((inner, lock))
        assert inner.get(timeout=LIMIT) == "at the lock"
        with pytest.raises(standard_queue.Empty):
            inner.get(timeout=0.2)  # it is the same lock
    assert inner.get(timeout=LIMIT) == "through a queue that came through a queue"
    assert crew.ends_well(child)


def test_it_arrives_as_the_same_memory_in_its_own_process() -> None:
    outer, inner = procession.Queue(), procession.Queue()
    outer.put(inner)
    outer.put(inner)
    one, other = outer.get(), outer.get()
    one.put("put into the copy")
    assert inner.get() == "put into the copy"
    other.put(1)
    assert one._shared[2] is inner._shared[2] is other._shared[2]


# --- large items --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CHILD)
def test_large_arrays_come_whole_and_are_their_receivers_own(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue, answers = ctx.Queue(), ctx.Queue()
    sent = numpy.arange(400_000.0)
    child = crew.start(ctx, targets.change_array, queue, answers)
    queue.put({"first": sent, "second": sent.reshape(2, -1).T, "small": [1]})
    got = answers.get(timeout=LIMIT)
    assert got["first"][0] == -1.0
    assert sent[0] == 0.0
    assert numpy.array_equal(got["first"][1:], sent[1:])
    assert numpy.array_equal(got["second"], sent.reshape(2, -1).T)
    assert got["first"].flags.writeable
    assert crew.ends_well(child)


def test_an_extent_is_not_written_to_while_somebody_has_it() -> None:
    queue = procession.Queue()
    kept = []
    for number in range(300):  # more than there are extents: the rest goes through the ring
        queue.put(numpy.full(20_000, number))
        kept.append(queue.get())
    assert all((array == number).all() for number, array in enumerate(kept))


def test_a_forked_copy_of_an_array_keeps_its_bytes() -> None:
    queue = procession.Queue()
    queue.put(numpy.full(100_000, 5))
    array = queue.get()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(ours, 1)
        os._exit(0 if (array == 5).all() else 3)
    os.close(ours)
    del array
    for number in range(20):
        queue.put(numpy.full(100_000, number + 10))
        queue.get()
    os.write(theirs, b"x")
    os.close(theirs)
    assert os.waitpid(pid, 0)[1] == 0
    before = memory_of(queue)
    queue.put(numpy.full(100_000, 1))
    queue.get()
    assert memory_of(queue) <= before, "what the copy had is of use again"


def test_what_a_killed_receiver_had_is_of_use_again(crew: Crew) -> None:
    ctx = procession.get_context("forkserver")
    queue, answers = ctx.Queue(), ctx.Queue()
    for _ in range(3):
        child = crew.start(ctx, targets.hold_array, queue, answers)
        queue.put(numpy.ones(1_000_000))
        assert answers.get(timeout=LIMIT) == 1.0
        child.kill()
        child.join(LIMIT)
    assert memory_of(queue) < 3 * 8_000_000


@pytest.mark.parametrize("size", [131_071, 131_072, 5_000_001])
def test_large_values_of_every_kind(size: int) -> None:
    queue = procession.Queue()
    for item in (b"x" * size, "é" * size, [b"y" * size, {1}], bytearray(size)):
        queue.put(item)
        got = queue.get()
        assert got == item
        assert type(got) is type(item)


# --- its ends, as others use them ---------------------------------------------------------------


@pytest.mark.parametrize("method", CHILD)
def test_connection_wait_sees_items(crew: Crew, method: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    assert connection.wait([queue._reader], 0) == []
    queue.put(1)
    assert connection.wait([queue._reader], 0) == [queue._reader]
    assert queue._reader.poll()
    queue.put(2)
    assert queue.get() == 1
    assert connection.wait([queue._reader], LIMIT) == [queue._reader]
    assert queue._reader.recv() == 2
    assert connection.wait([queue._reader], 0) == []
    assert not queue._reader.poll(0.01)
    ours, theirs = ctx.Pipe()
    child = crew.start(ctx, targets.wait_with_connection, queue, theirs)
    queue._writer.send("for the child")
    assert hear(ours) == [True]
    assert hear(ours) == "for the child"
    assert crew.ends_well(child)
    assert connection.wait([queue._reader, child.sentinel], LIMIT) == [child.sentinel]
    ours.close()
    theirs.close()


# --- limits -------------------------------------------------------------------------------------


def test_the_budget_is_an_error_at_put_and_nothing_is_lost() -> None:
    queue = procession.Queue(max_bytes=1 << 20)
    queue.put("before")
    with pytest.raises(MemoryError, match="max_bytes"):
        queue.put(b"x" * (1 << 20))
    put = 0
    while True:
        try:
            queue.put(b"y" * 10_000)
        except MemoryError:
            break
        put += 1
    assert put > 90
    assert queue.get() == "before"
    for _ in range(put):
        assert queue.get() == b"y" * 10_000
    queue.put("after")
    assert queue.get() == "after"
    with pytest.raises(ValueError, match="max_bytes"):
        procession.Queue(max_bytes=100)


@pytest.mark.parametrize(
    ("limit", "size", "item", "error"),
    [
        (resource.RLIMIT_AS, 600 << 20, 700 << 20, MemoryError),
        (resource.RLIMIT_FSIZE, 8192, 5_000_000, None),
    ],
)
def test_a_resource_limit_is_an_error_at_put(
    crew: Crew, limit: int, size: int, item: int, error: type[BaseException] | None
) -> None:
    ctx = procession.get_context("forkserver")
    queue = ctx.Queue()
    ours, theirs = ctx.Pipe()
    child = crew.start(ctx, targets.limited, queue, theirs, limit, size, item)
    answer = hear(ours)
    assert crew.ends_well(child)
    assert queue.get() == "before"
    if error is None:
        assert answer == "put", "its size was fixed when it was made"
        assert len(queue.get()) == item
    else:
        assert issubclass(answer[0], error)
    assert queue.get() == "after"
    ours.close()
    theirs.close()


def test_a_full_memory_is_an_error_at_put_and_nothing_is_lost(crew: Crew) -> None:
    ctx = procession.get_context("fork")
    queue = ctx.Queue()
    ours, theirs = ctx.Pipe()
    child = crew.start(ctx, targets.without_memory, queue, theirs)
    if reason := hear(ours):
        pytest.skip(reason)
    for _ in range(2):
        kind, text = hear(ours)
        assert issubclass(kind, MemoryError), text
        assert "no memory for the item; the queue is as it was" in text
    assert hear(ours) == "before"
    assert crew.ends_well(child)
    assert queue.get() == "after"
    queue.put(bytes(5_000_000))
    assert len(queue.get()) == 5_000_000
    ours.close()
    theirs.close()


def test_a_queue_made_under_a_file_size_limit_has_that_budget(crew: Crew) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        queue = procession.Queue()
        queue.put(b"x" * 500_000)
        with pytest.raises(MemoryError):
            queue.put(b"x" * 2_000_000)
        assert len(queue.get()) == 500_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_code_that_closes_all_descriptors_harms_no_stranger(crew: Crew) -> None:
    ctx = procession.get_context("fork")
    queue = ctx.Queue()
    queue.put("so that it is mapped")
    queue.get()
    ours, theirs = ctx.Pipe()
    child = crew.start(ctx, targets.close_all_descriptors, queue, theirs)
    answer = hear(ours)
    if isinstance(answer, int):
        assert answer == 9, "EBADF"
        answer = hear(ours)
    assert answer == [0] * 8
    child.join(LIMIT)
    assert queue.get() == "small"
    queue.put("after")
    assert queue.get() == "after"
    ours.close()
    theirs.close()


def test_nothing_stays_of_a_queue_that_nobody_has() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        queue = procession.Queue()
        queue.put(b"x" * 100_000)
        queue._reader.fileno()
        del queue
    assert (
        len(set(os.listdir("/proc/self/fd")) - before) <= 2
    )  # the table, the small objects' memory


def test_idle_waiters_cost_next_to_nothing() -> None:
    queue = procession.Queue()
    threads = [threading.Thread(target=queue.get) for _ in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)  # the first looks are closer to each other
    before = time.process_time()
    time.sleep(0.5)
    used = time.process_time() - before
    for number in range(10):
        queue.put(number)
    for thread in threads:
        thread.join(LIMIT)
    assert used < 0.1, "a fifth of one core for ten waiters would be polling"
