"""`procession`: reads the command line and says what it could not read in one line."""

from __future__ import annotations

import sys
from typing import NoReturn

USAGE = "usage: procession run [-q] script.py | -m module | -c code | -  [arguments …]"

HELP = f"""{USAGE}

Run a Python program, unchanged, with its multiprocessing served by procession: whatever is killed
and whenever, no process of it is left behind. At the end a picture on stderr shows who started
whom, who lived how long and how each one ended.

  -q, --quiet   draw no picture
  -h, --help    show this help
  --version     show the version

stdout, arguments, exit code and tracebacks are the program's own; 128+n: ended by signal n.
Exit code 125: procession itself could not do what was asked; one line on stderr says why.
"""

OWN_FAILURE = 125  # exit code for failures of our own; timeout(1) and env(1) use it, too


def main() -> NoReturn:
    """Entry of the console script and of `python -m procession`."""
    arguments = sys.argv[1:]
    if not arguments:
        fail("say what to run", usage=True)
    command, *rest = arguments
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0)
    if command == "--version":
        import procession

        print(f"procession {procession.__version__}")
        sys.exit(0)
    if command != "run":
        fail(f"there is no command {command!r}", usage=True)
    quiet = False
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "-m", "-c"):
        option = rest.pop(0)
        if option in ("-q", "--quiet"):
            quiet = True
        elif option in ("-h", "--help"):
            print(HELP, end="")
            sys.exit(0)
        elif option == "--":
            break
        else:
            fail(f"there is no option {option!r}", usage=True)
    if not rest:
        fail("say what to run", usage=True)
    if rest[0] in ("-m", "-c") and len(rest) == 1:
        fail(f"{rest[0]} needs an argument", usage=True)
    from procession._cli import run

    sys.exit(run.run(rest, quiet=quiet))


def fail(why: str, *, usage: bool = False) -> NoReturn:
    """One line on stderr, and our own exit code."""
    print(f"procession: {why}", file=sys.stderr)
    if usage:
        print(USAGE, file=sys.stderr)
    sys.exit(OWN_FAILURE)
