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
    code = _compiled(preparation)
    if code is not None:
        path = preparation.pop("init_main_from_path")
        spawn.prepare(preparation)
        _run_main(path, code)
    else:
        spawn.prepare(preparation)
    if kind == "value":
        _take_main(pickle.load(file))
    return pickle.load(file)


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
