"""A child sees what its starter sees at that moment, and inherits what was passed (G12)."""

from __future__ import annotations

from pathlib import Path

from tests.contract.programs import (
    each_kept_method,
    each_method,
    run_text,
    running,
    write,
)

SEES = """
import json, os, resource, signal, sys, warnings
import procession

def look():
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "directory": os.getcwd(),
        "environ": {k: v for k, v in os.environ.items()},
        "path": sys.path,
        "argv": sys.argv,
        "umask": status["Umask"].strip(),
        "blocked": status["SigBlk"].strip(),
        "ignored": hex(int(status["SigIgn"], 16) & ~(3 << 31)),  # 32 and 33 are glibc's own
        "limits": [resource.getrlimit(n) for n in range(16)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "filters": [[f[0], str(f[1]), f[2].__name__, str(f[3]), f[4]] for f in warnings.filters],
        "options": [sys._xoptions, sys.warnoptions],
        "flags": [str(sys.flags), sys.get_int_max_str_digits()],
        "files": [[os.fstat(n).st_dev, os.fstat(n).st_ino] for n in range(3)],
    }

def child(conn):
    conn.send(look())

def compare(when):
    for _ in range(2):
        ours, theirs = procession.Pipe()
        process = procession.get_context(sys.argv[1]).Process(target=child, args=(theirs,))
        process.start()
        there, here = ours.recv(), look()
        process.join(30)
        for name in here:
            if here[name] != there[name]:
                print(when, name, "here:", here[name], "there:", there[name])

def change():
    os.mkdir("below")
    os.chdir("below")
    os.environ["ADDED"] = "yes"
    os.environ["ODD"] = "\\udcff"
    del os.environ["TAKEN"]
    sys.path.append("/somewhere")
    sys.argv.append("more")
    os.umask(0o027)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN])
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(2)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore", ResourceWarning)
    warnings.filterwarnings("error", "words of it", UserWarning, "module")
    for number in (0, 1, 2):
        file = os.open(f"file{number}", os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)

if __name__ == "__main__":
    out = os.dup(1)
    compare("at first")
    change()
    compare("changed")
    print("over")
    sys.stdout.flush()
    with open("file1") as file:
        os.write(out, file.read().encode())
"""


@each_method
def test_a_child_sees_what_main_sees_at_its_start(method: str, tmp_path: Path) -> None:
    flags = ("-X", "utf8", "-X", "int_max_str_digits=5000", "-W", "ignore:in particular", "-B")
    path = write(tmp_path, SEES)
    with running(
        path, method, flags=flags, cwd=tmp_path, env={"TAKEN": "1", "PYTHONPATH": "/elsewhere"}
    ) as program:
        finished = program.finish()
    assert finished.lines == ["over"], finished.err


NESTED = """
import os, sys, warnings
import procession

def look():
    filters = [f[2].__name__ for f in warnings.filters[:1]]
    return os.path.basename(os.getcwd()), os.environ.get("A"), os.environ.get("B"), filters

def call(target, *args):
    process = procession.get_context(sys.argv[1]).Process(target=target, args=args)
    process.start()
    return process.result(30)

def change_and_look():
    os.mkdir("below")
    os.chdir("below")
    os.environ["B"] = "b"
    warnings.simplefilter("ignore", ResourceWarning)
    return call(look)

if __name__ == "__main__":
    call(look)
    os.environ["A"] = "a"
    print(call(change_and_look))
    print(call(call, look)[1:3])
"""


@each_method
def test_a_childs_child_sees_what_its_own_starter_sees(method: str, tmp_path: Path) -> None:
    """Also what differs from the time at which the keeper was started."""
    with running(write(tmp_path, NESTED), method, cwd=tmp_path) as program:
        finished = program.finish()
    assert finished.lines == [
        "('below', 'a', 'b', ['ResourceWarning'])",
        "('a', None)",
    ], finished.err


CLOSED = """
import os, sys
import procession

def look(conn):
    conn.send([sys.stdin is None, sys.stdout is None])

if __name__ == "__main__":
    ours, theirs = procession.Pipe()
    os.close(0)
    process = procession.get_context(sys.argv[1]).Process(target=look, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
    try:
        print("nothing of ours is there:", os.fstat(0))
    except OSError as error:
        print(error.strerror)
"""


@each_kept_method
def test_a_closed_standard_descriptor_is_closed_in_the_child(method: str, tmp_path: Path) -> None:
    assert run_text(tmp_path, CLOSED, method).lines == ["[True, False]", "Bad file descriptor"]


LISTS = """
import os, subprocess, sys
import procession

def child():
    os.execv("/bin/ls", ["ls", "/proc/self/fd"])

if __name__ == "__main__":
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    for _ in range(3):
        process = procession.get_context(sys.argv[1]).Process(target=child)
        process.start()
        process.join()
"""


@each_kept_method
def test_only_the_standard_descriptors_go_on_to_a_program(method: str, tmp_path: Path) -> None:
    """None of ours is inherited by what a child executes, and none of main's by a child (G12)."""
    lines = run_text(tmp_path, LISTS, method).lines
    assert lines == ["0", "1", "2", "3"] * 3  # 3 is the listing's own
