"""Nothing forks a process that has threads, but `fork` itself, which names them (G9)."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from procession.errors import ForkedThreadsWarning
from tests.contract import targets
from tests.contract.programs import each_kept_method, run_text, start


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="holds a lock maybe")
    thread.start()
    yield thread
    over.set()
    thread.join()


def test_fork_names_the_threads_that_make_it_risky(thread: threading.Thread) -> None:
    with pytest.warns(ForkedThreadsWarning, match=thread.name):
        process = start("fork", targets.give, 1)
    assert process.result(30) == 1


@each_kept_method
def test_the_other_methods_have_nothing_to_warn_of(method: str, thread: threading.Thread) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process = start(method, targets.give, 1)
    assert process.result(30) == 1


@each_kept_method
def test_a_lock_that_a_thread_of_main_holds_is_free_in_every_child(
    method: str, tmp_path: Path
) -> None:
    """Two hundred children, while a thread takes and leaves logging's and its own module's lock."""
    count = 200 if method == "forkserver" else 10
    (tmp_path / "guarded.py").write_text("import threading\nlock = threading.Lock()\n")
    done = run_text(
        tmp_path,
        f"""
        import logging, threading
        import procession, guarded
        def use():
            with guarded.lock:
                logging.getLogger().handlers
        def hold(over):
            while not over.is_set():
                with guarded.lock, logging._lock:
                    over.wait(0.0001)
        if __name__ == "__main__":
            context = procession.get_context({method!r})
            context.set_forkserver_preload(["guarded", "logging"])
            over = threading.Event()
            thread = threading.Thread(target=hold, args=(over,))
            thread.start()
            processes = [context.Process(target=use) for _ in range({count})]
            for process in processes:
                process.start()
            for process in processes:
                process.join(30)
            print(sum(process.exitcode == 0 for process in processes))
            over.set()
            thread.join()
        """,
    )
    assert done.out == f"{count}\n", done.err
