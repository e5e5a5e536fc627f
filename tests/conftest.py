"""What every test stands on: nothing may be left behind, and chance can be repeated."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import witness

PATIENCE = 3.0  # seconds in which what a test ended must be gone; a hundred times what it takes
MARK = uuid.uuid4().hex
_memory = witness.mark_memory(MARK)

_DISTURBING = (
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "PROCESSION_RECORDING",
    "PYTEST_ADDOPTS",  # read already; programs of tests run pytest, too
)
_temporary = ""


def pytest_configure(config: pytest.Config) -> None:
    """Give programs a plain environment with a mark, and a folder of our own for their files."""
    global _temporary
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # ignored below nohup, and by `&`
        if signal.getsignal(number) is signal.SIG_IGN:  # programs here are sent them, and inherit
            plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, plain)
    for name in _DISTURBING:  # programs must work without them, and differ with them
        os.environ.pop(name, None)
    os.environ[witness.SESSION_MARK] = MARK
    # tmp_path stays where pytest keeps it; short, since paths of sockets are built in it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _temporary = tempfile.mkdtemp(prefix="pn-")
    os.environ["TMPDIR"] = tempfile.tempdir = _temporary


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the folder away, after the standard library has taken away its own in there."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        shutil.rmtree(_temporary, ignore_errors=True)
    else:  # at exit, where its own folder's turn is at -100
        util.Finalize(None, shutil.rmtree, (_temporary, True), exitpriority=-200)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted, also where a worker of xdist ran them."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, said in report.user_properties:
                    if name == "counted":
                        terminalreporter.write_line(said)


class Belongings:
    """What this process has: processes, descriptors, threads, files."""

    def __init__(self) -> None:
        self.processes = {being for being in witness.ours(MARK) if not witness.is_helper(being)}
        kept = witness.kept_descriptors()
        self.descriptors = {
            (number, what)
            for number, what in witness.descriptors().items()
            if number not in kept and not what.startswith("/dev/pts/")
        }
        self.threads = witness.threads()
        own = _standard_folder()
        self.files = witness.files("/dev/shm") | (witness.files(_temporary) - {own})
        self.numpy = "numpy" in sys.modules

    def more_than(self, before: Belongings) -> Strays:
        """What is here and was not there before."""
        return Strays(
            self.processes - before.processes,
            self.descriptors - before.descriptors,
            # numpy's linear algebra starts threads at its import and keeps them
            set() if self.numpy > before.numpy else self.threads.items() - before.threads.items(),
            {path for path in self.files - before.files if self._is_mine(path)},
        )

    def _is_mine(self, path: str) -> bool:
        """Whether a file is of this test run; other programs use /dev/shm as well."""
        if path.startswith(_temporary):
            return True
        others = witness.users(path) - {os.getpid()} - {being.pid for being in self.processes}
        return os.path.exists(path) and not others


class Strays:
    """What a test left behind."""

    def __init__(
        self,
        processes: set[witness.Being],
        descriptors: set[tuple[int, str]],
        threads: set[tuple[int, str]],
        files: set[str],
    ) -> None:
        self.processes = processes
        self.descriptors = descriptors
        self.threads = threads
        self.files = files

    def __bool__(self) -> bool:
        return bool(self.processes or self.descriptors or self.threads or self.files)

    def __str__(self) -> str:
        rows = [f"process     {being}" for being in sorted(self.processes)]
        rows += [f"descriptor  {number} -> {what}" for number, what in sorted(self.descriptors)]
        rows += [f"thread      {number} {name}" for number, name in sorted(self.threads)]
        rows += [f"file        {path}" for path in sorted(self.files)]
        return "\n".join(rows)

    def clean_up(self) -> None:
        """End and remove what can be; a thread cannot, and a descriptor may have an owner."""
        for being in self.processes:
            witness.kill(being)
        for path in self.files:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _standard_folder() -> str | None:
    """The standard library's temporary folder of this process, which it removes at exit."""
    process = sys.modules.get("multiprocessing.process")
    return process and process.current_process()._config.get("tempdir")


@pytest.fixture(autouse=True)
def no_strays() -> Iterator[None]:
    """Fail a test that leaves a process, descriptor, thread or file behind, then clean up.

    Not `procession.testing`, which does the same for users: it goes by what our own code knows of
    its processes, and may overlook what that code has lost. This one goes by a mark in /proc.
    """
    before = Belongings()
    yield
    strays = Belongings().more_than(before)
    if not strays:
        return
    gc.collect()  # what only waits for the collector has no owner to blame

    def gone() -> bool:
        nonlocal strays
        strays = Belongings().more_than(before)
        return not strays

    if not witness.wait_until(gone, PATIENCE):
        picture = str(strays)
        strays.clean_up()
        pytest.fail(f"left behind:\n{picture}", pytrace=False)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number for all that a test leaves to chance; printed when it fails."""
    run = request.config.getoption("randomly_seed", 0)
    value = zlib.crc32(f"{run} {request.node.nodeid}".encode())
    print(f"seed {value}; the same again: pytest -p randomly_seed={run} {request.node.nodeid!r}")
    return value


@pytest.fixture
def root() -> Path:
    """The folder of the checkout."""
    return Path(__file__).parent.parent
