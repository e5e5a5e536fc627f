"""CPython's own tests of processes pass as they passed before; check.py has the whole suite."""

from __future__ import annotations

import os

import pytest

from tests.conformance import check

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not check.has_suite(), reason="this Python comes without its test suite"),
]
EACH = [*check.METHODS, check.MAIN_HANDLING]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, check.Verdict]:
    found = check.check(EACH, "processes", os.cpu_count() or 1)
    return {verdict.method: verdict for verdict in found}


@pytest.mark.parametrize("method", EACH)
def test_what_passed_before_passes(verdicts: dict[str, check.Verdict], method: str) -> None:
    if not check.stored(method).exists():
        pytest.skip(f"nothing is stored for Python {check.version()} yet: check.py --update")
    verdict = verdicts[method]
    assert not verdict.lost, check.explain(verdict)
    assert verdict.passed
