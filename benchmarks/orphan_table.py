"""What is left when a program's main process ends: ours beside the standard library.

    python -m benchmarks.orphan_table [--count 8] [--wait 5]

A main with eight children that are busy, asleep, in a system call, stopped, each with a subprocess,
one of which went its own way by setsid and a second fork. Main ends; what is left after a few
seconds is counted from outside, by a mark in the environment and by pid, and then killed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.contract.orphans import WAYS, Family, family
from tests.contract.programs import METHODS

LIBRARIES = ("procession", "multiprocessing")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=8, help="children of each main")
    parser.add_argument("--wait", type=float, default=5.0, help="seconds until what is left counts")
    options = parser.parse_args()
    head = f"{'end of main':12} {'start method':13} " + " ".join(f"{n:>22}" for n in LIBRARIES)
    print(head, "-" * len(head), sep="\n", flush=True)
    ours = 0
    for way in WAYS:
        for method in METHODS:
            cells = []
            for library in LIBRARIES:
                left, everyone, seconds = measure(library, method, way, options)
                ours += left if library == "procession" else 0
                cells.append(
                    f"{left} of {everyone} left" if left else f"none left, {seconds * 1000:.0f} ms"
                )
            print(f"{way:12} {method:13} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)
    raise SystemExit(f"procession left {ours} processes behind" if ours else 0)


def measure(
    library: str, method: str, way: str, options: argparse.Namespace
) -> tuple[int, int, float]:
    """How many are left, of how many, and after how many seconds none was."""
    with (
        tempfile.TemporaryDirectory() as folder,
        family(Path(folder), method, library=library, count=options.count) as one,
    ):
        everyone = len(one.left())
        began = time.monotonic()
        one.end_main(way)
        return wait(one, began + options.wait), everyone, time.monotonic() - began


def wait(one: Family, deadline: float) -> int:
    """How many are left when none is, or when it is time."""
    while True:
        left = len(one.left())
        if (not left and one.main_is_over()) or time.monotonic() > deadline:
            return left


if __name__ == "__main__":
    main()
