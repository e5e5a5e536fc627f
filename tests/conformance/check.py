"""CPython's suite against procession, for each start method: what passed once must pass.

    python tests/conformance/check.py                     the whole suite
    python tests/conformance/check.py --part processes    the classes about processes alone
    python tests/conformance/check.py --part queues       those about queues and connections
    python tests/conformance/check.py --update            store what passes now and did not before
    python tests/conformance/check.py --beside            time the standard library's runs as well

`futures` are CPython's tests of process-pool executors, by each method, where this Python brings
them. `passes/<Python version>-<start method>.txt` holds what passed, a test a line; a line is never
removed by this tool. Not stored: what `unstable.txt` names, which the standard library itself
fails now and then, and what `private_internals.txt` names, which looks at CPython's insides. Exit
status 1 if a stored test does not pass, or one fails that neither list names.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
METHODS = ("forkserver", "spawn", "fork")
# suites of their own, which go through the start methods themselves
MAIN_HANDLING = "main_handling"
FUTURES = "futures"
EVERY = (*METHODS, MAIN_HANDLING, FUTURES)
PARTS = {
    "all": ("*",),
    "processes": (
        "TestCloseFds.*",
        "TestFlags.*",
        "TestForkAwareThreadLock.*",
        "TestIgnoreEINTR.*",
        "TestInternalDecorators.*",
        "TestNoForkBomb.*",
        "TestStartMethod.*",
        "TestStdinBadfiledescriptor.*",
        "TestTimeouts.*",
        "TestWait.*",
        "MiscTestCase.*",
        "WithProcessesTestProcess.*",
        "WithProcessesTestSubclassingProcess.*",
        "WithProcessesTestLogging.*",
        "WithProcessesTestPoolWorkerErrors.*",
    ),
    "queues": (
        "OtherTest.*",
        "TestClosedFile.*",
        "TestInvalidHandle.*",
        "TestSimpleQueue.*",
        "TestWait.*",
        "*TestConnection.*",
        "*TestListener.*",
        "*TestListenerClient.*",
        "*TestPicklingConnections.*",
        "*TestPoll.*",
        "*TestQueue.*",
        "ChallengeResponseTest.*",
    ),
}
QUICK_FUTURES = (  # what part "processes" has of them: seconds
    "*DeadlockTest.test_[cs]*",
    "*InitializerTest.*",
)
SLOWEST = 60.0  # seconds for one test; the suite's longest takes five
WHOLE = 1800.0  # seconds for one run of the suite; six times what it takes on a quiet machine

Results = dict[str, dict[str, Any]]


class Report(NamedTuple):
    """What one run of the suite says."""

    results: Results
    left_behind: list[str]  # classes after which a process was there that its test had not ended
    dangling: list[str]  # those where the suite itself found dangling processes or threads


class Verdict(NamedTuple):
    """What came out for one start method."""

    method: str
    ran: int
    passed: list[str]
    skipped: list[str]
    failed: list[str]
    unexcused: list[str]
    lost: list[str]
    gained: list[str]
    report: Report

    def __str__(self) -> str:
        return (
            f"{version()} {self.method}: {len(self.passed)} passed, {len(self.failed)} failed "
            f"({len(self.unexcused)} of them no private internals), {len(self.skipped)} skipped; "
            f"{len(self.lost)} passed before and not now, {len(self.gained)} the other way"
        )


def version() -> str:
    """The version whose suite this interpreter has."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def stored(method: str) -> Path:
    """The file of what passed with a start method."""
    return HERE / "passes" / f"{version()}-{method}.txt"


def read(path: Path) -> set[str]:
    """The entries of a list file: what stands before a `|`, comments left out."""
    if not path.exists():
        return set()
    lines = (line.strip() for line in path.read_text().splitlines())
    return {line.partition("|")[0].strip() for line in lines if line and line[0] != "#"}


def run(method: str, part: str, module: str = "procession") -> Report:
    """Run the suite once.

    Raises:
        RuntimeError: It did not come to an end; what it said is in the message.
    """
    if method == FUTURES:
        return run_futures(() if part == "all" else QUICK_FUTURES, module)
    chosen = ["--method", method]
    if method == MAIN_HANDLING:
        chosen = ["--method", METHODS[0], "--suite", "test.test_multiprocessing_main_handling"]
        part = "all"
    chosen += [word for pattern in PARTS[part] for word in ("-k", pattern)]
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        out = Path(folder, "results.json")
        command = [sys.executable, str(HERE / "run_cpython.py"), "--module", module, *chosen]
        done = subprocess.run(
            [*command, "--timeout", str(SLOWEST), "--json", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WHOLE,
        )
        if not out.exists():
            raise RuntimeError(f"the suite's runner ended early ({method}):\n{done.stdout[-4000:]}")
        found = json.loads(out.read_text())
        notes = found["notes"]
        return Report(found["tests"], notes["leaked"], notes["environment_altered"])


def run_futures(patterns: tuple[str, ...], module: str) -> Report:
    """Run CPython's tests of process-pool executors, as an unchanged program.

    Raises:
        RuntimeError: It did not come to an end; what it said is in the message.
    """
    if not has_suite("test.test_concurrent_futures"):
        return Report({}, [], [])
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        out = Path(folder, "results.json")
        served = ["-m", "procession", "run", "-q"] if module == "procession" else []
        maker = "procession.executor" if served else "concurrent.futures.process"
        command = [sys.executable, *served, str(HERE / "futures_suite.py")]
        command += [str(out), maker, *patterns]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=WHOLE
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"").decode("utf-8", "replace")
            raise RuntimeError(f"a test of executors hangs:\n{said[-4000:]}") from None
        if not out.exists():
            raise RuntimeError(f"the tests of executors ended early:\n{done.stderr[-4000:]}")
        return Report(json.loads(out.read_text())["tests"], [], [])


