"""`__main__` as a child has it, and the process object that is unpickled on top of it."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types

from procession._wire.messages import BY_VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_ahead: tuple[str, tuple[int, ...], types.CodeType] | None = None
"""A file that was compiled before children need it: its path, its state then, its code."""


def compile_ahead(path: str) -> None:
    """Compile a main's file, so that no child has to; nothing of it is run."""
    global _ahead
    if os.path.splitext(os.path.basename(path))[0] == "ipython":
        return  # multiprocessing runs every main again but IPython's own launcher
    try:
        with open(path, "rb") as file:
            state = _state(file.fileno())
            source = file.read()
        _ahead = path, state, compile(source, path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # it is no source, or a child will say what is wrong with it


class _Standing:
    """A main that was run in the zygote.

    Attributes:
        key: The path and the name that it was found by; the one that is not there is ``None``.
        zygotes: The zygote's own `__main__`, in whose place it stands.
        before, after: What its run put around `sys.path`.
    """

    __slots__ = ("after", "before", "key", "zygotes")

    def __init__(self, key: tuple[Any, Any], zygotes: Any) -> None:
        self.key = key
        self.zygotes = zygotes
        self.before: list[str] = []
        self.after: list[str] = []


_standing: _Standing | None = None


class NotRun(Exception):
    """Main was not run, or not so that others can have it; the text says why."""


def run_for_others(preparation: dict[str, Any]) -> None:
    """Run main's file in the zygote, for all children that will want this very one.

    Args:
        preparation: As of a child, of which everything else was prepared already.

    Raises:
        NotRun: It is none that `multiprocessing` runs again, or changed what it may not.
        BaseException: What it raised.
    """
    global _standing
    from multiprocessing import spawn

    standing = _Standing(_key(preparation), sys.modules["__main__"])
    path = list(sys.path)
    code = _compiled(preparation)
    if code is not None:
        _run_main(preparation["init_main_from_path"], code)
    else:
        spawn.prepare({name: preparation[name] for name in standing_keys if name in preparation})
    main = sys.modules["__main__"]
    if main is standing.zygotes or sys.modules.get("__mp_main__") is not main:
        raise NotRun("it is none that is run again")
    at = next((n for n in range(len(sys.path)) if sys.path[n : n + len(path)] == path), None)
    if at is None:
        raise NotRun("it changed sys.path")
    standing.before, standing.after = sys.path[:at], sys.path[at + len(path) :]
    _standing = standing


def standing() -> dict[str, Any]:
    """Of a child's preparation the part by which it finds main already run; empty without one."""
    if _standing is None:
        return {}
    return {name: value for name, value in zip(standing_keys, _standing.key, strict=True) if value}


standing_keys = ("init_main_from_path", "init_main_from_name")


def _key(preparation: dict[str, Any]) -> tuple[Any, Any]:
    return preparation.get(standing_keys[0]), preparation.get(standing_keys[1])


def _put_away(main: _Standing) -> None:
    """This child has another main: be as if none had been run."""
    from multiprocessing import spawn

    spawn.old_main_modules.append(sys.modules.pop("__mp_main__"))  # its functions may be in use
    sys.modules["__main__"] = main.zygotes


def load_start(blob: bytes | bytearray, name: str) -> Any:
    """Prepare this process as its starter said, then unpickle the process object.

    Args:
        blob: What `dump_start` made.
        name: The process's name.
    """
    from multiprocessing import spawn

    file = io.BytesIO(blob)
    kind, preparation = pickle.load(file)
    preparation["name"] = name
    if _standing is not None and kind in ("path", "name") and _standing.key == _key(preparation):
        for key in standing_keys:
            preparation.pop(key, None)
        spawn.prepare(preparation)
        if _standing.before or _standing.after:
            sys.path = [*_standing.before, *sys.path, *_standing.after]
    else:
        if _standing is not None:
            _put_away(_standing)
        _prepare(preparation)
    if kind == "value":
        _take_main(pickle.load(file))
    return pickle.load(file)


def _prepare(preparation: dict[str, Any]) -> None:
    from multiprocessing import spawn

    code = _compiled(preparation)
    if code is not None:
        path = preparation.pop("init_main_from_path")
        spawn.prepare(preparation)
        _run_main(path, code)
    else:
        spawn.prepare(preparation)


def _state(file: int | str) -> tuple[int, ...]:
    status = os.stat(file)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _compiled(preparation: dict[str, Any]) -> types.CodeType | None:
    """The code of the file that is to be run as main, if it is at hand and has not changed."""
    path = preparation.get("init_main_from_path")
    if _ahead is None or path != _ahead[0] or "init_main_from_name" in preparation:
        return None
    try:
        unchanged = _state(path) == _ahead[1]
    except OSError:
        return None
    return _ahead[2] if unchanged else None


def _run_main(path: str, code: types.CodeType) -> None:
    """Run main's file as `__mp_main__`, with the globals that `runpy` gives it."""
    from multiprocessing import spawn

    main = types.ModuleType("__mp_main__")
    main.__dict__.update(__file__=path, __cached__=None, __package__="", __builtins__=__builtins__)
    before, first = sys.modules.get("__mp_main__"), sys.argv[0]
    sys.modules["__mp_main__"] = main
    sys.argv[0] = path
    try:
        exec(code, main.__dict__)
    except BaseException:
        del sys.modules["__mp_main__"]
        if before is not None:
            sys.modules["__mp_main__"] = before
        raise
    finally:
        sys.argv[0] = first
    spawn.old_main_modules.append(sys.modules["__main__"])
    sys.modules["__main__"] = main


def _take_main(namespace: bytes) -> None:
    """Make a `__main__` of what the starter's defined.

    The module stands before anything is unpickled: functions are rebuilt on its namespace.
    """
    main = types.ModuleType("__main__")
    main.__dict__[BY_VALUE] = True
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    values: dict[str, Any] = pickle.loads(namespace)
    for name, value in values.items():
        main.__dict__.setdefault(name, value)
    for name in ("__file__", "__doc__"):
        if name in values:
            setattr(main, name, values[name])
