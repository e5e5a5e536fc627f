"""What the children of the queues' contract tests run."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import resource
import signal
import time
from multiprocessing import connection
from typing import Any

from procession.queues import ShutDown


def put_all(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


def put_bytes(queue: Any, size: int, count: int) -> None:
    for n in range(count):
        queue.put(bytes([n]) * size)


def put_and_leave_at_once(queue: Any, item: Any) -> None:
    queue.put(item)
    os._exit(0)


def echo(queue: Any, answers: Any) -> None:
    for item in queue:
        answers.put(item)
    answers.put("shut down")


def use_what_comes(queue: Any) -> None:
    inner, lock = queue.get()
    inner.put("at the lock")
    with lock:
        inner.put("through a queue that came through a queue")


def wait_for_room(queue: Any, said: Any) -> None:
    said.send("begins")
    try:
        queue.put("second")
    except ShutDown:
        said.send("shut down")
    else:
        said.send("put")


def wait_for_item(queue: Any, said: Any) -> None:
    said.send("begins")
    try:
        said.send(queue.get())
    except ShutDown:
        said.send("shut down")


def do_tasks(queue: Any) -> None:
    while (item := queue.get()) is not None:
        item()
        queue.task_done()
    queue.task_done()


def limited(queue: Any, said: Any, limit: int, size: int, item: int) -> None:
    """Meet a resource limit at put."""
    queue.put("before")
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (size, before[1]))
    try:
        queue.put(bytes(item))
    except BaseException as error:
        said.send((type(error), str(error)))
    else:
        said.send("put")
    resource.setrlimit(limit, before)
    queue.put("after")


def without_memory(queue: Any, said: Any) -> None:
    """Meet a kernel that has no memory for files: a filter of system calls says so from now on."""
    queue.put("before")
    try:
        no_room_in_files()
    except OSError as error:
        said.send(f"no filter of system calls is allowed here: {error}")
        return
    said.send("")
    for size in (100_000, 5_000_000):  # by the ring, which has to grow; by an extent, then the ring
        try:
            queue.put(bytes(size))
        except BaseException as error:
            said.send((type(error), str(error)))
        else:
            said.send((None, "it was put"))
    said.send(queue.get())
    queue.put("after")


class _Instruction(ctypes.Structure):
    _fields_ = [  # struct sock_filter, linux/filter.h
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


def no_room_in_files() -> None:
    """Let `fallocate` and `pwrite` of this process say ENOSPC, as with a full memory."""
    numbers = {"x86_64": (285, 18), "aarch64": (47, 68)}.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"numbers of system calls of {os.uname().machine}")
    no_room = 0x00050000 | errno.ENOSPC  # SECCOMP_RET_ERRNO
    steps = (
        (0x20, 0, 0, 0),  # the call's number
        (0x15, 1, 0, numbers[0]),
        (0x15, 0, 1, numbers[1]),
        (0x06, 0, 0, no_room),
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, by_program = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(set_filter, by_program, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def wait_with_connection(queue: Any, said: Any) -> None:
    ready = connection.wait([queue._reader, said], 30)
    said.send([one == queue._reader for one in ready])
    said.send(queue._reader.recv())


def close_all_descriptors(queue: Any, said: Any) -> None:
    """As code that daemonises does."""
    keep = said.fileno()
    for fd in range(3, 256):
        if fd != keep:
            try:
                os.close(fd)
            except OSError:
                continue
    strangers = [os.memfd_create("stranger") for _ in range(8)]
    queue.put("small")
    try:
        queue.put(b"x" * 5_000_000)
    except OSError as error:
        said.send(error.errno)
    said.send([os.fstat(fd).st_size for fd in strangers])


def change_array(queue: Any, answers: Any) -> None:
    got = queue.get()
    got["first"][0] = -1.0
    answers.put(got)


def hold_array(queue: Any, answers: Any) -> None:
    array = queue.get()
    answers.put(float(array[0]))
    time.sleep(600)  # until it is killed


class Unpicklable:
    def __reduce__(self) -> Any:
        raise pickle.PicklingError("not this one")


class Deadly:
    """Kills whoever unpickles it."""

    def __init__(self, load: bytes) -> None:
        self.load = pickle.PickleBuffer(load)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _die, (self.load,)


def _die(load: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def take_one(queue: Any) -> None:
    queue.get()


def take_one_and_die(queue: Any) -> None:
    queue.get()
    os.kill(os.getpid(), signal.SIGKILL)
