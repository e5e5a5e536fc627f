"""Asking the keeper to run main's file once, instead of in each child.

A program that goes on starting processes gains by it; one with a child or two would have run its
main once for nothing.
"""

from __future__ import annotations

from procession._wire import main_module, messages, preparation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._launch.keeper import Keeper

AFTER = 3  # children by then
LIMIT = 30.0  # seconds for main's top level; one that takes longer runs in each child
_MOST = 64 * 1024  # bytes of what is said to the guard, about; a message has room for twice that
_ALONG = ("std", "surroundings", "replaced")
_CHANGES = ("environ", "warnings", "debugger")


def is_due(keeper: Keeper) -> bool:
    """Count a start; whether it is the one after which to ask."""
    keeper.starts += 1
    return keeper.starts == AFTER and keeper.preloads_main and keeper.index == messages.MAIN_SLOT


def ask(keeper: Keeper, header: dict[str, Any], std: Sequence[int]) -> None:
    """Ask for it, if children run main's file again, and see what the keeper was started with.

    Args:
        keeper: This program's keeper.
        header: The start frame's header, of the child that was started last.
        std: Those of descriptors 0-2 that are open.
    """
    if main_module.plan().kind not in ("path", "name"):
        return
    if header["cwd"] or any(header[name] is not None for name in _CHANGES):
        return  # who changes that may do so for each child, and main's file may look at it
    try:
        main = preparation.plain(header["name"])
    except FileNotFoundError:
        return  # the working directory went just now
    if main is None or sum(map(_size, main.values())) > _MOST:
        return  # objects that others put in there are for each child
    order = {key: header[key] for key in _ALONG} | {"limit": LIMIT}
    keeper.tell(messages.HEIR, order, main, fds=std)


def _size(value: Any) -> int:
    return sum(map(_size, value)) if isinstance(value, list) else len(str(value)) + 16
