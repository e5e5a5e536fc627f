"""Pickling a process object for its start: plain pickle first, by value only what must be."""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import types
from multiprocessing import reduction
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler

from procession._wire import by_value
from procession._wire.main_module import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from procession._wire.main_module import MainPlan

_DEPTH = 6  # how deep the search for the culprit of a failed pickle goes
_WIDTH = 200  # and how many members of one container it tries

FAILURES = (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError)


def dump_start(process: Any, prepared: bytes, main: MainPlan) -> bytes:
    """Pickle what a child needs: its preparation, main's namespace by value, the process object.

    The caller has made itself the spawning Popen, so that locks and descriptors pickle.

    Args:
        process: The process object.
        prepared: The preparation, pickled already.
        main: What is to be done about `__main__`.

    Raises:
        Exception: What pickle raised, with the way to the culprit and what to do in its text.
    """
    buffer = io.BytesIO()
    start = buffer.write(prepared)
    if main.kind != "value":
        try:
            _dump_by_name(process, buffer)
            return buffer.getvalue()
        except FAILURES:
            buffer.seek(start)
            buffer.truncate()
    names: set[str] = set()
    body = _dump_by_value(process, names, process, ships=main.kind != "value")
    if main.kind == "value":
        namespace = _Namespace(sys.modules["__main__"]).dump(names)
        ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(namespace)
    buffer.write(body)
    return buffer.getvalue()


def _dump_by_name(value: Any, buffer: io.BytesIO) -> None:
    """As `ForkingPickler` does, unless the program has put in its own, in half of its time: what
    it makes for each pickle is a chain of dicts, and Python code that looks into it.
    """
    if reduction.ForkingPickler is not ForkingPickler:
        reduction.ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
        return
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {
        AuthenticationString: _reduce_key,  # in a start, where it may be pickled
        **copyreg.dispatch_table,
        **ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
    }
    pickler.dump(value)


def _reduce_key(key: AuthenticationString) -> Any:
    return AuthenticationString, (bytes(key),)


def _dump_by_value(value: Any, names: set[str], process: Any, *, ships: bool) -> bytes:
    buffer = io.BytesIO()
    pickler = by_value.pickler_class()(buffer, names, ships=ships)
    try:
        pickler.dump(value)
    except FAILURES as error:
        raise _explained(error, process) from error.__cause__
    return buffer.getvalue()


def dump_function(function: Any) -> bytes:
    """Pickle what a worker is to call; by value what it may not have as it is here and now.

    Raises:
        Exception: What pickle raised.
    """
    if goes_by_value(function):
        return dump_by_value(function)
    try:
        return bytes(ForkingPickler.dumps(function))
    except FAILURES as error:
        try:
            return dump_by_value(function)
        except Exception:
            raise error from error.__cause__


def dump_by_value(value: Any) -> bytes:
    """Pickle what plain pickle cannot name, for a child that has been running for a while.

    Functions of a by-value main go with their code: the child may have an older one.
    """
    names: set[str] | None = None if plan().kind == "value" else set()
    buffer = io.BytesIO()
    by_value.pickler_class()(buffer, names, ships=True).dump(value)
    return buffer.getvalue()


def goes_by_value(function: Any) -> bool:
    """Whether a child that has been running for a while may have an older function of that name."""
    if plan().kind != "value":
        return False
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = getattr(function, "__func__", function)
    return getattr(function, "__module__", None) in ("__main__", "__mp_main__")


