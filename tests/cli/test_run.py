"""`procession run`: an unchanged program runs as it does without, and its processes are held."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from procession._cli.program import MainProcess
from tests.cli.screen import Terminal
from tests.contract.programs import (
    METHODS,
    Finished,
    Program,
    each_method,
    name_of,
    run_command,
    wait_until,
    write,
)

PYTHON = [sys.executable]
RUN = [sys.executable, "-m", "procession", "run"]
QUIET = [*RUN, "-q"]

SEEN = """
import json, os, sys
known = lambda spec: spec and [spec.name, spec.origin]
environ = {key: value for key, value in os.environ.items() if key.startswith(("PYTHON", "PROC"))}
for name in ("PROCESSION_TEST_MARK", "PROCESSION_TEST_SESSION"):
    environ.pop(name, None)
print(json.dumps([sys.argv, sys.path, __name__, globals().get("__file__"), __package__,
    known(__spec__), list(sys.flags), sys.warnoptions, sys._xoptions, environ, sys.orig_argv[-3:],
    sys.modules.get("__main__").__dict__ is globals()]))
"""


def same_with_and_without(*arguments: str, flags: tuple[str, ...] = (), **options: Any) -> Finished:
    """Run a program with and without us: it may not tell the difference."""
    folder = options.pop("folder", None)
    plain = run_command([*PYTHON, *flags, *arguments], cwd=folder, **options)
    ours = run_command([*PYTHON, *flags, *QUIET[1:], *arguments], cwd=folder, **options)
    assert ours == plain
    return ours


# --- the program is not disturbed -----------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["script", "relative", "module", "package", "code", "folder", "zip"]
)
def test_a_program_sees_what_it_sees_without(kind: str, tmp_path: Path) -> None:
    write(tmp_path, SEEN, "seen.py")
    (tmp_path / "bag").mkdir()
    write(tmp_path / "bag", SEEN, "__main__.py")
    with zipfile.ZipFile(tmp_path / "seen.pyz", "w") as archive:
        archive.writestr("__main__.py", SEEN)
    arguments = {
        "script": [str(tmp_path / "seen.py")],
        "relative": ["seen.py"],
        "module": ["-m", "seen"],
        "package": ["-m", "bag"],
        "code": ["-c", SEEN],
        "folder": ["bag"],
        "zip": ["seen.pyz"],
    }[kind]
    done = same_with_and_without(*arguments, "-q", "--", "-m", "ä b", folder=tmp_path)
    assert done.code == 0, done.err
    assert done.said[0][1:] == ["-q", "--", "-m", "ä b"]


def test_a_program_from_standard_input_sees_what_it_sees_without(tmp_path: Path) -> None:
    seen = []
    for command in (PYTHON, QUIET):
        program = Program([*command, "-", "a"], stdin=subprocess.PIPE, cwd=tmp_path)
        try:
            program.tell(SEEN)
            seen.append(program.finish().said)
        finally:
            program.close()
    assert seen[0] == seen[1]
    assert seen[0][0] == ["-", "a"]


@pytest.mark.parametrize(
    "environ",
    [{"PYTHONPATH": "x:y"}, {"PYTHONPATH": ""}, {"PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "7"}],
    ids=lambda environ: " ".join(f"{key}={value}" for key, value in environ.items()),
)
def test_variables_of_the_interpreter_are_kept(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, SEEN, "seen.py")
    said = same_with_and_without("seen.py", folder=tmp_path, env=environ).said
    assert said[9] == environ


def test_options_of_the_interpreter_are_kept(tmp_path: Path) -> None:
    write(tmp_path, SEEN, "seen.py")
    flags = ("-X", "utf8", "-W", "error", "-O", "-B", "-u", "-P")
    said = same_with_and_without("seen.py", folder=tmp_path, flags=flags).said
    assert said[8]["utf8"] is True
    assert said[7] == ["error"]


def test_the_command_to_paste_has_the_interpreters_options_too() -> None:
    flags = ["-X", "utf8", "-W", "error", "-B", "-u"]
    done = run_command([*PYTHON, "-Xutf8", "-W", "error", "-Bu", *RUN[1:], "-c", "print(1)"])
    again = [Path(sys.executable).name, *flags, "-m", "procession", "run", "-o", "c.plr"]
    assert shlex.split(done.err.splitlines()[-1]) == [*again, "-c", "print(1)"]


def test_what_started_the_command_is_not_put_before_the_program(tmp_path: Path) -> None:
    """A debugger, a profiler: their own arguments are not the interpreter's."""
    write(tmp_path, "print('program')", "program.py")
    text = """
    import runpy, sys
    print("wrapped", flush=True)
    del sys.argv[:2]
    runpy.run_module("procession", run_name="__main__", alter_sys=True)
    """
    write(tmp_path, text, "wrapping.py")
    done = run_command([*PYTHON, "wrapping.py", *QUIET[1:], "program.py"], cwd=tmp_path)
    assert (done.lines, done.err) == (["wrapped", "program"], "")


