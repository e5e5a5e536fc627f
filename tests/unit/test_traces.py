"""What a run of main's file leaves, seen one by one."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEFT = {
    "import os; os.environ['LEFT'] = 'x'": "it changed environment variables",
    "import sys; sys.argv.append('x')": "it changed sys.argv",
    "import sys, io; sys.stdout = io.StringIO()": "it changed standard streams",
    "import sys; sys.stderr.reconfigure(line_buffering=False)": "it changed standard streams",
    "import os; os.chdir('/')": "it changed the working directory",
    "left = open('/dev/zero')": "it changed open descriptors",
    "import os; os.dup2(os.open('/dev/zero', 0), 0)": "it changed open descriptors",
    "import os; os.close(2)": "it changed open descriptors",
    "import mmap; left = mmap.mmap(-1, 4096)": "it changed shared memory",
    "import multiprocessing as m; left = m.RawValue('i')": "it changed open descriptors",
    "import os; os.umask(0o123)": "it changed limits, priority or signals",
    "import os; os.nice(1)": "it changed limits, priority or signals",
    "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (99, 99))": "it changed limits",
    "import signal as s; s.signal(s.SIGUSR1, s.SIG_IGN)": "it changed limits, priority or signals",
    "import signal as s; s.signal(s.SIGUSR1, print)": "it changed signal handlers",
    "import faulthandler; faulthandler.enable()": "it changed signal actions",
    "import signal as s; s.setitimer(s.ITIMER_REAL, 30)": "it changed timers",
    "import sys; sys.setprofile(lambda *_: None)": "it changed trace functions",
    "import random; random.seed(1)": "it changed the state of random",
    "import os; left = os.fork() or os._exit(0)": "it left a child process",
    "import random; left = [random.Random()]": "it made a generator of random numbers",
    "import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()": "a thread",
    "import collections, json, logging, threading; left = threading.Lock()": "",
}


@pytest.mark.parametrize("code", LEFT)
def test_what_speaks_against_a_fork_is_named(code: str) -> None:
    said = in_a_process(f"exec({code!r}, globals())")
    assert LEFT[code] in said if LEFT[code] else said == ""


def test_the_copy_of_a_main_that_forks_is_nobodys() -> None:
    """It would go on as a second heir."""
    assert in_a_process("import os; pid = os.fork(); pid and os.waitpid(pid, 0)") == ""


def in_a_process(code: str) -> str:
    """What a fresh process with one thread says that the code left in it."""
    program = (
        "import os\n"
        "from procession._keeper.traces import Traces\n"
        "answer = os.dup(1)\n"
        "traces = Traces()\n"
        f"{code}\n"
        "os.write(answer, traces.left().encode())\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_numpys_own_threads_and_generator_are_no_hindrance() -> None:
    pytest.importorskip("numpy")
    assert in_a_process("import numpy; numpy.ones((200, 200)) @ numpy.ones((200, 200))") == ""
    assert (
        in_a_process("import numpy; numpy.random.seed(0)") == "it changed the state of numpy.random"
    )
    said = in_a_process("import numpy; left = numpy.random.default_rng(0)")
    assert said == "it made a generator of random numbers"
