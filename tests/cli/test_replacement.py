"""`procession run`: all that an unchanged program makes is ours, however it spells it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contract.programs import each_method, run_command, write

RUN = [sys.executable, "-m", "procession", "run"]

EVERYTHING = '''
import inspect, json, sys
import multiprocessing
import multiprocessing as mp
import multiprocessing.managers, multiprocessing.pool, multiprocessing.queues
import multiprocessing.sharedctypes, multiprocessing.shared_memory, multiprocessing.synchronize
from multiprocessing import Array, Barrier, BoundedSemaphore, Condition, Event, JoinableQueue, Lock
from multiprocessing import Pool, Queue, RLock, RawArray, RawValue, Semaphore, SimpleQueue, Value
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList, SharedMemory
from multiprocessing.synchronize import Lock as LockClass


def made(ctx):
    """Whatever a program may make, by what it wrote for it."""
    for expression in """
        Queue() JoinableQueue(3) SimpleQueue() mp.Queue(3) ctx.Queue() ctx.SimpleQueue()
        mp.queues.Queue(ctx=ctx) mp.queues.JoinableQueue(ctx=ctx) mp.queues.SimpleQueue(ctx=ctx)
        Lock() RLock() Semaphore(2) BoundedSemaphore(2) Condition() Event() Barrier(2)
        ctx.Lock() ctx.RLock() ctx.Semaphore() ctx.Condition(ctx.Lock()) ctx.Event() ctx.Barrier(1)
        mp.synchronize.RLock(ctx=ctx) LockClass(ctx=ctx) mp.synchronize.Event(ctx=ctx)
        multiprocessing.context._default_context.Lock() mp.get_context("spawn").Lock()
        SharedMemory(create=True,size=8) ShareableList([1,2]) mp.pool.Pool(1) Pool(1) ctx.Pool(1)
        mp.managers.BaseManager() mp.managers.SyncManager(ctx=ctx) ctx.Manager()
    """.split():
        thing = eval(expression)
        kind = type(thing)
        module = kind.__module__.partition(".")[2]
        standard = getattr(sys.modules["multiprocessing." + module], kind.__name__)
        ours = getattr(__import__("procession." + module, fromlist="_"), kind.__name__)
        yield expression, kind is ours, isinstance(thing, standard)
        if isinstance(thing, mp.pool.Pool):
            thing.terminate()
            thing.join()
        elif module == "managers" and hasattr(thing, "shutdown"):
            thing.shutdown()
        elif isinstance(thing, SharedMemory):
            resource_tracker.unregister(thing._name, "shared_memory")
            thing.unlink()
        elif isinstance(thing, ShareableList):
            thing.shm.unlink()
    import procession.heap, procession.sharedctypes
    for expression in """
        Value("i",1) mp.Value("d",1,lock=False) ctx.Value("i")
        mp.sharedctypes.Value("i",lock=Lock())
        Array("i",3) ctx.Array("c",b"abc") RawValue("i",4) RawArray("d",2) ctx.RawArray("i",[1,2])
        mp.sharedctypes.RawArray("i",2) mp.sharedctypes.copy(RawValue("i"))
    """.split():
        thing = eval(expression)
        raw = thing.get_obj() if hasattr(thing, "get_obj") else thing
        standard = not hasattr(thing, "get_obj") or (
            isinstance(thing, mp.sharedctypes.SynchronizedBase)
            and isinstance(thing, procession.sharedctypes.SynchronizedBase))
        yield expression, isinstance(raw._wrapper, procession.heap.BufferWrapper), standard


def look(method, depth, answers):
    ctx = mp.get_context(method)
    answers.put((depth, list(made(ctx))))
    if depth < 2:
        child = ctx.Process(target=look, args=(method, depth + 1, answers))
        child.start()
        child.join()


if __name__ == "__main__":
    assert str(inspect.signature(mp.queues.Queue)) == "(maxsize=0, *, ctx)"
    mp.set_start_method(sys.argv[1])
    answers = Queue()
    look(sys.argv[1], 0, answers)
    seen = dict(answers.get() for _ in range(3))
    print(json.dumps([seen[0], seen[1], seen[2]]))
'''


@each_method
def test_whatever_a_program_makes_is_ours_in_main_and_in_its_childrens_children(
    method: str, tmp_path: Path
) -> None:
    write(tmp_path, EVERYTHING)
    done = run_command([*RUN, "program.py", method], cwd=tmp_path)
    assert done.code == 0, done.err
    for depth, answers in enumerate(done.said):
        assert len(answers) == 46
        for expression, ours, standard in answers:
            assert ours, f"{expression} made the standard library's, {depth} levels below main"
            assert standard, f"{expression} is no instance of the standard class"
    assert "resource_tracker" not in done.err, done.err
    assert "nothing left behind" in done.err


SUBCLASSES = """
import multiprocessing as mp, multiprocessing.managers, multiprocessing.pool
import multiprocessing.queues, sys, time
class Counting(mp.queues.Queue):
    count = 0
    def put(self, *args, **options):
        self.count += 1
        super().put(*args, **options)