@pytest.mark.parametrize("option", ["-I", "-BsE"])
def test_an_option_that_shuts_us_out_is_refused(option: str) -> None:
    done = run_command([*PYTHON, option, "-m", "procession", "run", "-c", "print(1)"])
    assert (done.code, done.out) == (125, "")
    assert f"-{option[-1]}" in done.err


def test_the_users_own_site_customisation_runs(tmp_path: Path) -> None:
    write(tmp_path, "import sys; sys.customised = __file__", "sitecustomize.py")
    text = "import sys, sitecustomize; print(sys.customised, sitecustomize.__file__)"
    done = same_with_and_without("-c", text, env={"PYTHONPATH": str(tmp_path)})
    assert done.out.split() == [str(tmp_path / "sitecustomize.py")] * 2


@pytest.mark.parametrize(
    "text",
    [
        "def f(): raise ValueError('bad header')\nf()",
        "raise SystemExit('words on stderr')",
        "import no_such_module",
        "this is no Python",
    ],
)
def test_a_traceback_is_the_programs_own(text: str, tmp_path: Path) -> None:
    write(tmp_path, text)
    done = same_with_and_without("program.py", folder=tmp_path)
    assert done.code == 1
    assert done.err


def test_a_script_that_is_not_there_is_reported_as_python_does(tmp_path: Path) -> None:
    done = same_with_and_without("no_such_script.py", folder=tmp_path)
    assert done.code == 2


def test_stdout_has_the_programs_bytes_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import multiprocessing, os
        def f(): os.write(1, bytes(range(256)))
        if __name__ == "__main__":
            process = multiprocessing.Process(target=f); process.start(); process.join()
            os.write(1, b"end")
        """,
    )
    done = subprocess.run([*RUN, "program.py"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.stdout == bytes(range(256)) + b"end"
    assert b"1 child" in done.stderr


def test_the_picture_is_drawn_unless_q_is_given() -> None:
    assert "no children" in run_command([*RUN, "-c", "print(1)"]).err
    assert run_command([*QUIET, "-c", "print(1)"]).err == ""
    assert run_command([*RUN, "--quiet", "-c", "print(1)"]).err == ""


def test_a_console_script_runs_and_is_one(tmp_path: Path) -> None:
    script = shutil.which("pytest", path=os.path.dirname(sys.executable))
    command = shutil.which("procession", path=os.path.dirname(sys.executable))
    if not (script and command):
        pytest.skip("console scripts are not beside this interpreter")
    done = run_command([command, "run", script, "--version"], cwd=tmp_path)
    assert done.code == 0
    assert "pytest" in done.out
    assert "no children" in done.err


# --- exit codes and signals -----------------------------------------------------------------------

ENDS = {
    "pass": 0,
    "raise ValueError": 1,
    "raise SystemExit(3)": 3,
    "import os; os._exit(7)": 7,
    "raise KeyboardInterrupt": 130,
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": 143,
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": 137,
    "import ctypes; ctypes.string_at(0)": 139,
}


@pytest.mark.parametrize("text", ENDS)
def test_the_exit_code_is_the_programs(text: str) -> None:
    done = run_command([*RUN, "-c", text])
    assert done.code == ENDS[text]
    assert any(row.startswith("-c ") for row in done.err.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["fly"], ["run", "-m"], ["run", "-c"], ["run", "--no-such-option", "x.py"]],
)
def test_what_cannot_be_understood_ends_with_125(arguments: list[str]) -> None:
    done = run_command([*PYTHON, "-m", "procession", *arguments])
    assert (done.code, done.out) == (125, "")
    assert "usage" in done.err


LISTENS = r"""
import os, signal, sys, time
def heard(number, _):
    os.write(1, f"heard {signal.Signals(number).name}\n".encode())
    sys.exit(5)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), heard)
