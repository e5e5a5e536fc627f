"""Every kind of `__main__`, with every start method, with and without a guard (G11)."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.contract.programs import (
    LIMIT,
    Finished,
    Program,
    each_kept_method,
    each_method,
    run_command,
    run_text,
    write,
)

BODY = """
import collections, dataclasses, enum, functools, json, os, sys, typing
import procession

@dataclasses.dataclass
class Point:
    x: int
    y: int
    def double(self):
        return Point(self.x * 2, self.y * 2)
    @staticmethod
    def make():
        return Point(7, 7)
    @classmethod
    def origin(cls):
        return cls(0, 0)

@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2

Pair = collections.namedtuple("Pair", "left right")

class Named(typing.NamedTuple):
    a: int

class Odd(Exception):
    def __init__(self, word, number):
        super().__init__(word, number)
        self.number = number

class Outer:
    class Inner:
        pass

TOTAL = [0]

def add(n):
    TOTAL[0] += n
    return TOTAL[0]

def add_twice(n):
    add(n)
    return add(n) + TOTAL[0]

def give(value):
    return value

def work(point, colour):
    bits = Bits.ONE | Bits.TWO
    return point.double(), colour, Slotted(1), Pair(1, 2), Named(3), bits, Outer.Inner

def fail():
    raise Odd("word", 5)

@functools.lru_cache
def cached(n):
    return n + 1

def decorated(function):
    @functools.wraps(function)
    def around(*args):
        return "around", function(*args)
    return around

@decorated
def inside(n):
    return n

def own_kind():
    return "Point" in vars(sys.modules["__main__"])

def nested(method):
    process = procession.get_context(method).Process(target=lambda: work(Point(1, 1), Colour.BLUE))
    process.start()
    return process.result(20)

def set_total(n):
    TOTAL[0] = n

def get_total(_):
    return TOTAL[0]

def main(method, *brief):
    ctx = procession.get_context(method)

    def call(target, *args):
        process = ctx.Process(target=target, args=args)
        process.start()
        return process.result(20)

    said = {}
    point, colour, slotted, pair, named, bits, inner = call(work, Point(1, 2), Colour.RED)
    said["dataclass"] = point == Point(2, 4) and type(point) is Point
    said["enum"] = colour is Colour.RED
    said["slotted"] = slotted == Slotted(1) and type(slotted) is Slotted
    said["namedtuple"] = pair == Pair(1, 2) and type(pair) is Pair and type(named) is Named
    said["flags"] = bits == Bits.ONE | Bits.TWO and type(bits) is Bits
    said["inner class"] = inner is Outer.Inner
    said["class itself"] = call(give, Point) is Point
    said["function itself"] = call(give, add) is add
    said["globals shared"] = call(add_twice, 2)
    said["main untouched"] = TOTAL
    process = ctx.Process(target=fail)
    process.start()
    error = process.exception(20)
    said["exception"] = [type(error) is Odd, error.args, error.number]
    if brief:
        print(json.dumps(said))
        return
    said["lambda"] = call(lambda a, b=2: [a, b, TOTAL[0]], 1)
    base = 10
    def closure(n):
        return base + n + add(1)
    said["closure"] = call(closure, 5)
    def recursive(n):
        return 1 if n == 0 else n * recursive(n - 1)
    said["recursive closure"] = call(recursive, 5)
    class Local:
        def __init__(self):
            self.n = base
        def __eq__(self, other):
            return self.n == other.n
    said["local class"] = call(lambda: Local().n)
    said["partial"] = call(functools.partial(closure, 1))
    said["partial of lambda"] = call(functools.partial(lambda a, b: a - b, 5, b=3))
    said["bound method"] = call(Point(3, 4).double) == Point(6, 8)
    said["static method"] = call(Point.make) == Point(7, 7)
    said["class method"] = call(Point.origin) == Point(0, 0)
    said["lru_cache"] = call(cached, 4)
    said["decorated"] = call(inside, 4)
    said["lambda argument"] = call(lambda f: f(3), lambda n: n * n)
    said["name of main"] = call(own_kind)
    said["nested"] = call(nested, method)[0] == Point(2, 2)
    said["nested enum"] = call(nested, method)[1] is Colour.BLUE
    class Mine(ctx.Process):
        def run(self):
            return Point(9, 9)
    mine = Mine()
    mine.start()
    said["local Process subclass"] = mine.result(20) == Point(9, 9)
    with ctx.Pool(2, set_total, (3,)) as pool:
        said["pool"] = pool.map(give, [Point(1, 1)])[0] == Point(1, 1)
        said["pool initializer's globals"] = pool.map(get_total, range(4))
    queue = ctx.SimpleQueue()
    process = ctx.Process(target=lambda: queue.put(Colour.RED))
    process.start()
    said["through a queue"] = queue.get() is Colour.RED
    process.join()
    print(json.dumps(said))
