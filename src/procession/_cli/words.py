"""What the command says of itself, and how it says that something cannot be done."""

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
