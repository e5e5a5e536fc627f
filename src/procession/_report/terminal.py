"""The picture in a terminal: the tree, how each one ended, and a bar for how long it lived."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from procession.lifeline import MAIN, Lifespan, Timeline

FOLD_ABOVE = 40  # lines; of more children those that ended well are folded by name
SHORTEST_BAR = 12  # columns
LONGEST_ENDING = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Signs:
    """The characters that the picture is made of."""

    asked: str
    start: str
    run: str
    returned: str
    killed: str
    raised: str
    branch: str
    last: str
    trunk: str
    dot: str


UNICODE = Signs("╶", "├", "─", "┤", "╳", "!", "├ ", "└ ", "│ ", "·")
ASCII = Signs(".", "|", "-", "|", "x", "!", "|- ", "`- ", "|  ", "-")


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What the terminal can show.

    Attributes:
        width: Columns.
        colour: Whether escape sequences for colour are wanted; they only repeat what signs say.
        signs: The characters to draw with.
    """

    width: int = 80
    colour: bool = False
    signs: Signs = UNICODE

    @classmethod
    def of(cls, stream: TextIO) -> Look:
        """What a stream can show, by its terminal, encoding, COLUMNS, NO_COLOR and TERM."""
        try:
            width = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            width = 0
        if os.environ.get("COLUMNS", "").isdigit():
            width = int(os.environ["COLUMNS"])
        colour = (
            stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        try:
            "├╳·".encode(stream.encoding or "ascii")
        except UnicodeEncodeError:
            signs = ASCII
        else:
            signs = UNICODE
        return cls(max(40, min(width or 80, 250)), colour, signs)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture: a life, or several folded into one."""

    span: Lifespan
    tree: str
    count: int = 1


def picture(timeline: Timeline, look: Look) -> str:
    """Draw a timeline; ends with a line feed."""
    rows = _rows(timeline, look.signs)
    lines = [_summary(timeline, look), ""]
    names = [_fitted(_label(row), look.width // 3) for row in rows]
    pids = [str(row.span.pid) if row.count == 1 else "" for row in rows]
    endings = [_fitted(clean(row.span.ending), LONGEST_ENDING) for row in rows]
    name_width = max(map(width_of, [*names, "who"]))
    pid_width = max(map(len, [*pids, "pid"]))
    ending_width = max(map(width_of, [*endings, "how it ended"]))
    left = look.width - name_width - pid_width - 6
    ending_width = max(len("how it ended"), min(ending_width, left - SHORTEST_BAR))
    bar_width = max(SHORTEST_BAR, left - ending_width)
    scale = _Scale(timeline.began, timeline.ended, bar_width)

    def line(name: str, pid: str, ending: str, bar: str, colour: str = "") -> str:
        ending = _padded(_fitted(ending, ending_width), ending_width)
        if colour and look.colour:
            ending = f"\x1b[{colour}m{ending}\x1b[0m"
        return f"{_padded(name, name_width)}  {pid:>{pid_width}}  {ending}  {bar}".rstrip()

    lines.append(line("who", "pid", "how it ended", scale.axis()))
    for row, name, pid, ending in zip(rows, names, pids, endings, strict=True):
        colour = "32" if row.span.ended_well else "31"
        lines.append(line(name, pid, ending, scale.bar(row.span, look.signs), colour))
    lines += [
        f"{'let go' if stray.let_go else 'could not be killed'}: "
        f"{clean(stray.name)} (pid {stray.pid})"
        for stray in timeline.strays
    ]
    return "\n".join(lines) + "\n"


def _summary(timeline: Timeline, look: Look) -> str:
    children = len(timeline.children)
    bad = sum(not span.ended_well for span in [timeline.main, *timeline.children])
    left = [stray for stray in timeline.strays if not stray.let_go]
    gone = [stray for stray in timeline.strays if stray.let_go]
    behind = "nothing left behind"
    if left:
        behind = f"{len(left)} could not be killed"
    elif gone:
        behind = f"{len(gone)} let go"
    dot = f" {look.signs.dot} "
    counted = "no children" if not children else f"{children} child{'ren' * (children > 1)}"
    parts = [
        clean(timeline.main.name),
        counted,
        f"{timeline.ended - timeline.began:.2f} s",
        "all ended well" if not bad else f"{bad} did not end well",
        behind,
    ]
    return "procession  " + dot.join(parts)


def _rows(timeline: Timeline, signs: Signs) -> list[Row]:
    """Main, then its tree; folded where there are too many lines for anybody to read."""
    rows = [Row(timeline.main, "")]
    spans = list(timeline.children)
    counts = {span.id: 1 for span in spans}
    if len(spans) > FOLD_ABOVE:
        spans, counts = _folded(spans)
    known = {span.id for span in spans}
    parents = {span.id: span.parent if span.parent in known else MAIN for span in spans}
    last_of = {parent: child for child, parent in parents.items()}
    for span in spans:
        trunk = ""
        above = parents[span.id]
        while above != MAIN:
            trunk = (
                " " * len(signs.trunk) if last_of[parents[above]] == above else signs.trunk
            ) + trunk
            above = parents[above]
        tip = signs.last if last_of[parents[span.id]] == span.id else signs.branch
        rows.append(Row(span, trunk + tip, counts[span.id]))
    return rows


def _folded(spans: Sequence[Lifespan]) -> tuple[list[Lifespan], dict[int, int]]:
    """Siblings of one name that ended well and started nothing, as one life from first to last."""
    starters = {span.parent for span in spans}
    groups: dict[tuple[int, str], list[Lifespan]] = {}
    for span in spans:
        if span.ended_well and span.id not in starters:
            groups.setdefault((span.parent, _stem(span.label)), []).append(span)
    kept: list[Lifespan] = []
    counts: dict[int, int] = {}
    for span in spans:
        group = groups.get((span.parent, _stem(span.label)), [])
        if span not in group or len(group) < 3:
            kept.append(span)
            counts[span.id] = 1
        elif span is group[0]:
            running = [other.running for other in group if other.running is not None]
            kept.append(
                dataclasses.replace(
                    span,
                    name=_stem(span.label),
                    target="",
                    running=min(running, default=None),
                    ended=max(other.ended for other in group),
                )
            )
            counts[span.id] = len(group)
    return kept, counts


def _stem(label: str) -> str:
    return label.rstrip("0123456789:").rstrip("-_ ") or label


def _label(row: Row) -> str:
    times = f" ×{row.count}" if row.count > 1 else ""
    return row.tree + clean(row.span.label) + times


class _Scale:
    """Times to columns."""

    def __init__(self, began: float, ended: float, width: int) -> None:
        self._began = began
        self._seconds = max(ended - began, 1e-6)
        self._width = width

    def column(self, at: float) -> int:
        share = (at - self._began) / self._seconds
        return max(0, min(self._width - 1, round(share * (self._width - 1))))

    def axis(self) -> str:
        """Labels at round times, as many as there is room for."""
        step = 10.0**-3
        while True:
            for factor in (1, 2, 5):
                if self._seconds / (step * factor) * 10 <= self._width:
                    step *= factor
                    return self._labels(step)
            step *= 10

    def _labels(self, step: float) -> str:
        text = ""
        n = 0
        while n * step <= self._seconds * 1.0001:
            column = self.column(self._began + n * step)
            label = f"{n * step:g}s"
            if column >= len(text) + (1 if text else 0) and column + len(label) <= self._width:
                text = text.ljust(column) + label
            n += 1
        return text

    def bar(self, span: Lifespan, signs: Signs) -> str:
        cells = [" "] * self._width
        asked, ended = self.column(span.asked), self.column(span.ended)
        start = self.column(span.running if span.running is not None else span.ended)
        for column in range(asked, start):
            cells[column] = signs.run
        if asked < start:
            cells[asked] = signs.asked
        for column in range(start, ended):
            cells[column] = signs.run
        if span.running is not None:
            cells[start] = signs.start
        if span.how in ("signaled", "out_of_memory", "lost"):
            cells[ended] = signs.killed
        elif span.how == "raised" or span.exitcode != 0:
            cells[ended] = signs.raised
        elif ended > start or span.running is None:
            cells[ended] = signs.returned
        return "".join(cells)


# --- text that others wrote -------------------------------------------------------------------


def clean(text: str) -> str:
    """Text of others without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def width_of(text: str) -> int:
    """Columns that a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fitted(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))
