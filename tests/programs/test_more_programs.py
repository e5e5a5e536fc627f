"""More programs that nobody here wrote, unchanged under `procession run`: `nox -s programs`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contract.programs import run_command
from tests.programs.support import HERE, LIMIT, RUN, home, needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SQUARES = str([number * number for number in range(20)])


def test_tqdms_process_map() -> None:
    needs("tqdm")
    done = run_command([*RUN, "tqdm_user.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == [SQUARES], done.err
    assert "2 children" in done.err


def test_aiomultiprocess() -> None:
    needs("aiomultiprocess")
    done = run_command([*RUN, "aiomultiprocess_user.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == [SQUARES, "49"] * 3, done.err


def test_scipys_workers() -> None:
    needs("scipy")
    done = run_command([*RUN, "scipy_user.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == ["1 True"], done.err
    assert "4 children" in done.err


def test_sphinx_in_parallel(tmp_path: Path) -> None:
    needs("sphinx")
    (tmp_path / "conf.py").write_text("project = 'x'\n")
    pages = [f"page{number}" for number in range(12)]  # fewer, and sphinx reads them alone
    for page in pages:
        (tmp_path / f"{page}.rst").write_text(f"{page}\n=========\n\n:ref:`search`\n")
    index = "Title\n=====\n\n.. toctree::\n\n" + "".join(f"   {page}\n" for page in pages)
    (tmp_path / "index.rst").write_text(index)
    build = ["-m", "sphinx", "-q", "-W", "-j", "2", "-b", "html", ".", "out"]
    done = run_command([*RUN, *build], cwd=tmp_path, limit=LIMIT)
    assert done.code == 0, done.err
    assert "_process-2" in done.err
    assert all((tmp_path / "out" / f"{page}.html").exists() for page in pages)


def test_pylint_in_parallel(tmp_path: Path) -> None:
    needs("pylint")
    for number in range(4):
        (tmp_path / f"module{number}.py").write_text("print(nobody_knows)\n")
    check = ["-m", "pylint", "-j", "2", "--disable=all", "--enable=undefined-variable"]
    modules = [f"module{number}.py" for number in range(4)]
    done = run_command([*RUN, *check, *modules], cwd=tmp_path, limit=LIMIT, env=home(tmp_path))
    assert done.out.count("Undefined variable 'nobody_knows'") == 4, done.err
    assert "2 children" in done.err


def test_black_on_several_files(tmp_path: Path) -> None:
    needs("black")
    files = [tmp_path / f"module{number}.py" for number in range(4)]
    for file in files:
        file.write_text("x = {  'a':1 }\n")
    command = ["-m", "black", "--workers", "2", str(tmp_path)]
    done = run_command([*RUN, *command], cwd=tmp_path, limit=LIMIT, env=home(tmp_path))
    assert "4 files reformatted" in done.err
    assert {file.read_text() for file in files} == {'x = {"a": 1}\n'}
    assert "2 children" in done.err


def test_logging_by_queues() -> None:
    done = run_command([*RUN, "logging_user.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == ["63 3"] * 6, done.err


def test_debugpy_follows_into_children() -> None:
    needs("debugpy")
    command = ["-X", "frozen_modules=off", "-m", "procession", "run", "-m", "debugpy"]
    command += ["--listen", "127.0.0.1:0", "debugged.py"]
    done = run_command([sys.executable, *command], cwd=HERE, limit=LIMIT)
    assert done.lines == ["True", "3 [1, 2]"] * 3, done.err


def test_dask_with_processes(tmp_path: Path) -> None:
    needs("distributed")
    environ = {"DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
    done = run_command([*RUN, "dask_user.py"], cwd=HERE, limit=LIMIT, env=environ)
    assert done.lines == [SQUARES], done.err
    assert "2 children" in done.err


@pytest.mark.parametrize("workers", ["0", "2"])
def test_pytest_cov_with_children(workers: str, tmp_path: Path) -> None:
    needs("pytest_cov", "xdist")
    settings = tmp_path / "coveragerc"
    settings.write_text("[run]\nconcurrency = multiprocessing\nparallel = true\n")
    command = ["-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", "-c", "none.ini"]
    command += ["--cov=covered_by_tests", f"--cov-config={settings}", "--cov-report=term"]
    environ = {"COVERAGE_FILE": str(tmp_path / "data")}
    done = run_command([*RUN, *command, "children_of_tests.py"], cwd=HERE, limit=LIMIT, env=environ)
    assert done.code == 0, done.out + done.err
    (covered,) = (line.split() for line in done.lines if line.startswith("covered_by_tests"))
    assert covered[-1] == "100%", done.out


@pytest.mark.parametrize("library", ["multiprocessing", "procession"])
def test_a_notebook(library: str, tmp_path: Path) -> None:
    """The kernel itself under `procession run`, or its cells with our library."""
    needs("ipykernel", "jupyter_client")
    done = run_command(
        [sys.executable, "notebook.py", library, str(tmp_path)],
        cwd=HERE,
        limit=LIMIT,
        env=home(tmp_path),
    )
    seen = [[method, "0 [10, 11, 12] [10, 11, 12]"] for method in ("fork", "spawn", "forkserver")]
    expected = []
    for method, results in seen:
        expected += [f"{method} {results}", "KeyboardInterrupt", "False", "KeyboardInterrupt"]
    assert [line.rstrip() for line in done.lines] == [*expected, "3 []"], done.err
