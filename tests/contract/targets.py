"""What the children of the contract tests run. Light: every child imports this."""

from __future__ import annotations

import dataclasses
import enum
import os
import signal
import sys
import threading
import time
from typing import Any

import procession


def give(value: Any) -> Any:
    return value


def give_bytes(size: int) -> bytes:
    return b"x" * size


def give_lambda() -> Any:
    return lambda: 5


def give_lock() -> Any:
    return {"here": [threading.Lock()]}


def give_generator() -> Any:
    return (n for n in ())


def wait(conn: Any) -> str:
    conn.recv()
    return "done"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


class _Run:
    def run(self) -> str:
        return "from run"


class RunForkServer(_Run, procession.get_context("forkserver").Process):  # type: ignore[misc]
    pass


class RunSpawn(_Run, procession.get_context("spawn").Process):  # type: ignore[misc]
    pass


class RunFork(_Run, procession.get_context("fork").Process):  # type: ignore[misc]
    pass


class Plain(Exception):
    pass


class WithAttributes(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class CannotBeUnpickled(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("words of it")


class FailsOnLoad(Exception):
    def __reduce__(self) -> Any:
        return _never, ()


def _never() -> None:
    raise RuntimeError("not here")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("holds one")
        self.lock = threading.Lock()


def raise_it(kind: str) -> None:
    if kind == "plain":
        raise Plain("words", 2)
    if kind == "attributes":
        raise WithAttributes(7, hint="look there")
    if kind == "cause":
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise ValueError("the effect") from cause
    if kind == "context":
        try:
            raise KeyError("the context")
        except KeyError:
            raise ValueError("the effect")
    if kind == "suppressed":
        try:
            raise KeyError("the context")
        except KeyError:
            raise ValueError("the effect") from None
    if kind == "notes":
        error = ValueError("noted")
        error.add_note("first note")
        error.add_note("second note")
        raise error
    if kind == "group":
        raise ExceptionGroup("two", [ValueError("one"), ExceptionGroup("in", [OSError(2, "no")])])
    if kind == "base group":
        raise BaseExceptionGroup("two", [KeyboardInterrupt("one"), ValueError("other")])
    if kind == "unloadable":
        raise CannotBeUnpickled(1, 2)
    if kind == "fails on load":
        raise FailsOnLoad("told")
    if kind == "lock":
        raise HoldsALock
    if kind == "os":
        open("/nonexistent/file")  # noqa: SIM115
    if kind == "local":

        class Local(Exception):
            pass

        raise Local("from inside")
    if kind == "base":
        raise BaseException("very base")
    if kind == "deep":
        raise_deep(30)
    if kind == "long":
        raise ValueError("long " * 100_000)
    if kind == "words fail":
        raise WordsFail
    if kind == "generator exit":
        raise GeneratorExit("odd")


class WordsFail(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_deep(depth: int) -> None:
    if depth == 0:
        raise Plain("deep down")
    raise_deep(depth - 1)


def leave(code: Any) -> None:
    sys.exit(code)


def leave_at_once() -> None:
    os._exit(3)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def nothing(*_: Any) -> None:
    pass


def wait_then_tell(conn: Any) -> None:
    try:
        conn.send("up")
        time.sleep(60)
    finally:
        conn.send("finally")


def ignore_everything(conn: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    conn.send("up")
    while True:
        time.sleep(60)


def use(seconds: float, size: int) -> int:
    """CPU time and memory."""
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
    while time.process_time() < seconds:
        pass
    return len(block)


def touch(path: str) -> None:
    open(path, "w").close()


class Weak:
    pass


def look_around() -> dict[str, Any]:
    import logging
    import multiprocessing

    me = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    assert parent is not None
    record = logging.LogRecord("n", 1, "", 1, "", (), None)
    return {
        "current": me.name,
        "same": me is procession.current_process(),
        "parent": parent.pid,
        "parent alive": parent.is_alive(),
        "children": multiprocessing.active_children(),
        "logger": record.processName,
    }


class _OwnNames:
    def __init__(self, word: str) -> None:
        super().__init__()
        self.received, self.sending = procession.Pipe(False)
        self.stop = f"stop {word}"
        self.result = f"result {word}"
        self.timeout = f"timeout {word}"
        self.env = f"env {word}"
        self.ending = f"ending {word}"
        self.exception = self.rusage = self.interrupt = None

    def run(self) -> None:
        self.sending.send([self.stop, self.result, self.timeout, self.env])


class _Counter:
    def __init__(self, count: int) -> None:
        super().__init__(name=f"Counter-{count}")
        self.count = count
        self.total = 0

    def run(self) -> int:
        for n in range(self.count):
            self.total += n + 1
        return self.total


class _Bootstrapped:
    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return 42


def _classes(mixin: type) -> dict[str, Any]:
    """The mixin on each method's class, under names by which pickle finds them."""
    made = {}
    for method in procession.get_all_start_methods():
        base = procession.get_context(method).Process
        name = f"{mixin.__name__}_{method}"
        made[method] = type(name, (mixin, base), {"__module__": __name__})
        globals()[name] = made[method]
    return made


OWN_NAMES = _classes(_OwnNames)
COUNTERS = _classes(_Counter)
BOOTSTRAPPED = _classes(_Bootstrapped)


def leave_a_thread(seconds: float) -> str:
    threading.Thread(target=time.sleep, args=(seconds,)).start()
    return "main thread"


def handle_sigterm(conn: Any, code: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    conn.send("up")
    time.sleep(60)


class FailsOnArrival:
    def __reduce__(self) -> Any:
        return _fail_on_arrival, ()


def _fail_on_arrival() -> None:
    raise RuntimeError("not on this side")


class LeavesOnArrival:
    def __reduce__(self) -> Any:
        return sys.exit, (4,)


def kill_a_child_of_my_own(method: str) -> Any:
    _there, here = procession.Pipe()
    process = procession.get_context(method).Process(target=wait, args=(here,))
    process.start()
    process.kill()
    process.join(20)
    return os.getpid(), process.ending


def die_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(60)


def segfault() -> None:
    import ctypes
    import faulthandler

    faulthandler.disable()  # pytest's, in a forked copy
    ctypes.string_at(0)


def stop_myself(conn: Any) -> None:
    conn.send("up")
    os.kill(os.getpid(), signal.SIGSTOP)
    conn.send("going on")


def abort() -> None:
    import faulthandler

    faulthandler.disable()
    os.abort()


def fail() -> None:
    raise ValueError("wanted")


def use_proxies(
    words: Any, numbers: Any, names: Any, queue: Any, space: Any, value: Any, lock: Any, event: Any
) -> list[str]:
    with lock:
        words["b"] = 2
    numbers.append(4)
    names.add("c")
    queue.put("sent")
    space.x = 5
    value.value = 6
    event.set()
    return sorted(iter(words))


def ask_proxy_after(words: Any, ready: Any, go: Any) -> tuple[str, int]:
    assert words["a"] == 1
    ready.set()
    go.wait(60)
    try:
        words["a"]
    except procession.ManagerDied as died:
        return died.name, died.pid
    raise AssertionError("a dead server answered")


def raise_and_interrupt_last_words() -> None:
    from procession._child import ending

    deliver = ending._deliver

    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        deliver(*args)

    ending._deliver = interrupted
    raise ValueError("as told")


class InterruptedWhilePickled(Exception):
    """As if a second Ctrl-C came while the first one, or another exception, is told."""

    def __reduce__(self) -> Any:
        signal.raise_signal(signal.SIGINT)
        return InterruptedWhilePickled, self.args


class InterruptedWhileUnpickled(Exception):
    """As if Ctrl-C came while it is looked at; only as often as `interrupts` says."""

    interrupts = 0

    def __reduce__(self) -> Any:
        return _interrupted, self.args


def _interrupted(*args: Any) -> InterruptedWhileUnpickled:
    if InterruptedWhileUnpickled.interrupts:
        InterruptedWhileUnpickled.interrupts -= 1
        signal.raise_signal(signal.SIGINT)
    return InterruptedWhileUnpickled(*args)


def give_what_is_interrupted() -> InterruptedWhileUnpickled:
    return InterruptedWhileUnpickled("as told")


def raise_what_is_interrupted() -> None:
    raise InterruptedWhileUnpickled("as told")


def raise_and_interrupt_its_pickling() -> None:
    raise InterruptedWhilePickled("as told")


def return_and_interrupt_its_pickling() -> Any:
    return InterruptedWhilePickled("as told")


def take_queue(queue: Any) -> None:
    global taken
    taken = queue


def put_in_taken(item: Any) -> None:
    taken.put(item)


def use_shared(queue: Any, lock: Any, value: Any) -> None:
    with lock:
        value.value += 1
    queue.put("used")


def log_a_word() -> None:
    import logging

    handler = logging.StreamHandler(open(2, "w", closefd=False))  # noqa: SIM115  (not pytest's)
    handler.setFormatter(logging.Formatter("[%(processName)s %(threadName)s] %(message)s"))
    logger = logging.getLogger("of a child")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("a word")
