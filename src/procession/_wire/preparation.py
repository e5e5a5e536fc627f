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
"""All that the standard library's own function looks at: `_sources` looks at no less."""


def _sources(kind: str) -> tuple[Any, ...]:
    """What the standard library's own function makes a preparation of."""
    main: Any = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    default: Any = context._default_context
    me = process.current_process()
    logger: Any = util._logger  # type: ignore[attr-defined]
    return (
        kind,
        spawn.get_preparation_data,
        getattr(spec, "name", None),
        getattr(main, "__file__", None),
        me.authkey,
        getattr(me, "_inheriting", False),  # then nothing may be started
        sys.path,
        sys.argv,
        process.ORIGINAL_DIR,  # type: ignore[attr-defined]
        default._default_context,
        default._actual_context,
        util._log_to_stderr,  # type: ignore[attr-defined]
        None if logger is None else logger.getEffectiveLevel(),
    )


_last: tuple[tuple[Any, ...], bytes] | None = None
"""What the last preparation was made of, and its pickle."""


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
    last = _last  # another thread may be here, too
    if here and last is not None and _sources(kind) == last[0]:
        return last[1]
    sources = _sources(kind) if _is_standard(spawn.get_preparation_data) else ()
    sources = tuple(list(part) if isinstance(part, list) else part for part in sources)
    preparation = _preparation(name)
    if kind == "value":
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
    buffer = io.BytesIO()
    ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump((kind, preparation))
    pickled = buffer.getvalue()
    # kept only where equal means the same: others may have put objects of theirs in there
    _last = (sources, pickled) if sources and _is_plain(preparation) else None
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
    return getattr(function, "__globals__", None) is vars(spawn) and _LOOKS_AT.issuperset(
        function.__code__.co_names
    )


def _is_plain(preparation: dict[str, Any]) -> bool:
    parts = [
        part
        for value in preparation.values()
        for part in (value if type(value) is list else [value])
    ]
    return _PLAIN.issuperset(map(type, parts))
