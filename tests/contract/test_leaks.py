"""Nothing is used up by use: descriptors, threads, files, memory of the table (G5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.programs import each_kept_method, each_method, run_text

MANY = """
import os, sys, threading, time
import procession

def nothing():
    pass

def belongings():
    fds = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            fds[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            pass  # the listing's own
    kinds = sorted(what.partition(":")[0] for what in fds.values())
    return kinds, len(os.listdir("/proc/self/task"))

def keepers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = open(f"/proc/{pid}/comm").read().strip()
            if name in ("pn-guard", "pn-zygote") and mine in open(f"/proc/{pid}/maps").read():
                found.append((name, len(os.listdir(f"/proc/{pid}/fd"))))
        except OSError:
            pass
    return sorted(found)

def table():
    return next(line.split()[4] for line in open("/proc/self/maps") if "procession-table" in line)

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    count = int(sys.argv[2])
    def rounds(count):
        for number in range(count):
            process = context.Process(target=nothing)
            process.start()
            if number % 2:
                process.sentinel
            process.join()
            if number % 3 == 0:
                process.close()
    rounds(40)  # a busy starter holds more spares
    mine = table()
    before, helpers = belongings(), keepers()
    rounds(count)
    after, later = belongings(), keepers()
    deadline = time.monotonic() + 20
    while len(later) > len(helpers) and time.monotonic() < deadline:
        later = keepers()  # a spare that was forked just now bears the zygote's name for a moment
    # spares come and go: their streams are sockets, at most eight of them
    less, more = [k for k in before[0] if k != "socket"], [k for k in after[0] if k != "socket"]
    print(less == more, after[1:] == before[1:])
    print(after[0].count("socket") <= 2 + 8, threading.active_count())
    print([name for name, _ in helpers] == [name for name, _ in later])
    print(all(b[1] <= a[1] + 10 for a, b in zip(helpers, later)), helpers, later)
"""


@each_method
def test_starts_and_joins_leave_nothing(method: str, tmp_path: Path) -> None:
    count = {"forkserver": 1000, "fork": 1000, "spawn": 60}[method]
    finished = run_text(tmp_path, MANY, method, str(count), limit=100)
    assert finished.lines[:3] == ["True True", "True 1", "True"], finished
    assert finished.lines[3].startswith("True"), finished.lines[3]


AT_ONCE = """
import os, resource, sys
import procession

def wait(conn):
    os.read(conn.fileno(), 1)  # one byte each: a connection is for one reader

if __name__ == "__main__":
    count = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
    context = procession.get_context(sys.argv[1])
    theirs, ours = procession.Pipe(duplex=False)
    processes = [context.Process(target=wait, args=(theirs,)) for _ in range(count)]
    for process in processes:
        process.start()
    print(sum(process.is_alive() for process in processes))
    for _ in processes:
        os.write(ours.fileno(), b"x")
    for process in processes:
        process.join()
    print({process.exitcode for process in processes})
"""


@each_method
def test_more_children_than_descriptors(method: str, tmp_path: Path) -> None:
    """Two descriptors a child would be too many here; with fork it is one."""
    count = {"forkserver": 150, "fork": 100, "spawn": 40}[method]
    limit = {"forkserver": 100, "fork": 160, "spawn": 64}[method]
    finished = run_text(tmp_path, AT_ONCE, method, str(count), str(limit), limit=100)
    assert finished.lines == [str(count), "{0}"], finished.err


@pytest.mark.slow
@pytest.mark.timeout(600)
@each_method
def test_two_thousand_children_at_once(method: str, tmp_path: Path) -> None:
    count = 200 if method == "spawn" else 2000  # an interpreter each is another measure
    finished = run_text(tmp_path, AT_ONCE, method, str(count), "4096", limit=500)
    assert finished.lines == [str(count), "{0}"], finished.err


HOLDS = """
import threading, time

lock = threading.Lock()

def hold():
    while True:
        with lock:
            time.sleep(0.0005)

threading.Thread(target=hold, daemon=True).start()
"""

LOCKED = """
import sys
import procession

def use():
    import holder
    with holder.lock:
        pass

if __name__ == "__main__":
    procession.set_forkserver_preload(["holder"], on_error="ignore")
    context = procession.get_context(sys.argv[1])
    processes = [context.Process(target=use) for _ in range(int(sys.argv[2]))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    print({process.exitcode for process in processes})
"""


@each_kept_method
def test_a_lock_held_by_a_thread_of_a_preloaded_module_hangs_nobody(
    method: str, tmp_path: Path
) -> None:
    (tmp_path / "holder.py").write_text(HOLDS)
    count = {"forkserver": "200", "spawn": "20"}[method]
    finished = run_text(tmp_path, LOCKED, method, count, limit=100)
    assert finished.lines == ["{0}"], finished.err