os.write(1, b"ready\n")
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_passed_on_to_the_program(name: str) -> None:
    program = Program([*RUN, "-c", LISTENS, name])
    try:
        program.wait_for("ready")
        os.kill(program.pid, getattr(signal, name))
        assert program.line() == f"heard {name}"
        assert program.finish().code == 5
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


COUNTS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda n, _: os.write(1, f"{signal.Signals(n).name}\\n".encode()))
os.write(1, b"ready\\n")
sys.stdin.readline()
"""


def test_a_signal_to_the_whole_group_reaches_the_program_once() -> None:
    """And one to the command alone is passed on, whatever went before it."""
    program = Program([*QUIET, "-c", COUNTS], stdin=-1, start_new_session=True)
    try:
        program.wait_for("ready")
        wait_until(lambda: program.named("pn-witness"))
        # passed on in the order of their numbers: a SIGINT too many would come before a SIGTERM
        for send, name in (
            (os.killpg, "SIGINT"),
            (os.kill, "SIGTERM"),
            (os.kill, "SIGINT"),
            (os.kill, "SIGTERM"),
            (os.killpg, "SIGINT"),
            (os.kill, "SIGTERM"),
            (os.killpg, "SIGTERM"),
        ):
            send(program.pid, getattr(signal, name))
            assert program.line() == name
        program.tell("end")
        assert program.finish().lines[-1] == "SIGTERM"
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


def test_group_signals_back_to_back_are_one_for_one_and_hide_none_that_follows() -> None:
    """Two of a kind may become one in the kernel; one to the command alone, after them, may not."""
    program = Program([*QUIET, "-c", COUNTS], stdin=-1, start_new_session=True)
    try:
        program.wait_for("ready")
        wait_until(lambda: program.named("pn-witness"))
        for _ in range(25):
            os.killpg(program.pid, signal.SIGINT)
            os.killpg(program.pid, signal.SIGTERM)
            assert {program.line(), program.line()} == {"SIGINT", "SIGTERM"}
            os.killpg(program.pid, signal.SIGINT)
            os.killpg(program.pid, signal.SIGINT)
            assert program.line() == "SIGINT"
            wait_until(lambda: waits_for_signals(program.pid))
            os.kill(program.pid, signal.SIGTERM)
            if (line := program.line()) == "SIGINT":  # the second of the two
                line = program.line()
            assert line == "SIGTERM"
            wait_until(lambda: waits_for_signals(program.pid))
            os.kill(program.pid, signal.SIGINT)
            assert program.line() == "SIGINT"
            wait_until(lambda: waits_for_signals(program.pid))
        program.tell("end")
        assert program.finish().code == 0
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


def waits_for_signals(pid: int) -> bool:
    """Whether a process has dealt with all signals that it got, and sleeps until the next."""
    status = Path(f"/proc/{pid}/status").read_text()
    nothing_pending = re.search(r"^ShdPnd:\t0+$", status, re.MULTILINE) is not None
    return nothing_pending and "sigtimedwait" in Path(f"/proc/{pid}/wchan").read_text()


def test_a_signal_that_follows_a_ctrl_c_is_passed_on() -> None:
    with Terminal([*QUIET, "-c", COUNTS]) as terminal:
        terminal.wait_for("ready")
        pid = terminal.child.pid
        wait_until(lambda: "pn-witness" in map(name_of, psutil.Process(pid).children()))
        terminal.child.sendintr()
        terminal.wait_for("^CSIGINT\r\n")
        wait_until(lambda: waits_for_signals(pid))
        os.kill(pid, signal.SIGINT)
        terminal.wait_for("SIGINT\r\nSIGINT\r\n")
        terminal.child.sendline("end")
        assert terminal.finish() == 0


class SlowToAnswer:
    """A witness, where one more signal goes to the group while its answer is on its way."""

    def __init__(self) -> None:
        self.pending = True
        self._more = 2

    def saw(self, number: int) -> bool:
        answer, self.pending = self.pending, False
        if self._more:
            self._more -= 1
            self.pending = True
            signal.pthread_kill(threading.get_ident(), number)
        return answer


def test_a_group_signal_during_the_witness_answer_is_no_answer_to_the_next() -> None:
    main: Any = object.__new__(MainProcess)
    main._signals, main._pidfd = {signal.SIGUSR1}, -1  # a signal passed on is an error here
    main._witness = witness = SlowToAnswer()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, main._signals)
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        main._hear(30.0)
        assert signal.sigtimedwait(main._signals, 0) is None
        assert not witness.pending, "the next one for the program alone would be taken for this"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_witness_that_is_stopped_keeps_no_signal_from_the_program() -> None:
    program = Program([*QUIET, "-c", COUNTS], stdin=-1, start_new_session=True)
    try:
        program.wait_for("ready")
        (witness,) = wait_until(lambda: program.named("pn-witness"))
        witness.suspend()
        for name in ("SIGTERM", "SIGINT", "SIGTERM"):
            os.kill(program.pid, getattr(signal, name))
            assert program.line() == name
        program.tell("end")
        program.finish()
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_program_that_a_signal_ends_says_so(name: str, code: int) -> None:
    program = Program([*RUN, "-c", LISTENS])
    try:
        program.wait_for("ready")
        os.kill(program.pid, getattr(signal, name))
        done = program.finish()
        assert done.code == code
        assert name in done.err
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


def test_a_signal_ignored_by_the_shell_is_ignored_by_the_program() -> None:
    text = "import signal; print(*(signal.getsignal(n) is signal.SIG_IGN for n in (1, 2, 15)))"
    plain, ours = [
        run_command(["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh", *command, "-c", text])
        for command in (PYTHON, QUIET)
    ]
    assert plain == ours
    assert ours.out.split() == ["True", "True", "False"]


def test_the_signal_mask_is_the_callers() -> None:
    text = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    assert same_with_and_without("-c", text).out == "[]\n"


# --- the whole tree is served ---------------------------------------------------------------------

SPELLINGS = {
    "import multiprocessing": "multiprocessing.Process",
    "from multiprocessing import Process": "Process",
    "import multiprocessing as mp": "mp.Process",
    "import multiprocessing.context as c": "c.Process",
    "from multiprocessing.context import ForkProcess": "ForkProcess",
    "from multiprocessing import get_context as g": "g('spawn').Process",
    "from multiprocessing import get_context as g ": "g('forkserver').Process",
    "import importlib; m = importlib.import_module('multiprocessing')": "m.Process",
    "import importlib.util; importlib.util.find_spec('multiprocessing.context'); "
    "import multiprocessing": "multiprocessing.Process",
    "import sys, multiprocessing.context; "
    "[sys.modules.pop(n) for n in list(sys.modules) if n.startswith('multiprocessing')]; "
    "import multiprocessing": "multiprocessing.Process",
    "import concurrent.futures.process as p": "p.mp.Process",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_multiprocessing_is_served_however_it_is_imported(spelling: str) -> None:
    text = f"""
