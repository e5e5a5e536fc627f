"""What `multiprocessing` tells a child to prepare, pickled; made anew only when it has changed."""

from __future__ import annotations

import io
import pickle
import sys
from multiprocessing import context, process, spawn, util
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = frozenset((str, bytes, int, bool, type(None), AuthenticationString))
_LOOKS_AT = frozenset(
    (
        "WINEXE",
        "WINSERVICE",
        "ORIGINAL_DIR",
        "ValueError",
        "__spec__",
        "_check_not_importing_main",
        "_log_to_stderr",
        "_logger",
        "argv",
        "authkey",
        "copy",
        "current_process",
        "dict",
        "get_start_method",
        "getEffectiveLevel",
        "getattr",
        "getcwd",
        "index",
        "isabs",
        "join",
        "modules",
        "normpath",
        "os",
        "path",
        "platform",
        "process",
        "sys",
        "update",
        "util",
    )
)
"""All that the standard library's own function looks at: `_Prepared.holds` looks at no less."""


class _Prepared:
    """A preparation that was pickled, and what it was made of."""

    def __init__(self, kind: str) -> None:
        main: Any = sys.modules["__main__"]
        default: Any = context._default_context
        me: Any = process._current_process  # type: ignore[attr-defined]
        self.pickled = b""
        self._kind = kind
        self._function = spawn.get_preparation_data
        self._main = main
        self._spec = getattr(main, "__spec__", None)
        self._name = getattr(self._spec, "name", None)
        self._file = getattr(main, "__file__", None)
        self._me = me
        self._key = me._config.get("authkey")
        self._path = list(sys.path)
        self._argv = list(sys.argv)
        self._home = process.ORIGINAL_DIR  # type: ignore[attr-defined]
        self._default = default._default_context
        self._actual = default._actual_context
        self._logs = util._log_to_stderr  # type: ignore[attr-defined]

    def holds(self, kind: str) -> bool:
        """Whether it is what would be made now, by whoever has not replaced what makes it."""
        main: Any = sys.modules.get("__main__")
        default: Any = context._default_context
        me: Any = process._current_process  # type: ignore[attr-defined]
        spec = getattr(main, "__spec__", None)
        return bool(
            kind == self._kind
            and spawn.get_preparation_data is self._function
            and main is self._main
            and spec is self._spec
            and getattr(spec, "name", None) == self._name
            and getattr(main, "__file__", None) == self._file
            and me is self._me
            and me._config.get("authkey") == self._key
            and not hasattr(me, "_inheriting")
            and sys.path == self._path
            and sys.argv == self._argv
            and self._home == process.ORIGINAL_DIR  # type: ignore[attr-defined]
            and default._default_context is self._default
            and default._actual_context is self._actual
            and util._log_to_stderr == self._logs  # type: ignore[attr-defined]
            and util._logger is None  # type: ignore[attr-defined]
        )


_last: _Prepared | None = None


def dump(name: str, kind: str, here: bool) -> bytes:
    """The preparation of a child, pickled.

    Args:
        name: The child's name; it is not in what is pickled.
        kind: What is to be done about `__main__` (`MainPlan`).
        here: Whether this process's working directory is there.

    Raises:
        FileNotFoundError: It is not.
    """
    global _last
    if here and _last is not None and _last.holds(kind):
        return _last.pickled
    made_of = _Prepared(kind) if _is_standard(spawn.get_preparation_data) else None
    preparation = _preparation(name)
    if kind == "value":
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
    buffer = io.BytesIO()
    ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump((kind, preparation))
    pickled = buffer.getvalue()
    _last = None
    # kept only where equal means the same: others may have put objects of theirs in there
    if made_of is not None and _is_plain(preparation):
        made_of.pickled = pickled
        _last = made_of
    return pickled


def plain(name: str) -> dict[str, Any] | None:
    """The preparation of a child as it would be made now, ``None`` where others have put objects
    of theirs in there.
    """
    preparation = _preparation(name)
    return {"name": name, **preparation} if _is_plain(preparation) else None


def _preparation(name: str) -> dict[str, Any]:
    """What `multiprocessing` tells a child to prepare, as others may have extended it."""
    default: Any = context._default_context
    actual = default._actual_context  # asking for the start method would fix it for ever
    try:
        preparation: dict[str, Any] = spawn.get_preparation_data(name)
    finally:
        default._actual_context = actual
    del preparation["dir"]  # goes by descriptor, and only when it changed
    del preparation["name"]  # in the header, so that the rest is the same for every child
    return preparation


def _is_standard(function: Any) -> bool:
    """Whether it is the standard library's own, and of a version that we know all sources of."""
    code = getattr(function, "__code__", None)
    return (
        code is not None
        and code.co_filename == spawn.prepare.__code__.co_filename
        and _LOOKS_AT.issuperset(code.co_names)
    )


def _is_plain(preparation: dict[str, Any]) -> bool:
    parts = [
        part
        for value in preparation.values()
        for part in (value if type(value) is list else [value])
    ]
    return _PLAIN.issuperset(map(type, parts))