def judge(method: str, report: Report) -> Verdict:
    """Compare results with what is stored."""
    results = report.results
    by_status: dict[str, list[str]] = {}
    for test, result in sorted(results.items()):
        by_status.setdefault(result["status"], []).append(test)
    passed = by_status.pop("passed", [])
    skipped = by_status.pop("skipped", [])
    failed = sorted(test for tests in by_status.values() for test in tests)
    excused = read(HERE / "unstable.txt") | read(HERE / "private_internals.txt")

    def counts(test: str) -> bool:
        return not any(fnmatch.fnmatchcase(test, pattern) for pattern in excused)

    before = set(filter(counts, read(stored(method))))
    lost = sorted(before.intersection(failed))
    gained = sorted(filter(counts, set(passed) - before))
    unexcused = list(filter(counts, failed))
    return Verdict(method, len(results), passed, skipped, failed, unexcused, lost, gained, report)


def beside(verdict: Verdict, standard: Results) -> str:
    """How long the tests took that pass here and with the standard library, there and here."""
    both = [test for test in verdict.passed if standard.get(test, {}).get("status") == "passed"]
    ours, theirs = (
        sum(results[test]["dt"] for test in both) for results in (verdict.report.results, standard)
    )
    return (
        f"{version()} {verdict.method}: the {len(both)} tests that both pass took {ours:.0f} s, "
        f"and {theirs:.0f} s with the standard library ({ours / theirs:.2f} of it)"
    )


def update(verdict: Verdict) -> None:
    """Add to the stored list what passes now."""
    path = stored(verdict.method)
    path.parent.mkdir(exist_ok=True)
    tests = sorted(read(path).union(verdict.gained))
    path.write_text("\n".join(tests) + "\n")


def check(methods: list[str], part: str, jobs: int, module: str = "procession") -> list[Verdict]:
    """Run the suite for several start methods at a time."""
    with ThreadPoolExecutor(jobs) as crew:
        reports = crew.map(lambda method: run(method, part, module), methods)
        return [judge(method, each) for method, each in zip(methods, reports, strict=True)]


def explain(verdict: Verdict) -> str:
    """Why tests do not pass that should."""
    rows = []
    for test in sorted({*verdict.lost, *verdict.unexcused}):
        result = verdict.report.results[test]
        text = f"{result['msg']}\n{result.get('stderr', '')}".strip()
        rows.append(f"{verdict.method}: {test}: {result['status']}\n{text[-3000:]}")
    return "\n\n".join(rows)


def has_suite(name: str = "test._test_multiprocessing") -> bool:
    """Whether this Python brings CPython's tests; some distributions leave them out, or some."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--method", action="append", choices=EVERY)
    parser.add_argument("--module", default="procession", help="multiprocessing, to compare")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--beside", action="store_true", help="time the standard library as well")
    parser.add_argument("-v", action="store_true", help="name all that does not pass")
    options = parser.parse_args()
    if not has_suite():
        print("this Python does not bring CPython's test suite (the package `test`)")
        return 2
    methods = options.method or list(EVERY)
    if options.beside:  # in turn, so that both have the same machine
        verdicts, times = [], []
        for method in methods:
            verdicts += check([method], options.part, 1, options.module)
            times.append(beside(verdicts[-1], run(method, options.part, "multiprocessing").results))
    else:
        verdicts, times = check(methods, options.part, options.jobs, options.module), []
    for verdict in verdicts:
        for word, names in verdict.report._asdict().items():
            if word != "results" and names:
                print(f"{verdict.method}: {word.replace('_', ' ')}: {'; '.join(names)}")
        if verdict.lost or verdict.unexcused:
            print(explain(verdict), end="\n\n")
        if options.v:
            print("\n".join(f"{verdict.method}: not passed: {test}" for test in verdict.failed))
        if options.update:
            update(verdict)
    print(*verdicts, *times, sep="\n")
    return 1 if any(verdict.lost or verdict.unexcused for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
