"""`procession run`: the parent of the program's main process, not its host.

The program runs as plain `python` would run it, with one hook in front of its own site
customisation. This process waits, passes signals on, adopts what loses its parent, and draws the
picture whatever happened to main.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

import procession
from procession._cli.program import MainProcess
from procession._kernel import procfs
from procession._recording import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")


def run(
    program: Sequence[str],
    *,
    quiet: bool = False,
    verbose: bool = False,
    output: str | None = None,
    force: bool = False,
) -> int:
    """Run a program to its end and draw its picture.

    Args:
        program: What follows `python` on a command line.
        quiet: Draw nothing.
        verbose: Also say what of `multiprocessing` stayed standard.
        output: File for the recording; ``None``: it is kept only until the picture is drawn.
        force: Overwrite that file.

    Returns:
        The exit code: the program's own, or 128 + n where signal n ended it.
    """
    from procession._cli.words import fail

    flags = interpreter_flags()
    if refused := {"-E", "-I", "-S"} & set(flags):
        fail(f"{', '.join(refused)} keeps procession out of the program; leave it away")
    recording = _open_recording(output, force)
    started = time.monotonic()
    head = writer.head(started, time.time(), procession.__version__, [*flags, *program])
    if not writer.append(recording, head):
        fail(f"cannot write {output!r}: its file system is full")
    try:
        main = MainProcess([sys.executable, *flags, *program], _environment(recording), recording)
    except OSError as error:
        fail(f"cannot start {sys.executable!r}: {error.strerror}")
    us = os.getpid()
    _write(
        recording, "program.started", started, pid=main.pid, parent_pid=us, program=name(program)
    )
    status, used = main.wait()
    _write(
        recording,
        "program.exited",
        pid=main.pid,
        exitcode=os.waitstatus_to_exitcode(status),
        cpu=round(used.ru_utime + used.ru_stime, 6),
        max_rss=used.ru_maxrss * 1024,
    )
    main.wait_for_guards()
    if main.ended_by_itself:
        _tell_of(recording, "process.let_go", main.what_is_left())
    else:
        _tell_of(recording, "process.unkillable", main.end_what_is_left())
    if not quiet:
        _draw(recording, output, verbose)
    main.close()  # not before: one more Ctrl-C is not to take the picture away
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def interpreter_flags() -> list[str]:
    """The options that this interpreter itself was given, for the program's; a letter each.

    What follows them may be more than our own name: a debugger starts this command by its own.
    """
    given = iter(sys.orig_argv[1:])
    flags: list[str] = []
    for word in given:
        if not word.startswith("-") or word == "-":
            break
        if word.startswith("--"):
            flags += [word, next(given, "")]  # --check-hash-based-pycs: no other runs a program
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in "cm":  # the program
                return flags
            flags.append(f"-{letter}")
            if letter in "WX":
                flags.append(word[at:] or next(given, ""))
                break
    return flags


def _environment(recording: int) -> dict[str, str]:
    environ = dict(os.environ)
    before = environ.get("PYTHONPATH")
    if before is not None:
        environ["PROCESSION_PYTHONPATH"] = before
    environ["PYTHONPATH"] = HOOK + (os.pathsep + before if before else "")
    environ["PROCESSION_RECORDING"] = str(recording)
    return environ


def _open_recording(output: str | None, force: bool) -> int:
    """A descriptor that appends: several guards and this process write to it."""
    from procession._cli.words import fail

    if output is None:
        recording = os.memfd_create("procession-recording", os.MFD_CLOEXEC)
        fcntl.fcntl(recording, fcntl.F_SETFL, fcntl.fcntl(recording, fcntl.F_GETFL) | os.O_APPEND)
        return recording
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(output, flags | (os.O_TRUNC if force else os.O_EXCL), 0o666)
    except FileExistsError:
        fail(f"there is a file {output!r} already; --force overwrites it")
    except OSError as error:
        fail(f"cannot make {output!r}: {error.strerror}")


def name(program: Sequence[str]) -> str:
    if program[0] in ("-m", "-c"):
        return program[1] if program[0] == "-m" else "-c"
    return os.path.basename(program[0]) or program[0]


def _tell_of(recording: int, event: str, pids: Sequence[int]) -> None:
    for pid in pids:
        _write(recording, event, pid=pid, comm=procfs.name_of(pid))


def _write(recording: int, event: str, at: float | None = None, **fields: Any) -> None:
    line = writer.line(event, time.monotonic() if at is None else at, 0, **fields)
    writer.append(recording, b"\n" + line)  # a guard's last line may have been cut by a full disk


def _contents(recording: int) -> bytes:
    return os.pread(recording, os.fstat(recording).st_size, 0)


def _draw(recording: int, output: str | None, verbose: bool) -> None:
    from procession._cli import show

    sys.stdout.flush()
    show.draw(_contents(recording), sys.stderr, path=output, verbose=verbose)
    sys.stderr.flush()
