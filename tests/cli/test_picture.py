"""The pictures of real programs in a real terminal: examples, widths, colours, keys and signals."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cli.screen import COMMAND, Picture, Terminal

EXAMPLES = {
    "01_terminated.py": "0.9",
    "02_both_joined.py": "0.8",
    "03_one_after_the_other.py": "0.8",
    "04_none_joined.py": "0.8",
    "05_only_the_first_is_joined.py": "0.8",
}
LOOKS: list[tuple[int, dict[str, str | None]]] = [
    (width, environ)
    for width in (40, 80, 200)
    for environ in ({}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"})
]


def check_terminated(picture: Picture, *, wide: bool) -> None:
    assert "SIGTERM" in picture.row("clock")
    # where main is slow to come to its join, the forked clock is a zombie until then
    assert re.search(r"[╳x][┄:]*$", picture.bar("clock"))
    assert picture.begins("01") <= picture.begins("clock")
    assert picture.ends("clock") <= picture.ends("01")


def check_both_joined(picture: Picture, *, wide: bool) -> None:
    if wide:
        assert re.search(r"[═=]+ short [═=]+.?[═=]+ long [═=]+", picture.bar("02"))
    assert picture.ends("short") <= picture.ends("long") <= picture.ends("02")


def check_one_after_the_other(picture: Picture, *, wide: bool) -> None:
    if wide:
        assert re.search(r"[═=]+ first [═=]+.+[═=]+ second [═=]+", picture.bar("03"))
    assert picture.ends("first") <= picture.begins("second") + 1
    assert picture.ends("second") <= picture.ends("03")


def check_none_joined(picture: Picture, *, wide: bool) -> None:
    assert not re.search(r"[═=]", picture.bar("04"))
    assert re.search(r"[┈~]", picture.bar("04"))
    if wide:  # which of the two it waits for first is left to chance
        assert re.search(r"[┈~]+ long [┈~]+.*[┤|]$", picture.bar("04"))
    assert picture.ends("short") <= picture.ends("long") <= picture.ends("04")


def check_first_joined(picture: Picture, *, wide: bool) -> None:
    """Main waits for `short` in join, and then for `long` at exit: one glance must say so."""
    if wide:
        assert re.search(r"[═=]+ short [═=]+.?.?[┈~]+ long [┈~]+.*[┤|]$", picture.bar("05"))
    assert picture.ends("short") <= picture.ends("long") <= picture.ends("05")


CHECKS = {
    "01_terminated.py": check_terminated,
    "02_both_joined.py": check_both_joined,
    "03_one_after_the_other.py": check_one_after_the_other,
    "04_none_joined.py": check_none_joined,
    "05_only_the_first_is_joined.py": check_first_joined,
}


@pytest.mark.parametrize(
    ("example", "width"), list(zip(EXAMPLES, (80, 40, 200, 80, 40), strict=True))
)
def test_an_example_is_drawn_at_its_end_and_again_at_every_width(
    example: str, width: int, root: Path, tmp_path: Path
) -> None:
    """How long a sign gets depends on how busy the machine is, so that what stands in a bar is
    looked at where it is wide; who outlives whom must be right at every width.
    """
    path = str(tmp_path / "run.plr")
    script = str(root / "examples" / example)
    with Terminal([*COMMAND, "run", "-o", path, script, EXAMPLES[example]], width) as terminal:
        assert terminal.finish() == 0
        check_look(terminal, coloured=True)
        CHECKS[example](Picture(terminal.lines), wide=width == 200)
        assert "".join(terminal.lines[-3:]).endswith(f"procession show {path}")
    for width, environ in LOOKS:
        with Terminal([*COMMAND, "show", path], width, environ) as terminal:
            assert terminal.finish() == 0
            check_look(terminal, coloured="NO_COLOR" not in environ)
            if environ.get("PYTHONIOENCODING") == "ascii":
                assert terminal.output.isascii()
            CHECKS[example](Picture(terminal.lines), wide=width == 200)


def check_look(terminal: Terminal, *, coloured: bool) -> None:
    """What holds for every picture."""
    picture = Picture(terminal.lines)
    for name in ("all ended well", "nothing left behind"):
        assert name in picture.summary
    first = next(n for n, line in enumerate(terminal.lines) if line == picture.axis)
    seen = set().union(*(terminal.colours(n) for n in range(first, len(terminal.lines))))
    assert ("green" in seen) == coloured
    assert (b"\x1b[" in terminal.output) == coloured


# --- programs that end otherwise --------------------------------------------------------------

PROGRAM = """
import multiprocessing, os, signal, sys, time

def work(ready):
    {child}
    ready.send("up")
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=work, args=(theirs,), name="patient")
    process.start()
    ours.recv()
    print("ready", flush=True)
    {main}
