"""result() and exception(): what a process returned or raised, whole (G7)."""

from __future__ import annotations

import array
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

import procession
from procession import How, ProcessDied, StillRunning
from procession._child.ending import describe
from procession._wire.outcome import dump_outcome, load_outcome, remote_text
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    in_threads,
    run_text,
    start,
)
from tests.contract.targets import (
    CannotBeUnpickled,
    Colour,
    FailsOnLoad,
    InterruptedWhilePickled,
    InterruptedWhileUnpickled,
    Plain,
    Point,
    RunFork,
    RunForkServer,
    RunSpawn,
    WithAttributes,
    die,
    give,
    give_bytes,
    give_generator,
    give_lambda,
    give_lock,
    give_what_is_interrupted,
    leave,
    leave_at_once,
    raise_and_interrupt_its_pickling,
    raise_and_interrupt_last_words,
    raise_it,
    raise_what_is_interrupted,
    return_and_interrupt_its_pickling,
    wait,
)

pytestmark = fork_beside_pytests_threads


# --- values -----------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize(
    "value", [None, 0, "text", [1, {"a": (2, 3)}], Point(1, 2), Point, Colour.RED, len, ...]
)
def test_a_result_comes_back_equal(method: str, value: Any) -> None:
    process = start(method, give, value)
    assert process.result(20) == value
    assert process.exception(0) is None
    assert process.ending.how is How.RETURNED


@each_method
def test_a_class_of_a_result_is_the_same_class(method: str) -> None:
    assert type(start(method, give, Point(1, 2)).result(20)) is Point
    assert start(method, give, Colour.RED).result(20) is Colour.RED


@each_method
@pytest.mark.parametrize("size", [32 * 1024 - 200, 32 * 1024, 200_000, 50_000_000])
def test_a_result_may_have_any_size(method: str, size: int) -> None:
    result = start(method, give_bytes, size).result(20)
    assert len(result) == size
    assert result[:1] == result[-1:] == b"x"


@each_method
def test_a_result_can_be_asked_for_again(method: str) -> None:
    process = start(method, give, [1])
    assert process.result(20) == [1]
    assert process.result() == [1]
    assert process.result(0) == [1]


@each_method
def test_a_result_can_be_asked_for_after_join_and_from_many_threads(method: str) -> None:
    process = start(method, give, "value")
    process.join(20)
    answers = in_threads(lambda: process.result(20))
    assert answers == ["value"] * 8


@each_method
def test_a_result_outlives_many_later_processes(method: str) -> None:
    first = start(method, give, "first")
    first.join(20)
    for n in range(20):
        assert start(method, give, n).result(20) == n
    assert first.result(20) == "first"


@each_method
def test_a_lambda_may_be_a_result(method: str) -> None:
    assert start(method, give_lambda).result(20)() == 5


@each_method
def test_a_result_that_cannot_be_pickled_is_named(method: str) -> None:
    process = start(method, give_lock)
    with pytest.raises(Exception, match="lock") as caught:
        process.result(20)
    assert "['here'][0]" in str(caught.value)
    assert process.ending.how is How.RETURNED
    assert process.exitcode == 0
    assert process.exception(20) is None


@each_method
def test_a_generator_cannot_be_a_result(method: str) -> None:
    process = start(method, give_generator)
    with pytest.raises(Exception, match="generator"):
        process.result(20)


@each_method
def test_what_run_returns_is_the_result(method: str) -> None:
    class_ = {"forkserver": RunForkServer, "spawn": RunSpawn, "fork": RunFork}[method]
    process = class_()
    process.start()
    assert process.result(20) == "from run"


# --- times ------------------------------------------------------------------------------------


@each_method
def test_asking_too_early_changes_nothing(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, wait, here)
    for ask in (process.result, process.exception):
        for timeout in (0, 0.01, -1):
            with pytest.raises(StillRunning) as caught:
                ask(timeout)
            assert isinstance(caught.value, TimeoutError)
            assert process.name in str(caught.value)
            assert str(process.pid) in str(caught.value)
    assert process.is_alive()
    assert process.ending is None
    assert process.rusage is None
    there.send(None)
    assert process.result(20) == "done"


@each_method
def test_a_waiting_thread_is_woken_by_the_end(method: str) -> None:
    there, here = procession.Pipe()
    process = start(method, wait, here)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(process.result(20)))
    thread.start()
    there.send(None)
    thread.join(20)
    assert answers == ["done"]


@each_method
def test_before_start_and_after_close_there_is_no_result(method: str) -> None:
    process = procession.get_context(method).Process(target=give, args=(1,))
    for ask in (process.result, process.exception, process.stop):
        with pytest.raises(ValueError, match="not started"):
            ask()
    assert process.ending is None
    assert process.rusage is None
    process.start()
    process.join(20)
    process.close()
    for ask in (process.result, process.exception, process.stop):
        with pytest.raises(ValueError, match="process object is closed"):
            ask()
    for name in ("ending", "rusage"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)


