"""A get that would wait for ever says so, and no other one does; items that died are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

import procession
from tests.contract import programs, queue_targets
from tests.contract.programs import each_method

# In a program of its own: pytest's threads might put, as far as anybody can tell.
PROGRAM = """
    import os, signal, sys, threading, time
    import procession
    from procession import TakersGone, WritersGone

    LONG = 1.2  # seconds; a get looks after 0.05, 0.25 and 1.05

    def dies(queue, said):
        queue.put("before")
        said.recv()
        os.kill(os.getpid(), signal.SIGKILL)

    def takes_and_dies(queue):
        queue.get()
        os.kill(os.getpid(), signal.SIGKILL)

    def reports_late(queue):
        queue.get()
        time.sleep(LONG)
        queue.task_done()

    def returns(queue):
        queue.put("from one that returns")

    def late(queue):
        time.sleep(LONG)
        queue.put("late")

    def passes_on(carrier):
        time.sleep(LONG)
        carrier.get().put("passed on")

    def says(method):
        ctx = procession.get_context(method)
        queue = ctx.Queue()
        ours, theirs = ctx.Pipe()
        victim = ctx.Process(target=dies, args=(queue, theirs), name="victim")
        victim.start()
        assert queue.get() == "before"
        other = ctx.Process(target=returns, args=(queue,), name="other")
        other.start()
        other.join()
        ours.send("die")
        assert queue.get() == "from one that returns"
        try:
            queue.get()
        except WritersGone as gone:
            told = {name: str(ending) for name, _, ending in gone.endings}
            right = {"victim": "was killed by SIGKILL", "other": "returned"}
            print(told == right or gone, flush=True)
        victim.join()
        queue.put("still of use")
        print(queue.get(), flush=True)
        kept = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            try:
                queue.get()
            except WritersGone:
                pass
        print(len(os.listdir("/proc/self/fd")) - kept, "descriptors more", flush=True)

        tasks = ctx.JoinableQueue()
        tasks.put("taken")
        tasks.put("left")
        worker = ctx.Process(target=takes_and_dies, args=(tasks,), name="worker")
        worker.start()
        try:
            tasks.join()
        except TakersGone as gone:
            told = {name: str(ending) for name, _, ending in gone.endings}
            print(told == {"worker": "was killed by SIGKILL"} or gone, flush=True)
        print(tasks.get(), flush=True)
        tasks.task_done()
        tasks.task_done()
        tasks.join()

    def waits(method):
        ctx = procession.get_context(method)
        queue = ctx.Queue()
        process = ctx.Process(target=late, args=(queue,))
        process.start()
        print(queue.get(), flush=True)
        process.join()

        carrier, queue = ctx.Queue(), ctx.Queue()
        process = ctx.Process(target=passes_on, args=(carrier,))
        carrier.put(queue)
        process.start()
        print(queue.get(), flush=True)
        process.join()

        timer = threading.Timer(LONG, queue.put, ("by a thread",))
        timer.start()
        print(queue.get(), flush=True)
        timer.join()

        signal.signal(signal.SIGALRM, lambda *_: queue.put("by a handler"))
        signal.setitimer(signal.ITIMER_REAL, LONG)
        print(queue.get(), flush=True)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

        queue = ctx.Queue(on_writers_gone="wait")
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, LONG)
        try:
            queue.get()
        except KeyboardInterrupt:
            print("waited", flush=True)

        queue = ctx.Queue()
        queue.put("so that its memory is mapped")
        queue.get()
        copy = os.fork()
        if copy == 0:
            os.closerange(3, 10000)
            time.sleep(LONG)
            queue.put("without any descriptor")
            os._exit(0)
        print(queue.get(), flush=True)
        os.waitpid(copy, 0)

        tasks = ctx.JoinableQueue()
        tasks.put("task")
        process = ctx.Process(target=reports_late, args=(tasks,))
        process.start()
        tasks.join()
        print("reported", flush=True)
        process.join()

    if __name__ == "__main__":
        globals()[sys.argv[1]](sys.argv[2])
"""


@each_method
def test_a_get_with_nobody_left_to_put_says_who_there_was(tmp_path: Path, method: str) -> None:
    done = programs.run_text(tmp_path, PROGRAM, "says", method)
    assert done.lines == ["True", "still of use", "0 descriptors more", "True", "left"], done.err


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_whoever_may_still_put_is_waited_for(tmp_path: Path, method: str) -> None:
    done = programs.run_text(tmp_path, PROGRAM, "waits", method)
    assert done.lines == [
        "late",
        "passed on",
        "by a thread",
        "by a handler",
        "waited",
        "without any descriptor",
        "reported",
    ], done.err


def test_it_can_be_asked_for_whatever_this_process_has() -> None:
    queue = procession.Queue(on_writers_gone="raise")
    with pytest.raises(procession.WritersGone, match="no other process has the queue"):
        queue.get(timeout=30)
    with pytest.raises(EOFError):  # what a pipe says
        queue.get()
    queue.put(1)
    queue.put(2)
    assert [queue.get(), queue.get(timeout=1)] == [1, 2]
    with pytest.raises(ValueError, match="on_writers_gone"):
        procession.Queue(on_writers_gone="shout")


def test_two_objects_of_one_process_are_one_holder() -> None:
    carrier, queue = procession.Queue(), procession.Queue(on_writers_gone="raise")
    queue.put("mapped")
    queue.get()
    carrier.put(queue)
    other = carrier.get()
    assert not other._is_alone(False), "the guard keeps what was sent as long as its sender does"
    assert not queue._is_alone(False)


@pytest.mark.filterwarnings("ignore:fork copies this process")
@each_method
def test_an_item_that_died_in_its_takers_hands_is_reported_once(method: str) -> None:
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    assert queue.lost == 0
    queue.put(queue_targets.Deadly(b""))
    queue.put(queue_targets.Deadly(b"x" * 500_000))
    for number in (1, 2):
        taker = programs.start(method, queue_targets.take_one, queue, name="taker")
        taker.join(programs.LIMIT)
        assert taker.exitcode == -9
        with pytest.warns(procession.ItemLostWarning, match="'taker'.*killed by SIGKILL.*an item"):
            assert queue.lost == number
    assert queue.lost == 2
    taker = programs.start(method, queue_targets.take_one_and_die, queue)
    queue.put("taken")
    taker.join(programs.LIMIT)
    assert queue.lost == 2, "that one had it: what became of it is not the queue's to know"
    taker.close()
