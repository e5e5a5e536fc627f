"""Every public name of `multiprocessing`, in every submodule, is in procession, too."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import pkgutil
import subprocess
import sys
import types
from typing import Any

import pytest

import procession
from procession import errors

PRIVATE = {
    "popen_fork": "how the standard library starts a process; ours go through the keeper",
    "popen_forkserver": "the same",
    "popen_spawn_posix": "the same",
    "popen_spawn_win32": "the same, on another system",
}
MODULES = sorted(
    {name for _, name, _ in pkgutil.iter_modules(multiprocessing.__path__)} - PRIVATE.keys()
    | {"dummy.connection"}
)


def public(module: types.ModuleType) -> set[str]:
    """What `import *` gives, and whatever else has no underscore and is not from elsewhere."""
    names = set(getattr(module, "__all__", ()))
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or "multiprocessing"
        if name[0] != "_" and not inspect.ismodule(value) and home.startswith("multiprocessing"):
            names.add(name)
    return names


@pytest.mark.parametrize("name", MODULES)
def test_a_submodule_has_every_public_name(name: str) -> None:
    standard = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"procession.{name}")
    lacking = sorted(each for each in public(standard) if not hasattr(ours, each))
    assert not lacking


def test_the_package_has_every_public_name() -> None:
    names = public(multiprocessing) | {"context", "process", "reduction"}  # its import brings these
    lacking = sorted(each for each in names if not hasattr(procession, each))
    assert not lacking
    assert set(multiprocessing.__all__) <= set(procession.__all__)


def test_submodules_are_attributes_as_soon_as_the_standard_ones() -> None:
    program = """if True:
        import sys, {0} as library
        library.Queue(), library.Pool(1).terminate(), library.Manager().shutdown()
        library.Value("i"), library.util, library.RawArray("i", 1)
        print(*(name for name in sys.argv[1:] if hasattr(library, name)))
    """
    names = [name for name in MODULES if "." not in name]
    said = [
        subprocess.run(
            [sys.executable, "-c", program.format(library), *names],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split()
        for library in ("multiprocessing", "procession")
    ]
    assert set(said[0]) <= set(said[1])


def test_what_is_raised_can_be_caught_by_its_name_in_the_package() -> None:
    lacking = [each for each in errors.__all__ if not hasattr(procession, each)]
    assert not lacking


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_context_has_every_public_name(method: str) -> None:
    ours = procession.get_context(method)
    standard = multiprocessing.get_context(method)
    lacking = sorted(each for each in dir(standard) if each[0] != "_" and not hasattr(ours, each))
    assert not lacking


NEWER = (
    "context.BaseContext.set_forkserver_preload(on_error)",
    "executor.ProcessPoolExecutor.kill_workers",
    "executor.ProcessPoolExecutor.map(buffersize)",
    "executor.ProcessPoolExecutor(max_tasks_per_child)",
    "executor.ProcessPoolExecutor.terminate_workers",
    "managers.SyncManager.set",
    "managers.ListProxy.clear",
    "managers.ListProxy.copy",
    "managers.DictProxy.fromkeys",
    "managers.DictProxy.__reversed__",
    "managers.DictProxy.__or__",
    "managers.DictProxy.__ror__",
    "managers.DictProxy.__ior__",
    "managers.SetProxy.symmetric_difference",
    "managers.BaseManager(shutdown_timeout)",
    "pool.Pool.imap(buffersize)",
    "pool.Pool.imap_unordered(buffersize)",
    "process.Process.interrupt",
    "process.Process(kwargs)",
    "queues.ShutDown",
    "queues.Queue.shutdown(immediate)",
    "queues.JoinableQueue.shutdown(immediate)",
    "shared_memory.SharedMemory(track)",
    "synchronize.Lock.locked",
    "synchronize.RLock.locked",
    "util.warn",
)
"""What CPython brought after 3.11: here it is on every supported Python."""


@pytest.mark.parametrize("what", NEWER)
def test_what_newer_pythons_brought_is_there(what: str) -> None:
    path, _, parameter = what.rstrip(")").partition("(")
    module, *rest = path.split(".")
    found: Any = importlib.import_module(f"procession.{module}")
    if module == "context":
        found, rest = procession.get_context("forkserver"), rest[1:]
    for name in rest:
        found = getattr(found, name)
    if parameter:
        assert parameter in inspect.signature(found).parameters