# --- exceptions -------------------------------------------------------------------------------


def failed(method: str, kind: str) -> BaseException:
    process = start(method, raise_it, kind)
    error = process.exception(20)
    assert error is not None
    assert process.ending.how is How.RAISED
    assert process.exitcode == 1
    with pytest.raises(type(error)) as caught:
        process.result(0)
    assert str(caught.value) == str(error)
    return error  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """The children's own tracebacks are no news here."""


@each_method
def test_an_exception_keeps_type_and_arguments(method: str) -> None:
    error = failed(method, "plain")
    assert type(error) is Plain
    assert error.args == ("words", 2)


@each_method
def test_an_exception_keeps_its_attributes(method: str) -> None:
    error = failed(method, "attributes")
    assert type(error) is WithAttributes
    assert (error.code, error.hint, str(error)) == (7, "look there", "code 7")


@each_method
def test_an_exception_keeps_its_cause(method: str) -> None:
    error = failed(method, "cause")
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.args == ("the cause",)
    assert error.__suppress_context__


@each_method
def test_an_exception_keeps_its_context(method: str) -> None:
    error = failed(method, "context")
    assert isinstance(error.__context__, KeyError)
    assert error.__cause__ is None
    assert not error.__suppress_context__
    assert failed(method, "suppressed").__suppress_context__


@each_method
def test_an_exception_keeps_its_notes(method: str) -> None:
    assert failed(method, "notes").__notes__ == ["first note", "second note"]


@each_method
def test_a_group_keeps_what_is_in_it(method: str) -> None:
    error = failed(method, "group")
    assert isinstance(error, ExceptionGroup)
    assert error.message == "two"
    one, inner = error.exceptions
    assert isinstance(one, ValueError)
    assert isinstance(inner, ExceptionGroup)
    assert isinstance(inner.exceptions[0], FileNotFoundError)
    assert inner.exceptions[0].errno == 2


@each_method
def test_so_does_one_with_an_interrupt_in_it(method: str) -> None:
    error = failed(method, "base group")
    assert type(error) is BaseExceptionGroup
    assert [(type(part), part.args) for part in error.exceptions] == [
        (KeyboardInterrupt, ("one",)),
        (ValueError, ("other",)),
    ]


@each_method
def test_an_os_error_keeps_its_fields(method: str) -> None:
    error = failed(method, "os")
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (2, "/nonexistent/file")


@each_method
def test_an_exception_brings_its_traceback(method: str) -> None:
    error = failed(method, "deep")
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[-1].name == "raise_deep"
    assert [frame.name for frame in frames].count("raise_deep") == 31
    assert frames[-1].line == 'raise Plain("deep down")'
    text = "".join(traceback.format_exception(error))
    assert "raise_it" in text
    assert "_bootstrap" not in text
    assert "procession/_child" not in text


@each_method
def test_the_traceback_of_a_cause_is_there_too(method: str) -> None:
    error = failed(method, "cause")
    assert error.__cause__ is not None
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert frames[-1].line == 'raise KeyError("the cause")'


@each_method
def test_raising_the_result_twice_does_not_grow_its_traceback(method: str) -> None:
    process = start(method, raise_it, "plain")
    lengths = []
    for _ in range(3):
        with pytest.raises(Plain) as caught:
            process.result(20)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1


@each_method
@pytest.mark.parametrize("kind", ["fails on load", "lock"])
def test_an_exception_that_cannot_travel_is_told(method: str, kind: str) -> None:
    error = failed(method, kind)
    text = str(error)
    assert {"fails on load": "FailsOnLoad: told", "lock": "HoldsALock: holds one"}[kind] in text
    assert "raise_it" in text  # where it was raised


@each_method
def test_an_exception_that_plain_pickle_cannot_rebuild_is_whole(method: str) -> None:
    error = failed(method, "unloadable")
    assert type(error) is CannotBeUnpickled
    assert str(error) == "words of it"


@each_method
def test_a_local_exception_class_is_told(method: str) -> None:
    error = failed(method, "local")
    assert "from inside" in str(error)
    assert "Local" in type(error).__name__ or "Local" in str(error)


@each_method
def test_a_base_exception_is_a_failure_too(method: str) -> None:
    assert type(failed(method, "base")) is BaseException
    assert type(failed(method, "generator exit")) is GeneratorExit


@each_method
def test_an_exception_with_long_words_is_whole(method: str) -> None:
    assert len(str(failed(method, "long"))) == 500_000


@pytest.mark.parametrize("line", ["long ", "a line\n"])
def test_long_words_of_an_exception_go_once(line: str) -> None:
    """Laid out again and again, 50 MB of them took ten seconds."""
    words = line * 200_000
    error = ValueError("short")
    error.__cause__, error.__context__ = KeyError(1, words), ValueError(words)
    error.add_note(words[1:])
    stand_in = load_outcome(dump_outcome(error=FailsOnLoad(words))).error
    assert isinstance(stand_in, procession.errors.RemoteError)
    assert stand_in.message == f"FailsOnLoad: {words}"
    blob = dump_outcome(error=error)
    assert len(blob) < 2 * len(words) + 50_000  # one object twice, and another string
    arrived = load_outcome(blob).error
    assert arrived is not None
    assert [arrived.__cause__.args, arrived.__notes__] == [(1, words), [words[1:]]]  # type: ignore[union-attr]
    text = remote_text(blob)
    assert len(text) < 50_000
    assert f"… ({len(words) - 1} characters)" in text
    assert len(describe(ValueError(words))) == 120


