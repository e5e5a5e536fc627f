"""Every pipeline by name: `nox -l`. Each session makes its own environment.

A session's own arguments go through: `nox -s test-3.11 -- -k orphan`.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["ci"]
nox.options.default_venv_backend = "uv|virtualenv"


def install(session: nox.Session) -> None:
    """The package, built in place, and what its tests need."""
    session.install("-e", ".[test]")


@nox.session(python=["3.11", "3.12", "3.13"])
def test(session: nox.Session) -> None:
    """The tests, with the slow ones left out."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take longer than CI has."""
    install(session)
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict on the package."""
    install(session)
    session.run("mypy", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """The import contract."""
    install(session)
    session.run("lint-imports", "--no-logo")


@nox.session
def native(session: nox.Session) -> None:
    """The C core: warnings as errors, and its drivers under sanitizers."""
    session.install("-e", ".[test]", env={"PROCESSION_WERROR": "1"})
    session.run("pytest", "tests/native", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The C core's drivers under the address and undefined-behaviour sanitizers."""
    session.run("python", "-m", "tests.native.sanitize", "address", *session.posargs)


@nox.session
def tsan(session: nox.Session) -> None:
    """Threads over one mapping under the thread sanitizer: table, locks, gates, ring."""
    session.run("python", "-m", "tests.native.sanitize", "thread", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """The C core with one fault at a time: each makes a named test fail."""
    install(session)
    session.run("python", "-m", "tests.native.mutants", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """SIGKILL at any moment and at every instruction: more than a thousand kills."""
    install(session)
    session.run("pytest", "-m", "slow or not slow", "tests/chaos", "tests/native", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def conformance(session: nox.Session) -> None:
    """CPython's whole suite by every start method against what passed before, on each Python."""
    install(session)
    session.run("python", "tests/conformance/check.py", *session.posargs)


PEERS = ("loky", "pebble", "mpire")


@nox.session
def failure_table(session: nox.Session) -> None:
    """What one bad call does to a pool: ours, the standard library's and the peers'."""
    install(session)
    session.install(*PEERS)
    session.run("python", "-m", "benchmarks.failure_table", *session.posargs)


@nox.session
def pool_chaos(session: nox.Session) -> None:
    """100,000 calls of a pool and of an executor, by each method, while workers are killed."""
    install(session)
    session.run("pytest", "-m", "slow", "tests/contract/test_pool.py", *session.posargs)


@nox.session
def orphan_table(session: nox.Session) -> None:
    """What is left when main is killed, ours and others; then ours in every way by every method."""
    install(session)
    session.install(*PEERS)
    session.run("python", "-m", "benchmarks.orphans_of_peers", *session.posargs)
    session.run("python", "-m", "benchmarks.orphan_table")


@nox.session
def bench(session: nox.Session) -> None:
    """Us, the standard library and the peers; with `-- --update`, writes benchmarks/RESULTS.md."""
    install(session)
    session.install(*PEERS, "faster-fifo")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """An hour of a mix of everything with random kills, or two minutes with `-- --quick`."""
    install(session)
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


PROGRAMS = ("aiomultiprocess", "black", "celery", "distributed", "flask", "gunicorn")
PROGRAMS += ("ipykernel", "pylint", "pytest-cov", "scipy", "sphinx", "tqdm", "uvicorn")


@nox.session
def programs(session: nox.Session) -> None:
    """Programs and libraries that nobody here wrote, under `procession run` or with our context."""
    session.install("-e", ".[test,programs]", *PROGRAMS)
    either = ("-m", "slow or programs")
    session.run("pytest", *either, "tests/programs", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """PyTorch's loaders with our context and under `procession run`; tensors in our queues."""
    install(session)
    session.install("torch==2.13.0")
    session.run("pytest", "-m", "slow", "tests/programs/test_torch.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, built without warnings, and what it says is so.

    With `-- --paste`, a fresh picture, tables and figures in README.md and its translation.
    """
    session.install("-e", ".[test,docs]")
    if "--paste" in session.posargs:
        session.run("python", "docs/readme.py", "--picture")
    build = ("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")
    session.run(*build)
    session.run("pytest", "tests/docs", "tests/cli/test_examples.py")


@nox.session(venv_backend="none")
def ci(session: nox.Session) -> None:
    """All that must hold, from a clean checkout."""
    session.run(".ci/run", external=True)
