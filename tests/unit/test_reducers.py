"""A start is pickled by what was registered, with whomever, and by the program's own pickler."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import pytest

from procession._wire import pickling
from procession._wire.main_module import MainPlan


class Odd:
    def __reduce__(self) -> Any:
        raise TypeError("by what was registered only")


def reduce_odd(odd: Odd) -> Any:
    return str, ("odd",)


class Own(reduction.ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        return reduce_odd(value) if isinstance(value, Odd) else NotImplemented


REGISTERED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "copyreg": lambda patch: patch.setitem(copyreg.dispatch_table, Odd, reduce_odd),
    "ForkingPickler": lambda patch: patch.setitem(
        reduction.ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
        Odd,
        reduce_odd,
    ),
    "its own": lambda patch: patch.setattr(reduction, "ForkingPickler", Own),
}


@pytest.mark.parametrize("where", REGISTERED)
def test_a_reducer_counts(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    REGISTERED[where](monkeypatch)
    monkeypatch.setattr(pickling, "_dump_by_value", None)  # that one knows them, too
    assert pickle.loads(pickling.dump_start(Odd(), b"", MainPlan("path"))) == "odd"