def late():
    {spelling}
    process = {SPELLINGS[spelling]}(target=print, args=("in the child",))
    process.start()
    process.join()
    print(type(process._popen).__module__.partition(".")[0], process.exitcode)
late()
"""
    done = run_command([*RUN, "-c", text])
    assert done.lines == ["in the child", "procession 0"], done.err
    assert "1 child ·" in done.err


TREE = """
import multiprocessing, sys
def leaf():
    pass
def branch():
    process = multiprocessing.Process(target=leaf, name="leaf")
    process.start()
    process.join()
    print(type(process._popen).__module__.partition(".")[0], flush=True)
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    process = multiprocessing.Process(target=branch, name="branch")
    process.start()
    process.join()
"""


@each_method
def test_the_processes_of_processes_are_served(method: str, tmp_path: Path) -> None:
    write(tmp_path, TREE)
    done = run_command([*RUN, "program.py", method], cwd=tmp_path)
    assert done.lines == ["procession"], done.err
    assert "2 children" in done.err
    rows = done.err.splitlines()
    assert any(row.startswith("└ branch") for row in rows), done.err
    assert any(row.startswith("  └ leaf") for row in rows), done.err


BAD_CALLS = """
import multiprocessing, os, sys
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
def bad(n):
    if n == 3:
        os._exit(7)
    return n
