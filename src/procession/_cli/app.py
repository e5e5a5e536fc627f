"""`procession`: reads the command line and says what it could not read in one line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `procession run` imports nothing that its program would have to wait for
    from collections.abc import Sequence
    from typing import NoReturn

USAGE = {
    "run": (
        "usage: procession run [-q | -v] [-o FILE [--force]] "
        "script.py | -m module | -c code | -  [arguments …]"
    ),
    "show": "usage: procession show [-v] FILE",
    "ps": "usage: procession ps",
    "doctor": "usage: procession doctor",
}

HELP = {
    "": """usage: procession run | show | ps | doctor …

  run      run a Python program, unchanged, and draw the lives of its processes at the end
  show     draw a recording again
  ps       the living programs of yours, their processes, and who waits for whom
  doctor   what this kernel and sandbox offer, and what degrades without it

procession COMMAND --help says more. --version shows the version.
""",
    "run": f"""{USAGE["run"]}

Run a Python program, unchanged, with its multiprocessing served by procession: whatever is killed
and whenever, no process of it is left behind. At the end a picture on stderr shows who started
whom, who waited for whom, who lived how long and how each one ended.

  -o, --output FILE   write the recording to FILE as well (usual ending: .plr)
      --force         overwrite FILE
  -q, --quiet         draw no picture
  -v, --verbose       also say what of multiprocessing stayed the standard library's
  -h, --help          show this help

stdout, arguments, exit code and tracebacks are the program's own; 128+n: signal n ended it.
Exit code 125: procession itself could not do what was asked; one line on stderr says why.
""",
    "show": f"""{USAGE["show"]}

Draw a recording on stdout: one that `procession run -o FILE` or procession.record(FILE) wrote, also
while it is being written, and one that was cut.

  -v, --verbose       also say what of multiprocessing stayed the standard library's
  -h, --help          show this help
""",
    "ps": f"""{USAGE["ps"]}

List your programs that use procession now: their processes as a tree, how old each is, and who
waits for whom since when.
""",
    "doctor": f"""{USAGE["doctor"]}

Five lines: what this kernel and sandbox offer, and what degrades where something is missing. Exit
code 1 if something is.
""",
}

OWN_FAILURE = 125  # exit code for failures of our own; timeout(1) and env(1) use it, too


def main() -> NoReturn:
    """Entry of the console script and of `python -m procession`."""
    if len(sys.argv) < 2:
        fail("say what to do", "")
    command, *rest = sys.argv[1:]
    if command in ("-h", "--help", "help"):
        show_help(rest[0] if rest and rest[0] in USAGE else "")
    if command == "--version":
        import procession

        print(f"procession {procession.__version__}")
        sys.exit(0)
    if command not in USAGE:
        fail(f"there is no command {command!r}", "")
    try:
        sys.exit(_COMMANDS[command](rest))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has seen enough
        sys.exit(OWN_FAILURE)


def _run(rest: list[str]) -> int:
    given = options(
        "run", rest, {"-q": "--quiet", "-v": "--verbose", "-o": "--output", "--force": "--force"}
    )
    if not rest:
        fail("say what to run", "run")
    if rest[0] in ("-m", "-c") and len(rest) == 1:
        fail(f"{rest[0]} needs an argument", "run")
    if "--force" in given and "--output" not in given:
        fail("--force overwrites the file of -o, and there is none", "run")
    from procession._cli import run

    return run.run(
        rest,
        quiet="--quiet" in given,
        verbose="--verbose" in given,
        output=given.get("--output"),
        force="--force" in given,
    )


def _show(rest: list[str]) -> int:
    given = options("show", rest, {"-v": "--verbose"})
    if len(rest) != 1:
        fail("say which recording to show" if not rest else "one recording at a time", "show")
    from procession._cli import show

    return show.show(rest[0], verbose="--verbose" in given)


def _ps(rest: list[str]) -> int:
    options("ps", rest, {})
    if rest:
        fail(f"ps takes no arguments, got {rest[0]!r}", "ps")
    from procession._cli import ps

    return ps.ps()


def _doctor(rest: list[str]) -> int:
    options("doctor", rest, {})
    if rest:
        fail(f"doctor takes no arguments, got {rest[0]!r}", "doctor")
    from procession._cli import doctor

    return doctor.doctor()


_COMMANDS = {"run": _run, "show": _show, "ps": _ps, "doctor": _doctor}


def options(command: str, rest: list[str], known: dict[str, str]) -> dict[str, str]:
    """Take the options off the front of the arguments; what follows them is left in ``rest``.

    Args:
        command: Whose options.
        rest: Arguments; the options are removed.
        known: Short to long name; ``--output`` takes a value.
    """
    given: dict[str, str] = {}
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "-m", "-c"):
        option, _, value = rest.pop(0).partition("=")
        if option == "--":
            break
        if option in ("-h", "--help"):
            show_help(command)
        option = known.get(option, option)
        if option not in known.values():
            fail(f"there is no option {option!r}", command)
        if option == "--output" and not value:
            if not rest:
                fail(f"{option} needs a file's name", command)
            value = rest.pop(0)
        given[option] = value
    if {"--quiet", "--verbose"} <= given.keys():
        fail("-q and -v contradict each other", command)
    return given


def show_help(command: str) -> NoReturn:
    """The help of a command, or of all."""
    print(HELP[command], end="")
    sys.exit(0)


def fail(why: str, command: str | None = None) -> NoReturn:
    """One line on stderr, the usage where that helps, and our own exit code."""
    print(f"procession: {why}", file=sys.stderr)
    if command is not None:
        print(USAGE.get(command) or HELP[""].splitlines()[0], file=sys.stderr)
    sys.exit(OWN_FAILURE)


def plain(arguments: Sequence[str]) -> str:
    """A command ready to be pasted into a shell, or nothing where it cannot be shown safely."""
    import shlex

    text = shlex.join(arguments)
    return text if text.isprintable() else ""
