"""`__main__` as a child has it, and the process object that is unpickled on top of it."""

from __future__ import annotations

import io
import pickle
import sys
import types

from procession._wire.messages import BY_VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_start(blob: bytes | bytearray) -> Any:
    """Prepare this process as its starter said, then unpickle the process object."""
    from multiprocessing import spawn

    file = io.BytesIO(blob)
    kind, preparation = pickle.load(file)
    spawn.prepare(preparation)
    if kind == "value":
        _take_main(pickle.load(file))
    return pickle.load(file)


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
