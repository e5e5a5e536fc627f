"""Named shared memory: the standard behaviour, and nothing left in /dev/shm whoever dies (G5)."""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing.shared_memory
import os
import pickle
import random
import re
import signal
import stat
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procession
from procession import managers, resource_tracker
from procession._kernel import segments
from procession.shared_memory import ShareableList, SharedMemory
from tests import witness
from tests.contract.programs import (
    each_method,
    fork_beside_pytests_threads,
    in_threads,
    run,
    run_text,
    running,
    start,
    wait_until,
    write,
)

pytestmark = fork_beside_pytests_threads
standard = multiprocessing.shared_memory

FOLDER = Path("/dev/shm")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for another user or namespace")


@pytest.fixture
def name() -> Iterator[str]:
    """A name that nobody else has."""
    chosen = f"pn-test-{uuid.uuid4().hex}"
    yield chosen
    for path in FOLDER.glob(f"{chosen}*"):
        path.unlink()


def sweep() -> None:
    """What a program's start does in its guard."""
    folder = segments.open_folder()
    for _ in segments.sweep(folder):
        pass
    os.close(folder)


@contextlib.contextmanager
def segment(*arguments: Any, **options: Any) -> Iterator[SharedMemory]:
    shared = SharedMemory(*arguments, **options)
    try:
        yield shared
    finally:
        shared.close()
        with contextlib.suppress(FileNotFoundError):
            shared.unlink()


# --- as the standard library's ----------------------------------------------------------------


def test_names_are_those_that_users_expect(name: str) -> None:
    with segment(create=True, size=10) as shared:
        assert re.fullmatch("psm_[0-9a-f]{8}", shared.name)
        status = (FOLDER / shared.name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, 10)
    with segment(name, create=True, size=4097) as shared:
        assert (shared.name, shared.size, len(shared.buf)) == (name, 4097, 4097)
        assert repr(shared) == f"SharedMemory({name!r}, size=4097)"
        assert isinstance(shared, standard.SharedMemory)
        assert not any(shared.buf)
    with segment(f"/{name}", create=True, size=1) as shared:
        assert shared.name == f"/{name}"
        assert (FOLDER / name).exists()
        with segment(name) as other:
            assert other.size == 1


def test_the_standard_library_and_we_see_the_same(name: str) -> None:
    with segment(name, create=True, size=100) as shared:
        code = (
            "import sys; from multiprocessing import shared_memory, resource_tracker\n"
            # its tracker would unlink it (gh-82300)
            "resource_tracker.register = lambda *_: None\n"
            "s = shared_memory.SharedMemory(sys.argv[1]); s.buf[:3] = b'abc'; print(s.size)"
        )
        said = subprocess.check_output([sys.executable, "-c", code, name])
        assert int(said) == 100
        assert bytes(shared.buf[:3]) == b"abc"


def test_errors_are_the_standard_ones(name: str) -> None:
    for options in ({"size": -1}, {"create": True, "size": 0}, {"create": True}, {}):
        with pytest.raises(ValueError, match=r"'size' must be|'name' can only be None"):
            SharedMemory(**options)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError) as missing:
        SharedMemory(name)
    assert missing.value.filename == f"/{name}"
    with segment(name, create=True, size=1) as shared:
        with pytest.raises(FileExistsError) as taken:
            SharedMemory(name, create=True, size=1)
        assert taken.value.filename == f"/{name}"
        shared.unlink()
        with pytest.raises(FileNotFoundError):
            shared.unlink()
    for bad in ("", "/", "a/b", ".", ".."):
        for create in (True, False):
            with pytest.raises(OSError, match="Invalid argument"):
                SharedMemory(bad, create=create, size=1)
    with pytest.raises(OSError, match="too long"):
        SharedMemory("x" * 300, create=True, size=1)
    with pytest.raises(ValueError, match="null"):
        SharedMemory("a\0b", create=True, size=1)
    (FOLDER / name).touch()
    with pytest.raises(ValueError, match="is empty: it has not got its size yet"):
        SharedMemory(name)


