"""The command: ``python -m benchmarks [names] [--quick] [--update] [--list]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import cases, environment, report, runner
from benchmarks.bench import Benchmark, registry


def main() -> int:
    """Run what is asked for; the exit status is 1 when a side failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="rooms or benchmarks; none: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run?")
    parser.add_argument(
        "--update", action="store_true", help="write benchmarks/RESULTS.md and the READMEs"
    )
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args()
    if arguments.quick and arguments.update:
        parser.error("--quick makes no figures worth keeping: leave out --update")
    cases.load()
    wanted = [b for b in registry.values() if _is_wanted(b, arguments.names)]
    if not wanted:
        parser.error(f"no such benchmark; there are: {', '.join(registry)}")
    if arguments.list:
        for benchmark in wanted:
            sys.stdout.write(f"{benchmark.name:<28} {benchmark.title}\n")
        return 0
    return _run(wanted, quick=arguments.quick, update=arguments.update)


def _is_wanted(benchmark: Benchmark, names: list[str]) -> bool:
    return not names or any(
        benchmark.name == name or benchmark.name.startswith(f"{name}.") for name in names
    )


def _run(wanted: list[Benchmark], *, quick: bool, update: bool) -> int:
    machine = environment.describe()
    results: dict[str, list[list[str]]] = {}
    failed = 0
    for benchmark in wanted:
        began = time.monotonic()
        sys.stderr.write(f"{benchmark.name} … ")
        sys.stderr.flush()
        try:
            results[benchmark.name] = report.rows(benchmark, runner.run(benchmark, quick=quick))
            sys.stderr.write(f"{time.monotonic() - began:.1f} s\n")
        except runner.SideFailed as failure:
            failed = 1
            sys.stderr.write(f"failed: {failure}\n")
    sys.stdout.write(f"{machine}\n\n")
    sys.stdout.write(report.table([row for some in results.values() for row in some]) + "\n")
    if update:
        report.update(results, machine)
        # the figures on the first page are these
        subprocess.run([sys.executable, str(Path(runner.ROOT, "docs", "readme.py"))], check=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
