"""The five examples do what they say: who waits for whom, and who outlives whom."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from procession import lifeline
from tests.contract.programs import LIMIT, METHODS, Finished, run_command, write

SECONDS = 0.5  # for the shorter child; what one of them outlives another by, on a loaded machine
NOTICED = SECONDS / 2  # with fork, main sees an end and goes on while the guard is still to note it
LAST = "main: the last line"

PRINTED = {
    "01_terminated": [
        "main: the clock is alive: True",
        "main: the clock is alive: False and its exit code is -15",
    ],
    "02_both_joined": ["short is done", "long is done", LAST],
    "03_one_after_the_other": ["first is done", "second is done", LAST],
    "04_none_joined": [LAST, "short is done", "long is done"],
    "05_only_the_first_is_joined": ["short is done", LAST, "long is done"],
}
CLOCK = re.compile(r"\d\d:\d\d:\d\d")

each_example = pytest.mark.parametrize("name", PRINTED)


def without_the_time(name: str, lines: list[str]) -> list[str]:
    """What an example printed, less the time, which the first one's child has printed first."""
    if name != "01_terminated":
        return lines
    assert CLOCK.fullmatch(lines[0]), lines
    return [line for line in lines if not CLOCK.fullmatch(line)]


def run_example(root: Path, name: str, *command: str, **options: object) -> Finished:
    script = root / "examples" / f"{name}.py"
    seconds = SECONDS
    while True:
        done = run_command([sys.executable, *command, str(script), str(seconds)], **options)
        assert done.code == 0, done.err
        # how long its child lives is a matter of time alone: more where it comes to no line in it
        if name != "01_terminated" or CLOCK.fullmatch(done.lines[0]) or seconds > LIMIT / 4:
            break
        seconds *= 4
    assert without_the_time(name, done.lines) == PRINTED[name]
    return done


def test_all_examples_are_here(root: Path) -> None:
    assert sorted(PRINTED) == sorted(path.stem for path in (root / "examples").glob("*.py"))


@each_example
def test_an_example_under_plain_python(name: str, root: Path) -> None:
    assert run_example(root, name).err == ""


@each_example
def test_an_example_under_procession_run(name: str, root: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recording.plr"
    run_example(root, name, "-m", "procession", "run", "-o", str(recording))
    timeline = lifeline.read(recording)
    main, children = timeline.main, timeline.children
    first, *others = children
    (second,) = others or (first,)
    assert first.ended is not None
    assert second.ended is not None
    assert main.ended is not None
    # main is the last to end, whether it joins or not
    assert main.ended >= max(first.ended, second.ended)
    joined = {
        wait.whom for wait in main.waits if main.code_ended is None or wait.began < main.code_ended
    }
    if name == "01_terminated":  # its join comes when it is as good as over
        assert first.how_it_ended == "terminated SIGTERM"
        return
    assert (first.id in joined) == (name != "04_none_joined")
    assert (second.id in joined) == (name in ("02_both_joined", "03_one_after_the_other"))
    if name == "03_one_after_the_other":
        assert second.asked > first.ended - NOTICED
    else:
        assert first.asked < second.asked < first.ended < second.ended
    if name in ("04_none_joined", "05_only_the_first_is_joined"):
        assert main.code_ended is not None
        assert main.code_ended < second.ended
        after = main.code_ended > first.ended - NOTICED
        assert after == (name == "05_only_the_first_is_joined")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["01_terminated", "05_only_the_first_is_joined"])
def test_an_example_by_every_start_method(
    name: str, method: str, root: Path, tmp_path: Path
) -> None:
    write(
        tmp_path,
        f"""
        import multiprocessing
        multiprocessing.set_start_method({method!r})
        """,
        "sitecustomize.py",
    )
    environ = {"PYTHONPATH": str(tmp_path)}
    done = run_example(root, name, "-m", "procession", "run", env=environ)
    assert "nothing left behind" in done.err