def test_a_pickled_segment_is_attached_by_its_name(name: str) -> None:
    with segment(name, create=True, size=8) as shared:
        copy = pickle.loads(pickle.dumps(shared))
        copy.buf[0] = 7
        assert shared.buf[0] == 7
        copy.close()


def test_closing_under_somebody_who_still_looks_changes_nothing(name: str) -> None:
    with segment(name, create=True, size=8) as shared:
        for look in (lambda: shared.buf[2:4], lambda: memoryview(shared.buf).cast("q")):
            view = look()
            with pytest.raises(BufferError):
                shared.close()
            shared.buf[2] = 9
            view.release()
        again = SharedMemory(name)
        assert again.buf[2] == 9
        again.close()
        again.close()
        assert again.buf is None


def test_dropped_while_somebody_looks_says_nothing_and_leaks_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gh-155003."""
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    before = witness.descriptors()
    shared = SharedMemory(name, create=True, size=8)
    shared.unlink()
    view = shared.buf[2:4]
    del shared
    gc.collect()
    view[0] = 5
    assert view[0] == 5
    del view
    gc.collect()
    assert witness.descriptors() == before
    assert not said


def test_threads_make_and_unlink_at_once(name: str) -> None:
    before = witness.descriptors()

    def churn() -> bool:
        for n in range(30):
            shared = SharedMemory(f"{name}-{threading.get_ident()}-{n}", create=True, size=100)
            shared.close()
            shared.unlink()
        return True

    assert in_threads(churn) == [True] * 8
    assert not list(FOLDER.glob(f"{name}*"))
    assert witness.descriptors() == before


def write_into(shared: Any, name: str) -> None:
    shared.buf[0] = 5
    attached = SharedMemory(name)
    attached.buf[1] = 6
    # what programs do against the standard tracker (gh-82300): there is nothing to undo
    resource_tracker.unregister(attached._name, "shared_memory")  # type: ignore[attr-defined]
    attached.close()


@each_method
def test_children_attach_and_do_not_own(method: str, name: str) -> None:
    with segment(name, create=True, size=2) as shared:
        process = start(method, write_into, shared, name)
        process.join()
        assert process.exitcode == 0
        assert bytes(shared.buf) == b"\5\6"
        sweep()
        assert (FOLDER / name).exists()


# --- it goes with the program that made it --------------------------------------------------------

MAKER = """
import os, signal, sys, procession
from procession.shared_memory import SharedMemory

def nothing(): pass

def make(name, way=""):
    shared = SharedMemory(name, create=True, size=4096)
    shared.close()
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

def end(way):
    print("made", flush=True)
    if way == "raised":
        raise KeyError("so it ends")
    if way == "exited":
        sys.exit(3)
    if way == "os._exit":
        os._exit(4)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    name, who, way, method = sys.argv[1:]
    if who == "main alone":
        make(name)
    elif who == "main":
        make(name)
        procession.get_context(method).Process(target=nothing).start()
    elif who == "main later":
        procession.get_context(method).Process(target=nothing).start()
        make(name)
    else:
        child = procession.get_context(method).Process(target=make, args=(name, who))
        child.start()
        child.join()
    SharedMemory(name).close()     # it goes on after a child that made it
    end(way)
