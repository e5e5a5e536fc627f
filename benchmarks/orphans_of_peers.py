"""What is left when a main process is killed: ours beside the standard library's and the peers'.

    python -m benchmarks.orphans_of_peers [--wait 5] [--write]

A main that has one kind of process below it is killed by SIGKILL. What is left of its whole tree
after a few seconds is counted from outside, by a mark in the environment, and then killed. Ours and
the standard library's by start method forkserver; peers that cannot choose take their own. With
--write the table goes to docs/orphan-table.md. Exit status 1 if anything of ours is left.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks import tables
from benchmarks.pools import PEERS, Workers, available
from tests.contract.programs import Program

PAGE = tables.DOCS / "orphan-table.md"
LIBRARIES = {  # the column: the pool that stands for it, and the package of its other processes
    "procession": ("procession Pool", "procession"),
    "multiprocessing": ("standard Pool", "multiprocessing"),
    "standard executor": ("standard executor", ""),
    **{peer: (peer, "") for peer in PEERS},
}
IN_A_POOL = ("idle worker", "busy worker", "subprocess of a worker", "one that went astray")
ALONE = ("process", "daemon process", "manager")
KINDS = (*IN_A_POOL, *ALONE)
_NOTHING = "–"
_FOREVER = "300"
_HEAD = """\
# What is left when main is killed

A main process with one kind of process below it is killed by SIGKILL; what is left of its tree five
seconds later is counted, helpers of the library among it. *Went astray*: a worker's subprocess that
called `setsid` and forked twice, so that nobody is its parent. A dash: the library has none.

Printed by `nox -s orphan_table` (`python -m benchmarks.orphans_of_peers --write` writes this page),
which fails when anything of ours is left. {versions}.

"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wait", type=float, default=5.0, help="seconds until what is left counts")
    parser.add_argument("--write", action="store_true", help="write docs/orphan-table.md")
    parser.add_argument("--play", nargs=2, metavar=("LIBRARY", "KIND"))
    options = parser.parse_args()
    if options.play:
        play(*options.play)
    libraries = [name for name, (pool, _) in LIBRARIES.items() if pool in available()]
    rows = [["below main", *libraries]]
    for kind in KINDS:
        rows.append([kind, *(cell(library, kind, options.wait) for library in libraries)])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(tables.markdown(rows))
    if options.write:
        PAGE.write_text(page(rows, tables.versions(libraries)), encoding="utf-8")
    bad = sum(row[1] != "nothing" for row in rows[1:])
    raise SystemExit(f"{bad} cells of ours are not as wanted" if bad else 0)


def page(rows: list[list[str]], versions: str) -> str:
    """The text of docs/orphan-table.md."""
    return _HEAD.format(versions=versions) + tables.markdown(rows)


def cell(library: str, kind: str, wait: float) -> str:
    """What is left, in a few words."""
    if kind in ALONE and not LIBRARIES[library][1]:
        return _NOTHING
    command = [sys.executable, "-m", "benchmarks.orphans_of_peers", "--play", library, kind]
    program = Program(command, stdin=subprocess.PIPE)
    try:
        program.wait_for("ready")
        program.process.kill()
        deadline = time.monotonic() + wait
        while (left := program.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return f"**{len(left)} left**" if left else "nothing"
    finally:
        program.end()
        program.close()


# --- the program ----------------------------------------------------------------------------------


def play(library: str, kind: str) -> None:
    """Be the main with that kind of process below it, until killed."""
    pool, package = LIBRARIES[library]
    if kind in IN_A_POOL:
        workers = Workers(pool, "forkserver", 2)
        ask = workers.submit(work, kind)
        if kind == "idle worker":
            ask()
    else:
        context: Any = importlib.import_module(package).get_context("forkserver")
        if kind == "manager":
            kept = context.Manager()
            kept.dict(a=1)
        else:
            context.Process(target=work, args=(kind,), daemon="daemon" in kind).start()
    if kind in ("idle worker", "manager"):  # what does the work says so itself
        say("ready")
    sys.stdin.readline()  # nobody writes


def say(text: str) -> None:
    """A line on stdout, at once."""
    os.write(1, text.encode() + b"\n")


def work(kind: str) -> None:
    """What a worker does."""
    if kind == "idle worker":
        return
    if kind == "one that went astray":
        script = f"sleep {_FOREVER} >/dev/null & echo $!"
        subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE, check=True)
    if kind == "subprocess of a worker":
        subprocess.Popen(["sleep", _FOREVER], stdout=subprocess.DEVNULL)
    say("ready")
    while True:
        pass


if __name__ == "__main__":
    main()
