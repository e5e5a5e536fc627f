"""Main's file runs once for all children of `forkserver`, and only where nobody could tell."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.contract.programs import (
    Finished,
    Program,
    run,
    run_command,
    run_text,
    running,
    state_of,
    wait_until,
    write,
)

HEAD = """
import os, sys, time
import procession

RAN_IN = os.getpid()

def in_heir():
    with open("/proc/self/comm") as file:
        return file.read() == "pn-heir\\n"

def ran_here():
    return RAN_IN == os.getpid()

def start(target, *args):
    process = procession.get_context("forkserver").Process(target=target, args=args)
    process.start()
    return process

def call(target, *args):
    return start(target, *args).result(30)

def until_it_runs_no_more():
    deadline = time.monotonic() + 30
    while call(ran_here):
        assert time.monotonic() < deadline, "each child still runs it"

def until_refused(path):
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        call(ran_here)
        assert time.monotonic() < deadline, "it is not refused"
    with open(path) as file:
        return file.read()
"""


def check(finished: Finished, *lines: str) -> None:
    assert finished.err == ""
    assert finished.lines == list(lines)


def test_it_runs_once_however_many_children_follow(tmp_path: Path) -> None:
    finished = run_text(
        tmp_path,
        HEAD
        + """
print("top level", flush=True)

class Thing:
    pass

def look(thing):
    main = sys.modules["__main__"]
    return main is sys.modules["__mp_main__"], type(thing) is Thing, main.__file__, RAN_IN, Thing()

def give(n):
    return n, RAN_IN

if __name__ == "__main__":
    until_it_runs_no_more()
    print("from here on", flush=True)
    same, own, path, ran_in, thing = call(look, Thing())
    print(same, own, path == __file__, type(thing) is Thing)
    processes = [start(give, n) for n in range(50)]
    print([p.result(30) for p in processes] == [(n, ran_in) for n in range(50)])
    with procession.get_context("forkserver").Pool(3) as pool:
        print(pool.map(give, range(20)) == [(n, ran_in) for n in range(20)])
""",
    )
    after = finished.lines[finished.lines.index("from here on") :]
    check(
        finished._replace(out="\n".join(after)),
        "from here on",
        "True True True True",
        *2 * ["True"],
    )
    assert set(finished.lines[: finished.lines.index("from here on")]) == {"top level"}


def test_a_module_runs_once_too(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    write(tmp_path / "some", "", "__init__.py")
    write(tmp_path / "some", "", "beside.py")
    text = """
from . import beside

def spec():
    return ran_here(), __spec__.name, beside.__name__

if __name__ == "__main__":
    until_it_runs_no_more()
    print(*call(spec))
"""
    write(tmp_path / "some", HEAD + text, "module.py")
    finished = run_command([sys.executable, "-m", "some.module"], cwd=tmp_path)
    check(finished, "False some.module some.beside")


def test_children_see_what_main_sees_at_their_start(tmp_path: Path) -> None:
    """Also what it changed since the file was run for them; and nothing that is the run's own."""
    (tmp_path / "there").mkdir()
    finished = run_text(
        tmp_path,
        HEAD
        + """
import multiprocessing, random, warnings
sys.path.insert(0, "twice")
warnings.simplefilter("ignore", ResourceWarning)
NAME = multiprocessing.current_process().name

def look():
    return (
        os.getcwd(), os.environ.get("NEW"), os.environ.get("OLD"), sys.argv, sys.path[:3],
        multiprocessing.current_process().name, NAME != "MainProcess", warnings.filters[0][2],
        os.environ["PATH"], os.getpgid(0), os.umask(0),
    )

def draw():
    return random.random()

if __name__ == "__main__":
    until_it_runs_no_more()
    before = call(look)
    print(before[3] == sys.argv, before[4][:2], before[6], before[7] is ResourceWarning)
    print(before[0] == os.getcwd(), before[9] == os.getpgid(0))
    os.environ["NEW"], sys.argv[1:], path = "new", ["changed"], os.environ.pop("PATH")
    sys.path.insert(0, "front")
    os.chdir("there")
    os.umask(0o27)
    os.environ["PATH"] = "/nowhere"
    process = start(look)
    after = process.result(30)
    print(after[0] == os.getcwd(), after[1:3], after[3][1:], after[4], after[5] == process.name)
    print(after[8], oct(after[10]))
    os.chdir("..")
    os.environ["PATH"] = path
    del os.environ["NEW"]
    again = call(look)
    print(again[0] == before[0], again[1], again[8] == path)
    print(len({call(draw) for _ in range(5)}))
""",
        cwd=tmp_path,
    )
    check(
        finished,
        "True ['twice', 'twice'] True True",
        "True True",
        "True ('new', None) ['changed'] ['twice', 'front', 'twice'] True",
        "/nowhere 0o27",
        "True None True",
        "5",
    )