def nested(n):
    with futures.ProcessPoolExecutor(1) as executor:
        return [told(executor.submit(bad, n).result) for n in range(5)]
def told(ask):
    try:
        return ask()
    except BrokenProcessPool:
        return "broken"
    except SystemExit as leaving:
        return f"exit {leaving.code}"
if __name__ == "__main__":
    with futures.ProcessPoolExecutor(2, multiprocessing.get_context(sys.argv[1])) as executor:
        asked = [executor.submit(bad, n) for n in range(5)]
        print([told(future.result) for future in asked])
        print(told(executor.submit(nested, 1).result), told(executor.submit(sys.exit, 4).result))
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print([result if ok else "died" for ok, result in map(
            lambda r: (r.wait(30), (r.successful(), r._value))[1],
            [pool.apply_async(bad, (n,)) for n in range(5)])])
"""


@each_method
def test_one_bad_call_of_an_unchanged_program_harms_one_call(method: str, tmp_path: Path) -> None:
    write(tmp_path, BAD_CALLS)
    done = run_command([*RUN, "program.py", method], cwd=tmp_path)
    assert done.lines == [
        "[0, 1, 2, 'broken', 4]",
        "[0, 1, 2, 'broken', 4] exit 4",
        "[0, 1, 2, 'died', 4]",
    ], done.err


POOLS = """
import concurrent.futures, multiprocessing, sys
def square(number):
    return number * number
def init(value):
    global total
    total = value
def main():
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        print(list(executor.map(square, range(4))))
    with context.Pool(2, init, (1,), maxtasksperchild=2) as pool:
        print(pool.map(square, range(6), chunksize=1))
    with context.Manager() as manager:
        shared = manager.dict(a=1)
        print(shared["a"])
    queue = context.Queue()
    process = context.Process(target=queue.put, args=("sent",))
    process.start()
    print(queue.get())
    process.join()
if __name__ == "__main__":
    main()
