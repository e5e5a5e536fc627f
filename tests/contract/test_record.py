"""`procession.record`, and that what a recording says is what happened (G13)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import procession
from procession import How, events
from procession._recording import reader
from procession.errors import RecordingError
from procession.lifeline import MAIN, Lifespan, Timeline, read
from tests import witness
from tests.contract.programs import fork_beside_pytests_threads

METHODS = ("fork", "forkserver", "spawn")
LIMIT = 30  # seconds


def wait_for_ever(ready: object) -> None:
    ready.send("up")  # type: ignore[attr-defined]
    time.sleep(3600)


def take_for_ever(lock: object, ready: object) -> None:
    lock.acquire()  # type: ignore[attr-defined]
    wait_for_ever(ready)


def give(value: object) -> object:
    return value


def fail(text: str) -> None:
    raise ValueError(text)


def family(method: str) -> None:
    process = procession.get_context(method).Process(target=give, args=(1,), name="grandchild")
    process.start()
    process.join()


def told(path: Path) -> list[events.Event]:
    return list(reader.read(path.read_bytes()))


def by_name(timeline: Timeline) -> dict[str, Lifespan]:
    return {span.name: span for span in timeline.children}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "run.plr"


@fork_beside_pytests_threads
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_of_every_life_is_on_the_record(method: str, path: Path) -> None:
    context = procession.get_context(method)
    with procession.record(path):
        processes = [
            context.Process(target=give, args=(1,), name="good"),
            context.Process(target=fail, args=("so what",), name="bad"),
            context.Process(target=family, args=(method,), name="parent"),
            context.Process(target=time.sleep, args=(3600,), name="victim", daemon=True),
        ]
        before = time.monotonic()
        for process in processes:
            process.start()
        pids = {process.name: process.pid for process in processes}
        for process in processes[:3]:
            process.join(LIMIT)
        processes[3].terminate()
        processes[3].join(LIMIT)
        after = time.monotonic()
    timeline = read(path)
    spans = by_name(timeline)
    assert {name: span.pid for name, span in spans.items() if name != "grandchild"} == pids
    assert spans["grandchild"].parent == spans["parent"].id
    assert spans["good"].parent == MAIN
    for span in spans.values():
        assert span.started is not None
        assert span.ended is not None
        assert span.reaped is not None
        assert before <= span.asked <= span.started <= span.ended <= span.reaped <= after
        assert span.method == method
        assert span.cpu > 0
        assert span.max_rss > 1 << 20
    endings = {name: span.ending for name, span in spans.items()}
    assert endings["good"].how is How.RETURNED
    assert (endings["bad"].how, endings["bad"].text) == (How.RAISED, "ValueError: so what")
    assert (endings["victim"].how, endings["victim"].killed_by) == (How.SIGNALED, os.getpid())
    assert spans["victim"].daemon
    assert spans["good"].target == f"{__name__}.give"


def test_how_long_a_wait_blocked_is_told_also_when_it_was_given_up(path: Path) -> None:
    with procession.record(path):
        process = procession.Process(target=time.sleep, args=(3600,), name="patient")
        process.start()
        process.join(0.2)
        process.kill()
        process.join(LIMIT)
    waits = [event for event in told(path) if isinstance(event, events.WaitEnded)]
    assert 0.15 < waits[0].at - waits[0].began < LIMIT
    assert len(waits) == 2


def test_a_wait_that_goes_on_can_be_read_while_it_lasts(path: Path) -> None:
    import threading

    process = procession.Process(target=time.sleep, args=(3600,), name="patient")
    with procession.record(path):
        process.start()
        joiner = threading.Thread(target=process.join)
        joiner.start()
        assert witness.wait_until(lambda: bool(read(path).main.waits), LIMIT)
        (wait,) = read(path).main.waits
        assert wait.whom == by_name(read(path))["patient"].id
        assert by_name(read(path))["patient"].ended is None
        process.kill()
        joiner.join(LIMIT)
    patient = by_name(read(path))["patient"]
    assert patient.ended is not None
    assert [wait.whom for wait in read(path).main.waits] == [patient.id]
    assert read(path).main.waits[0].began == pytest.approx(wait.began, abs=0.001)
    assert read(path).main.waits[0].ended == pytest.approx(patient.ended, abs=0.001)


@pytest.mark.parametrize("method", METHODS)
@fork_beside_pytests_threads
def test_a_lock_passed_on_from_the_dead_is_on_the_record(method: str, path: Path) -> None:
    context = procession.get_context(method)
    lock, (ours, theirs) = context.Lock(), procession.Pipe()
    with procession.record(path), ours, theirs:
        holder = context.Process(target=take_for_ever, args=(lock, theirs), name="holder")
        holder.start()
        assert ours.recv() == "up"
        holder.kill()
        holder.join(LIMIT)
        with pytest.warns(procession.OwnerDiedWarning):
            assert lock.acquire(timeout=LIMIT)
        lock.release()
    said = told(path)
    (asked,) = (event for event in said if isinstance(event, events.ProcessAsked))
    (died,) = (event for event in said if isinstance(event, events.LockOwnerDied))
    assert (died.owner, died.taker, died.lock) == (asked.id, 0, "Lock")
    assert asked.at <= died.at


def test_what_ran_before_is_on_the_record_with_its_times(path: Path) -> None:
    before = time.monotonic()
    process = procession.Process(target=time.sleep, args=(3600,), name="early")
    process.start()
    began = time.monotonic()
    with procession.record(path):
        process.kill()
        process.join(LIMIT)
    (event,) = [event for event in told(path) if isinstance(event, events.ProcessAsked)]
    assert before <= event.at <= began
    assert by_name(read(path))["early"].ending.exitcode == -signal.SIGKILL


def test_after_the_end_of_the_block_nothing_more_is_told(path: Path) -> None:
    recording = procession.record(path)
    assert "written" in repr(recording)
    process = procession.Process(target=time.sleep, args=(3600,), name="late")
    process.start()
    recording.close()
    recording.close()
    assert "closed" in repr(recording)
    size = path.stat().st_size
    process.kill()
    process.join(LIMIT)
    other = procession.Process(target=give, args=(1,))
    other.start()
    other.join(LIMIT)
    assert path.stat().st_size == size
    timeline = read(path)
    assert not timeline.complete  # the program goes on
    assert by_name(timeline)["late"].ended is None


def test_a_second_recording_is_refused_and_the_first_goes_on(path: Path, tmp_path: Path) -> None:
    with procession.record(path):
        with pytest.raises(RecordingError, match="recorded already"):
            procession.record(tmp_path / "second.plr")
        assert not (tmp_path / "second.plr").exists()
        process = procession.Process(target=give, args=(1,), name="seen")
        process.start()
        process.join(LIMIT)
    assert "seen" in by_name(read(path))
    with procession.record(tmp_path / "second.plr"):
        pass
    assert read(tmp_path / "second.plr").children == ()


def test_a_file_that_is_there_is_not_overwritten_unless_it_is_said(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="force=True overwrites it"):
        procession.record(path)
    assert path.read_text() == "precious"
    with procession.record(str(path), force=True):
        pass
    assert told(path)


@pytest.mark.parametrize("bad", ["/nowhere/run.plr", "/"])
def test_a_file_that_cannot_be_made_is_an_error_at_the_call(bad: str) -> None:
    with pytest.raises(OSError, match=r"'/"):
        procession.record(bad, force=True)
    process = procession.Process(target=give, args=(1,))
    process.start()
    assert process.result(LIMIT) == 1


def test_a_full_disk_ends_the_recording_and_not_the_program(path: Path) -> None:
    with pytest.raises(OSError, match="its file system is full"):
        procession.record("/dev/full", force=True)
    process = procession.Process(target=give, args=(1,))
    process.start()
    assert process.result(LIMIT) == 1


PROGRAM = """
import os, signal, sys, time
import procession

