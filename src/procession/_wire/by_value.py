"""The pickler for what plain pickle cannot name, and what its pickles call in the child.

A function that pickle cannot name is rebuilt in the child on the real namespace of the module that
it was made in, so that it sees the same globals as every other function there.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Cached = functools._lru_cache_wrapper


def make_function(
    module: str,
    code: types.CodeType,
    name: str,
    defaults: tuple[Any, ...] | None,
    cells: int | None,
) -> types.FunctionType:
    """A function on the real namespace of its module; its cells are filled afterwards."""
    if module == "__mp_main__":
        module = "__main__"
    if module not in sys.modules:
        __import__(module)
    closure = None if cells is None else tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(code, sys.modules[module].__dict__, name, defaults, closure)


def fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    """Give a rebuilt function what may refer back to it."""
    for cell, content in zip(function.__closure__ or (), state.pop("cells"), strict=True):
        if content:
            cell.cell_contents = content[0]
    function.__kwdefaults__ = state.pop("kwdefaults")
    function.__annotations__ = state.pop("annotations")
    function.__qualname__ = state.pop("qualname")
    function.__module__ = state.pop("module")
    function.__doc__ = state.pop("doc")
    function.__dict__.update(state.pop("dict"))
    for name, value in state.pop("globals").items():
        function.__globals__.setdefault(name, value)


def cache(function: Any, parameters: dict[str, Any]) -> Any:
    """A function with a cache of its own, as `functools.lru_cache` makes it."""
    return functools.lru_cache(**parameters)(function)


def main_attribute(qualname: str) -> Any:
    """What main defines under a name."""
    value: Any = sys.modules["__main__"]
    for part in qualname.split("."):
        value = getattr(value, part)
    return value


_class: type[Any] | None = None


def pickler_class() -> type[Any]:
    """The pickler, made at first need: importing cloudpickle takes 20-40 ms."""
    global _class
    if _class is None:
        import cloudpickle

        class ByValue(cloudpickle.CloudPickler):  # type: ignore[misc]
            """Names what can be named; rebuilds other functions on their modules' namespaces.

            Args:
                file: Where the pickle goes.
                names: Collects the top-level names of a by-value main that the pickle refers to;
                    ``None`` while that namespace itself is pickled, whose own go by value.
                ships: Send the globals that a by-value function of main looks up, for where main
                    runs again in the child: below its guard it defines things that the child lacks.
            """

            def __init__(self, file: Any, names: set[str] | None, *, ships: bool = False) -> None:
                # what was registered with multiprocessing's pickler counts here, too; the C pickler
                # looks at the table when it is made, not later
                self.dispatch_table: Any = cloudpickle.CloudPickler.dispatch_table.new_child(
                    dict(ForkingPickler._extra_reducers)  # type: ignore[attr-defined]
                )
                super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
                self._names = names
                self._ships = ships

            def reducer_override(self, value: Any) -> Any:
                if isinstance(value, types.FunctionType | type | Cached):
                    if self._names is not None and (name := main_name(value)) is not None:
                        self._names.add(name.partition(".")[0])
                        return main_attribute, (name,)
                    if not isinstance(value, type):
                        if _can_be_named(value):
                            return NotImplemented
                        if isinstance(value, Cached):  # names itself, wherever it was made
                            return cache, (value.__wrapped__, value.cache_parameters())
                        home = _home(value)
                        if home is not None:
                            if self._names is not None and home == "__main__":
                                self._names.update(globals_of(value.__code__))
                            ships = self._ships and home == "__main__"
                            return _reduce_function(value, home, _shipped(value) if ships else {})
                return super().reducer_override(value)

        _class = ByValue
    return _class


def main_name(value: Any) -> str | None:
    """The name under which a by-value main holds this function or class, if it does."""
    if not isinstance(value, types.FunctionType | type | Cached):
        return None
    if value.__module__ not in ("__main__", "__mp_main__"):
        return None
    name: str = value.__qualname__
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is value else None


def _can_be_named(function: Any) -> bool:
    """Whether a child finds the function by importing its module."""
    module = function.__module__
    if module in ("__main__", None):
        return False
    found: Any = sys.modules.get(module)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _home(function: types.FunctionType) -> str | None:
    """The module whose namespace the function's globals are, if they are one's."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is not None and module.__dict__ is function.__globals__:
        return name
    main = sys.modules["__main__"]
    return "__main__" if main.__dict__ is function.__globals__ else None


def _shipped(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function looks up, as far as they can be sent; main has the rest."""
    known = function.__globals__
    return {
        name: known[name]
        for name in sorted(globals_of(function.__code__))
        if name in known and known[name] is not function and pickles(known[name])
    }


def _reduce_function(function: types.FunctionType, home: str, shipped: dict[str, Any]) -> Any:
    cells: list[tuple[Any, ...]] = []
    for cell in function.__closure__ or ():
        try:
            cells.append((cell.cell_contents,))
        except ValueError:  # not filled yet
            cells.append(())
    state = {
        "cells": cells,
        "kwdefaults": function.__kwdefaults__,
        "annotations": function.__annotations__,
        "qualname": function.__qualname__,
        "module": function.__module__,
        "doc": function.__doc__,
        "dict": function.__dict__,
        "globals": shipped,
    }
    count = None if function.__closure__ is None else len(function.__closure__)
    arguments = (home, function.__code__, function.__name__, function.__defaults__, count)
    return make_function, arguments, state, None, None, fill_function


def globals_of(code: types.CodeType) -> set[str]:
    """Names that code, and the code inside it, looks up in its globals."""
    import dis

    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= globals_of(constant)
    return names


def pickles(value: Any) -> bool:
    """Whether a value can be pickled, by value where it must be."""
    dump: Callable[[Any], None] = pickler_class()(io.BytesIO(), set()).dump
    try:
        dump(value)
    except Exception:
        return False
    return True
