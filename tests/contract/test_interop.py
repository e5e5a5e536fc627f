"""Beside the standard library: our objects in its processes, its objects in ours, one state."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.queues
import multiprocessing.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import pool, util
from tests.contract import targets
from tests.contract.programs import each_method, run_text

pytestmark = pytest.mark.filterwarnings("ignore:fork copies this process")


@each_method
def test_our_objects_serve_a_standard_executor(method: str) -> None:
    ours = procession.get_context(method)
    queue = ours.Queue()
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=ours, initializer=targets.take_queue, initargs=(queue,)
    ) as executor:
        assert executor.submit(targets.put_in_taken, "sent").result(60) is None
        assert queue.get(timeout=60) == "sent"
        assert executor.submit(os.getpid).result(60) != os.getpid()
    queue.close()


def test_our_objects_serve_a_standard_forked_process() -> None:
    queue, lock, value = procession.Queue(), procession.Lock(), procession.Value("i", 1)
    process = multiprocessing.get_context("fork").Process(
        target=targets.use_shared, args=(queue, lock, value)
    )
    process.start()
    assert queue.get(timeout=60) == "used"
    process.join(60)
    assert (process.exitcode, value.value) == (0, 2)
    process.close()
    queue.close()


@each_method
def test_standard_objects_serve_our_processes(method: str) -> None:
    standard = multiprocessing.get_context(method)
    queue, lock = standard.SimpleQueue(), standard.Lock()
    value = procession.Value("i", 1)  # the standard heap keeps its first arena for ever
    process = procession.get_context(method).Process(
        target=targets.use_shared, args=(queue, lock, value)
    )
    process.start()
    assert queue.get() == "used"
    process.join(60)
    assert (process.exitcode, value.value) == (0, 2)
    process.close()
    queue.close()


@each_method
def test_the_standard_library_knows_our_processes(method: str) -> None:
    process = procession.get_context(method).Process(target=time.sleep, args=(3600,), name="known")
    assert isinstance(process, multiprocessing.process.BaseProcess)
    process.start()
    assert process in multiprocessing.active_children()
    process.kill()
    process.join(60)
    assert process not in multiprocessing.active_children()
    process.close()


@each_method
def test_records_of_the_log_carry_the_processs_name(
    method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    process = procession.get_context(method).Process(target=targets.log_a_word, name="writer")
    process.start()
    process.join(60)
    process.close()
    assert "[writer MainThread] a word" in capfd.readouterr().err


def test_asyncio_runs_its_subprocesses_beside_ours() -> None:
    async def main() -> tuple[bytes, int | None, Any]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print('from asyncio')", stdout=asyncio.subprocess.PIPE
        )
        process = procession.get_context("forkserver").Process(target=targets.give, args=(7,))
        process.start()
        out, _ = await child.communicate()
        result = await asyncio.get_running_loop().run_in_executor(None, process.result, 60)
        process.close()
        return out, child.returncode, result

    assert asyncio.run(main()) == (b"from asyncio\n", 0, 7)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_finalizers_run_at_a_childs_end_in_order(method: str, tmp_path: Path) -> None:
    done = run_text(
        tmp_path,
        """
        import sys
        import procession as mp
        from procession import util
        from multiprocessing import util as standard
        class Thing:
            pass
        def child():
            global things
            things = [Thing(), Thing()]
            util.Finalize(things[0], print, args=("second",), exitpriority=1)
            standard.Finalize(things[1], print, args=("first",), exitpriority=2)
        if __name__ == "__main__":
            process = mp.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join()
        """,
        method,
    )
    assert done.lines == ["first", "second"], done.err


def test_what_is_registered_for_a_fork_runs_in_the_copy(tmp_path: Path) -> None:
    done = run_text(
        tmp_path,
        """
        import procession as mp
        from procession import util
        class Thing:
            pass
        thing = Thing()
        util.register_after_fork(thing, lambda it: print("after fork", it is thing))
        if __name__ == "__main__":
            process = mp.get_context("fork").Process(target=print, args=("target",))
            process.start()
            process.join()
        """,
    )
    assert done.lines == ["after fork True", "target"], done.err


def test_there_is_one_logger(tmp_path: Path) -> None:
    assert procession.get_logger() is multiprocessing.get_logger()
    assert util.get_logger() is multiprocessing.util.get_logger()
    done = run_text(
        tmp_path,
        """
        import procession as mp
        from procession import util
        if __name__ == "__main__":
            logger = mp.log_to_stderr()
            logger.setLevel("INFO")
            util.warn("careful: %s", 7)
            process = mp.get_context("fork").Process(target=mp.get_logger().info, args=("in it",))
            process.start()
            process.join()
        """,
    )
    assert "[WARNING/MainProcess] careful: 7" in done.err
    assert "[INFO/ForkProcess-1] in it" in done.err


def test_a_class_of_ours_is_one_of_the_standards() -> None:
    for ours, standard in (
        (procession.Queue(), multiprocessing.queues.Queue),
        (procession.Lock(), multiprocessing.synchronize.Lock),
        (procession.RLock(), multiprocessing.synchronize.RLock),
        (procession.get_context("spawn"), multiprocessing.context.BaseContext),
    ):
        assert isinstance(ours, standard)
    assert issubclass(procession.Process, multiprocessing.process.BaseProcess)
    with pool.ThreadPool(1) as threads:
        assert isinstance(threads, multiprocessing.pool.ThreadPool)
        assert threads.apply(abs, (-2,)) == 2


def test_a_debugger_that_follows_children_comes_into_ours(tmp_path: Path) -> None:
    text = """
        import sys, types
        import procession


        def child():
            print(getattr(sys, "debugger", None), flush=True)


        def start(method):
            process = procession.get_context(method).Process(target=child)
            process.start()
            process.join()
            assert process.exitcode == 0


        if __name__ == "__main__":
            words, told = ["import sys; sys.debugger = 'here'; "], []
            monkey = types.SimpleNamespace(
                patch_args=lambda args: [*args[:2], words[0] + args[2]],
                send_process_created_message=lambda: told.append("one more"),
            )
            setup = {"multiprocess": True}
            holder = types.SimpleNamespace(setup=setup)
            sys.modules["pydevd"] = types.SimpleNamespace(SetupHolder=holder)
            sys.modules["_pydev_bundle.pydev_monkey"] = monkey
            start("spawn")
            start("forkserver")
            words[0] = "import no_such_debugger; "
            start("forkserver")
            setup["multiprocess"] = False
            start("forkserver")
            print(len(told))
    """
    done = run_text(tmp_path, text, limit=90)
    assert done.lines == ["here", "here", "None", "None", "3"], done.err
    assert done.err.count("No module named 'no_such_debugger'") == 1