"""

EXPECTED = {
    "dataclass": True,
    "enum": True,
    "slotted": True,
    "namedtuple": True,
    "flags": True,
    "inner class": True,
    "class itself": True,
    "function itself": True,
    "globals shared": 8,
    "main untouched": [0],
    "exception": [True, ["word", 5], 5],
    "lambda": [1, 2, 0],
    "closure": 16,
    "recursive closure": 120,
    "local class": 10,
    "partial": 12,
    "partial of lambda": 2,
    "bound method": True,
    "static method": True,
    "class method": True,
    "lru_cache": 5,
    "decorated": ["around", 4],
    "lambda argument": 9,
    "name of main": True,
    "nested": True,
    "nested enum": True,
    "local Process subclass": True,
    "pool": True,
    "pool initializer's globals": [3, 3, 3, 3],
    "through a queue": True,
}

GUARDED = BODY + "\nif __name__ == '__main__':\n    main(*sys.argv[1:])\n"
UNGUARDED = BODY + "\nmain(*sys.argv[1:])\n"


BRIEF = list(EXPECTED)[: list(EXPECTED).index("lambda")]


def check(finished: Finished, brief: bool = False) -> None:
    assert finished.code == 0, finished.err
    said = json.loads(finished.lines[-1])
    wanted = BRIEF if brief else EXPECTED
    wrong = {name: said.get(name) for name in wanted if said.get(name) != EXPECTED[name]}
    assert not wrong, (wrong, finished.err)
    assert finished.err.count("Traceback") == 1  # of the exception that is wanted


@each_method
@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_script(method: str, text: str, tmp_path: Path) -> None:
    check(run_text(tmp_path, text, method))


@each_method
@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_module(method: str, text: str, tmp_path: Path) -> None:
    write(tmp_path, text, "some_module.py")
    check(run_command([sys.executable, "-m", "some_module", method, "brief"], cwd=tmp_path), True)


@each_method
@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_package(method: str, text: str, tmp_path: Path) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    write(package, "", "__init__.py")
    write(package, "NAME = 'beside'", "beside.py")
    write(package, "from . import beside\n" + text, "__main__.py")
    check(run_command([sys.executable, "-m", "some_package", method, "brief"], cwd=tmp_path), True)


@each_method
@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_zip_file(method: str, text: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("__main__.py", text)
    check(run_command([sys.executable, str(tmp_path / "app.zip"), method, "brief"]), True)


@each_method
def test_a_command(method: str) -> None:
    check(run_command([sys.executable, "-c", UNGUARDED, method]))


@each_method
def test_standard_input(method: str, tmp_path: Path) -> None:
    path = write(tmp_path, UNGUARDED)
    with path.open() as file:
        check(run_command([sys.executable, "-", method, "brief"], stdin=file), True)


@each_method
def test_the_repl(method: str) -> None:
    """Typed at a prompt, each definition on its own."""
    lines = [
        "import procession, dataclasses",
        "@dataclasses.dataclass\nclass Point:\n    x: int\n",
        "factor = 3",
        "def scale(point):\n    return Point(point.x * factor)\n",
        f"ctx = procession.get_context({method!r})",
        "process = ctx.Process(target=scale, args=(Point(5),)); process.start()",
        "print('answer', process.result(20) == Point(15))",
        "factor = 4",
        "process = ctx.Process(target=lambda: scale(Point(1)).x); process.start()",
        "print('answer', process.result(20))",
        "process = ctx.Process(target=lambda: 1 / 0); process.start(); process.join()",
        "print('answer', process.ending)",
    ]
    said = at_a_prompt(lines)
    answers = [line for line in said.splitlines() if line.startswith("answer")]
    assert answers == [
        "answer True",
        "answer 4",
        "answer raised ZeroDivisionError: division by zero",
    ], said


def at_a_prompt(lines: list[str]) -> str:
    """What an interactive interpreter on a terminal prints."""
    ours, theirs = pty.openpty()
    program = Program(
        [sys.executable, "-q", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PYTHON_BASIC_REPL": "1", "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    said = b""

    def read_until(end: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + LIMIT
        while not said.endswith(end):
            ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more; so far:\n{said.decode()}"
            try:
                said += os.read(ours, 4096)
            except OSError:
                return  # it closed its terminal

    try:
        read_until(b">>> ")
        for line in lines:
            for part in line.split("\n"):
                os.write(ours, part.encode() + b"\n")
                # the prompt after this very line: what was typed is echoed first
                said += b"\0"
                read_until(b"... " if "\n" in line and part else b">>> ")
        os.write(ours, b"exit()\n")
        read_until(b"never")
        assert program.process.wait(LIMIT) == 0
        program.leaves_nothing()
    finally:
        os.close(ours)
        program.end()
        program.close()
    return said.replace(b"\0", b"").replace(b"\r", b"").decode()


# --- when the top level runs ---------------------------------------------------------------------


@each_kept_method
def test_the_top_level_of_an_unguarded_script_runs_once(method: str, tmp_path: Path) -> None:
    finished = run_text(
        tmp_path,
        """
        import procession, sys
        print("top level", __name__, flush=True)
        def work():
            print("work", flush=True)
        for _ in range(3):
            process = procession.get_context(sys.argv[1]).Process(target=work)
            process.start()
            process.join()
        """,
        method,
    )
    assert finished.lines == ["top level __main__", "work", "work", "work"], finished


@each_kept_method
def test_a_guarded_scripts_top_level_runs_as_mp_main(method: str, tmp_path: Path) -> None:
    """As the standard library: not as `__main__`, and before the target."""
    finished = run_text(
        tmp_path,
        """
        import procession, sys
        print("top level", __name__, flush=True)
        def work():
            print("work in", __name__, sys.modules["__main__"] is sys.modules["__mp_main__"])
        if __name__ == "__main__":
            process = procession.get_context(sys.argv[1]).Process(target=work)
            process.start()
            process.join()
        """,
        method,
    )
    assert finished.lines[0] == "top level __main__"
    assert set(finished.lines[1:-1]) == {"top level __mp_main__"}
    assert finished.lines[-1] == "work in __mp_main__ True"


@each_kept_method
def test_an_error_at_the_top_level_of_a_child_is_an_error_of_the_child(
    method: str, tmp_path: Path
) -> None:
    finished = run_text(
        tmp_path,
        """
        import procession, sys
        if __name__ != "__main__":
            raise RuntimeError("not when imported")
        def work():
            pass
        if __name__ == "__main__":
            process = procession.get_context(sys.argv[1]).Process(target=work)
            process.start()
            process.join()
            print(process.exitcode, process.ending)
        """,
        method,
    )
    assert finished.lines == ["1 raised RuntimeError: not when imported"], finished
    assert "RuntimeError: not when imported" in finished.err


@each_kept_method
def test_a_global_that_cannot_be_pickled_is_named_with_its_user(
    method: str, tmp_path: Path
) -> None:
    finished = run_text(
        tmp_path,
        """
        import procession, sys, threading
        lock = threading.Lock()
        unused = threading.Lock()
        def work():
            with lock:
                return 1
        try:
            process = procession.get_context(sys.argv[1]).Process(target=work)
            process.start()
        except Exception as error:
            print(type(error).__name__, error)
        print("and on")
        process = procession.get_context(sys.argv[1]).Process(target=lambda: 5)
        process.start()
        print(process.result(20))
        """,
        method,
    )
    assert "'work' of __main__ uses the global 'lock'" in finished.lines[0]
    assert "unused" not in finished.out
    assert finished.lines[1:] == ["and on", "5"], finished


@each_kept_method
def test_an_unguarded_script_that_starts_more_than_it_should_is_no_fork_bomb(
    method: str, tmp_path: Path
) -> None:
    finished = run_text(
        tmp_path,
        """
        import procession, sys
        def work(n):
            return n
        processes = [
            procession.get_context(sys.argv[1]).Process(target=work, args=(n,)) for n in range(5)
        ]
        for process in processes:
            process.start()
        print([process.result(20) for process in processes])
        """,
        method,
    )
    assert finished.lines == ["[0, 1, 2, 3, 4]"], finished


@each_method
def test_a_script_whose_file_is_gone(method: str, tmp_path: Path) -> None:
    """Running, then removed: what it defined still goes along."""
    text = """
        import os, procession, sys
        os.unlink(__file__)
        def work():
            return "worked"
        process = procession.get_context(sys.argv[1]).Process(target=work)
        process.start()
        print(process.result(20))
        """
    finished = run_text(tmp_path, text, method)
    assert finished.lines == ["worked"], finished


def test_an_embedding_without_a_main_file_works(tmp_path: Path) -> None:
    """`runpy` and friends: a `__main__` that was put there by hand."""
    write(tmp_path, GUARDED, "target.py")
    launcher = (
        "import runpy, sys\nsys.argv = ['target.py', {!r}, 'brief']\n"
        "runpy.run_path({!r}, run_name='__main__')"
    )
    for method in ("forkserver", "spawn", "fork"):
        path = str(tmp_path / "target.py")
        check(
            run_command([sys.executable, "-c", launcher.format(method, path)], cwd=tmp_path), True
        )
