"""The fixture that guards every test sees what is left behind, and names it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import witness

LEFT = {
    "a child": ("import subprocess; subprocess.Popen(['sleep', '60'])", "sleep 60"),
    "an orphan": ("import os; os.system('setsid sleep 61 >/dev/null 2>&1 &')", "sleep 61"),
    "a forked orphan": (
        "import os, time\n"
        "    if not os.fork():\n"
        "        os.fork() or time.sleep(60)\n"
        "        os._exit(0)\n"
        "    os.wait()",
        "python",
    ),
    "a zombie": ("import os; os.fork() or os._exit(0)", "(Z, in"),
    "a descriptor": ("import os; os.pipe()", "pipe:"),
    "a thread": (
        "import threading, time\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True, name='idler').start()",
        "idler",
    ),
    "a file": ("import tempfile; tempfile.mkstemp('.left')", ".left"),
    "shared memory": (
        "import _posixshmem, os; "
        "os.close(_posixshmem.shm_open('/pn-test-left', os.O_CREAT | os.O_EXCL | os.O_RDWR))",
        "/dev/shm/pn-test-left",
    ),
}
QUICK = "import tests.conftest\ntests.conftest.PATIENCE = 0.3\n"


@pytest.mark.parametrize("what", LEFT)
def test_what_is_left_behind_is_named(what: str, tmp_path: Path, root: Path) -> None:
    code, words = LEFT[what]
    done = run(f"{QUICK}def test_it():\n    {code}\n", tmp_path, root)
    assert "left behind:" in done, done
    assert words in done.partition("left behind:")[2], done
    assert "1 passed, 1 error" in done, done


def test_a_tidy_test_passes(tmp_path: Path, root: Path) -> None:
    code = "import subprocess; subprocess.run(['true'], check=True)"
    assert "1 passed in" in run(f"{QUICK}def test_it():\n    {code}\n", tmp_path, root)


def test_what_others_use_is_not_ours() -> None:
    here, there = os.pipe()
    lock = multiprocessing.get_context("spawn").Lock()  # spawn's semaphores keep their name
    pid = os.fork()
    if pid == 0:
        os.close(there)  # else it waits for itself
        os.read(here, 1)
        os._exit(0)
    try:
        name = f"/dev/shm/sem.{lock._semlock.name.lstrip('/')}"
        assert witness.users(name) == {os.getpid(), pid}
    finally:
        os.close(there)
        os.waitpid(pid, 0)
        os.close(here)


def run(text: str, folder: Path, root: Path) -> str:
    """What pytest says about a test file."""
    (folder / "test_it.py").write_text(text)
    options = [
        "-c",
        os.devnull,
        f"--rootdir={folder}",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:procession",  # it has a fixture of this name, too
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        env=os.environ | {"PYTHONPATH": str(root), "PYTEST_DEBUG_TEMPROOT": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    return done.stdout
