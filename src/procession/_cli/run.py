"""`procession run`: the parent of the program's main process, not its host.

The program runs as plain `python` would run it, with one hook in front of its own site
customisation. This process waits, passes signals on, adopts what loses its parent, and draws the
picture whatever happened to main.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from procession import _native
from procession._kernel import procfs
from procession._recording import writer
from procession._wire.messages import COMM_GUARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
GUARD_LIMIT = 5.0  # seconds that a guard gets to end what its main left
KILL_LIMIT = 2.0  # seconds until what does not die is reported instead of waited for
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(program: Sequence[str], *, quiet: bool) -> int:
    """Run a program to its end and draw its picture.

    Args:
        program: What follows `python` on a command line.
        quiet: Draw nothing.

    Returns:
        The exit code: the program's own, or 128 + n where signal n ended it.
    """
    from procession._cli.app import fail

    flags = interpreter_flags()
    if refused := {"-E", "-I", "-S"} & set(flags):
        fail(f"{', '.join(refused)} keeps procession out of the program; leave it away")
    recording = os.memfd_create("procession-recording", os.MFD_CLOEXEC)
    fcntl.fcntl(recording, fcntl.F_SETFL, fcntl.fcntl(recording, fcntl.F_GETFL) | os.O_APPEND)
    _native.set_subreaper(True)
    started = time.monotonic()
    main = -1

    def forward(number: int, _: Any) -> None:
        if main > 0:
            os.kill(main, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    # the terminal sends these to main as well; a handler, not SIG_IGN, which main would inherit
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    _write(
        recording, "recording.started", format=1, at=started, clock="monotonic", wall=time.time()
    )
    try:
        main = os.posix_spawn(
            sys.executable,
            [sys.executable, *flags, *program],
            _environment(recording),
            file_actions=[(os.POSIX_SPAWN_DUP2, recording, recording)],
        )
    except OSError as error:
        fail(f"cannot start {sys.executable!r}: {error.strerror}")
    status = _wait_for(main)
    _write(
        recording,
        "program.exited",
        pid=main,
        name=_name(program),
        started=started,
        at=time.monotonic(),
        exitcode=os.waitstatus_to_exitcode(status),
    )
    _wait_for_guards()
    if os.WIFSIGNALED(status) or _was_killed(recording, main):
        _end_what_is_left(recording)
    else:
        _let_go(recording)
    if not quiet:
        _draw(recording)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def interpreter_flags() -> list[str]:
    """The options that this interpreter itself was given, for the program's."""
    given = sys.orig_argv
    end = len(given) - (len(sys.argv) - 1)  # where our own arguments begin
    end -= 2 if given[end - 2 : end] == ["-m", "procession"] else 1
    return given[1:end]


def _environment(recording: int) -> dict[str, str]:
    environ = dict(os.environ)
    before = environ.get("PYTHONPATH")
    if before is not None:
        environ["PROCESSION_PYTHONPATH"] = before
    environ["PYTHONPATH"] = HOOK + (os.pathsep + before if before else "")
    environ["PROCESSION_RECORDING"] = str(recording)
    return environ


def _name(program: Sequence[str]) -> str:
    if program[0] in ("-m", "-c"):
        return program[1] if program[0] == "-m" else "-c"
    return os.path.basename(program[0]) or program[0]


def _wait_for(main: int) -> int:
    """Reap until main has ended; its wait status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == main:
            return status


def _wait_for_guards() -> None:
    """Let every guard below us finish: it ends what its main left, and tells the recording."""
    deadline = time.monotonic() + GUARD_LIMIT
    while time.monotonic() < deadline:
        if not _reap():
            return
        if not any(procfs.name_of(pid) == COMM_GUARD for pid in procfs.children(os.getpid())):
            return
        time.sleep(0.001)


def _reap() -> bool:
    """Reap what has ended; false when there is no child left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _was_killed(recording: int, main: int) -> bool:
    """Whether main's guard saw it end without Python's own end (``os._exit``, say)."""
    from procession._recording import reader

    ends = [
        event
        for event in reader.events(_contents(recording))
        if event.get("event") == "program.ended" and event.get("pid") == main
    ]
    return bool(ends) and ends[-1].get("how") != "normal"


def _end_what_is_left(recording: int) -> None:
    """Kill what main started by other ways than multiprocessing, and what that started."""
    deadline = time.monotonic() + KILL_LIMIT
    while _reap():
        for pid in procfs.children(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                continue
        if time.monotonic() > deadline:
            _tell_of(recording, "process.unkillable")
            return
        time.sleep(0.001)


def _let_go(recording: int) -> None:
    if _reap():
        _tell_of(recording, "process.let_go")


def _tell_of(recording: int, event: str) -> None:
    for pid in procfs.children(os.getpid()):
        _write(recording, event, pid=pid, name=procfs.name_of(pid), at=time.monotonic())


def _write(recording: int, event: str, **fields: Any) -> None:
    os.write(recording, writer.line({"event": event, **fields}))


def _contents(recording: int) -> bytes:
    return os.pread(recording, os.fstat(recording).st_size, 0)


def _draw(recording: int) -> None:
    from procession import lifeline
    from procession._recording import reader
    from procession._report import terminal

    timeline = lifeline.Timeline.from_events(reader.events(_contents(recording)))
    sys.stdout.flush()
    sys.stderr.write(terminal.picture(timeline, terminal.Look.of(sys.stderr)))
    sys.stderr.flush()
