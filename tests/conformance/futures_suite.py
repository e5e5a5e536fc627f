"""CPython's own tests of process-pool executors, unchanged, under `procession run`.

    python -m procession run -q futures_suite.py OUT MAKER [PATTERN ...]

OUT is a file for what comes out, MAKER the module that is to make the executors, a PATTERN one of
Class.test. The suite comes with the interpreter. Left out are tests of threads, and those that
start a program of their own, which would be the standard library's. A test that hangs hangs us;
whoever started it has a limit.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import sys
import unittest
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PACKAGE = "test.test_concurrent_futures"
MODULES = (
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_wait",
)
ELSEWHERE = (
    "*ShutdownTest.test_interpreter_shutdown",
    "*ShutdownTest.test_submit_after_interpreter_shutdown",
    "*ShutdownTest.test_hang_gh94440",
)


class Result(unittest.TestResult):
    """What came of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}

    def _note(self, test: Any, status: str, text: str = "") -> None:
        self.found[short(test)] = {"status": status, "msg": text}

    def addSuccess(self, test: Any) -> None:
        self._note(test, "passed")

    def addSkip(self, test: Any, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addFailure(self, test: Any, err: Any) -> None:
        self._note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addError(self, test: Any, err: Any) -> None:
        self._note(test, "error", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]


def short(test: Any) -> str:
    """Class.test."""
    return ".".join(test.id().split(".")[-2:])


def tests_of(suite: Any) -> Iterator[Any]:
    """The tests in a suite of suites."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


def wanted(name: str, patterns: list[str]) -> bool:
    """Whether a test is to be run."""
    if not name.startswith("ProcessPool"):
        return False
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in ELSEWHERE):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns or ["*"])


def main() -> None:
    """Run the tests and write what came out."""
    out, maker, *patterns = sys.argv[1:]
    assert ProcessPoolExecutor.__module__ == maker, ProcessPoolExecutor
    loader = unittest.TestLoader()
    suite: Any = importlib.import_module(PACKAGE)  # up to 3.11 one module, since then a package
    names = MODULES if hasattr(suite, "__path__") else ()
    modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in names]
    chosen = [
        test
        for module in modules or [suite]
        for test in tests_of(loader.loadTestsFromModule(module))
        if wanted(short(test), patterns)
    ]
    result = Result()
    unittest.TestSuite(chosen).run(result)
    Path(out).write_text(json.dumps({"tests": result.found}))


if __name__ == "__main__":
    main()