"""
WAYS = ("returned", "raised", "exited", "os._exit", "killed", "terminated")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", ["main", "main later", "child", "killed"])
def test_a_segment_goes_with_its_program(
    who: str, way: str, name: str, tmp_path: Path, seed: int
) -> None:
    method = random.Random(seed).choice(["forkserver", "spawn", "fork"])
    with running(write(tmp_path, MAKER), name, who, way, method) as program:
        finished = program.finish()
        assert finished.lines == ["made"], finished.err
        assert "resource_tracker" not in finished.err
    wait_until(lambda: not (FOLDER / name).exists(), lambda: "the segment is left")


@pytest.mark.parametrize("way", WAYS)
def test_a_program_without_processes_leaves_nothing_for_long(
    way: str, name: str, tmp_path: Path
) -> None:
    finished = run(write(tmp_path, MAKER), name, "main alone", way, "")
    assert finished.lines == ["made"], finished.err
    if way in ("returned", "raised", "exited"):
        assert not (FOLDER / name).exists()
    else:
        assert (FOLDER / name).exists()
        with pytest.raises(FileNotFoundError):  # nobody gets what the dead have left
            SharedMemory(name)
        assert not (FOLDER / name).exists()


def leave(name: str, tmp_path: Path) -> None:
    """A segment whose program was killed."""
    path = write(tmp_path, MAKER, "leaver.py")
    for _ in range(5):
        run(path, name, "main alone", "killed", "")
        if (FOLDER / name).exists():
            return
        # swept already, by the start of a program of another test that runs beside this one
    pytest.fail("a killed program leaves no segment")


def test_the_next_start_sweeps(name: str, tmp_path: Path) -> None:
    leave(name, tmp_path)
    text = """
        import sys, os, procession, time
        if __name__ == "__main__":
            procession.Process(target=print).start()
            while os.path.exists(sys.argv[1]):
                time.sleep(0.01)
            print("swept")
    """
    assert run_text(tmp_path, text, str(FOLDER / name)).lines.count("swept") == 1


def test_the_next_program_that_makes_one_sweeps(name: str, tmp_path: Path) -> None:
    leave(name, tmp_path)
    text = """
        from procession.shared_memory import SharedMemory
        SharedMemory(create=True, size=1).close()
    """
    run_text(tmp_path, text)
    assert not (FOLDER / name).exists()


def test_a_name_that_the_dead_have_can_be_given_again(name: str, tmp_path: Path) -> None:
    leave(name, tmp_path)
    with segment(name, create=True, size=3) as shared:
        assert shared.size == 3


def test_what_is_not_tracked_outlives_us(name: str, tmp_path: Path) -> None:
    text = """
        import os, signal, sys, procession
        from procession import resource_tracker
        from procession.shared_memory import SharedMemory

        if __name__ == "__main__":
            name, way = sys.argv[1:]
            SharedMemory(name + "-1", create=True, size=1, track=False)
            taken_out = SharedMemory(name + "-2", create=True, size=1)
            resource_tracker.unregister(taken_out._name, "shared_memory")
            procession.Process(target=print).start()
            SharedMemory(name + "-3", create=True, size=1, track=False)
            taken_in = SharedMemory(name + "-4", create=True, size=1, track=False)
            resource_tracker.register(taken_in._name, "shared_memory")
            if way == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
    """
    for way in ("returned", "killed"):
        run_text(tmp_path, text, name, way)
        wait_until(lambda: not (FOLDER / f"{name}-4").exists(), lambda: "a tracked one is left")
        sweep()
        for number in "123":
            left = SharedMemory(f"{name}-{number}", track=False)
            left.unlink()
            left.close()


def test_no_process_is_started_to_track(name: str, tmp_path: Path) -> None:
    text = """
        import sys
        from procession.managers import SharedMemoryManager
        from procession.shared_memory import SharedMemory
        shared = SharedMemory(sys.argv[1], create=True, size=1)
        print("ready", flush=True)
        sys.stdin.readline()
    """
    path = write(tmp_path, text)
    with running(path, name, stdin=subprocess.PIPE) as program:
        assert program.line() == "ready"
        assert [process.pid for process in program.processes()] == [program.pid]
        program.tell("")
        program.finish()


@pytest.mark.parametrize("rtype", ["shared_memory"])
def test_the_tracker_refuses_names_that_cannot_be(rtype: str, name: str) -> None:
    for bad in ("x" * 256, "a/b", ""):
        with pytest.raises(ValueError, match=r"at most 255 bytes|no shared memory can have"):
            resource_tracker.register(bad, rtype)
    resource_tracker.register(f"/{name}", rtype)  # nothing there: nothing to remove
    resource_tracker.unregister(f"/{name}", rtype)


# --- the sweep takes nothing of the living, and nothing of a stranger's ------------------------


def test_what_is_not_ours_is_never_swept(name: str) -> None:
    (FOLDER / f"{name}-plain").write_bytes(b"a stranger's")
    (FOLDER / f"{name}-link").symlink_to("/etc/hostname")
    os.mkfifo(FOLDER / f"{name}-fifo")
    other = standard.SharedMemory(f"{name}-standard", create=True, size=8)
    sweep()
    assert len(list(FOLDER.glob(f"{name}*"))) == 4
    other.close()
    other.unlink()


HOLDER = """
import os, sys, procession
from procession.shared_memory import SharedMemory
how, name = sys.argv[1:]
if how == "make":
    SharedMemory(name, create=True, size=10).close()
