"""What `multiprocessing` tells a child to prepare: pickled once, and anew whenever it changes."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from multiprocessing import context, process, spawn, util
from typing import Any

import pytest

from procession._wire import preparation


@pytest.fixture(autouse=True)
def _spawning(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    context.set_spawning_popen(object())  # type: ignore[arg-type]  # keys pickle in a start only
    monkeypatch.setattr(context._default_context, "_actual_context", None)
    monkeypatch.setattr(util, "_logger", None)  # another test may have asked for it
    monkeypatch.setattr(preparation, "_last", None)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None, raising=False)  # as if pytest was no module
    yield
    context.set_spawning_popen(None)


def fresh() -> dict[str, Any]:
    default: Any = context._default_context
    actual = default._actual_context
    made = spawn.get_preparation_data("name")
    default._actual_context = actual  # it would be a change by itself
    del made["dir"], made["name"]
    return made


def dumped(kind: str = "path") -> Any:
    made_of, made = pickle.loads(preparation.dump("name", kind, here=True))
    assert made_of == kind
    return made


def replace_function(patch: pytest.MonkeyPatch) -> None:
    standard = spawn.get_preparation_data
    patch.setattr(spawn, "get_preparation_data", lambda name: {**standard(name), "more": 1})


def log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(util, "_logger", logging.getLogger("multiprocessing"))


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "sys.path": lambda patch: patch.setattr(sys, "path", [*sys.path, "/more"]),
    "sys.path in place": lambda patch: sys.path.append("/in place"),
    "sys.argv": lambda patch: patch.setattr(sys, "argv", ["other"]),
    "directory at first": lambda patch: patch.setattr(process, "ORIGINAL_DIR", "/first"),
    "key": lambda patch: patch.setitem(
        process.current_process()._config,  # type: ignore[attr-defined]
        "authkey",
        process.AuthenticationString(b"other"),  # type: ignore[attr-defined]
    ),
    "log to stderr": lambda patch: patch.setattr(util, "_log_to_stderr", True),
    "log level": log,
    "start method": lambda patch: patch.setattr(
        context._default_context,
        "_actual_context",
        context._concrete_contexts["spawn"],  # type: ignore[attr-defined]
    ),
    "standard start method": lambda patch: patch.setattr(
        context._default_context,
        "_default_context",
        context._concrete_contexts["spawn"],  # type: ignore[attr-defined]
    ),
    "file of main": lambda patch: patch.setattr(
        sys.modules["__main__"], "__file__", "/other.py", raising=False
    ),
    "spec of main": lambda patch: patch.setattr(
        sys.modules["__main__"], "__spec__", spawn.__spec__
    ),
    "main": lambda patch: patch.setitem(sys.modules, "__main__", spawn),
    "who makes it": replace_function,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = fresh()
    assert dumped() == before
    CHANGES[name](monkeypatch)
    after = fresh()
    assert after != before
    assert dumped() == after


def test_a_main_that_goes_by_value_is_not_run_again() -> None:
    assert dumped("path") == fresh()
    assert not {"init_main_from_name", "init_main_from_path"} & dumped("value").keys()
    assert dumped("path") == fresh()


def test_unchanged_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = preparation.dump("one", "path", here=True)
    monkeypatch.setattr(preparation, "_preparation", None)
    assert preparation.dump("other", "path", here=True) is first


def test_where_the_function_looks_at_more_than_we_know_it_is_made_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it may in a later Python."""
    monkeypatch.setattr(preparation, "_LOOKS_AT", preparation._LOOKS_AT - {"_log_to_stderr"})
    monkeypatch.setattr(preparation, "_sources", None)  # what that looks at may be gone
    assert dumped() == fresh()
    assert preparation._last is None


def test_what_may_change_unseen_is_pickled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Argument(str):
        pass

    argument = Argument("one")
    monkeypatch.setattr(sys, "argv", [argument])
    monkeypatch.setitem(globals(), "Argument", Argument)
    Argument.__qualname__ = "Argument"
    dumped()
    argument.said = "two"  # type: ignore[attr-defined]
    assert dumped()["sys_argv"][0].said == "two"


def test_nobody_starts_while_importing_main(monkeypatch: pytest.MonkeyPatch) -> None:
    dumped()
    monkeypatch.setattr(process.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match="bootstrapping phase"):
        dumped()
