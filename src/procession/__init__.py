"""procession: `multiprocessing` whose processes live and die well.

Every public name of `multiprocessing` is here. Importing starts nothing and imports nothing: names
are found when they are asked for, since the keeper and every child import this package too.

PYTEST_DONT_REWRITE: `procession run -m pytest` imports this package before pytest, which warns.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import *  # noqa: F403
    from typing import Any

    from procession._launch.recording import Recording, record
    from procession.context import (
        AuthenticationError,
        BufferTooShort,
        Process,
        ProcessError,
        TimeoutError,
    )
    from procession.ending import Ending, How, Rusage
    from procession.errors import (
        CallExited,
        CallTimeout,
        ForkedThreadsWarning,
        GroupCancelled,
        GroupTimeout,
        ItemLostWarning,
        KeeperLost,
        ManagerDied,
        OwnerDied,
        OwnerDiedWarning,
        PoolTerminated,
        ProcessDied,
        ProcessionError,
        RecordingError,
        RemoteError,
        ResultNotPicklable,
        SharedObjectLost,
        StartError,
        StillRunning,
        TakersGone,
        WorkerDied,
        WritersGone,
    )
    from procession.executor import ProcessPoolExecutor, map
    from procession.group import ProcessGroup

del TYPE_CHECKING  # of no use to users, who would find it by dir()

__version__ = "0.1.0"

SUBDEBUG = 5
SUBWARNING = 25

_FROM_CONTEXT = (
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
)
_FROM_MODULES = {
    "AuthenticationError": "context",
    "BufferTooShort": "context",
    "Process": "context",
    "ProcessError": "context",
    "TimeoutError": "context",
    "Ending": "ending",
    "How": "ending",
    "Rusage": "ending",
    "ForkedThreadsWarning": "errors",
    "GroupCancelled": "errors",
    "GroupTimeout": "errors",
    "KeeperLost": "errors",
    "ManagerDied": "errors",
    "TakersGone": "errors",
    "WorkerDied": "errors",
    "WritersGone": "errors",
    "ItemLostWarning": "errors",
    "PoolTerminated": "errors",
    "CallTimeout": "errors",
    "CallExited": "errors",
    "OwnerDied": "errors",
    "OwnerDiedWarning": "errors",
    "ProcessDied": "errors",
    "ProcessionError": "errors",
    "RecordingError": "errors",
    "RemoteError": "errors",
    "ResultNotPicklable": "errors",
    "SharedObjectLost": "errors",
    "StartError": "errors",
    "StillRunning": "errors",
    "Recording": "_launch.recording",
    "record": "_launch.recording",
    "ProcessGroup": "group",
    "ProcessPoolExecutor": "executor",
    "map": "executor",
}

__all__ = [*_FROM_CONTEXT, *_FROM_MODULES]  # noqa: PLE0604


# `import multiprocessing` brings some of them, and others come with the first queue or pool
_MODULES = frozenset(
    [
        "connection",
        "context",
        "heap",
        "managers",
        "pool",
        "process",
        "queues",
        "reduction",
        "resource_sharer",
        "resource_tracker",
        "shared_memory",
        "sharedctypes",
        "spawn",
        "synchronize",
        "util",
    ]
)


def __getattr__(name: str) -> object:
    """Find a public name where it lives (PEP 562)."""
    if name in _FROM_CONTEXT:
        value = getattr(_module("context")._default_context, name)
    elif name in _FROM_MODULES:
        value = getattr(_module(_FROM_MODULES[name]), name)
    elif name in _MODULES:
        value = _module(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _module(name: str) -> Any:
    import sys

    __import__(f"procession.{name}")  # `importlib` would be one more import
    return sys.modules[f"procession.{name}"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
