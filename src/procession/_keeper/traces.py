"""What a run of main's file leaves in its process beside what it defined.

Children that are forked from that process share memory, modules and settings with it as if each had
run the file itself. They would *share* what was opened, and *lose* threads, timers and children; of
what their start gives them anew they would lose what the file had changed.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time

from procession import _native
from procession._keeper import spares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_THREADS_GO = 0.2  # seconds; the kernel shows a thread for a moment after it was joined
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_GLIBCS = 1 << 31 | 1 << 32  # signals 32 and 33, which the C library catches once there are threads
_FRESH_STATE = 623  # numpy's own seeding leaves its Mersenne twister there, a user's seed at 624


class Traces:
    """The state before the run."""

    def __init__(self) -> None:
        self._streams = [getattr(sys, name) for name in ("stdin", "stdout", "stderr")]
        self._before = dict(self._facts())

    def left(self) -> str:
        """What the run left that speaks against a fork, in words; nothing where nothing does."""
        pid = self._before["its process"]
        if os.getpid() != pid:
            os._exit(1)  # main's file forked: this is the copy, and nobody's child
        for name, now in self._facts():
            if now != self._before[name]:
                return f"it changed {name}"
        if _has_children():
            return "it left a child process"
        if _generators():
            return "it made a generator of random numbers"
        if _has_threads():
            return "it left a thread"
        return ""

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "its process", os.getpid()
        yield "environment variables", dict(os.environ)
        yield "sys.argv", list(sys.argv)
        yield "standard streams", [_is_as_it_was(stream) for stream in self._current_streams()]
        yield "the working directory", _directory()
        yield "open descriptors", _descriptors()
        yield "shared memory", _shared_memory()
        yield "limits, priority or signals", _native.read_surroundings()
        yield "signal handlers", [signal.getsignal(n) for n in range(1, signal.NSIG)]
        yield "signal actions", _caught()
        yield "the wake-up descriptor", _wakeup_fd()
        yield "timers", [signal.getitimer(which)[0] > 0 for which in _TIMERS]
        yield "trace functions", (sys.gettrace(), sys.getprofile())
        yield "credentials", _native.credentials()
        yield "the state of random", random.getstate()
        yield "the state of numpy.random", _numpy_seeded()
        yield "the keeper", _used_keeper()

    def _current_streams(self) -> list[Any]:
        now = [getattr(sys, name) for name in ("stdin", "stdout", "stderr")]
        return [
            stream if stream is before else None
            for stream, before in zip(now, self._streams, strict=True)
        ]


def _is_as_it_was(stream: Any) -> tuple[bool, bool]:
    return stream is None, getattr(stream, "line_buffering", False)


def _directory() -> tuple[int, int] | None:
    try:
        status = os.stat(".")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _descriptors() -> dict[int, tuple[int, int, int]]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # that of the list itself
        found[int(name)] = status.st_dev, status.st_ino, status.st_mode
    return found


def _shared_memory() -> list[list[str]]:
    with open("/proc/self/maps", errors="replace") as file:
        rows = [line.split() for line in file]
    return sorted(row for row in rows if row[1].endswith("s"))


def _caught() -> int:
    """Signals with a handler, also one that Python does not know of."""
    with open("/proc/self/status", errors="replace") as file:
        bits = next((line.split()[1] for line in file if line.startswith("SigCgt:")), "0")
    return int(bits, 16) & ~_GLIBCS


def _wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd)
    return fd


def _used_keeper() -> bool:
    client: Any = sys.modules.get("procession._launch.keeper_client")
    return client is not None and client.existing() is not None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_threads() -> bool:
    """Whether there are threads that a fork would lose.

    Those of OpenBLAS, which numpy brings, are no such: it ends them before a fork, and starts them
    when they are needed. So a fork tells.
    """
    if spares.threads() == 1:
        return False
    if threading.active_count() > 1 or len(sys._current_frames()) > 1:
        return True
    _native.fork_in_vain()
    deadline = time.monotonic() + _THREADS_GO
    while spares.threads() > 1:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.001)
    return False


def _numpy_seeded() -> bool:
    """Whether somebody seeded numpy's own generator: a child's is seeded anew."""
    module: Any = sys.modules.get("numpy.random.mtrand")
    if module is None:
        return False
    state = module._rand.get_state()
    return bool(state[0] != "MT19937" or state[2] != _FRESH_STATE)


def _generators() -> bool:
    """Whether there are generators that children would draw the same numbers from.

    Seeded or not, which cannot be told: children that run main themselves seed theirs.
    """
    kinds: tuple[type, ...] = (random.Random,)
    known = [random._inst, getattr(tempfile._name_sequence, "_rng", None)]  # type: ignore[attr-defined]
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        kinds += numpy.Generator, numpy.BitGenerator, numpy.RandomState
        known += [numpy.mtrand._rand, numpy.mtrand._rand._bit_generator]
    return any(
        isinstance(it, kinds)
        and not isinstance(it, random.SystemRandom)
        and not any(it is one for one in known)
        for it in gc.get_objects()
    )
