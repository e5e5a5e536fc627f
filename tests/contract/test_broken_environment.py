"""A start in a broken environment: a clear error at the call, nothing half-made, and on it goes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import procession
from tests.contract import targets
from tests.contract.programs import (
    each_kept_method,
    each_method,
    run_command,
    run_text,
    write,
)

COMMON = """
    import json, os, resource, sys
    import procession
    from pathlib import Path

    def give(value):
        return value

    def facts():
        me = os.getpid()
        children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), len(children)

    def attempt(*args):
        process = context.Process(target=give, args=args or (7,))
        try:
            process.start()
        except Exception as error:
            return [type(error).__name__, getattr(error, "errno", None), str(error)]
        return process

    def works():
        process = attempt()
        answer = process if isinstance(process, list) else process.result(30)
        if answer == 7:
            process.close()
        return answer

    if __name__ == "__main__":
        method = sys.argv[1]
        context = procession.get_context(method)
"""


def text(body: str) -> str:
    """A program of the common part and what follows it in main."""
    return COMMON + body


OTHER_USER = ("setpriv", "--ruid", "54321", "--bounding-set", "-sys_resource,-sys_admin")
"""Runs a command as another real uid and without what sets the limit of processes aside."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and capabilities need root")


@each_kept_method
@pytest.mark.parametrize("when", ["first", "later"])
def test_no_free_descriptor(method: str, when: str, tmp_path: Path) -> None:
    """One after the other: none free, one, two, … until a start has enough of them."""
    body = """
        said = []
        if sys.argv[2] == "later":
            assert works() == 7
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for free in range(30):
            before = facts()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                pass
            for _ in range(free):
                os.close(held.pop())
            process = attempt()
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if not isinstance(process, list):
                said.append(process.result(30))
                break
            # the program's table of processes takes one, is made once and stays
            said.append([process, before, facts()])
        print(json.dumps([said, works()]))
    """
    *refused, started = (said := run_text(tmp_path, text(body), method, when).said)[0]
    assert said[1] == started == 7
    assert refused
    for (kind, number, words), before, after in refused:
        assert (kind, number) == ("StartError", errno.EMFILE), words
        assert "Too many open files" in words
        assert after[1] == before[1], "a keeper was left half-made"
        assert after[0] <= before[0] + 1
    assert refused[-1][2][0] <= refused[0][1][0] + 1, "every failure leaves a descriptor"


STOPPED = """
import errno, json, os, resource, subprocess, sys, time
import procession

def child(queue):
    below = [subprocess.Popen(["sleep", "300"]).pid for _ in range(6)]
    queue.put([os.getpid(), *below])
    time.sleep(300)

def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    pids = queue.get(timeout=60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = []
    before = os.listdir("/proc/self/fd")
    for free in range(int(sys.argv[2]), 20):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        for _ in range(free):
            os.close(held.pop())
        try:
            process.stop(0.5)
        except OSError as error:
            assert error.errno == errno.EMFILE, error
            refused.append(free)
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if free not in refused:
            break
        assert all(map(lives, pids)), "refused, and a part of it was ended all the same"
    left = [pid for pid in pids if lives(pid)]
    more = set(os.listdir("/proc/self/fd")) - set(before)
    print(json.dumps([refused, left, sorted(more), process.exitcode is not None]))
"""


@each_method
def test_stop_with_hardly_a_free_descriptor_is_refused_or_takes_the_whole_tree(
    method: str, tmp_path: Path
) -> None:
    refused, left, more, ended = run_text(tmp_path, STOPPED, method, "0").said
    assert 0 < len(refused) <= 3
    assert (left, more, ended) == ([], [], True)


def test_stop_with_one_descriptor_more_is_not_refused(tmp_path: Path) -> None:
    """It is the one by which the process itself is held: none is left to look at /proc first."""
    assert run_text(tmp_path, STOPPED, "forkserver", "4").said == [[], [], [], True]


@each_kept_method
def test_the_working_directory_is_gone(method: str, tmp_path: Path) -> None:
    body = """
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        said = attempt()
        os.chdir(sys.path[0])
        print(json.dumps([said, works()]))
    """
    (kind, number, words), after = run_text(tmp_path, text(body), method, cwd=tmp_path).said
    assert (kind, number) == ("StartError", errno.ENOENT)
    assert "working directory is gone" in words
    assert after == 7


@each_method
@pytest.mark.parametrize("what", ["gone", "", "not executable"])
def test_the_interpreter_is_no_good(method: str, what: str, tmp_path: Path) -> None:
    """Before the first start; for `spawn` after it, too, since it executes one for each child."""
    plain = tmp_path / "plain"
    plain.write_text("no program")
    broken = {"gone": str(tmp_path / "gone"), "": "", "not executable": str(plain)}[what]
    body = """
        good = sys.executable
        said = []
        for _ in range(2):
            context.set_executable(sys.argv[2])
            before = facts()
            answer = attempt()
            if isinstance(answer, list):
                said.append([answer, before[1] == facts()[1]])
            else:
                assert method != "spawn" and answer.result(30) == 7
            context.set_executable(good)
            assert works() == 7
        print(json.dumps(said))
    """
    said = run_text(tmp_path, text(body), method, broken).said
    assert len(said) == (2 if method == "spawn" else 1)
    for (kind, _, words), nothing_left in said:
        assert kind == "StartError"
        assert (broken or "sys.executable is not set") in words
        assert nothing_left