def test_exit_functions_of_its_top_level_are_its_childrens_as_ever(tmp_path: Path) -> None:
    """Since Python 3.13 children run what they registered; what a starter did is not theirs."""
    finished = run_text(
        tmp_path,
        HEAD
        + """
import atexit

@atexit.register
def bye():
    if "said" in globals():
        print("bye", "here" if said == os.getpid() else "copy", flush=True)

def say():
    global said
    said = os.getpid()
    process = procession.get_context("fork").Process(target=int)
    process.start()
    process.join()

if __name__ == "__main__":
    until_it_runs_no_more()
    process = start(say)
    process.join()
""",
    )
    check(finished, *(["bye here"] if sys.version_info >= (3, 13) else []))


def test_another_main_is_run_in_its_children(tmp_path: Path) -> None:
    """Of a program that changes what its children take for their main."""
    text = (
        HEAD
        + """
NAME = os.path.basename(__file__)

def look():
    main = sys.modules["__main__"]
    return ran_here(), main.NAME, main is sys.modules["__mp_main__"], look in vars(main).values()

if __name__ == "__main__":
    until_it_runs_no_more()
    print(*call(look))
    __file__ = os.path.join(os.path.dirname(__file__), "other.py")
    print(*call(look))
"""
    )
    write(tmp_path, text, "other.py")
    check(run_text(tmp_path, text), "False program.py True True", "True other.py True True")


def test_a_preload_list_without_main_lets_each_child_run_it(tmp_path: Path) -> None:
    """As the standard library's, whose list has main in it unless it is set."""
    text = (
        HEAD
        + """
if __name__ == "__main__":
    procession.set_forkserver_preload(sys.argv[1:])
    if "__main__" in sys.argv:
        until_it_runs_no_more()
    print([call(ran_here) for _ in range(6)])
"""
    )
    path = write(tmp_path, text)
    check(run(path, "json"), str([True] * 6))
    check(run(path, "__main__", "json"), str([False] * 6))


