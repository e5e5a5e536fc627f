"""The same program under `multiprocessing` and under procession says the same (rule 1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.programs import METHODS, run, write

PROBES = r"""
import contextlib, importlib, io, json, multiprocessing.connection, os, re, signal, sys, time

library = importlib.import_module(sys.argv[1])
method = sys.argv[2]

# --- what children run ---

def nothing(*args, **kwargs): pass
def leave(value): sys.exit(value)
def leave_at_once(code): os._exit(code)
def fail(error): raise error
def die(number):
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
    time.sleep(60)
def tell(conn, what):
    conn.send(LOOKS[what]())
    conn.close()
def wait_for_end(conn):
    with contextlib.suppress(EOFError):
        conn.recv()
def nested(conn, depth):
    me = library.current_process()
    seen = [me.name]
    if depth:
        there, here = library.Pipe(False)
        child = library.get_context(method).Process(target=nested, args=(here, depth - 1))
        child.start()
        seen += there.recv()
        child.join()
        seen.append(child.exitcode)
    conn.send(seen)

class Sub(library.Process):
    def run(self): sys.exit(5)

LOOKS = {
    "name": lambda: library.current_process().name,
    "daemon": lambda: library.current_process().daemon,
    "pid": lambda: library.current_process().pid == os.getpid() == library.current_process().ident,
    "exitcode": lambda: called(lambda: library.current_process().exitcode),
    "alive": lambda: called(lambda: library.current_process().is_alive()),
    "parent name": lambda: library.parent_process().name,
    "parent daemon": lambda: called(lambda: library.parent_process().daemon),
    "parent alive": lambda: library.parent_process().is_alive(),
    "parent repr": lambda: re.sub(r"\d+", "N", repr(library.parent_process())),
    "parent pid": lambda: library.parent_process().pid == int(os.environ["MAIN_PID"]),
    "parent join": lambda: called(lambda: library.parent_process().join(0.01)),
    "parent start": lambda: called(lambda: library.parent_process().start()),
    "parent terminate": lambda: called(lambda: library.parent_process().terminate()),
    "parent exitcode": lambda: called(lambda: library.parent_process().exitcode),
    "children": lambda: library.active_children(),
    "repr": lambda: re.sub(r"pid=\d+|parent=\d+", "N", repr(library.current_process())),
    "authkey": lambda: bytes(library.current_process().authkey) == bytes.fromhex(os.environ["KEY"]),
    "method": lambda: library.get_start_method(allow_none=True),
    "join self": lambda: called(lambda: library.current_process().join()),
    "start self": lambda: called(lambda: library.current_process().start()),
    "argv": lambda: sys.argv[2:],
    "stdin": lambda: sys.stdin.read(),
    "stdin fd": lambda: os.fstat(0).st_size,
    "threads": lambda: __import__("threading").current_thread().name,
    "main name": lambda: nothing.__module__ in ("__main__", "__mp_main__"),
}

# --- what main looks at ---

def called(function):
    try:
        value = function()
    except BaseException as error:
        if isinstance(error, TypeError):
            return ["TypeError"]  # its words name internals
        return [type(error).__name__, re.sub(r"\d\d+", "N", str(error))]
    return value if isinstance(value, (int, str, bool, type(None), list)) else str(type(value))

class Probes:
    def __init__(self, ctx):
        self.ctx = ctx
        self.found = {}
    def look(self, name, function):
        self.found[name] = called(function)
    def held(self):
        there, here = self.ctx.Pipe()
        process = self.ctx.Process(target=wait_for_end, args=(here,))
        process.start()
        return process, there, here

def constructor(p):
    P = p.ctx.Process
    p.look("group", lambda: called(lambda: P(group=1))[0])  # ours has a word more to say
    p.look("positional", lambda: P(None, nothing, "n", (1,), {}).name)
    p.look("too many", lambda: P(None, nothing, "n", (), {}, True))
    p.look("unknown keyword", lambda: P(nonsense=1))
    p.look("args no iterable", lambda: P(target=nothing, args=5))
    p.look("kwargs no mapping", lambda: P(target=nothing, kwargs=5))
    p.look("default name", lambda: re.sub(r"\d+", "N", P().name))
    p.look("given name", lambda: P(name="x").name)
    p.look("name no string", lambda: setattr(P(), "name", 5))
    p.look("name changed", lambda: [setattr(process := P(), "name", "y"), process.name])
    p.look("daemon", lambda: [P().daemon, P(daemon=True).daemon, P(daemon=0).daemon])
    p.look("daemon changed", lambda: [setattr(process := P(), "daemon", True), process.daemon])
    p.look("attributes", lambda: sorted(name for name in dir(P())
        if not name.startswith("_")
        and name not in ("interrupt", "result", "exception", "ending", "stop", "rusage")))