@needs_root
@pytest.mark.parametrize(
    ("method", "when"),
    [("forkserver", "first"), ("spawn", "first"), ("fork", "first"), ("fork", "later")],
)
def test_no_more_processes(method: str, when: str, tmp_path: Path) -> None:
    """As another real uid and without the capability that sets the limit aside."""
    body = """
        if sys.argv[2] == "later":
            assert works() == 7
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        before = facts()
        said = attempt()
        left = facts()[1] - before[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        print(json.dumps([said, left, works()]))
    """
    if subprocess.run([*OTHER_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("setpriv is refused here")
    path = write(tmp_path, text(body))
    (kind, number, words), left, after = run_command(
        [*OTHER_USER, sys.executable, str(path), method, when]
    ).said
    assert (kind, number) == ("StartError", errno.EAGAIN), words
    assert left == 0
    assert after == 7


@needs_root
@each_kept_method
def test_the_keeper_may_have_no_more_processes(method: str, tmp_path: Path) -> None:
    """Its limit is reached by the children themselves; once they have ended there is room again."""
    body = """
        import time
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (12, hard))
        started, said = [], None
        while said is None and len(started) < 30:
            process = context.Process(target=time.sleep, args=(600,))
            try:
                process.start()
                started.append(process)
            except Exception as error:
                said = [type(error).__name__, getattr(error, "errno", None), str(error)]
        alive = all(process.is_alive() for process in started)
        for process in started:
            process.kill()
        for process in started:
            process.join(30)
        print(json.dumps([said, len(started), alive, works()]))
    """
    path = write(tmp_path, text(body))
    if subprocess.run([*OTHER_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("setpriv is refused here")
    (kind, number, words), started, alive, after = run_command(
        [*OTHER_USER, sys.executable, str(path), method]
    ).said
    assert (kind, number) == ("StartError", errno.EAGAIN), words
    assert "limit of processes" in words
    assert started > 3
    assert alive, "a refused start is nothing to the others"
    assert after == 7


@needs_root
@each_method
@pytest.mark.parametrize("how", ["missing", "full"])
def test_no_room_for_shared_memory(method: str, how: str, tmp_path: Path) -> None:
    """Starts, results and queues need no `/dev/shm` at all."""
    body = """
        queue = context.Queue()
        queue.put("x" * 1_000_000)
        answers = [works(), len(queue.get(timeout=30))]
        big = attempt("y" * 1_000_000).result(30)
        print(json.dumps([*answers, len(big)]))
    """
    script = {
        "missing": "mount --bind /dev/null dev/null && mount --bind /dev/urandom dev/urandom"
        " && mount --rbind dev /dev",
        "full": "mount -t tmpfs -o size=4k tmpfs /dev/shm"
        " && head -c 4096 /dev/zero > /dev/shm/full",
    }[how]
    (tmp_path / "dev").mkdir()
    for name in ("null", "urandom"):
        (tmp_path / "dev" / name).touch()
    path = write(tmp_path, text(body))
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare is refused here")
    command = ["unshare", "-m", "sh", "-c", f'{script} && exec "$0" "$@"', sys.executable]
    said = run_command([*command, str(path), method], cwd=tmp_path).said
    assert said == [7, 1_000_000, 1_000_000]


@each_kept_method
def test_no_memory_for_the_arguments(method: str, tmp_path: Path) -> None:
    body = """
        assert works() == 7
        big = b"x" * (96 << 20)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        before = facts()
        resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20), hard))
        said = attempt(big)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        print(json.dumps([said, before == facts(), works()]))
    """
    (kind, _, _), nothing_left, after = run_text(tmp_path, text(body), method).said
    assert kind in ("MemoryError", "StartError")
    assert nothing_left
    assert after == 7


class Holder:
    """What has something in it that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@each_kept_method
def test_the_way_to_what_cannot_be_pickled_is_told(method: str) -> None:
    context: Any = procession.get_context(method)
    wrong = context.Process(target=targets.give, args=(1, {"x": Holder()}))
    with pytest.raises(TypeError, match=r"args\[1\]\['x'\]\.lock") as caught:
        wrong.start()
    assert "_thread.lock" in str(caught.value)
    assert wrong.pid is None
    assert wrong not in procession.active_children()
    good = context.Process(target=targets.give, args=(1,))
    good.start()
    assert good.result(30) == 1


@each_method
def test_a_target_that_cannot_be_called_is_refused_at_once(method: str) -> None:
    with pytest.raises(TypeError, match="target must be callable or None, got 'int': 5"):
        procession.get_context(method).Process(target=5)