"""


@each_method
def test_executors_pools_managers_and_queues_work_and_are_drawn(
    method: str, tmp_path: Path
) -> None:
    write(tmp_path, POOLS)
    done = run_command([*RUN, "program.py", method], cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.lines == ["[0, 1, 4, 9]", "[0, 1, 4, 9, 16, 25]", "1", "sent"]
    assert "Manager" in done.err
    assert "nothing left behind" in done.err


def test_an_unchanged_program_keeps_its_own_default_start_method() -> None:
    text = "import multiprocessing as m; print(m.get_start_method(), m.get_all_start_methods())"
    same_with_and_without("-c", text)


def test_a_program_may_name_both_libraries(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import multiprocessing, procession
        if __name__ == "__main__":
            multiprocessing.set_start_method("spawn")
            print(procession.get_start_method())
            processes = [procession.Process(target=print), multiprocessing.Process(target=print)]
            for process in processes:
                process.start()
                process.join()
        """,
    )
    done = run_command([*RUN, "program.py"], cwd=tmp_path)
    assert done.lines[0] == "spawn", done.err
    assert "2 children" in done.err


def test_preloaded_modules_are_in_the_children(tmp_path: Path) -> None:
    write(tmp_path, "import os; where = os.getpid()", "heavy.py")
    write(
        tmp_path,
        """
        import multiprocessing, os
        def f():
            import heavy
            print(heavy.where != os.getpid())
        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["heavy"])
            process = context.Process(target=f)
            process.start()
            process.join()
        """,
    )
    assert run_command([*QUIET, "program.py"], cwd=tmp_path).lines == ["True"]


# --- what is left ---------------------------------------------------------------------------------

LEAVES = """
import multiprocessing, os, subprocess, sys, time
def sleep():
    time.sleep(600)
def main(method):
    if method != "none":
        context = multiprocessing.get_context(method)
        lock = context.Lock()  # a named semaphore, which somebody has to remove
        context.Process(target=sleep, name="sleeper", daemon=True).start()
    plain = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    twice = '[ "$(setsid sleep 600 >/dev/null & echo $!)" ]'
    subprocess.run(["sh", "-c", twice], check=True)
    print("ready", flush=True)
    exec(sys.argv[2])
if __name__ == "__main__":
    main(sys.argv[1])
"""

ABNORMAL = {
    "killed": "os.kill(os.getpid(), 9)",
    "os._exit": "os._exit(0)",
    "terminated": "os.kill(os.getpid(), 15)",
    "interrupted": "raise KeyboardInterrupt",
}
NORMAL = {"returned": "pass", "exited": "sys.exit(3)", "raised": "1/0"}


@pytest.mark.parametrize("method", [*METHODS, "none"])
@pytest.mark.parametrize("how", ABNORMAL)
def test_nothing_is_left_after_an_abnormal_end_of_main(
    how: str, method: str, tmp_path: Path
) -> None:
    write(tmp_path, LEAVES)
    done = run_command([*RUN, "program.py", method, ABNORMAL[how]], cwd=tmp_path)
    assert done.lines == ["ready"]  # and run_command saw that nothing is left
    assert "nothing left behind" in done.err
    if method != "none":
        assert "sleeper" in done.err


@pytest.mark.parametrize("method", ["forkserver", "none"])
@pytest.mark.parametrize("how", NORMAL)
def test_what_main_started_by_subprocess_is_let_go_at_its_own_end(
    how: str, method: str, tmp_path: Path
) -> None:
    write(tmp_path, LEAVES)
    program = Program([*RUN, "program.py", method, NORMAL[how]], cwd=tmp_path)
    try:
        done = program.finish()
        assert done.lines == ["ready"]
        assert "2 let go" in done.err
        assert sorted(name_of(process) for process in program.processes()) == ["sleep"] * 2
        assert "sleeper" in done.err or method == "none"
    finally:
        program.end()
        program.close()


def test_the_picture_is_drawn_when_main_is_killed_from_outside(tmp_path: Path) -> None:
    write(tmp_path, LEAVES)
    program = Program([*RUN, "program.py", "fork", "time.sleep(600)"], cwd=tmp_path)
    try:
        program.wait_for("ready")
        (main,) = (
            child
            for child in psutil.Process(program.pid).children()
            if "program.py" in child.cmdline() and "run" not in child.cmdline()
        )
        main.kill()
        done = program.finish()
        assert done.code == 137
        assert "2 did not end well" in done.err
        assert "killed SIGKILL" in done.err
        program.leaves_nothing()
    finally:
        program.end()
        program.close()


@pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 15),
    reason="this kernel does not tell the status of what another process reaped",
)
def test_what_is_ended_below_a_forked_daemon_is_known_to_be_killed(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import multiprocessing, sys, time
        def leaf():
            time.sleep(600)
        def branch(pipe):
            multiprocessing.current_process()._config["daemon"] = False
            multiprocessing.Process(target=leaf, name="leaf").start()
            pipe.send(1)
            time.sleep(600)
        if __name__ == "__main__":
            here, there = multiprocessing.Pipe()
            multiprocessing.Process(target=branch, args=(there,), daemon=True).start()
            here.recv()
        """,
    )
    done = run_command([*RUN, "program.py"], cwd=tmp_path)
    (leaf,) = (row for row in done.err.splitlines() if row.startswith("  └ leaf"))
    assert "killed SIGKILL" in leaf


# --- as the first process of a namespace ----------------------------------------------------------

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def namespaces() -> bool:
    """Whether this user may make PID namespaces."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    if not namespaces():
        pytest.skip("no PID namespaces here")
    return NAMESPACE


def test_as_pid_1_it_reaps_what_it_adopts(namespace: list[str], tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import json, multiprocessing, os, subprocess, time
        def f():
            subprocess.run(["sh", "-c", "setsid true & setsid true & setsid sh -c 'sleep 0.1 &' &"])
        def left():  # of the orphans, while they live and when they are zombies
            for pid in os.listdir("/proc"):
                if pid.isdigit():
                    try:
                        head, _, rest = open(f"/proc/{pid}/stat").read().rpartition(")")
                    except OSError:
                        continue
                    name, state = head.partition("(")[2], rest.split()[0]
                    if state == "Z" or name in ("sh", "setsid", "sleep", "true"):
                        yield name, state
        if __name__ == "__main__":
            f()
            process = multiprocessing.Process(target=f)
            process.start()
            process.join()
            limit = time.monotonic() + 30
            while (found := list(left())) and time.monotonic() < limit:
                time.sleep(0.01)
            print(json.dumps([os.getppid(), found]))
        """,
    )
    done = run_command([*namespace, *RUN, "program.py"], cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.said == [1, []]


@pytest.mark.parametrize("mounted", [True, False], ids=["own proc", "the proc of another"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_as_pid_1_it_passes_signals_on(name: str, mounted: bool, namespace: list[str]) -> None:
    words = namespace if mounted else namespace[:-1]
    program = Program([*words, *RUN, "-c", LISTENS, name])
    try:
        program.wait_for("ready")
        (first,) = psutil.Process(program.pid).children()
        first.send_signal(getattr(signal, name))
        assert program.line() == f"heard {name}"
        assert program.finish().code == 5
    finally:
        program.end()
        program.close()


def test_as_pid_1_it_ends_what_a_killed_main_left(namespace: list[str], tmp_path: Path) -> None:
    write(tmp_path, LEAVES)
    command = [*namespace, *RUN, "program.py", "forkserver", ABNORMAL["killed"]]
    done = run_command(command, cwd=tmp_path)
    assert done.code == 137
    assert "sleeper" in done.err


def test_the_programs_threads_and_memory_are_not_ours(tmp_path: Path) -> None:
    text = """
import json, sys, threading, signal, os
before = set(sys.modules)
print(json.dumps([threading.active_count(), len(os.listdir("/proc/self/task")),
    [signal.getsignal(n) == signal.SIG_DFL for n in (15, 17)],
    sorted({m.partition(".")[0] for m in before} & {"multiprocessing", "json", "socket", "typing"}),
    os.getpgrp() == os.getpgid(os.getppid()), "cloudpickle" in before]))
"""
    said = json.loads(run_command([*QUIET, "-c", text]).out)
    assert said[:3] == [1, 1, [True, True]]
    assert said[4:] == [True, False]