@pytest.mark.parametrize("name", ["numpy"])
def test_a_library_whose_threads_end_before_a_fork_is_no_hindrance(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip(name)
    finished = run_text(
        tmp_path,
        HEAD
        + """
import numpy

def draw():
    ones = numpy.ones((200, 200))
    return float((ones @ ones)[0, 0]), float(numpy.random.random())

if __name__ == "__main__":
    until_it_runs_no_more()
    answers = [call(draw) for _ in range(3)]
    print({answer[0] for answer in answers}, len({answer[1] for answer in answers}))
""",
    )
    check(finished, "{200.0} 3")


# --- it leaves something ------------------------------------------------------------------------

LEAVES = {
    "a thread": (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    ),
    "a child process": "import subprocess; LEFT = subprocess.Popen(['true'])",
    "open descriptors": "LEFT = open('/dev/zero')",
    "a generator": "import random; LEFT = random.Random()",
}


@pytest.mark.parametrize("what", LEAVES)
def test_a_main_that_leaves_something_runs_in_each_child(what: str, tmp_path: Path) -> None:
    text = (
        HEAD
        + f"if __name__ != '__main__':\n    {LEAVES[what]}\n"
        + """
if __name__ == "__main__":
    print(until_refused(sys.argv[1]).strip())
    print([call(ran_here) for _ in range(4)])
"""
    )
    refusal = str(tmp_path / "refusal")
    finished = run(write(tmp_path, text), refusal, env={"PROCESSION_DEBUG": refusal})
    assert finished.err == ""
    assert f" {what}" in finished.lines[0]
    assert finished.lines[1] == str([True] * 4)


DIES = """
if in_heir():
    with open("tried", "w"):
        pass
    {}

if __name__ == "__main__":
    from procession._launch import heirs
    heirs.LIMIT = float(sys.argv[1])
    until_refused("tried")
    print([call(ran_here) for _ in range(4)], flush=True)
    sys.stdin.readline()
    print(call(ran_here))
"""


ENDS = {
    "raises": "raise ValueError",
    "exits": "sys.exit(5)",
    "starts a process": "start(print)",
    "makes a named segment": "import procession.shared_memory as s; s.SharedMemory('x', True, 9)",
    "ends at once": "os._exit(0)",
    "crashes": "os.kill(os.getpid(), 11)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_main_that_does_not_come_to_its_end_there_is_nothing_to_its_program(
    how: str, tmp_path: Path
) -> None:
    check_nothing_happens(how, 30.0, tmp_path)


@pytest.mark.slow
def test_a_main_that_hangs_there_is_nothing_to_its_program(tmp_path: Path) -> None:
    check_nothing_happens("hangs", 2.0, tmp_path)


def check_nothing_happens(how: str, limit: float, folder: Path) -> None:
    path = write(folder, HEAD + DIES.format(ENDS.get(how, "time.sleep(300)")))
    with running(path, str(limit), stdin=-1, cwd=folder) as program:
        assert program.line().strip() == str([True] * 4)
        wait_until(lambda: not program.named("pn-heir"), program.picture)
        assert len(program.named("pn-zygote")) == 1
        program.tell("go on")
        check(program.finish(), str([True] * 4), "True")
        assert not list(Path("/dev/shm").glob("x*"))


# --- somebody is killed -------------------------------------------------------------------------

SUCCESSION = """
def wait(connection):
    connection.send("up")
    return connection.recv()

if in_heir():
    while not os.path.exists("go on"):
        time.sleep(0.01)

if __name__ == "__main__":
    pairs = [procession.Pipe() for _ in range(4)]
    children = [start(wait, theirs) for _, theirs in pairs]
    for ours, _ in pairs:
        ours.recv()
    print("started", *(child.pid for child in children), flush=True)
    while (word := sys.stdin.readline().strip()) != "end":
        if word == "hand over":
            until_it_runs_no_more()
            print("handed over", flush=True)
        elif word == "start":
            try:
                print("started", call(ran_here), flush=True)
            except procession.KeeperLost:
                print("started", "lost", flush=True)
    for ours, _ in pairs:
        try:
            ours.send(1)
        except OSError:
            pass
    for child in children:
        child.join(30)
    print([child.exitcode for child in children])
"""


def heir_of(program: Program) -> psutil.Process:
    wait_until(lambda: program.named("pn-heir"), program.picture)
    (heir,) = program.named("pn-heir")
    return heir


def ask(program: Program, word: str) -> str:
    program.tell(word)
    return program.wait_for("started" if word == "start" else "handed over")


@pytest.mark.parametrize("who", ["pn-heir", "pn-zygote", "its successor"])
def test_a_killed_heir_or_zygote_loses_nothing(who: str, tmp_path: Path) -> None:
    with running(write(tmp_path, HEAD + SUCCESSION), stdin=-1, cwd=tmp_path) as program:
        program.wait_for("started")
        heir = heir_of(program)
        if who == "its successor":
            (tmp_path / "go on").touch()
            ask(program, "hand over")
            assert [p.pid for p in program.named("pn-zygote")] == [heir.pid]
            heir.kill()
        else:
            program.named(who)[0].kill()
        wait_until(lambda: state_of(heir) == "zombie", program.picture)
        for _ in range(4):  # the successor's spares have main already
            assert ask(program, "start") == "True" or who == "its successor"
        assert len(program.named("pn-zygote")) == 1
        program.tell("end")
        finished = program.finish()
        assert finished.lines[-1] == "[0, 0, 0, 0]"
        assert finished.err == ""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("who", ["guard", "main"])
def test_nothing_is_left_uncontained(who: str, moment: str, tmp_path: Path) -> None:
    with running(write(tmp_path, HEAD + SUCCESSION), stdin=-1, cwd=tmp_path) as program:
        pids = [int(pid) for pid in program.wait_for("started").split()]
        heir_of(program)
        if moment == "after":  # those children are the guard's by now
            (tmp_path / "go on").touch()
            ask(program, "hand over")
        if who == "main":
            program.process.send_signal(signal.SIGKILL)
            program.process.wait()
            program.leaves_nothing()
            return
        program.named("pn-guard")[0].kill()
        for pid in pids:
            wait_until(lambda pid=pid: not psutil.pid_exists(pid), program.picture)
        assert ask(program, "start") == "lost"
        assert ask(program, "start") == "True"
        program.tell("end")
        assert program.finish().lines[-1] == "[255, 255, 255, 255]"


def test_a_program_that_ends_meanwhile_leaves_no_heir(tmp_path: Path) -> None:
    with running(write(tmp_path, HEAD + SUCCESSION), stdin=-1, cwd=tmp_path) as program:
        program.wait_for("started")
        heir = heir_of(program)
        program.tell("end")
        assert program.finish().code == 0
        wait_until(lambda: state_of(heir) == "zombie", program.picture)
        program.leaves_nothing()
    assert os.listdir(tmp_path) == ["program.py"]
