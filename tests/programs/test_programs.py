"""Programs that nobody here wrote, unchanged under `procession run`, or given our context.

These are run by `.ci/run`, with what `pip install -e '.[programs]'` installs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contract.programs import each_method, run_command
from tests.programs.support import HERE, LIMIT, RUN

pytestmark = [pytest.mark.programs, pytest.mark.timeout(400)]

SQUARES = str([number * number for number in range(20)])


def test_joblib_with_scikit_learn() -> None:
    # loky's workers are its own: it starts them without multiprocessing, and lets them go
    done = run_command([*RUN, "joblib_sklearn.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == [str([n * n for n in range(10)])] * 2 + ["True"], done.err
    assert "ForkPoolWorker-2" in done.err


def test_a_user_of_concurrent_futures() -> None:
    done = run_command([*RUN, "futures_user.py"], cwd=HERE, limit=LIMIT)
    assert (
        done.lines
        == [
            "[True, True, True, True]",
            "3 ['ZeroDivisionError', 'NoneType', 'NoneType']",
        ]
        * 3
    ), done.err
    assert "nothing left behind" in done.err


def test_mpire() -> None:
    done = run_command([*RUN, "mpire_user.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == [SQUARES] * 3, done.err
    assert "6 children" in done.err


def test_pebble_with_our_context() -> None:
    done = run_command([sys.executable, "pebble_with_context.py"], cwd=HERE, limit=LIMIT)
    squares = str([n * n for n in range(10)])
    assert done.lines == [squares, "TimeoutError ProcessExpired"] * 3, done.err


@each_method
def test_coverage_of_children(method: str, tmp_path: Path) -> None:
    settings = tmp_path / "coveragerc"
    settings.write_text(
        "[run]\nconcurrency = multiprocessing\nparallel = true\n"
        f"include = {HERE}/covered.py\ndata_file = {tmp_path}/data\n"
    )
    coverage = ["-m", "coverage"]
    settled = f"--rcfile={settings}"
    run_command([*RUN, *coverage, "run", settled, "covered.py", method], cwd=HERE, limit=LIMIT)
    run_command([sys.executable, *coverage, "combine", settled], cwd=HERE)
    report = run_command([sys.executable, *coverage, "report", settled], cwd=HERE)
    assert report.out.rstrip().endswith("100%"), report.out + report.err


def test_djangos_parallel_test_runner() -> None:
    command = [*RUN, "manage.py", "test", "--parallel", "2"]
    done = run_command(command, cwd=HERE / "site", limit=LIMIT)
    assert done.code == 0, done.err
    assert "Ran 4 tests" in done.err
    assert "ForkPoolWorker-2" in done.err


def test_pytest_xdist() -> None:
    command = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-c", "none.ini"]
    # its workers are started without multiprocessing: what they start is served by the import alone
    done = run_command([*RUN, *command, "many.py"], cwd=HERE, limit=LIMIT)
    assert done.code == 0, done.out + done.err
    assert "8 passed" in done.out


def test_who_starts_processes_in_every_way_gets_the_status_of_each() -> None:
    done = run_command([*RUN, "every_way.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == ["fork", "spawn", "forkserver"], done.err
