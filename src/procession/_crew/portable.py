"""Functions that a worker cannot have by name: pickled once for many calls, and loaded once."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from typing import Any

from procession._crew.worker import KNOWN_FUNCTIONS
from procession._wire import pickling

_portables: collections.OrderedDict[tuple[int, Any], Any] = collections.OrderedDict()
_loaded: dict[bytes, Any] = {}


def portable(function: Callable[..., Any]) -> Any:
    """The function, or what stands for it where a worker cannot have it by name."""
    if not pickling.goes_by_value(function):
        return function
    key = (id(function), getattr(function, "__code__", None))
    known = _portables.get(key)
    if known is None or known.function is not function:
        known = _Portable(function, pickling.dump_function(function))
        _portables[key] = known
        while len(_portables) > KNOWN_FUNCTIONS:
            _portables.popitem(last=False)
    return known


class _Portable:
    """A function of a by-value main, pickled once for many calls."""

    def __init__(self, function: Any, blob: bytes) -> None:
        self.function = function
        self.blob = blob

    def __reduce__(self) -> Any:
        return load_portable, (self.blob,)


def load_portable(blob: bytes) -> Any:
    """The function, unpickled once in each worker."""
    if blob not in _loaded:
        if len(_loaded) >= KNOWN_FUNCTIONS:
            _loaded.pop(next(iter(_loaded)))
        _loaded[blob] = pickle.loads(blob)
    return _loaded[blob]