class Plain(mp.queues.SimpleQueue):
    pass
class Quick(mp.pool.Pool):
    def map(self, *args):
        return super().map(*args, chunksize=1)
class Own(mp.managers.BaseManager):
    pass
Own.register("words", list)
def square(number):
    return number * number
def put(queue, plain):
    queue.put("queue")
    plain.put("plain")
if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    queue, plain = Counting(3, ctx=ctx), Plain(ctx=ctx)
    process = ctx.Process(target=put, args=(queue, plain))
    process.start()
    print(queue.get(), plain.get())
    process.join()
    with Quick(2, context=ctx) as pool:
        print(pool.map(square, range(4)))
        pool.close()
        pool.join()
    with Own(ctx=ctx) as manager:
        print(manager.words("ab"))
    for kind in (Counting, Plain, Quick, Own):
        print(kind.__mro__[1].__module__.partition(".")[0], kind.__new__ is kind.__mro__[1].__new__)
"""


@each_method
def test_subclasses_keep_the_standard_base_on_our_processes(method: str, tmp_path: Path) -> None:
    write(tmp_path, SUBCLASSES)
    done = run_command([*RUN, "-v", "program.py", method], cwd=tmp_path, env={"COLUMNS": "200"})
    assert done.lines == [
        "queue plain",
        "[0, 1, 4, 9]",
        "['a', 'b']",
        *["multiprocessing True"] * 4,
    ], done.err
    assert "4 children" in done.err, done.err  # the process, two workers, the server
    told = [line for line in done.err.splitlines() if line.startswith("stayed standard")]
    assert told == [
        f"stayed standard: __main__.{name} (a subclass of multiprocessing.{base})"
        for name, base in (
            ("Counting", "queues.Queue"),
            ("Plain", "queues.SimpleQueue"),
            ("Quick", "pool.Pool"),
            ("Own", "managers.BaseManager"),
        )
    ]


HELD = """
import multiprocessing as mp, os, signal, sys, warnings
def die_holding(lock, told):
    lock.acquire()
    told.put(os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    lock, told = ctx.Lock(), ctx.Queue()
    process = ctx.Process(target=die_holding, args=(lock, told))
    process.start()
    warnings.simplefilter("ignore")
    print(told.get() == process.pid, lock.acquire(timeout=30))
"""


@each_method
def test_a_lock_of_an_unchanged_program_survives_the_death_of_its_holder(
    method: str, tmp_path: Path
) -> None:
    write(tmp_path, HELD)
    done = run_command([*RUN, "program.py", method], cwd=tmp_path)
    assert done.lines == ["True True"], done.err


PRELOADED = """
from multiprocessing import sharedctypes
from multiprocessing.sharedctypes import RawArray
array = RawArray("i", 2)
"""


def test_what_a_preloaded_module_made_is_ours(tmp_path: Path) -> None:
    write(tmp_path, PRELOADED, "heavy.py")
    write(
        tmp_path,
        """
        import multiprocessing as mp
        def f():
            import heavy
            for array in (heavy.array, heavy.RawArray("i", 2)):
                print(type(array._wrapper).__module__)
        if __name__ == "__main__":
            mp.set_start_method("forkserver")
            mp.set_forkserver_preload(["heavy"])
            process = mp.Process(target=f)
            process.start()
            process.join()
        """,
    )
    done = run_command([*RUN, "program.py"], cwd=tmp_path)
    assert done.lines == ["procession.heap"] * 2, done.err


@pytest.mark.parametrize("change", ["procession", "multiprocessing"])
def test_there_is_one_default_start_method(change: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        f"""
        import multiprocessing, procession
        if __name__ == "__main__":
            print(procession.get_start_method() == multiprocessing.get_start_method())
            {change}.set_start_method("spawn", force=True)
            print(multiprocessing.get_start_method(), procession.get_start_method())
        """,
    )
    done = run_command([*RUN, "program.py"], cwd=tmp_path)
    assert done.lines == ["True", "spawn spawn"], done.err
