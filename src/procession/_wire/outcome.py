"""What a process returned or raised, whole, on its way to who asks for it (G7)."""

from __future__ import annotations

import pickle

from procession.errors import RemoteError, ResultNotPicklable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Outcome:
    """One of the two."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error


def dump_outcome(value: Any = None, error: BaseException | None = None) -> bytes:
    """Pickle a value or an exception; never raises.

    An exception goes with its traceback, cause, context, notes and attributes. One that cannot
    travel goes as a `RemoteError` that tells what it was and why.
    """
    if error is None:
        try:
            return pickle.dumps(("value", _dump(value)))
        except Exception as failure:
            error = _unpicklable(value, failure)
    text = _formatted(error)
    description = (type(error).__module__, type(error).__qualname__, _words(error), text)
    try:
        pickled = _dump_error(error)
    except Exception as failure:
        return pickle.dumps(("remote", description, _words(failure)))
    return pickle.dumps(("error", pickled, description))


def load_outcome(blob: bytes) -> Outcome:
    """The outcome; never raises: what cannot be rebuilt here comes as a `RemoteError`."""
    kind, *rest = pickle.loads(blob)
    if kind == "remote":
        description, why = rest
        module, qualname, message, text = description
        why = f"it cannot be pickled: {why}"
        return Outcome(None, RemoteError(module, qualname, message, text, why))
    try:
        if kind == "value":
            return Outcome(pickle.loads(rest[0]), None)
        error = pickle.loads(rest[0])
        if not isinstance(error, BaseException):
            raise TypeError(f"it became a {type(error).__qualname__}")
    except BaseException as failure:
        why = f"it cannot be unpickled: {_words(failure)}"
        if kind == "value":
            return Outcome(None, ResultNotPicklable(f"the result arrived, but {why}"))
        module, qualname, message, text = rest[1]
        return Outcome(None, RemoteError(module, qualname, message, text, why))
    return Outcome(None, error)


def remote_text(blob: bytes) -> str:
    """The traceback of an outcome's exception, as that process would have printed it."""
    kind, *rest = pickle.loads(blob)
    if kind == "value":
        return ""
    text: str = rest[0 if kind == "remote" else 1][3]
    return text


def _dump(value: Any) -> bytes:
    import io
    from multiprocessing.reduction import ForkingPickler

    try:
        buffer = io.BytesIO()
        ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
        return buffer.getvalue()
    except Exception:
        import cloudpickle

        pickled: bytes = cloudpickle.dumps(value)
        return pickled


def _dump_error(error: BaseException) -> bytes:
    """Pickle an exception with its traceback, by tblib's reducers in a pickler of our own.

    Nothing is registered with copyreg: the user's own pickles stay what they are.
    """
    import copyreg
    import io
    import types

    from tblib import pickling_support

    for part in _chain(error):
        part.__traceback__ = _without_machinery(part.__traceback__)

    class Pickler(pickle.Pickler):
        dispatch_table = copyreg.dispatch_table | {types.TracebackType: _reduce_traceback}

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, BaseException):
                return pickling_support.pickle_exception(value)
            return NotImplemented

    buffer = io.BytesIO()
    Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(error)
    return buffer.getvalue()


def _reduce_traceback(tb: Any) -> Any:
    entries = []
    while tb is not None:
        code = tb.tb_frame.f_code
        known = tb.tb_frame.f_globals
        names = {name: known.get(name) for name in ("__name__", "__file__")}
        entries.append((code.co_filename, code.co_name, tb.tb_lineno, names))
        tb = tb.tb_next
    return make_traceback, (entries,)


def make_traceback(entries: list[tuple[str, str, int, dict[str, Any]]]) -> Any:
    """A real traceback object from what is known of its entries.

    Its frames are those of generators that never ran. A frame that had been called would hold
    whoever called it, and so all that was alive here at that moment.
    """
    from types import FunctionType, TracebackType

    tb = None
    for filename, name, line, names in reversed(entries):
        code = _stub.__code__.replace(
            co_filename=filename, co_name=name, co_qualname=name, co_firstlineno=line
        )
        generator = FunctionType(code, names)()
        tb = TracebackType(tb, generator.gi_frame, 0, line)
    return tb


def _stub() -> Any:
    yield


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        part = left.pop()
        if part is None or any(part is other for other in found):
            continue
        found.append(part)
        left += [part.__cause__, part.__context__]
        if isinstance(part, BaseExceptionGroup):
            left += part.exceptions
    return found


def _without_machinery(tb: Any) -> Any:
    """A traceback that begins with the user's code."""
    first = tb
    while first is not None:
        module = first.tb_frame.f_globals.get("__name__", "")
        if module != "multiprocessing.process" and module.partition(".")[0] != "procession":
            return first
        first = first.tb_next
    return tb


def _unpicklable(value: Any, failure: Exception) -> BaseException:
    from procession._wire.pickling import find_culprit

    path, culprit = find_culprit({"result": value})
    where = f"{path} (a {type(culprit).__qualname__})" if path else "the result"
    return ResultNotPicklable(f"{where} cannot be pickled: {_words(failure)}")


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _formatted(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return ""
