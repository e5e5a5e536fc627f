"""One slot: the default context. `context` fills it; rooms below `context` read it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Default(Protocol):
        """What is asked of the default context from below."""

        def adopt(self, method: str | None) -> None:
            """Take over the start method that the starter of this process had fixed."""

        def fixed_method(self) -> str | None:
            """The start method fixed by the user or by use, or ``None``."""

        def get_context(self, method: str | None = None) -> Any:
            """The context in force."""

        def popen(self, process: Any) -> Any:
            """Start a process by the start method in force."""


default: Default | None = None


def _filled() -> Default:
    if default is None:
        import importlib

        importlib.import_module("procession.context")  # fills the slot
    assert default is not None
    return default


def context() -> Any:
    """The default context, whose start method is fixed by asking."""
    return _filled().get_context()


def adopt(method: str | None) -> None:
    """Fix the default context's start method in a child as it was fixed in its starter."""
    _filled().adopt(method)


def fixed_method() -> str | None:
    """The default context's start method where it is fixed."""
    return None if default is None else default.fixed_method()


def popen(process: Any) -> Any:
    """Start a process by the default context's start method."""
    return _filled().popen(process)
