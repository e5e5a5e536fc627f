"""What lies in an item of a queue goes with the item, whatever becomes of it (G5).

The witness is the other end of a pipe: it comes to its end when nobody has this one any more.
"""

from __future__ import annotations

import os
import pickle
import queue as standard
import signal
from typing import Any

import psutil
import pytest

import procession
from procession import _native
from procession._launch import keeper_client
from procession._wire import messages
from procession.errors import ItemLostWarning
from procession.queues import ShutDown
from tests.contract.programs import fork_beside_pytests_threads, start, wait_until

pytestmark = fork_beside_pytests_threads
PATIENCE = 30.0
_ends: list[Any] = []


class _Gate:
    """Does something to whoever unpickles it."""

    def __init__(self, deed: Any, *arguments: Any) -> None:
        self.deed = deed, arguments

    def __reduce__(self) -> Any:
        return self.deed


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Later:
    """Has its pickle made with the item's, and unpickles it long after."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __getstate__(self) -> bytes:
        return pickle.dumps(self.value)

    def __setstate__(self, pickled: bytes) -> None:
        self.pickled = pickled


@pytest.fixture(autouse=True)
def guard() -> Any:
    """Whoever has no guard sends descriptors otherwise."""
    process = start("forkserver", int)
    process.join()
    keeper: Any = keeper_client.existing()
    pids = {index: pid for index, pid, _ in keeper.table.pids()}
    return psutil.Process(pids[messages.GUARD_SLOT])


def sent(queue: Any, *beside: object) -> Any:
    """The reading end of a pipe whose writing end is in the queue, and nowhere else."""
    receiver, sender = procession.Pipe(duplex=False)
    try:
        queue.put((*beside, sender), block=False)
    finally:
        sender.close()
        _ends.append(receiver)
    return receiver


@pytest.fixture(autouse=True)
def ends() -> Any:
    """Close them."""
    yield
    while _ends:
        _ends.pop().close()


def is_let_go(receiver: Any, limit: float = PATIENCE) -> bool:
    if not receiver.poll(limit):
        return False
    with pytest.raises(EOFError):
        receiver.recv()
    return True


def use(item: Any, receiver: Any) -> None:
    """What was sent is as good as ever."""
    item[-1].send("hello")
    item[-1].close()
    assert receiver.recv() == "hello"
    assert is_let_go(receiver)


def hold_until_told(queue: Any, end: Any) -> None:
    end.send("has it")
    end.recv()


def take(queue: Any) -> None:
    queue.get()


# --- the queue ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_what_lies_in_a_queue_goes_with_it(kind: str) -> None:
    context = procession.get_context("forkserver")
    dropped, kept = getattr(context, kind)(), context.Queue()
    first, second = sent(dropped), sent(kept)
    del dropped
    assert is_let_go(first)
    assert not second.poll(0), "the other queue is there"
    use(kept.get(), second)


def test_thousands_in_queues_that_are_dropped_leave_nothing_with_the_guard(guard: Any) -> None:
    lock = procession.Lock()
    before = guard.num_fds()
    most = 0
    for number in range(800):
        queue = procession.SimpleQueue()
        receiver, sender = procession.Pipe(duplex=False)
        queue.put((sender, lock))
        sender.close()
        receiver.close()
        if number % 50 == 49:
            most = max(most, guard.num_fds())
    del queue
    assert wait_until(lambda: guard.num_fds() <= before + 8, PATIENCE)
    assert most < before + 750, "and they do not pile up until somebody looks"


def test_a_queue_that_is_there_keeps_them_all(guard: Any) -> None:
    kept, dropped = procession.Queue(), procession.Queue()
    ends = [sent(kept) for _ in range(300)]
    process = start("forkserver", int)
    process.join()
    first = sent(dropped)
    del dropped
    assert is_let_go(first), "the guard has looked"
    for end in ends:
        use(kept.get(), end)


def test_the_last_to_have_the_queue_may_be_anyone() -> None:
    context = procession.get_context("forkserver")
    queue, other = context.Queue(), context.Queue()
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_until_told, args=(queue, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "has it"
    end, first = sent(queue), sent(other)
    del queue, other
    assert is_let_go(first), "the guard has looked"
    assert not end.poll(0)
    process.kill()
    process.join()
    assert is_let_go(end)
    ours.close()


def test_a_queue_in_a_queue_and_what_lies_in_there() -> None:
    outer, inner, other = procession.Queue(), procession.Queue(), procession.Queue()
    outer.put(inner)
    end, first = sent(inner), sent(other)
    del inner, other
    assert is_let_go(first), "the guard has looked"
    assert not end.poll(0)
    del outer
    assert is_let_go(end)


def test_a_pickle_in_the_pickle_may_be_used_after_the_queue() -> None:
    queue = procession.Queue()
    lock = procession.Lock()
    queue.put(Later(lock))
    end = sent(queue)
    later = queue.get()
    lock.acquire()
    del queue
    assert is_let_go(end)
    assert not pickle.loads(later.pickled).acquire(False)
    lock.release()


def look_around(queue: Any, end: Any) -> None:
    end.send("has it")
    while not end.poll(0):
        found = [queue._is_alone(False) for _ in range(50)]
    end.send(found[-1])


def test_who_looks_for_others_is_seen_by_the_guard_meanwhile() -> None:
    context = procession.get_context("forkserver")
    queue: Any = context.Queue()
    watched = _native.Ring._watch(queue._shared[2].fd)
    ours, theirs = context.Pipe()
    process = context.Process(target=look_around, args=(queue, theirs))
    process.start()
    assert ours.recv() == "has it"
    del queue
    assert all(_native.Ring._is_had(watched) for _ in range(50000))
    ours.send("enough")
    assert ours.recv() is True, "and who watches is no user"
    process.join()
    assert not _native.Ring._is_had(watched)
    os.close(watched)
    for end in (ours, theirs):
        end.close()


# --- the item ends ------------------------------------------------------------------------------


def test_what_a_shutdown_drops() -> None:
    queue = procession.Queue()
    taken, dropped = sent(queue), sent(queue)
    item = queue.get()
    queue.shutdown(immediate=True)
    assert is_let_go(dropped)
    use(item, taken)
    with pytest.raises(ShutDown):
        sent(queue)
    assert is_let_go(_ends[-1])


def test_what_does_not_go_in() -> None:
    queue = procession.Queue(maxsize=1)
    end = sent(queue)
    with pytest.raises(standard.Full):
        sent(queue)
    assert is_let_go(_ends[-1])
    use(queue.get(), end)
    receiver, sender = procession.Pipe(duplex=False)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        queue.put((sender, lambda: None))
    sender.close()
    assert is_let_go(receiver)
    receiver.close()


def interrupt_once(patch: pytest.MonkeyPatch, queue: Any, name: str) -> None:
    def interrupted(*_: object) -> None:
        patch.undo()
        raise KeyboardInterrupt

    patch.setattr(type(queue), name, interrupted)


def test_an_interrupt_while_the_guard_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the caller's, whatever else was to be raised, and the guard is told all the same."""
    queue = procession.Queue(maxsize=1)
    interrupt_once(monkeypatch, queue, "_settle")
    with pytest.raises(KeyboardInterrupt):
        sent(queue, _Gate(int, "no number"))
    interrupt_once(monkeypatch, queue, "_settle")
    with pytest.raises(KeyboardInterrupt):
        sent(queue)
    assert is_let_go(_ends[-1]), "it did not go in"
    interrupt_once(monkeypatch, queue, "_lose")
    with pytest.raises(KeyboardInterrupt):
        queue.get()
    assert is_let_go(_ends[-2])
    end = sent(queue)
    use(queue.get(), end)


def test_what_cannot_be_unpickled() -> None:
    queue = procession.Queue()
    end, next_one = sent(queue, _Gate(int, "no number")), sent(queue)
    with pytest.raises(ValueError, match="no number"):
        queue.get()
    assert is_let_go(end)
    use(queue.get(), next_one)


def test_what_died_in_the_hands_of_who_took_it() -> None:
    context = procession.get_context("forkserver")
    queue = context.Queue()
    end, next_one = sent(queue, _Gate(die)), sent(queue)
    process = context.Process(target=take, args=(queue,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.warns(ItemLostWarning):
        assert queue.lost == 1
    assert is_let_go(end)
    use(queue.get(), next_one)


def test_what_was_on_its_way_when_its_sender_was_killed() -> None:
    """It did not go in: the guard cannot know that, and lets go of it with the queue."""
    context = procession.get_context("forkserver")
    queue = context.Queue()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=put_and_die, args=(queue, sender))
    process.start()
    sender.close()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert queue.empty()
    del process, queue
    assert is_let_go(receiver)
    receiver.close()


class _Deadly:
    def __reduce__(self) -> Any:
        die()


def put_and_die(queue: Any, sender: Any) -> None:
    queue.put((sender, _Deadly()))