elif how == "attach":
    shared = SharedMemory(name)
elif how == "daemon":
    SharedMemory(name, create=True, size=10).close()
    if os.fork():
        sys.exit()
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_living_maker_that_closed_it_keeps_it(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, HOLDER)
    with running(path, "make", name, stdin=subprocess.PIPE) as program:
        assert program.line() == "ready"
        sweep()
        SharedMemory(name).close()
        sweep()
        program.process.kill()
        program.finish()
    sweep()
    assert not (FOLDER / name).exists()


def test_whoever_still_has_it_keeps_what_a_dead_maker_left(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, HOLDER)
    with running(path, "make", name, stdin=subprocess.PIPE) as maker:
        assert maker.line() == "ready"
        with running(path, "attach", name, stdin=subprocess.PIPE) as user:
            assert user.line() == "ready"
            maker.process.kill()
            maker.finish()
            sweep()
            SharedMemory(name).close()
            user.tell("")
            user.finish()
    sweep()
    assert not (FOLDER / name).exists()


def test_a_daemon_keeps_what_it_made_before_it_forked_away(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, HOLDER)
    with running(path, "daemon", name, stdin=subprocess.PIPE) as program:
        assert program.line() == "ready"
        assert program.process.wait(30) == 0
        sweep()
        assert (FOLDER / name).exists()
        program.tell("")
        program.leaves_nothing()
    sweep()
    assert not (FOLDER / name).exists()