def before_start(p):
    P = p.ctx.Process
    for name in ("join", "terminate", "kill", "is_alive", "close"):
        p.look("unstarted " + name, lambda: getattr(P(), name)())
    for name in ("pid", "ident", "exitcode", "sentinel", "authkey"):
        p.look("unstarted " + name, lambda: getattr(P(), name))
    p.look("unstarted repr", lambda: re.sub(r"\d+", "N", repr(P(daemon=True))))
    p.look("unstarted join with time", lambda: P().join(1))

def after_end(p):
    process = p.ctx.Process(target=nothing, name="ended")
    process.start()
    process.join()
    p.look("ended is_alive", process.is_alive)
    p.look("ended exitcode", lambda: process.exitcode)
    p.look("ended pid", lambda: process.pid > 0 and process.pid == process.ident)
    p.look("ended join", process.join)
    p.look("ended join again", lambda: process.join(0))
    p.look("ended terminate", process.terminate)
    p.look("ended kill", process.kill)
    p.look("ended start", process.start)
    p.look("ended repr", lambda: re.sub(r"\d+", "N", repr(process)))
    p.look("ended daemon", lambda: setattr(process, "daemon", True))
    p.look("ended sentinel", lambda: multiprocessing.connection.wait([process.sentinel], 30) != [])
    p.look("ended close", process.close)
    for name in ("join", "terminate", "kill", "is_alive", "close", "start"):
        p.look("closed " + name, lambda: getattr(process, name)())
    for name in ("pid", "ident", "exitcode", "sentinel", "name", "daemon"):
        p.look("closed " + name, lambda: getattr(process, name))
    p.look("closed repr", lambda: re.sub(r"\d+", "N", repr(process)))

def while_running(p):
    process, there, here = p.held()
    p.look("running is_alive", process.is_alive)
    p.look("running exitcode", lambda: process.exitcode)
    p.look("running close", process.close)
    p.look("running start", process.start)
    p.look("running daemon", lambda: setattr(process, "daemon", True))
    p.look("running name", lambda: setattr(process, "name", "other"))
    p.look("running join", lambda: process.join(0))
    p.look("running join negative", lambda: process.join(-1))
    p.look("running join tiny", lambda: process.join(0.01))
    p.look("running join text", lambda: process.join("1"))
    p.look("running repr", lambda: re.sub(r"\d+", "N", repr(process)))
    p.look("running sentinel", lambda: type(process.sentinel).__name__)
    p.look("running sentinel twice", lambda: process.sentinel == process.sentinel)
    p.look("running in active_children", lambda: process in library.active_children())
    p.look("pickle", lambda: __import__("pickle").dumps(process))
    there.send(None)
    process.join()
    p.look("then not in active_children", lambda: process in library.active_children())
    process, there, here = p.held()
    process.terminate()
    process.join()
    p.look("terminated", lambda: process.exitcode)
    p.look("terminated repr", lambda: re.sub(r"\d+", "N", repr(process)))
    process, there, here = p.held()
    process.kill()
    process.join()
    p.look("killed", lambda: process.exitcode)

def exit_codes(p):
    def code(target, *args):
        process = p.ctx.Process(target=target, args=args)
        process.start()
        process.join()
        return process.exitcode
    for value in (None, 0, 1, 7, 255, 256, 257, -1, True, False, "some words", 2.5):
        p.look(f"sys.exit({value!r})", lambda: code(leave, value))
    for value in (0, 1, 7, 255):
        p.look(f"os._exit({value!r})", lambda: code(leave_at_once, value))
    p.look("exception", lambda: code(fail, ValueError("on purpose")))
    p.look("SystemExit raised", lambda: code(fail, SystemExit(3)))
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGALRM, signal.SIGHUP):
        p.look(f"signal {number!r}", lambda: code(die, number))
    process = p.ctx.Process()
    process.start()
    process.join()
    p.look("no target", lambda: process.exitcode)

def inside(p):
    for what in LOOKS:
        there, here = p.ctx.Pipe(False)
        process = p.ctx.Process(target=tell, args=(here, what), name="child")
        process.start()
        here.close()
        p.look("inside " + what, lambda: there.recv() if there.poll(20) else "nothing")
        process.join()
    there, here = p.ctx.Pipe(False)
    process = p.ctx.Process(target=tell, args=(here, "daemon"), daemon=True)
    process.start()
    p.look("inside a daemon", there.recv)
    process.join()
    there, here = p.ctx.Pipe(False)
    process = p.ctx.Process(target=nested, args=(here, 2), name="top")
    process.start()
    p.look("nested names", there.recv)
    process.join()

