"""Locks that are sent around after the start, and locks that cannot be made (G4, G5, G6)."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import procession
from tests.contract.programs import fork_beside_pytests_threads

pytestmark = fork_beside_pytests_threads
PATIENCE = 60.0
KINDS = ("Lock", "RLock", "Condition", "Event")
_kept: list[Any] = []


def keep(lock: Any) -> None:
    """A pool's initializer that gets one."""
    _kept.append(lock)


def is_held(lock: Any = None) -> bool:
    """Whether somebody has it: what a worker sees that was given it, or kept it."""
    lock = _kept[0] if lock is None else lock
    if not lock.acquire(False):
        return True
    lock.release()
    return False


def take_from(source: Any, answers: Any) -> None:
    """Get one out of a queue and say whether somebody has it."""
    answers.send(is_held(source.get()))
    answers.close()


# --- on their way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_through_a_queue(kind: str) -> None:
    context = procession.get_context("forkserver")
    channel, lock = getattr(context, kind)(), context.Lock()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=take_from, args=(channel, sender))
    process.start()
    with lock:
        channel.put(lock)
        assert receiver.poll(PATIENCE)
        assert receiver.recv() is True
    process.join(PATIENCE)
    for end in (receiver, sender):
        end.close()
    channel.close()


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_through_the_calls_and_the_initializer_of_a_pool(method: str) -> None:
    context = procession.get_context(method)
    first, second = context.Lock(), context.RLock()
    with context.Pool(1, keep, (first,)) as pool:
        assert pool.apply_async(is_held).get(PATIENCE) is False
        with first, second:
            assert pool.apply_async(is_held).get(PATIENCE) is True
            assert pool.apply_async(is_held, (second,)).get(PATIENCE) is True
            assert pool.map_async(is_held, [first, second]).get(PATIENCE) == [True, True]
        assert pool.apply_async(is_held, (second,)).get(PATIENCE) is False


def test_as_values_of_a_manager() -> None:
    lock = procession.Lock()
    with procession.Manager() as manager:
        values, names = manager.list([lock]), manager.dict(first=lock)
        with lock:
            assert is_held(values[0])
            assert is_held(names["first"])
        assert not is_held(values[0])


def test_another_program_is_told_that_it_cannot_have_one() -> None:
    """Its guard does not know what ours keeps: an error, and never a wait."""
    lock = procession.Lock()
    program = """
        import pickle, sys
        from procession.errors import SharedObjectLost
        try:
            pickle.loads(sys.stdin.buffer.read())
        except SharedObjectLost as error:
            print("lost:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=pickle.dumps(lock),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert b"lost: a shared object" in done.stdout, done.stderr
    assert not is_held(lock)


# --- bad times ------------------------------------------------------------------------------------


def in_fresh_program(text: str) -> str:
    """What a program prints that has made nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("limit", "error"),
    [("FSIZE", "File too large"), ("NOFILE", "Too many open files"), ("AS", "allocate memory")],
)
def test_what_the_kernel_refuses_is_an_error_and_nothing_is_half_made(
    kind: str, limit: str, error: str
) -> None:
    said = in_fresh_program(f"""
        import os, resource, procession
        make = procession.{kind}
        import procession.synchronize, procession._shared.memory
        def state():
            with open("/proc/self/maps") as file:
                return set(os.listdir("/proc/self/fd")), file.read().count("procession")
        before, which = state(), resource.RLIMIT_{limit}
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * 4096
        soft, hard = resource.getrlimit(which)
        # descriptors: state() needs none when the list is made after the limit was lifted
        low = {{"FSIZE": 4096, "NOFILE": 3, "AS": used + 65536}}["{limit}"]
        resource.setrlimit(which, (low, hard))
        try:
            made = make()
            said = "made"
        except OSError as error:
            said = str(error)
        except MemoryError:
            said = "MemoryError: cannot allocate memory"
        resource.setrlimit(which, (soft, hard))
        same = state() == before
        it = make()
        print(said, "|", same, "|", type(it).__name__)
    """)
    text, same, made = (part.strip() for part in said.split("|"))
    assert error in text
    assert same == "True", "something of what was not made is left"
    assert made == kind, "it is of use once there is room again"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_dev_shm_does_not_matter(kind: str) -> None:
    program = f"""
        import ctypes, os, procession
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x00020000) != 0:
            print("{kind}")
            raise SystemExit
        assert libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None) == 0
        assert libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=65536") == 0
        with open("/dev/shm/full", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        print(type(procession.{kind}()).__name__)
    """
    assert in_fresh_program(program) == kind


def test_more_of_them_than_memory_allows_are_refused_one_by_one() -> None:
    """What was made before goes on working."""
    made: list[Any] = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            made.extend(procession.Lock() for _ in range(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    lock = procession.Lock()
    assert lock.acquire(False)
