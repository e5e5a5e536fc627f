"""A debugger that follows its program into children follows it into ours.

pydevd (debugpy and the editors that use it) gets into interpreters that a debugged process starts
by changing the command line in `os` and `subprocess`. A child of the keeper's has none: it runs
what pydevd would have put there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOTHING = "pass"


def invitation() -> str | None:
    """Python code by which a child comes to this process's debugger, if that wants children."""
    pydevd: Any = sys.modules.get("pydevd")
    if pydevd is None:
        return None
    try:
        monkey: Any = sys.modules["_pydev_bundle.pydev_monkey"]
        if not pydevd.SetupHolder.setup["multiprocess"]:
            return None
        code = monkey.patch_args(["python", "-c", _NOTHING])[2]
        if code == _NOTHING:
            return None
        monkey.send_process_created_message()  # it waits for who was announced
    except Exception:
        return None  # of another make: the child runs all the same
    return str(code)


def accept(code: str) -> None:
    """Come to the debugger, in a child."""
    try:
        exec(code, {"__name__": __name__})
    except Exception as error:
        sys.stderr.write(f"procession: this process runs without its debugger: {error!r}\n")