@each_method
def test_an_exception_without_words_is_no_crash(method: str) -> None:
    process = start(method, raise_it, "words fail")
    error = process.exception(20)
    assert "WordsFail" in type(error).__name__ or "WordsFail" in str(error)
    assert process.ending.how is How.RAISED
    assert "WordsFail" in process.ending.text


@each_method
def test_the_ending_says_the_exception_in_words(method: str) -> None:
    process = start(method, raise_it, "attributes")
    process.join(20)
    assert process.ending.text == "WithAttributes: code 7"
    assert str(process.ending) == "raised WithAttributes: code 7"


@each_method
def test_an_uncaught_exception_is_printed_once(
    method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    process = start(method, raise_it, "plain")
    with pytest.raises(Plain):
        process.result(20)
    err = capfd.readouterr().err
    assert err.count("Traceback") == 1
    assert err.count("Plain: ('words', 2)") == 1
    assert f"Process {process.name}:" in err


# --- ends without a result ---------------------------------------------------------------------


@each_method
@pytest.mark.parametrize(
    ("target", "args", "words"),
    [
        (leave, (4,), "exited 4"),
        (leave, ("words",), "exited 1"),
        (leave, (None,), "exited 0"),
        (leave_at_once, (), "exited 3"),
        (die, (), "was killed by SIGKILL"),
    ],
)
def test_without_a_result_the_end_is_told(method: str, target: Any, args: Any, words: str) -> None:
    process = start(method, target, *args)
    for ask in (process.result, process.exception):
        with pytest.raises(ProcessDied) as caught:
            ask(20)
        assert caught.value.name == process.name
        assert caught.value.pid == process.pid
        assert caught.value.ending == process.ending
        assert str(caught.value) == (
            f"process {process.name!r} (pid {process.pid}) has no result: it {words}"
        )
        assert isinstance(caught.value, procession.ProcessionError)
        assert isinstance(caught.value, RuntimeError)


def test_process_died_can_be_pickled() -> None:
    import pickle

    process = start("forkserver", leave, 4)
    with pytest.raises(ProcessDied) as caught:
        process.result(20)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.ending == caught.value.ending


@each_method
def test_a_result_of_a_killed_process_that_had_returned_is_kept(
    method: str, tmp_path: Path
) -> None:
    """The process had said its last words; a thread that kept it alive was then killed."""
    finished = run_text(
        tmp_path,
        """
        import os, procession, signal, sys, threading, time

        def linger(conn):
            threading.Thread(target=lambda: (conn.send("up"), time.sleep(60))).start()
            return "value"

        if __name__ == "__main__":
            there, here = procession.Pipe()
            process = procession.get_context(sys.argv[1]).Process(target=linger, args=(here,))
            process.start()
            there.recv()
            process.kill()
            process.join()
            print(process.ending.how, process.exitcode)
        """,
        method,
    )
    assert finished.lines == ["signaled -9"], finished.err


@each_method
def test_arrays_and_buffers_come_back(method: str) -> None:
    assert start(method, give, array.array("d", range(1000))).result(20)[999] == 999.0


@each_method
def test_an_interrupt_among_the_last_words_takes_nothing_back(method: str) -> None:
    """A group that is stopped interrupts its members, some of which fail at that very moment."""
    process = start(method, raise_and_interrupt_last_words)
    with pytest.raises(ValueError, match="as told"):
        process.result(60)
    assert process.ending.how is How.RAISED
    assert process.exitcode == 1


def test_an_interrupt_while_an_exception_is_pickled_takes_nothing_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    process = start("forkserver", raise_and_interrupt_its_pickling)
    with pytest.raises(InterruptedWhilePickled, match="as told"):
        process.result(60)
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_an_interrupt_while_a_result_is_pickled_is_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    process = start("forkserver", return_and_interrupt_its_pickling)
    with pytest.raises(KeyboardInterrupt):
        process.result(60)
    assert process.exitcode == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("target", [give_what_is_interrupted, raise_what_is_interrupted])
def test_an_interrupt_while_an_outcome_is_unpickled_is_one_and_loses_nothing(target: Any) -> None:
    process = start("forkserver", target)
    process.join()
    InterruptedWhileUnpickled.interrupts = 1
    with pytest.raises(KeyboardInterrupt):
        process.result(0)
    if target is raise_what_is_interrupted:
        with pytest.raises(InterruptedWhileUnpickled, match="as told"):
            process.result(0)
    else:
        assert process.result(0).args == ("as told",)