def main_looks(p):
    p.look("main name", lambda: library.current_process().name)
    p.look("main repr", lambda: re.sub(r"pid=\d+|parent=\d+", "N", repr(library.current_process())))
    p.look("main parent", lambda: library.parent_process())
    p.look("main daemon", lambda: library.current_process().daemon)
    p.look("main exitcode", lambda: library.current_process().exitcode)
    p.look("main ident", lambda: library.current_process().pid == os.getpid())
    p.look("main join", lambda: library.current_process().join())
    p.look("main terminate", lambda: library.current_process().terminate())
    p.look("children at the end", lambda: library.active_children())

def contexts(p):
    p.look("get_context nonsense", lambda: library.get_context("nonsense"))
    p.look("get_context list", lambda: library.get_context([]))
    p.look("get_context number", lambda: library.get_context(5))
    p.look("context's own", lambda: p.ctx.get_context() is p.ctx)
    p.look("context's other", lambda: p.ctx.get_context("fork").get_start_method())
    p.look("context's method", lambda: p.ctx.get_start_method())
    p.look("context set", lambda: p.ctx.set_start_method("fork"))
    p.look("context set same", lambda: p.ctx.set_start_method(method))
    p.look("same object", lambda: library.get_context(method) is p.ctx)
    p.look("all methods", lambda: sorted(library.get_all_start_methods()))
    p.look("allow_none", lambda: library.get_start_method(allow_none=True))
    p.look("set nonsense", lambda: library.set_start_method("nonsense"))
    p.look("set", lambda: library.set_start_method(method))
    p.look("get", lambda: library.get_start_method())
    p.look("set again", lambda: library.set_start_method("fork"))
    p.look("set None", lambda: library.set_start_method(None))
    p.look("force", lambda: library.set_start_method("spawn", force=True))
    p.look("forced", lambda: library.get_start_method())
    p.look("force None", lambda: library.set_start_method(None, force=True))
    p.look("forced None", lambda: library.get_start_method(allow_none=True))
    p.look("force back", lambda: library.set_start_method(method, True))
    p.look("default's type", lambda: type(library.get_context()).__name__)
    p.look("preload no strings", lambda: p.ctx.set_forkserver_preload([5]))
    p.look("preload no list", lambda: p.ctx.set_forkserver_preload(5))
    p.look("freeze_support", lambda: library.freeze_support())
    p.look("cpu_count", lambda: library.cpu_count())
    p.look("class names", lambda: [p.ctx.Process.__name__, library.Process.__name__])
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        p.look("error " + name, lambda: [base.__name__ for base in getattr(p.ctx, name).__mro__
                                         if base.__module__ == "builtins"])

def default_process(p):
    there, here = library.Pipe(False)
    process = library.Process(target=tell, args=(here, "method"))
    process.start()
    p.look("default method inside", there.recv)
    process.join()
    sub = Sub(name="sub")
    p.look("sub repr", lambda: re.sub(r"\d+", "N", repr(sub)))
    sub.start()
    sub.join()
    p.look("sub exitcode", lambda: sub.exitcode)

def main():
    os.environ["MAIN_PID"] = str(os.getpid())
    os.environ["KEY"] = bytes(library.current_process().authkey).hex()
    p = Probes(library.get_context(method))
    for probe in (contexts, constructor, before_start, after_end, while_running, exit_codes,
                  inside, default_process, main_looks):
        probe(p)
    print(json.dumps(p.found))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    path = write(tmp_path_factory.mktemp("probes"), PROBES)
    said = {}
    for method in METHODS:
        for library in ("multiprocessing", "procession"):
            finished = run(path, library, method, leaves=library == "multiprocessing", limit=60)
            assert finished.code == 0, finished.err
            said[library, method] = finished.said, finished.err
    return said


@pytest.mark.parametrize("method", METHODS)
def test_every_member_answers_as_the_standard_one(
    answers: dict[tuple[str, str], Any], method: str
) -> None:
    standard, ours = answers["multiprocessing", method][0], answers["procession", method][0]
    assert standard.keys() == ours.keys()
    different = {
        name: (standard[name], ours[name]) for name in standard if standard[name] != ours[name]
    }
    assert not different, "\n".join(f"{name}: {pair}" for name, pair in different.items())


@pytest.mark.parametrize("method", METHODS)
def test_children_print_what_standard_children_print(
    answers: dict[tuple[str, str], Any], method: str
) -> None:
    standard, ours = answers["multiprocessing", method][1], answers["procession", method][1]
    assert _messages(ours) == _messages(standard)


def _messages(text: str) -> list[str]:
    """First and last lines of the tracebacks; where they were raised is not the same."""
    return [line for line in text.splitlines() if line and line[0] != " "]
