"""How the running program's `__main__` reaches its children.

A script with a guard is prepared as the standard library does: its top level runs again, as
`__mp_main__`, and what it defines goes by reference. Main without a guard or without a file cannot
run again without starting everything again: what it defines goes by value.
"""

from __future__ import annotations

import os
import sys

from procession._wire.messages import BY_VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from types import ModuleType


class MainPlan:
    """What is to be done about `__main__` in a child.

    Attributes:
        kind: "path" or "name": run it again from there; "value": send what it defines; "none":
            leave it alone.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


_cached: tuple[ModuleType | None, MainPlan] = (None, MainPlan("none"))


def path() -> str | None:
    """The file that children will run again as their `__main__`, if that is what they do."""
    if plan().kind != "path":
        return None
    from multiprocessing import process

    found: str | None = getattr(sys.modules["__main__"], "__file__", None)
    if found is None:
        return None
    here: str | None = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    return os.path.normpath(found if here is None else os.path.join(here, found))


def plan() -> MainPlan:
    """The plan for this process's `__main__`; found once for each."""
    global _cached
    main = sys.modules.get("__main__")
    if _cached[0] is not main or main is None:
        _cached = (main, _plan(main))
    return _cached[1]


def _plan(main: ModuleType | None) -> MainPlan:
    if main is None:
        return MainPlan("none")
    if main.__dict__.get(BY_VALUE):
        return MainPlan("value")
    if main.__name__ == "__mp_main__":  # this process is a child: it came by running again
        return MainPlan("path")
    spec = getattr(main, "__spec__", None)
    name = getattr(spec, "name", None)
    if name is not None:
        if name == "__main__" or name.endswith(".__main__"):
            # a package's, folder's or zip's entry: multiprocessing never runs those again, and
            # what they define is seldom meant to be sent
            return MainPlan("value" if _defines_something(main) else "name")
        return MainPlan("name" if _has_guard(getattr(spec, "origin", None)) else "value")
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):  # standard input calls itself a file, too
        return MainPlan("value")
    return MainPlan("path" if _has_guard(path) else "value")


def _defines_something(main: ModuleType) -> bool:
    return any(getattr(value, "__module__", None) == "__main__" for value in vars(main).values())


def _has_guard(path: str | None) -> bool:
    """Whether a source file tests `__name__` against "__main__" at its top level.

    A file that cannot be read or parsed is taken to have one: then it is prepared as ever.
    """
    import ast

    try:
        with open(path or "", "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(_guards(node) for node in _top_level(tree.body))


def _top_level(body: list[ast.stmt]) -> list[ast.If]:
    """The `if` statements that run when the file does, inside `try`, `with` and `else` too."""
    import ast

    found: list[ast.If] = []
    for node in body:
        if isinstance(node, ast.If):
            found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While | ast.TryStar):
            for field in ("body", "orelse", "finalbody"):
                found += _top_level(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                found += _top_level(handler.body)
    return found


def _guards(node: ast.If) -> bool:
    import ast

    for part in ast.walk(node.test):
        if isinstance(part, ast.Compare):
            sides = [part.left, *part.comparators]
            names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
            text = any(
                isinstance(side, ast.Constant) and side.value in ("__main__", "__mp_main__")
                for side in sides
            )
            if names and text:
                return True
    return False