@as_root
def test_a_living_program_of_another_pid_namespace_keeps_it(name: str, tmp_path: Path) -> None:
    """As containers that share /dev/shm: its pids say nothing to us, and ours nothing to it."""
    path = write(tmp_path, HOLDER)
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, str(path), "make"]
    outside = subprocess.Popen(
        [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert outside.stdout is not None
    assert outside.stdout.readline() == "ready\n"
    sweep()
    assert (FOLDER / name).exists()
    inside = [*command[:4], sys.executable, "-c", "from procession.shared_memory import *; "]
    with segment(f"{name}-ours", create=True, size=10) as ours:
        ours.close()
        inside[-1] += "SharedMemory(create=True, size=1).unlink()"
        subprocess.run(inside, check=True)
        assert (FOLDER / f"{name}-ours").exists()
        assert (FOLDER / name).exists()
    for inner in psutil.Process(outside.pid).children():
        inner.kill()
    outside.communicate()
    sweep()
    assert not (FOLDER / name).exists()


@as_root
def test_another_users_segment_is_not_touched(name: str, tmp_path: Path) -> None:
    leave(name, tmp_path)
    os.chown(FOLDER / name, 65534, 65534)
    sweep()
    assert (FOLDER / name).exists()
    leave(f"{name}-root", tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            sweep()
            with contextlib.suppress(PermissionError):
                SharedMemory(f"{name}-root")
                os._exit(2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not (FOLDER / name).exists()
    assert (FOLDER / f"{name}-root").exists()


# --- killed in the middle -------------------------------------------------------------------------

CALLS = ("open", "link", "setxattr", "ftruncate", "posix_fallocate", "fstat", "close", "unlink")


def act(name: str) -> None:
    shared = SharedMemory(name, create=True, size=5000)
    attached = SharedMemory(name)
    attached.close()
    shared.close()
    shared.unlink()


def die_at(step: int, name: str) -> None:
    """Run `act` in a program of its own, and die at its n-th system call of those named."""
    import fcntl
    import mmap

    left = step

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for word in CALLS:
        setattr(os, word, dying(getattr(os, word)))
    for word in ("fcntl", "flock"):
        setattr(fcntl, word, dying(getattr(fcntl, word)))
    mmap.mmap = dying(mmap.mmap)  # type: ignore[misc]
    act(name)


def test_killed_at_any_call_nothing_stays_after_the_sweep(name: str) -> None:
    step, killed = 0, True
    while killed:
        step += 1
        child = os.fork()
        if child == 0:
            code = 1
            try:
                die_at(step, name)
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0
        sweep()
        assert not (FOLDER / name).exists(), step
        assert step < 500
    assert step > 20


CHAOS = """
import os, random, signal, sys, threading, procession
from procession.shared_memory import SharedMemory

def churn(name, number):
    rng = random.Random(number)
    mine = {}
    while True:
        key = f"{name}-{number}-{rng.randrange(5)}"
        if key in mine:
            shared = mine.pop(key)
            if rng.random() < 0.5:
                SharedMemory(key).close()
            shared.close()
            shared.unlink()
        else:
            try:
                mine[key] = SharedMemory(key, create=True, size=rng.randrange(1, 20000))
            except FileExistsError:      # of the one that was killed before
                SharedMemory(key).unlink()
        if number < 0:
            return

if __name__ == "__main__":
    name, seed, method, way = sys.argv[1:]
    rng = random.Random(int(seed))
    context = procession.get_context(method)
    for round in range(5):
        crew = [context.Process(target=churn, args=(name, n)) for n in range(3)]
        for one in crew:
            one.start()
        SharedMemory(f"{name}-{round}", create=True, size=100)
        for one in crew:
            one.join(rng.random() * 0.05)
            one.kill()
        for one in crew:
            one.join()
    print("chaos", flush=True)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@each_method
@pytest.mark.parametrize("way", ["returned", "killed"])
def test_chaos_leaves_nothing(method: str, way: str, name: str, tmp_path: Path, seed: int) -> None:
    finished = run(write(tmp_path, CHAOS), name, str(seed), method, way)
    assert finished.lines == ["chaos"], finished.err
    wait_until(lambda: not list(FOLDER.glob(f"{name}*")), lambda: str(list(FOLDER.iterdir())))


# --- no room, and kernels that can less --------------------------------------------------------


@as_root
def test_a_full_folder_is_an_error_and_no_bus_error(tmp_path: Path) -> None:
    text = """
        import errno, json, os
        from procession.shared_memory import SharedMemory, ShareableList
        said = []
        for make in (lambda: SharedMemory(create=True, size=10 << 20),
                     lambda: SharedMemory("named", create=True, size=10 << 20),
                     lambda: ShareableList(["x" * 900_000] * 20)):
            try:
                make()
            except OSError as error:
                said.append([errno.errorcode[error.errno], str(error)])
        left = os.listdir("/dev/shm")
        with_room = SharedMemory(create=True, size=1 << 20)
        with_room.buf[:] = b"x" * (1 << 20)
        print(json.dumps([said, left]))
    """
    path = write(tmp_path, text)
    script = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$0" "$1"'
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, str(path)]
    import json

    said, left = json.loads(subprocess.check_output(command))
    assert [code for code, _ in said] == ["ENOSPC"] * 3
    assert all("no shared memory of" in text and "is full" in text for _, text in said)
    assert left == []


def test_no_folder_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FOLDER", "/dev/no-such-folder")
    for options in ({"create": True, "size": 1}, {"name": "x"}):
        with pytest.raises(FileNotFoundError, match="named shared memory needs the folder"):
            SharedMemory(**options)  # type: ignore[arg-type]


def test_limits_are_errors_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    text = """
        import errno, json, os, resource, sys
        from procession.shared_memory import SharedMemory
        name, said = sys.argv[1], []
        SharedMemory(name, create=True, size=1).unlink()
        before = sorted(os.listdir("/proc/self/fd"))
        for limit, value in (("FSIZE", 1000), ("AS", 200 << 20), ("NOFILE", len(before))):
            number = getattr(resource, "RLIMIT_" + limit)
            old = resource.getrlimit(number)
            resource.setrlimit(number, (value, old[1]))
            try:
                SharedMemory(name, create=True, size=1 << 20 if limit != "AS" else 1 << 30)
            except OSError as error:
                said.append([limit, errno.errorcode[error.errno]])
            resource.setrlimit(number, old)
            assert not os.path.exists("/dev/shm/" + name), limit
            assert before == sorted(os.listdir("/proc/self/fd")), limit
        SharedMemory(name, create=True, size=1 << 20).unlink()
        print(json.dumps(said))
    """
    said = run_text(tmp_path, text, name).said
    assert said == [["FSIZE", "EFBIG"], ["AS", "ENOMEM"], ["NOFILE", "EMFILE"]]


@pytest.mark.parametrize("lacking", ["O_TMPFILE", "/proc"])
def test_where_files_cannot_be_made_without_a_name(
    lacking: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *rest, **options)

    if lacking == "/proc":
        monkeypatch.setattr(segments, "_DESCRIPTORS", "/no/proc")
    else:
        monkeypatch.setattr(os, "open", without)
    with segment(name, create=True, size=10) as shared:
        shared.buf[0] = 1
        sweep()
        assert (FOLDER / name).exists()
        with pytest.raises(FileExistsError):
            SharedMemory(name, create=True, size=1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="is full"):
        SharedMemory(name, create=True, size=1)
    assert not (FOLDER / name).exists()


def test_where_files_cannot_be_marked_a_guard_sees_to_it(name: str, tmp_path: Path) -> None:
    """tmpfs has had extended attributes since Linux 6.6."""
    text = """
        import errno, os, signal, sys
        def refuse(*_, **__):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        os.setxattr = os.getxattr = os.removexattr = refuse
        from procession.shared_memory import SharedMemory
        for way in ("-1", "-2"):
            shared = SharedMemory(sys.argv[1] + way, create=True, size=1)
            SharedMemory(sys.argv[1] + way).close()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    finished = run_text(tmp_path, text, name)
    assert finished.code == -signal.SIGKILL, finished.err
    wait_until(lambda: not list(FOLDER.glob(f"{name}*")), lambda: "a segment is left")


# --- the list ----------------------------------------------------------------------------------

texts = st.text(max_size=20).filter(lambda text: not text.endswith("\0") and encodes(text))
items = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    texts,
    st.binary(max_size=20).filter(lambda data: not data.endswith(b"\0")),
    st.none(),
)


def encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def size(item: Any) -> int:
    """Bytes of a str or bytes; 0 for others, whose room is 8."""
    if isinstance(item, str):
        return len(item.encode())
    return len(item) if isinstance(item, bytes) else 0


def kinds(values: Any) -> list[Any]:
    return [(type(value), value) for value in values]


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    first=st.lists(items, max_size=8),
    changes=st.lists(st.tuples(st.integers(-9, 9), items), max_size=8),
)
def test_a_list_against_a_list(first: list[Any], changes: list[tuple[int, Any]]) -> None:
    shared = ShareableList(first)
    other = standard.ShareableList(name=shared.shm.name, **UNTRACKED)
    try:
        model = list(first)
        for position, value in changes:
            try:
                shared[position] = value
            except IndexError:
                assert not -len(model) <= position < len(model)
                continue
            except ValueError:
                assert isinstance(value, (str, bytes))
                assert size(value) > (size(first[position]) or 7)
            else:
                model[position] = value
            assert kinds(shared) == kinds(model)
        assert kinds(other) == kinds(model)
        assert len(shared) == len(model)
        again = ShareableList(name=shared.shm.name)
        assert again.format == other.format
        assert kinds(pickle.loads(pickle.dumps(again))) == kinds(model)
        again.shm.close()
    finally:
        untrack(other)
        other.shm.close()
        shared.shm.close()
        shared.shm.unlink()


UNTRACKED: dict[str, Any] = {}


def untrack(attached: Any) -> None:
    """The standard library's tracker takes what is attached for its own."""
    from multiprocessing import resource_tracker as tracker

    tracker.unregister(attached.shm._name, "shared_memory")


class Dying:
    """A buffer that raises at the n-th write."""

    def __init__(self, buffer: memoryview, left: int) -> None:
        self.buffer, self.left = buffer, left

    def __getitem__(self, place: Any) -> Any:
        return self.buffer[place]

    def __setitem__(self, place: Any, data: Any) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.buffer[place] = data


@pytest.mark.parametrize("new", ["text", b"bytes", 5, 0.5, True, None], ids=repr)
@pytest.mark.parametrize("old", ["longer text", b"bytes", 7, 1.5, False, None], ids=repr)
def test_a_list_whose_writer_died_has_no_torn_item(
    old: Any, new: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ShareableList([1, old, 2])
    try:
        for writes in range(5):
            shared[1] = old
            dying = Dying(shared.shm.buf, writes)
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(ShareableList, "_buffer", lambda _, dying=dying: dying)
                shared[1] = new
            assert shared[1] in (old, new, None)
            assert type(shared[1]) in (type(old), type(new), type(None))
            assert (shared[0], shared[2]) == (1, 2)
            shared[1] = new
            assert shared[1] == new
    finally:
        shared.shm.close()
        shared.shm.unlink()


def test_a_list_takes_what_the_standard_one_would_cut() -> None:
    shared = ShareableList(["äöüäöüäö", "日本語"])
    assert list(shared) == ["äöüäöüäö", "日本語"]
    shared.shm.close()
    shared.shm.unlink()


def test_bad_items_and_foreign_segments_are_refused_and_leave_nothing(name: str) -> None:
    with pytest.raises(KeyError, match="list"):
        ShareableList([[]], name=name)
    with pytest.raises(struct.error):
        ShareableList([2**70], name=name)
    with pytest.raises(ValueError, match="too large for a ShareableList"):
        ShareableList(["x" * 10_000_000], name=name)
    assert not (FOLDER / name).exists()
    with segment(name, create=True, size=64) as shared:
        shared.buf[:8] = struct.pack("q", 10**9)
        with pytest.raises(ValueError, match="holds no ShareableList"):
            ShareableList(name=name)
    words = ShareableList([1, "x"])
    with pytest.raises(IndexError):
        words[2]
    with pytest.raises(struct.error):
        words[0] = 2**70
    with pytest.raises(KeyError):
        words[0] = []  # type: ignore[call-overload]
    assert list(words) == [1, "x"]
    words.shm.close()
    with pytest.raises(ValueError, match="closed"):
        words[0]
    words.shm.unlink()


# --- its manager -------------------------------------------------------------------------------


@each_method
def test_a_managers_segments_go_with_it(method: str) -> None:
    with managers.SharedMemoryManager(ctx=procession.get_context(method)) as manager:
        shared, words = manager.SharedMemory(100), manager.ShareableList(["a", 1])
        gone = manager.SharedMemory(5)
        gone.close()
        gone.unlink()
        assert list(words) == ["a", 1]
        names = [shared.name, words.shm.name]
        assert all((FOLDER / each).exists() for each in names)
        shared.close()
        words.shm.close()
    assert not any((FOLDER / each).exists() for each in names)
    with pytest.raises(ValueError, match=r"unknown|not started|family|None"):
        managers.SharedMemoryManager().SharedMemory(5)


def test_a_killed_managers_segments_go_with_the_program(name: str, tmp_path: Path) -> None:
    text = """
        import os, signal, procession
        from procession.managers import SharedMemoryManager
        if __name__ == "__main__":
            manager = SharedMemoryManager(("127.0.0.1", 0))  # it leaves its socket's file
            manager.start()
            print(manager.SharedMemory(10).name, flush=True)
            os.kill(manager._process.pid, signal.SIGKILL)
    """
    finished = run_text(tmp_path, text)
    assert len(finished.lines) == 1, finished.err
    assert not (FOLDER / finished.lines[0]).exists()
