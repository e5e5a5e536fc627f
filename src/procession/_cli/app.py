"""`procession`: reads the command line and says what it could not read in one line."""

from __future__ import annotations

import sys

from procession._cli.words import OWN_FAILURE, USAGE, fail, show_help

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


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