"""


def program(folder: Path, main: str, child: str = "pass", method: str = "forkserver") -> str:
    path = folder / "prog.py"
    path.write_text(PROGRAM.format(main=main, child=child, method=method))
    return str(path)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_one_ctrl_c_ends_it_all_and_the_picture_is_drawn(tmp_path: Path, method: str) -> None:
    script = program(tmp_path, "process.join()", method=method)
    with Terminal([*COMMAND, "run", script]) as terminal:
        terminal.wait_for("ready")
        terminal.child.sendintr()
        assert terminal.finish() == 130
        assert terminal.lines.count("KeyboardInterrupt") == 1  # main's own, and no storm (G10)
        picture = Picture(terminal.lines)
        assert "nothing left behind" in picture.summary
        until = "┄*" if method == "fork" else ""  # main reaps that one when it has told its error
        assert re.search(rf"[!╳]{until}$", picture.bar("patient"))


def test_a_second_ctrl_c_draws_the_picture_too(tmp_path: Path) -> None:
    """The child ignores the first one, and main waits for it at its exit."""
    child = "signal.signal(signal.SIGINT, lambda *_: os.write(1, b'once'))"
    script = program(tmp_path, "process.join()", child)
    with Terminal([*COMMAND, "run", script]) as terminal:
        terminal.wait_for("ready")
        terminal.child.sendintr()
        terminal.wait_for("once")
        terminal.child.sendintr()
        assert terminal.finish() == 130
        picture = Picture(terminal.lines)
        assert "nothing left behind" in picture.summary
        assert re.search(r"╳$", picture.bar("patient"))


@pytest.mark.parametrize(
    ("main", "code", "ending"),
    [
        ("process.terminate(); process.join()", 0, "exited 0"),
        ("process.terminate(); raise ValueError('no')", 1, "exited 1"),
        ("process.terminate(); sys.exit(3)", 3, "exited 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "killed SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "killed SIGSEGV"),
        ("os._exit(4)", 4, "exited 4"),
    ],
)
def test_whatever_ends_main_the_picture_is_drawn_and_the_code_passed_on(
    main: str, code: int, ending: str, tmp_path: Path
) -> None:
    with Terminal([*COMMAND, "run", program(tmp_path, main)]) as terminal:
        assert terminal.finish() == code
        picture = Picture(terminal.lines)
        assert ending in picture.row("prog.py")
        assert "SIG" in picture.row("patient")
        assert "nothing left behind" in picture.summary


def test_sigterm_is_passed_on_and_ends_with_143(tmp_path: Path) -> None:
    with Terminal([*COMMAND, "run", program(tmp_path, "process.join()")]) as terminal:
        terminal.wait_for("ready")
        os.kill(terminal.child.pid, signal.SIGTERM)
        assert terminal.finish() == 143
        assert "killed SIGTERM" in Picture(terminal.lines).row("prog.py")


def test_a_stopped_child_is_seen_as_stopped(tmp_path: Path) -> None:
    main = (
        "os.kill(process.pid, signal.SIGSTOP); time.sleep(0.5); "
        "os.kill(process.pid, signal.SIGCONT); time.sleep(0.3); process.kill()"
    )
    with Terminal([*COMMAND, "run", program(tmp_path, main)], 120) as terminal:
        assert terminal.finish() == 0
        assert re.search(r"├─*▒{3,}─+╳$", Picture(terminal.lines).bar("patient"))


def test_a_zombie_is_seen_until_main_comes_to_reap_it(tmp_path: Path) -> None:
    main = "os.kill(process.pid, signal.SIGKILL); time.sleep(0.6); process.join()"
    with Terminal([*COMMAND, "run", program(tmp_path, main, method="fork")]) as terminal:
        assert terminal.finish() == 0
        assert re.search(r"╳┄{5,}$", Picture(terminal.lines).bar("patient"))


def test_a_name_does_not_command_the_terminal(tmp_path: Path) -> None:
    name = "evil\\x1b[2J\\x1b]0;title\\x07\\nrow\\x9b31m"
    main = f"multiprocessing.Process(target=print, name='{name}').start(); process.kill()"
    with Terminal([*COMMAND, "run", program(tmp_path, main)], 200) as terminal:
        assert terminal.finish() == 0
        assert "evil?[2J?]0;title??row?31m" in Picture(terminal.lines).row("evil")
        assert terminal.lines[0].startswith("ready")  # the screen was not cleared


def test_where_there_is_no_terminal_it_is_plain_and_eighty_columns(tmp_path: Path) -> None:
    import subprocess

    environ = {**os.environ, "PYTHONUTF8": "1"}
    environ.pop("COLUMNS", None)
    script = program(tmp_path, "process.kill(); process.join()")
    run = [*COMMAND, "run", script]
    found = subprocess.run(run, capture_output=True, env=environ, timeout=60, check=True)
    assert found.stdout == b"ready\n"
    text = found.stderr.decode()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[:-1])) <= 80
    last = text.splitlines()[-1]
    assert last == f"procession run -o prog.plr {script}"


def test_quiet_draws_nothing_and_verbose_says_what_stayed_standard(tmp_path: Path) -> None:
    script = program(tmp_path, "process.kill(); process.join()")
    with Terminal([*COMMAND, "run", "-q", script]) as terminal:
        assert terminal.finish() == 0
        assert terminal.lines == ["ready"]
    with Terminal([*COMMAND, "run", "-v", script]) as terminal:
        assert terminal.finish() == 0
        assert "stayed standard: nothing that was used" in terminal.lines
    path = tmp_path / "standard.py"
    path.write_text(
        "import multiprocessing.pool as p, multiprocessing\nmultiprocessing.Value('i')\n"
        "class Mine(p.Pool): pass\nMine(1).terminate()"
    )
    with Terminal([*COMMAND, "run", "-v", str(path)]) as terminal:
        assert terminal.finish() == 0
        kept = [line for line in terminal.lines if line.startswith("stayed standard")]
    # what a pool is made of is no news
    assert kept == ["stayed standard: __main__.Mine (a subclass of multiprocessing.pool.Pool)"]
