"""A command in a real terminal, as a user sees it: a pseudo-terminal and an emulator of one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import pexpect
import pyte

PATIENCE = 60.0  # seconds for what takes one; the machine may be busy
ROWS = 60
COMMAND = [sys.executable, "-m", "procession"]


class Terminal:
    """A command that runs in a terminal of its own.

    Args:
        arguments: Program and arguments.
        width: Columns.
        environ: Variables that differ from ours; ``None`` takes one away.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        width: int = 80,
        environ: dict[str, str | None] | None = None,
    ) -> None:
        wanted = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(environ or {})}
        wanted.pop("COLUMNS", None)
        self.screen = pyte.Screen(width, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.child = pexpect.spawn(
            arguments[0],
            list(arguments[1:]),
            env={name: value for name, value in wanted.items() if value is not None},
            dimensions=(ROWS, width),
            timeout=PATIENCE,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close(force=True)

    def wait_for(self, text: str) -> None:
        """Read until this is there."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.output:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output.decode()}"
            assert self._read(), f"it ended without {text!r}:\n{self.output.decode()}"

    def finish(self) -> int:
        """Read to its end; its exit code, or minus a signal's number."""
        while self._read():
            pass
        self.child.wait()
        if self.child.signalstatus is not None:
            return -self.child.signalstatus
        return self.child.exitstatus

    def _read(self) -> bool:
        try:
            some = self.child.read_nonblocking(65536, PATIENCE)
        except pexpect.EOF:
            return False
        self.output += some
        self._stream.feed(some)
        return True

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the empty lines at its end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def colours(self, row: int) -> set[str]:
        """Colours of the characters in a row."""
        return {cell.fg for cell in self.screen.buffer[row].values() if cell.data.strip()}


class Picture:
    """The picture among the lines of a screen.

    Args:
        lines: The screen.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        # what the keys and the program left in its line stands before it
        at = max(n for n, line in enumerate(lines) if "procession  " in line)
        self.lines = [lines[at][lines[at].index("procession  ") :], *lines[at + 1 :]]
        self.axis = next(line for line in self.lines if line.startswith("who"))
        self._left = self.axis.rindex(" 0s") + 1

    @property
    def summary(self) -> str:
        """The lines before the table, as one."""
        lines = self.lines[: self.lines.index(self.axis)]
        return " ".join(line.strip() for line in lines if line)

    def row(self, name: str) -> str:
        """The line of a process."""
        rows = [
            line
            for line in self.lines[self.lines.index(self.axis) + 1 :]
            if line[: self._left].lstrip("├└│ |`-").startswith(name)
        ]
        assert len(rows) == 1, (name, self.lines)
        return rows[0]

    def bar(self, name: str) -> str:
        """The bar of a process, from the axis's left end on."""
        return self.row(name)[self._left :]

    def ends(self, name: str) -> int:
        """The column of its last sign."""
        return len(self.bar(name).rstrip())

    def begins(self, name: str) -> int:
        """The column of its first sign."""
        bar = self.bar(name)
        return len(bar) - len(bar.lstrip())
