"""A child never has more privilege than main has at its start, and never less: a main that has
changed gets a new keeper, whose children are as it is (G12).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.programs import run_text

PROGRAM = """
import ctypes, json, os, struct, sys
import procession
from procession import _native
from procession._launch import keeper_client

libc = ctypes.CDLL(None, use_errno=True)
FIELDS = ("Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp "
          "Seccomp_filters Umask").split()
NAMESPACES = "mnt net user ipc uts cgroup pid time".split()

def look():
    with open("/proc/thread-self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    with open("/proc/thread-self/cgroup") as file:
        groups = file.read()
    root = os.stat("/")
    return [
        {field: status.get(field, "").split() for field in FIELDS},
        [os.readlink(f"/proc/thread-self/ns/{name}") for name in NAMESPACES],
        groups, os.getsid(0), [root.st_dev, root.st_ino], libc.prctl(27, 0, 0, 0, 0),
    ]

def call(function, *arguments):
    if getattr(libc, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), function)

def unshare(flag):
    return lambda: call("unshare", flag)

def more_inheritable():
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    call("capget", header, data)
    words = list(struct.unpack("6I", data.raw))
    words[2] |= 1 << 5  # CAP_KILL
    call("capset", header, struct.pack("6I", *words))

def filter_all_allowed():
    allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(allow))
    call("prctl", 22, 2, program, 0, 0)

