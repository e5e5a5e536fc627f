"""What one bad call does to a pool: ours beside the standard library's and the peers'.

    python -m benchmarks.failure_table [--library NAME] [--method NAME] [--wait 40] [--write]

Two workers get eight calls, the fourth of which goes wrong in one of seven ways. Each cell is a
program of its own. "only it" is what is wanted: that call fails, with its cause, and no other. An
initializer that fails is to fail all calls at once with its own exception. With --write the tables
go to docs/failure-table.md. Exit status 1 if a cell of ours is not as wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import tables
from benchmarks.pools import OURS, Workers, available
from tests.contract import calls
from tests.contract.programs import METHODS

INITIALIZER = "failing initializer"
ROWS = (*calls.ROWS, INITIALIZER)
FIRST = "what one call does"
CALLS, BAD = 8, 3
CAUSES = {
    "SIGKILL": ("SIGKILL", "-9", "signal 9"),
    "os._exit": ("exited 7", "code: 7", "status 7", "exitcode 7", "Exit code 7"),
    "sys.exit": ("7",),
    "segfault": ("SIGSEGV", "-11", "signal 11"),
    "exception that cannot be unpickled": ("words of it",),
    "result that cannot be pickled": ("pickle",),
    INITIALIZER: ("no database",),
}


PAGE = tables.DOCS / "failure-table.md"
_HEAD = """\
# What one bad call does to a pool

Two workers get eight calls, the fourth of which goes wrong. *Only it* is what is wanted: that call
fails, with its cause, and no other; an initializer that fails is to fail all calls at once, with
its own exception. *Cause lost* means that the exception does not say what happened; *hang* that not
all calls had ended after {wait:g} seconds. How many calls a broken pool takes along depends on the
moment. loky takes a start method of its own.

Printed by `nox -s failure_table` (with `-- --write` it writes this page), which fails when a cell
of ours is not as wanted. {versions}.
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--library", action="append", choices=available())
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--wait", type=float, default=40.0, help="seconds until it is a hang")
    parser.add_argument("--write", action="store_true", help="write docs/failure-table.md")
    parser.add_argument("--cell", nargs=3, metavar=("LIBRARY", "METHOD", "ROW"))
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(run_cell(*options.cell)), flush=True)
        os._exit(0)  # whatever it left running is not what is asked here
    if options.write and (options.library or options.method):
        parser.error("--write wants all libraries and methods")
    libraries = options.library or available()
    found = {}
    for method in options.method or METHODS:
        rows = [[FIRST, *libraries]]
        for row in ROWS:
            rows.append([row, *(cell(library, method, row, options.wait) for library in libraries)])
            print(f"{method}: {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
        found[method] = rows
        print(f"\n## Start method {method}\n\n{tables.markdown(rows)}", flush=True)
    if options.write:
        PAGE.write_text(page(found, tables.versions(libraries), options.wait), encoding="utf-8")
    bad = sum(map(_not_as_wanted, found.values()))
    raise SystemExit(f"{bad} cells of ours are not as wanted" if bad else 0)


def page(found: dict[str, list[list[str]]], versions: str, wait: float) -> str:
    """The text of docs/failure-table.md: a table for each start method."""
    text = _HEAD.format(versions=versions, wait=wait)
    for method, rows in found.items():
        text += f"\n## Start method {method}\n\n{tables.markdown(rows)}"
    return text


def _not_as_wanted(rows: list[list[str]]) -> int:
    head, *rest = rows
    return sum(
        not text.startswith("fails at once" if row[0] == INITIALIZER else "only it")
        for row in rest
        for library, text in zip(head, row, strict=True)
        if library in OURS
    )


def cell(library: str, method: str, row: str, wait: float) -> str:
    """What happens, in a few words."""
    command = [sys.executable, "-m", "benchmarks.failure_table", "--cell", library, method, row]
    with tempfile.TemporaryFile() as out:  # a pipe would be kept open by what the cell leaves
        program = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            program.wait(wait)
        except subprocess.TimeoutExpired:
            return "**hang**"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        out.seek(0)
        lines = out.read().decode().splitlines()
    if not lines:
        return f"ends the program (status {program.returncode})"
    return words(row, json.loads(lines[-1]))


def words(row: str, outcomes: list[list[str] | None]) -> str:
    """The outcomes of the calls, in a few words."""
    failed = [at for at, outcome in enumerate(outcomes) if outcome is not None]
    if not failed:
        return "no failure is told"
    kind, *texts = outcomes[failed[-1]] or [""]
    told = any(word in text for text in texts for word in CAUSES[row])
    cause = kind if told else f"{kind}, cause lost"
    if row == INITIALIZER:
        everyone = len(failed) == CALLS
        return f"{'fails at once' if everyone and told else 'fails'}: {cause}"
    if failed == [BAD]:
        if kind == "SystemExit":
            return "SystemExit raised in the parent"
        return f"only it: {cause}" if told else f"only that call: {cause}"
    return f"{len(failed)} of {CALLS} calls: {cause}"


def run_cell(library: str, method: str, row: str) -> list[list[str] | None]:
    """Of each call: ``None``, or the exception's type and the words of it and of its causes."""
    workers = Workers(library, method, 2, fail if row == INITIALIZER else None)
    asks = []
    for n in range(CALLS):
        try:
            if row == INITIALIZER:
                asks.append(workers.submit(calls.square, n))
            else:
                asks.append(workers.submit(calls.third, row, n))
        except BaseException as error:
            asks.append(lambda error=error: _raise(error))
    return [_told(ask) for ask in asks]


def fail() -> None:
    """The initializer that fails."""
    calls.failing_initializer("raise")


def _raise(error: BaseException) -> Any:
    raise error


def _told(ask: Any) -> list[str] | None:
    try:
        ask()
    except BaseException as error:
        if isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        kind = type(error).__name__
        texts = []
        while error is not None:
            texts.append(f"{type(error).__name__}: {error}")
            error = error.__cause__ or error.__context__  # type: ignore[assignment]
        return [kind, *texts]
    return None


if __name__ == "__main__":
    main()
