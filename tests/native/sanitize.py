"""The drivers of the C core under sanitizers: ``python -m tests.native.sanitize address|thread``.

Each driver is built with the whole core (all but what knows Python) and run; a finding ends it with
an exit status that is not 0, and so does a failed check of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.native.building import DRIVERS, build

FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread", "-Wno-tsan"],
}
THREADED = ("race", "race_locks")  # a thread sanitizer sees one process only
STEPPING = [
    "",
    "499",
]  # all operations, killed at every so many instructions: here a step takes long
ARGUMENTS = {"race": ["2000"], "race_locks": ["600"], "wakes": []}
LIMIT = 900.0  # seconds for one driver


def main() -> int:
    """Build and run; the exit status is 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sanitizer", choices=FLAGS)
    parser.add_argument("drivers", nargs="*", help="none: all that it is of use for")
    given = parser.parse_args()
    names = given.drivers or sorted(path.stem for path in DRIVERS.glob("*.c"))
    failed = 0
    # leaks are no matter of processes that are killed, and that check needs ptrace for itself
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "exitcode=66"}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if given.sanitizer == "thread" and name not in THREADED:
                continue
            program = build(name, Path(folder), *FLAGS[given.sanitizer])
            began = time.monotonic()
            try:
                done = subprocess.run(
                    [program, *ARGUMENTS.get(name, STEPPING)],
                    env=environment,
                    timeout=LIMIT,
                    stdout=subprocess.DEVNULL,
                )
                said = "clean" if done.returncode == 0 else f"exit status {done.returncode}"
            except subprocess.TimeoutExpired:
                said = "took too long"
            failed |= said != "clean"
            print(f"{name:<16} {said}, {time.monotonic() - began:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