class _Namespace:
    """Main's namespace as a child needs it: what is named, and best effort the rest.

    A child must find what is sent to it later through queues and pools, as after a fork: so all of
    main's functions and classes go along where they can be pickled.
    """

    def __init__(self, main: types.ModuleType) -> None:
        self._main = main
        self._values = {
            name: value
            for name, value in vars(main).items()
            if not (name.startswith("__") and name.endswith("__"))
        }

    def dump(self, names: set[str]) -> bytes:
        needed = self._closure(names & self._values.keys())
        defined = {
            name for name, value in self._values.items() if by_value.main_name(value) is not None
        }
        wanted = self._closure(needed | defined)
        attributes = {
            name: getattr(self._main, name)
            for name in ("__file__", "__doc__")
            if isinstance(getattr(self._main, name, None), str)
        }
        try:
            return self._pickle({name: self._values[name] for name in wanted} | attributes)
        except Exception:
            pass
        good = {}
        for name in sorted(wanted):
            try:
                self._pickle(self._values[name])
            except Exception as error:
                if name in needed:
                    raise self._explained(name, error) from None
            else:
                good[name] = self._values[name]
        return self._pickle(good | attributes)

    def _closure(self, names: set[str]) -> set[str]:
        """The names, and those that the functions and classes under them look up."""
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name in found:
                continue
            found.add(name)
            for code in _codes(self._values[name]):
                left += by_value.globals_of(code) & self._values.keys()
        return found

    def _pickle(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        by_value.pickler_class()(buffer, None).dump(value)
        return buffer.getvalue()

    def _explained(self, name: str, error: Exception) -> Exception:
        users = [
            user
            for user, value in self._values.items()
            if any(name in by_value.globals_of(code) for code in _codes(value))
        ]
        who = f"{users[0]!r} of __main__ uses" if users else "the process uses"
        return _same_kind(
            error,
            f"{who} the global {name!r}, which cannot be pickled: {_words(error)}. Pass it as an "
            "argument, make it inside the function, or put what starts processes under "
            "if __name__ == '__main__'.",
        )


def _codes(value: Any) -> Iterator[types.CodeType]:
    """The code of a function, or of all that a class of main's defines."""
    if isinstance(value, types.FunctionType):
        yield value.__code__
        for cell in value.__closure__ or ():
            try:
                if isinstance(cell.cell_contents, types.FunctionType):
                    yield cell.cell_contents.__code__
            except ValueError:
                continue
        if isinstance(wrapped := getattr(value, "__wrapped__", None), types.FunctionType):
            yield wrapped.__code__
    elif isinstance(value, type):
        if value.__module__ in ("__main__", "__mp_main__"):
            for member in vars(value).values():
                yield from _codes(_plain(member))
    elif isinstance(value, property):
        for accessor in (value.fget, value.fset, value.fdel):
            yield from _codes(accessor)
    elif isinstance(value, by_value.Cached):
        yield from _codes(value.__wrapped__)
    elif (function := getattr(value, "func", None)) is not None:
        yield from _codes(function)


def _plain(member: Any) -> Any:
    return getattr(member, "__func__", member) if not isinstance(member, property) else member


# --- errors -----------------------------------------------------------------------------------


def _explained(error: Exception, process: Any) -> Exception:
    """The error with the way to what could not be pickled."""
    path, culprit = find_culprit(
        {
            "target": getattr(process, "_target", None),
            "args": getattr(process, "_args", ()),
            "kwargs": getattr(process, "_kwargs", {}),
            **{
                f"self.{name}": value
                for name, value in vars(process).items()
                if name not in ("_target", "_args", "_kwargs", "_popen")
            },
        }
    )
    where = f"{path} (a {type(culprit).__qualname__})" if path else "something in it"
    return _same_kind(
        error, f"process {process._name!r}: {where} cannot be pickled: {_words(error)}"
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _same_kind(error: Exception, text: str) -> Exception:
    """An exception of the type that pickle raised here, so that `except` clauses still catch it."""
    kind = type(error) if type(error) in FAILURES else pickle.PicklingError
    explained = kind(text)
    explained.__cause__ = error
    return explained


def find_culprit(roots: dict[str, Any]) -> tuple[str, Any]:
    """The innermost value that cannot be pickled, and the expression that leads to it.

    Args:
        roots: Expressions and their values, to be searched in this order.

    Returns:
        The expression and the value; an empty expression where everything can be pickled.
    """
    for path, value in roots.items():
        if not by_value.pickles(value):
            return _inside(path, value, _DEPTH)
    return "", None


def _inside(path: str, value: Any, depth: int) -> tuple[str, Any]:
    if depth:
        for n, (way, member) in enumerate(_members(value)):
            if n >= _WIDTH:
                break
            if not by_value.pickles(member):
                return _inside(path + way, member, depth - 1)
    return path, value


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield f"[{key!r}]", member
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield f"[{index}]", member
    elif isinstance(value, set | frozenset):
        for member in value:
            yield ".{…}", member
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f".<{name}>", cell.cell_contents
            except ValueError:
                continue
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif not isinstance(value, type | types.ModuleType):
        yield from ((f".{name}", member) for name, member in getattr(value, "__dict__", {}).items())
