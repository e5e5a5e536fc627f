"""CPython's own tests of processes and executors pass as they did; check.py has the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.conformance import check

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not check.has_suite(), reason="this Python comes without its test suite"),
]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, check.Verdict]:
    found = check.check(list(check.EVERY), "processes", os.cpu_count() or 1)
    return {verdict.method: verdict for verdict in found}


@pytest.mark.parametrize("method", check.EVERY)
def test_what_passed_before_passes(
    verdicts: dict[str, check.Verdict], method: str, record_property: Callable[[str, object], None]
) -> None:
    verdict = verdicts[method]
    if verdict.ran:
        record_property("counted", f"CPython's suite, part processes: {verdict}")
    if method == check.FUTURES and not verdict.ran:
        pytest.skip("this Python comes without its tests of executors")
    if not check.stored(method).exists():
        pytest.skip(f"nothing is stored for Python {check.version()} yet: check.py --update")
    assert not verdict.lost, check.explain(verdict)
    assert verdict.passed
