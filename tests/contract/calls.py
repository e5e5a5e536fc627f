"""What the workers of the pool tests run. Light: every worker imports this."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def square(x: int) -> int:
    return x * x


def give(value: Any) -> Any:
    return value


def stop_iterating(value: Any) -> Any:
    raise StopIteration(value)


def pid(_: Any = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fork_and_return_twice(_: Any = None) -> int:
    """0 in the copy."""
    return os.fork()


# --- ways to go wrong ---------------------------------------------------------------------------


class Unloadable(Exception):
    """An exception that pickles and cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("words of it")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def crash() -> None:
    import ctypes

    ctypes.string_at(0)


def leave_at_once() -> None:
    os._exit(7)


def leave() -> None:
    sys.exit(7)


def raise_value_error() -> None:
    raise ValueError("told")


HOWS: dict[str, Callable[[], None]] = {
    "SIGKILL": kill,
    "os._exit": leave_at_once,
    "sys.exit": leave,
    "segfault": crash,
    "exception": raise_value_error,
}


def unloadable() -> None:
    raise Unloadable(1, 2)


def unpicklable() -> Any:
    return threading.Lock()


ROWS: dict[str, Callable[[], Any]] = {
    "SIGKILL": kill,
    "os._exit": leave_at_once,
    "sys.exit": leave,
    "segfault": crash,
    "exception that cannot be unpickled": unloadable,
    "result that cannot be pickled": unpicklable,
}


def third(row: str, n: int) -> int:
    """Eight calls, of which the fourth goes wrong."""
    if n == 3:
        ROWS[row]()
        if row == "result that cannot be pickled":
            return unpicklable()  # type: ignore[no-any-return]
    return n


def nth(row: str) -> Callable[[int], int]:
    return Nth(row)


class Nth:
    def __init__(self, row: str) -> None:
        self.row = row

    def __call__(self, n: int) -> int:
        return third(self.row, n)


class WhenPickled:
    """Goes wrong when it is pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        HOWS[self.how]()
        raise AssertionError(self.how)


class WhenUnpickled:
    """Goes wrong when it is unpickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return go_wrong, (self.how,)


def go_wrong(how: str) -> Any:
    HOWS[how]()
    return how


def give_when_pickled(how: str) -> Any:
    return WhenPickled(how)


def give_when_unpickled(how: str) -> Any:
    return WhenUnpickled(how)


def failing_initializer(kind: str) -> None:
    if kind == "raise":
        error = ValueError("no database")
        error.hint = "start it"  # type: ignore[attr-defined]
        raise error
    HOWS[kind]()


_conn: Any = None


def set_conn(conn: Any) -> None:
    global _conn
    _conn = conn


def tell_and_wait() -> str:
    _conn.send(os.getpid())
    _conn.recv()
    return "done"


def stop_myself(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def set_and_wait(event: Any) -> str:
    """Until the event that this sets is cleared."""
    event.set()
    while event.is_set():
        time.sleep(0.001)
    return "done"


def sleeper(seconds: float) -> int:
    """A call with a process of its own below it."""
    import subprocess

    child = subprocess.Popen(["sleep", str(seconds)])
    return child.pid


class Tracked:
    """Counts how many of it are alive in this process."""

    alive = 0

    def __new__(cls, *args: Any) -> Any:
        Tracked.alive += 1
        return object.__new__(cls)

    def __del__(self) -> None:
        Tracked.alive -= 1

    def __reduce__(self) -> Any:
        return Tracked, ()


_initial = 0


def set_initial(value: int) -> None:
    global _initial
    _initial = value


def get_initial(_: Any = None) -> int:
    return _initial


def some_time(n: int) -> int:
    """Mostly nothing; now and then a while."""
    if n % 17 == 0:
        time.sleep(0.02)
    return n


def mostly_quick(argument: tuple[int, Any]) -> int:
    """One slow call among quick ones, which waits for a word."""
    n, path = argument
    if n == 40:
        deadline = time.monotonic() + 30
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise TimeoutError(path)
            time.sleep(0.005)
    return n


def big(size: int) -> bytes:
    return bytes(size)


def plus_one(array: Any) -> Any:
    array += 1  # the worker's copy is its own, and can be written to
    return array


def both(a: int, b: int = 0) -> int:
    return a + b


def round_trip(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def kill_holding(value: Any) -> None:
    """Be killed with an argument in one's hands."""
    os.kill(os.getpid(), signal.SIGKILL)


class Mine(BaseException):
    """No Exception."""


def raise_mine(kind: type[BaseException]) -> None:
    raise kind("mine")


class Late:
    """Cannot be pickled before somebody says how."""

    def __reduce__(self) -> Any:
        raise TypeError("nobody said how")


def say_how() -> None:
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.register(Late, lambda late: (Late, ()))


def give_late() -> Any:
    say_how()
    return Late()


def give_shared(kind: str) -> Any:
    """What a worker shares with whoever gets it, and may not live to hand out."""
    import procession

    if kind == "pipe":
        reading, writing = procession.Pipe()
        writing.send(7)
        return reading
    if kind == "queue":
        queue = procession.Queue()
        queue.put(7)
        return queue
    return procession.Value("i", 7) if kind == "value" else procession.Array("i", [7])


class EndsWhenDropped:
    """Ends the worker that drops it."""

    def __init__(self, arrived: bool = False) -> None:
        self.arrived = arrived

    def __reduce__(self) -> Any:
        return EndsWhenDropped, (True,)

    def __del__(self) -> None:
        if self.arrived:
            os._exit(7)


def leave_executor_open(method: str) -> list[int]:
    """With calls of its own that have not ended."""
    import procession

    global _open
    _open = procession.ProcessPoolExecutor(2, procession.get_context(method))
    for _ in range(3):
        _open.submit(time.sleep, 0.1)
    return [_open.submit(os.getpid).result()]


_open: Any = None


def squares_of_its_own(kind: str) -> list[int]:
    """Calls of a pool, or of an executor, made in a worker."""
    import procession

    if kind == "pool":
        with procession.Pool(2) as pool:
            squares: list[int] = pool.map(square, range(4))
        return squares
    with procession.ProcessPoolExecutor(2) as executor:
        return list(executor.map(square, range(4)))


def use_up_descriptors() -> int:
    """Leave none for whatever comes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
    return os.getpid()