def other_cgroup():
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\\n").split(":", 2) for line in file]
    for _, names, path in lines:
        if names in ("", "freezer", "pids", "devices"):
            folder = f"/sys/fs/cgroup/{names}{path.rstrip('/')}/procession-test-{os.getpid()}"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            made.append(folder)
            with open(f"{folder}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            return
    raise OSError("no cgroup of ours can be made")

made = []
UNSEEN = ("pid", "time")  # they are for the next child: no keeper in there could know it
CHANGES = {
    "session": os.setsid,
    "cgroup": other_cgroup,
    "groups": lambda: os.setgroups([4321]),
    "net": unshare(0x40000000),
    "ipc": unshare(0x08000000),
    "uts": unshare(0x04000000),
    "mnt": unshare(0x00020000),
    "cgroup namespace": unshare(0x02000000),
    "bounding set": lambda: call("prctl", 24, 25, 0, 0, 0),
    "inheritable": more_inheritable,
    "ambient": lambda: call("prctl", 47, 2, 5, 0, 0),
    "securebits": lambda: call("prctl", 28, 1 << 6, 0, 0, 0),  # no raised ambient capabilities
    "seccomp": filter_all_allowed,
    "one more filter": filter_all_allowed,
    "group": lambda: os.setresgid(65534, 65534, 65534),
    "user": lambda: os.setresuid(65534, -1, -1),
    "no_new_privs": lambda: call("prctl", 38, 1, 0, 0, 0),
    "pid": unshare(0x20000000),
    "time": unshare(0x80),
}

def child(conn):
    conn.send(look())

def start_one():
    ours, theirs = procession.Pipe()
    process = procession.get_context("forkserver").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    there = ours.recv()
    process.join()
    return there

def differences(here, there):
    # a program that is executed may lose capabilities, and gain none
    for field in ("CapPrm", "CapEff"):
        mine, theirs = int(here[0].pop(field)[0], 16), int(there[0].pop(field)[0], 16)
        if theirs & ~mine:
            yield field, mine, theirs
    for mine, theirs in zip(here, there, strict=True):
        if mine != theirs:
            yield mine, theirs

def with_children(change):
    old = keeper_client.existing()
    change()
    there, here = start_one(), look()
    new = keeper_client.existing()
    start_one()
    assert new is not old, "the old keeper goes on"
    assert keeper_client.existing() is new, "a keeper for each start"
    assert not (found := list(differences(here, there))), found

def alone(change):
    before = _native.look()[0]
    assert before == _native.look()[0] == _native.credentials(), "it is never the same"
    change()
    assert before != _native.look()[0] == _native.credentials(), "not noticed"

def main(starts):
    said = {}
    if starts:
        start_one()
    for name, change in CHANGES.items():
        try:
            (with_children if starts and name not in UNSEEN else alone)(change)
        except OSError as error:
            said[name] = f"refused: {error}"
        except AssertionError as error:
            said[name] = str(error)
        else:
            said[name] = "noticed"
    return said

if __name__ == "__main__":
    reading, writing = os.pipe()
    copy = os.fork()  # no leader of a process group, so that it may have a session of its own
    if copy == 0:
        os.close(reading)
        said = main(sys.argv[1] == "start")
        os.write(writing, json.dumps([said, made]).encode())
        os.close(writing)
        sys.exit()
    os.close(writing)
    with open(reading) as file:
        said, made = json.load(file)
    os.waitpid(copy, 0)
    for folder in made:
        os.rmdir(folder)
    print(json.dumps(said))
"""

WITHOUT = """
import ctypes, json, os, platform, sys, threading
from procession import _native

libc = ctypes.CDLL(None, use_errno=True)
NEWNET, NEWUTS, NEWUSER = 0x40000000, 0x04000000, 0x10000000
SETRESUID = {"x86_64": 117, "aarch64": 147}[platform.machine()]

def unshare(flags):
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")

def look():
    seen = _native.look()[0]
    assert seen == _native.look()[0] == _native.credentials(), "it is never the same"
    return seen

def a_user_namespace():
    os.setresuid(65534, 65534, 65534)
    seen = look()
    unshare(NEWUSER | NEWNET)
    first = look()
    unshare(NEWUTS)
    return len({seen, first, look()}) == 3

def rights_taken_back():
    os.setresuid(-1, 65534, -1)
    seen = look()
    os.setresuid(-1, 0, -1)
    unshare(NEWNET)
    os.setresuid(-1, 65534, -1)
    return seen != look()

def another_thread():
    seen = []
    def work(flags):
        if flags:
            unshare(flags)
        libc.syscall(SETRESUID, 65534, 65534, 65534)  # this thread alone
        seen.append(look())
    for flags in (0, 0, NEWNET):
        thread = threading.Thread(target=work, args=(flags,))
        thread.start()
        thread.join()
    return seen[0] == seen[1] != seen[2]

def main(what):
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            said = "noticed" if globals()[what]() else "not noticed"
        except Exception as error:
            said = f"refused: {error}" if isinstance(error, OSError) else repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        return file.read()

print(json.dumps({what: main(what) for what in sys.argv[1:]}))
"""


def said(folder: Path, program: str, *ways: str) -> dict[str, str]:
    if os.geteuid() != 0:
        pytest.skip("needs root to change what others may not")
    return {
        name: words
        for name, words in run_text(folder, program, *ways).said.items()
        if not words.startswith("refused: ")  # by the container that we are in
    }


def test_each_change_of_rights_is_noticed(tmp_path: Path) -> None:
    answers = said(tmp_path, PROGRAM, "look")
    assert "no_new_privs" in answers  # which nobody is refused
    assert set(answers.values()) == {"noticed"}, answers


@pytest.mark.slow  # a keeper for each of twenty changes
def test_children_have_the_rights_that_main_has_at_their_start(tmp_path: Path) -> None:
    answers = said(tmp_path, PROGRAM, "start")
    assert "no_new_privs" in answers
    assert set(answers.values()) == {"noticed"}, answers


def test_what_nobody_may_change_is_looked_at_again_once_somebody_may(tmp_path: Path) -> None:
    """Namespaces of a thread that cannot change them are not asked for each time."""
    answers = said(tmp_path, WITHOUT, "a_user_namespace", "rights_taken_back", "another_thread")
    assert set(answers.values()) <= {"noticed"}, answers