def work(ready):
    ready.send("up")
    time.sleep(3600)

if __name__ == "__main__":
    procession.record(sys.argv[1])
    ours, theirs = procession.Pipe()
    process = procession.get_context(sys.argv[2]).Process(target=work, args=(theirs,), name="w")
    process.start()
    ours.recv()
    print(process.pid, flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_sigkill_of_main_loses_nothing_and_its_end_is_told(
    method: str, path: Path, tmp_path: Path
) -> None:
    script = tmp_path / "prog.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(path), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert witness.wait_until(lambda: read(path).complete, LIMIT), path.read_text()
    timeline = read(path)
    assert timeline.main.pid == process.pid
    span = by_name(timeline)["w"]
    assert span.pid == pid
    assert span.started is not None
    assert span.ended is not None
    (end,) = [event for event in told(path) if isinstance(event, events.ProgramEnded)]
    assert end.how == "killed"


def test_a_sigkill_of_the_guard_loses_nothing_that_was_told(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "prog.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(path), "forkserver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = path.read_bytes()
        (started,) = [event for event in told(path) if isinstance(event, events.ProgramStarted)]
        os.kill(started.keeper, signal.SIGKILL)
        process.kill()
    assert path.read_bytes().startswith(before)
    assert by_name(read(path))["w"].started is not None


def test_every_line_of_a_recording_is_an_event_with_its_fields(path: Path) -> None:
    """Writer and schema are two modules (the schema is too heavy for a guard): they must agree."""
    import json

    with procession.record(path):
        process = procession.Process(target=family, args=("fork",))
        process.start()
        process.join(LIMIT)
    for line in path.read_text().splitlines():
        said = json.loads(line)
        kind = events.BY_NAME[said.pop("event")]
        assert kind(**said)
        assert set(said) <= set(kind.__dataclass_fields__)


def test_a_hundred_thousand_lives_are_read_and_drawn_in_seconds(path: Path) -> None:
    """The limit is generous, as the machine may be busy."""
    from procession._recording import writer
    from procession._report.terminal import Look, picture

    with open(path, "wb") as file:
        file.write(writer.head(0.0, 0.0, "1"))
        file.write(writer.line("program.started", 0.0, 5, pid=1, program="big.py"))
        for n in range(100_000):
            at, me = n / 1000, n + 1
            file.write(
                writer.line("process.asked", at, 5, id=me, parent=0, pid=n, title=f"worker-{n}")
                + writer.line("process.started", at + 0.1, 5, id=me)
                + writer.line("process.ended", at + 1, 5, id=me)
                + writer.line("process.reaped", at + 1, 5, id=me, how="returned", exitcode=0)
            )
    began = time.process_time()
    text = picture(read(path), Look(120))
    took = time.process_time() - began
    assert "worker ×100000" in text
    assert took < 40
