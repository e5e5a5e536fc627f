"""The bar of `map(progress=True)`, as a user sees it."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procession
from tests.cli.screen import Terminal
from tests.contract.programs import wait_until, write

PROGRAM = """
    import os, pathlib, sys, time
    import procession

    def work(n):
        if n >= 6:
            pathlib.Path(sys.argv[1], str(os.getpid())).touch()
            time.sleep(60)
        return n

    if __name__ == "__main__":
        for n in procession.map(work, range(12), workers=2, progress=True):
            pass
"""


def test_ctrl_c_is_one_message_and_leaves_one_bar(tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    program = write(tmp_path, PROGRAM)
    with Terminal([sys.executable, str(program), str(busy)]) as terminal:
        terminal.wait_for(" 50%")
        wait_until(lambda: len(os.listdir(busy)) == 2)
        terminal.child.send(b"\x03")  # as the key: to all in the foreground
        assert terminal.finish() == -signal.SIGINT
        text = "\n".join(terminal.lines)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(busy)))
    assert text.rstrip().endswith("KeyboardInterrupt"), text
    assert text.count("KeyboardInterrupt") == text.count("Traceback") == 1, text
    bars = [line for line in text.splitlines() if "%" in line]
    assert len(bars) == 1, text
    assert " 50%" in bars[0], text
    assert terminal.output.rfind(b"\x1b[?25h") > terminal.output.rfind(b"\x1b[?25l")  # the cursor


def _answer(n: int) -> int:
    return n + 1


def test_a_notebook_has_the_bar_of_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[int | None] = []

    def tqdm(results: Iterable[Any], total: int | None = None) -> Iterator[Any]:
        bars.append(total)
        yield from results

    kernel = type("ZMQInteractiveShell", (), {})()
    ipython = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    notebook = types.SimpleNamespace(tqdm=tqdm)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", notebook)  # type: ignore[arg-type]
    assert list(procession.map(_answer, range(3), workers=1, progress=True)) == [1, 2, 3]
    assert list(procession.map(_answer, iter([1]), workers=1, progress=True)) == [2]
    assert bars == [3, None]
    monkeypatch.setitem(sys.modules, "tqdm.notebook", None)  # type: ignore[arg-type]
    assert list(procession.map(_answer, [3], workers=1, progress=True)) == [4]
