"""A /proc of another PID namespace shows strangers under our numbers: nobody is taken for dead,
and no stranger for one of ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.programs import each_method, run_command, write

NAMESPACE = ["unshare", "--pid", "--fork"]  # and /proc stays what it was


@pytest.fixture(autouse=True)
def namespace() -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare is refused here")


SEES_NOBODY = """
import os
from procession._kernel import procfs

print(procfs.is_ours(), os.path.exists("/proc/1/stat"))
print(procfs.stat(1), procfs.children(1), procfs.name_of(1))
for look in (procfs.is_ending, procfs.tasks, lambda pid: procfs.maps_file(pid, "lib")):
    for pid in (1, 1 << 21):  # one who lives, and one whom nobody sees
        try:
            print(look(pid))
        except OSError as error:
            print(error.strerror)
"""


def test_it_tells_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, SEES_NOBODY)
    lines = run_command([*NAMESPACE, sys.executable, str(path)]).lines
    assert lines[:2] == ["False True", "None [] ?"]
    assert lines[2:] == ["no /proc of this PID namespace"] * 6


def test_our_own_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "from procession._kernel import procfs\nprint(procfs.is_ours())")
    command = [*NAMESPACE, "--mount-proc", sys.executable, str(path)]
    assert run_command(command).lines == ["True"]
    assert run_command([sys.executable, str(path)]).lines == ["True"]


LIVES = """
import os, subprocess, sys, time
import procession

def give(number):
    process = context.Process(target=int)
    process.start()
    process.join(30)
    return number, process.exitcode

def hold(lock, conn):
    with lock:
        conn.send("held")
        conn.recv()

def wait():
    os.write(1, b"up\\n")
    time.sleep(300)

def live():
    process = context.Process(target=give, args=(5,))
    process.start()
    print(process.result(30))
    lock, (ours, theirs) = context.Lock(), procession.Pipe()
    holder = context.Process(target=hold, args=(lock, theirs))
    holder.start()
    ours.recv()
    print(lock.acquire(timeout=0.3), holder.is_alive())  # it is alive, and keeps it
    ours.send("go on")
    print(lock.acquire(timeout=30))
    waiting = context.Process(target=time.sleep, args=(300,))
    waiting.start()
    waiting.stop(0)
    print(waiting.exitcode, flush=True)
    for daemon in (True, False):
        context.Process(target=wait, daemon=daemon).start()
    time.sleep(300)

if __name__ == "__main__" and len(sys.argv) > 2:  # the first process of the namespace
    main = subprocess.Popen([sys.executable, *sys.argv[:2]], stdout=subprocess.PIPE)
    for line in iter(main.stdout.readline, b""):
        print(line.decode().strip())
        if line == b"up\\n":
            main.stdout.readline()
            break
    main.kill()
    try:
        while True:
            os.wait()
    except ChildProcessError:
        print("nothing left")
elif __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    live()
else:
    context = procession.get_context(sys.argv[1])
"""


@each_method
def test_processes_live_and_end_without_it(method: str, tmp_path: Path) -> None:
    path = write(tmp_path, LIVES)
    command = [*NAMESPACE, sys.executable, str(path), method, "first"]
    lines = run_command(command, limit=60).lines
    assert lines == ["(5, 0)", "False True", "True", "-9", "up", "nothing left"]
