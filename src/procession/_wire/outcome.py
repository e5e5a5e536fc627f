"""What a process returned or raised, whole, on its way to who asks for it (G7)."""

from __future__ import annotations

import pickle

from procession.errors import RemoteError, ResultNotPicklable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


LONG = 10_000  # characters of an exception's words in a traceback; it has them all itself


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
    text, description = _formatted(error), _described(error)
    try:
        return _dump_error(error, text, description)
    except Exception as failure:
        return pickle.dumps(("remote", text)) + pickle.dumps((description, _words(failure)))


def load_outcome(blob: bytes) -> Outcome:
    """The outcome; what cannot be rebuilt here comes as a `RemoteError`.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile; nothing is lost, and it can be asked again.
    """
    import io

    from procession._kernel.interrupts import is_interrupt

    unpickler = pickle.Unpickler(io.BytesIO(blob))
    kind, held = unpickler.load()
    if kind == "value":
        try:
            return Outcome(pickle.loads(held), None)
        except BaseException as failure:  # whatever the user's code is left by
            if is_interrupt(failure):
                raise
            why = f"it cannot be unpickled: {_words(failure)}"
            return Outcome(None, ResultNotPicklable(f"the result arrived, but {why}"))
    description, why = unpickler.load()
    if kind == "remote":
        return Outcome(None, _stand_in(description, held, f"it cannot be pickled: {why}"))
    try:
        error = unpickler.load()
        if not isinstance(error, BaseException):
            raise TypeError(f"it became a {type(error).__qualname__}")
    except BaseException as failure:
        if is_interrupt(failure):
            raise
        why = f"it cannot be unpickled: {_words(failure)}"
        return Outcome(None, _stand_in(description, held, why))
    return Outcome(None, error)


def remote_text(blob: bytes) -> str:
    """The traceback of an outcome's exception, as that process would have printed it.

    Long words are cut in it.
    """
    kind, held = pickle.loads(blob)  # what follows it is left alone
    return "" if kind == "value" else held


def _described(error: BaseException) -> tuple[str, str, str, str | None]:
    """What tells of an exception that cannot come itself: module, two names, words."""
    kind = type(error)
    try:
        message = "".join((str(error),))  # the very object that is its argument, where it may be
    except Exception:
        message = None
    return kind.__module__, kind.__qualname__, kind.__name__, message


def _stand_in(description: tuple[str, str, str, str | None], text: str, why: str) -> RemoteError:
    module, qualname, name, message = description
    words = name if message is None else f"{name}: {message}"
    return RemoteError(module, qualname, words, text, why)


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


def _dump_error(error: BaseException, text: str, description: Any) -> bytes:
    """Pickle an exception with its traceback, by tblib's reducers in a pickler of our own.

    What stands in for it where it cannot be unpickled goes ahead, in pickles of its own, and by
    one pickler: a message of many megabytes goes once. Nothing is registered with copyreg: the
    user's own pickles stay what they are.
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
            if not isinstance(value, BaseException):
                return NotImplemented
            make, (*parts, args), *more = pickling_support.pickle_exception(value)
            if make is pickling_support.unpickle_exception_with_attrs and not args:
                args = _group_arguments(value)
            return make, (*parts, args), *more

    buffer = io.BytesIO()
    pickler = Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dump(("error", text))
    pickler.dump((description, ""))
    pickler.dump(error)
    return buffer.getvalue()


def _group_arguments(error: BaseException) -> tuple[Any, ...]:
    """What a group is made of; tblib knows ExceptionGroup alone."""
    return (error.message, error.exceptions) if isinstance(error, BaseExceptionGroup) else ()


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
        told = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _shorten(told)
        return "".join(told.format())
    except Exception:
        return ""


def _shorten(told: Any) -> None:
    """Cut long words and notes: to lay out megabytes of them takes seconds."""
    left = [told]
    while left:
        part = left.pop()
        if part is None:
            continue
        part._str = _cut(getattr(part, "_str", None))
        if isinstance(part.__notes__, list):
            part.__notes__ = [_cut(note) for note in part.__notes__]
        left += [part.__cause__, part.__context__, *(part.exceptions or ())]


def _cut(text: Any) -> Any:
    if not isinstance(text, str) or len(text) <= LONG:
        return text
    return f"{text[:LONG]}… ({len(text)} characters)"
