"""The picture in a terminal: the tree, how each one ended, and a bar for its life.

The bar answers two questions at a glance: who outlives whom, since all bars share one time axis;
and who waits for whom, since the name of the one waited for stands in the bar of the one who waits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TextIO

from procession._report.rows import Row, rows_of
from procession._report.text import clean, duration, fitted, padded, width_of, wrapped
from procession.ending import How, signal_name
from procession.lifeline import MAIN, Lifespan, Timeline

NARROWEST, WIDEST = 40, 250
PIDS_FROM = 60  # columns; below, the pids give way to the bars
SHORTEST_BAR = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Signs:
    """The characters that the picture is made of."""

    asked: str = "·"
    start: str = "├"
    run: str = "─"
    returned: str = "┤"
    moment: str = "│"
    joins: str = "═"
    exits: str = "┈"
    stopped: str = "▒"
    killed: str = "╳"
    raised: str = "!"
    zombie: str = "┄"
    alive: str = "▸"
    levels: str = "▁▂▃▄▅▆▇█"
    branch: str = "├ "
    last: str = "└ "
    trunk: str = "│ "
    dot: str = "·"
    times: str = "×"
    more: str = "…"


UNICODE = Signs()
ASCII = Signs(
    asked=".",
    start="|",
    run="-",
    returned="|",
    moment="|",
    joins="=",
    exits="~",
    stopped="#",
    killed="x",
    raised="!",
    zombie=":",
    alive=">",
    levels="_.:-=+*#",
    branch="|- ",
    last="`- ",
    trunk="|  ",
    dot="-",
    times="x",
    more="~",
)

_GREEN, _RED, _YELLOW, _MAGENTA, _DIM, _BOLD = "32", "31", "33", "35", "2", "1"
_TITLE = "procession"
_LEGEND = (
    ("asked", "asked for"),
    ("joins", "blocked in join"),
    ("exits", "code ended, waits at exit"),
    ("stopped", "stopped"),
    ("killed", "ended by a signal"),
    ("raised", "failed"),
    ("zombie", "ended, not reaped"),
    ("alive", "alive"),
    ("levels", "how many lived"),
)


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
        if (told := os.environ.get("COLUMNS", "")).isdecimal() and len(told) < 6:
            width = int(told)
        colour = (
            stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        try:
            "".join(dataclasses.astuple(UNICODE)).encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            signs = ASCII
        else:
            signs = UNICODE
        return cls(max(NARROWEST, min(width or 80, WIDEST)), colour, signs)

    def painted(self, text: str, colour: str) -> str:
        """The text in a colour, where there are any."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour and text else text

    def shown(self, text: str) -> str:
        """Text of others: without control characters, and in ASCII where there is no more."""
        text = clean(text)
        return text.encode("ascii", "replace").decode() if self.signs is ASCII else text


def picture(timeline: Timeline, look: Look, *, verbose: bool = False) -> str:
    """Draw a timeline; ends with a line feed.

    Args:
        timeline: The lives.
        look: What the terminal can show.
        verbose: Also say what of `multiprocessing` stayed standard.
    """
    signs = look.signs
    rows = rows_of(timeline, signs.trunk, signs.branch, signs.last, signs.times)
    used: set[str] = set()
    lines = [*_summary(timeline, look), "", *_table(timeline, rows, look, used)]
    legend = [look.painted(line, _DIM) for line in _legend(used, look)]
    lines += ["", *legend] if legend else []
    notes = _notes(timeline, look, verbose)
    lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _summary(timeline: Timeline, look: Look) -> list[str]:
    children = len(timeline.children)
    bad = sum(not span.ended_well for span in [timeline.main, *timeline.children])
    alive = sum(span.ended is None for span in [timeline.main, *timeline.children])
    stray = sum(not stray.let_go for stray in timeline.strays)
    gone = len(timeline.strays) - stray
    counted = "no children" if not children else f"{children} child{'ren' * (children > 1)}"
    parts = [look.shown(timeline.main.name), counted, duration(timeline.ended - timeline.began)]
    if bad:
        parts.append(f"{bad} did not end well")
    elif timeline.complete:
        parts.append("all ended well")
    if not timeline.complete:
        parts.append(f"{alive} alive when the recording ends")
    elif stray:
        parts.append(f"{stray} could not be killed")
    else:
        parts.append(f"{gone} let go" if gone else "nothing left behind")
    parts[0] = f"{_TITLE}  {parts[0]}"
    indent = " " * (len(_TITLE) + 2 if look.width >= PIDS_FROM else 2)
    dot, more = look.signs.dot, look.signs.more
    first, *rest = wrapped(parts, look.width, f" {dot} ", indent, more)
    return [look.painted(_TITLE, _BOLD) + first.removeprefix(_TITLE), *rest]


def _notes(timeline: Timeline, look: Look, verbose: bool) -> list[str]:
    lines = []
    for stray in timeline.strays:
        what = "let go" if stray.let_go else "could not be killed"
        lines.append(f"{what}: {look.shown(stray.name)} (pid {stray.pid})")
    if verbose:
        lines += [
            f"stayed standard: {look.shown(what)}" + (f" ({look.shown(why)})" if why else "")
            for what, why in timeline.kept
        ] or ["stayed standard: nothing that was used"]
    return [fitted(line, look.width, look.signs.more) for line in lines]


# --- the table --------------------------------------------------------------------------------


def _table(timeline: Timeline, rows: Sequence[Row], look: Look, used: set[str]) -> Iterator[str]:
    """The lines of the table; the names of the signs in it are added to ``used``."""
    signs, wide = look.signs, look.width >= PIDS_FROM
    name_room = max(12, look.width * 3 // 10)
    names = [_name(row, look, name_room) for row in rows]
    pids = [str(row.span.pid) if len(row.spans) == 1 and row.span.pid else "" for row in rows]
    endings = [look.shown(_ending(row, brief=not wide)) for row in rows]
    name_width = max(map(width_of, [*names, "who"]))
    pid_width = max(map(len, [*pids, "pid"])) + 2 if wide else 0
    ending_width = max(map(width_of, [*endings, "how it ended" if wide else "ended"]))
    left = look.width - name_width - pid_width - 4
    most = max(12, min(44, left - SHORTEST_BAR, left // 2)) if wide else 10
    ending_width = min(ending_width, most)
    bars = _Bars(timeline, left - ending_width, look, used)

    def line(name: str, pid: str, ending: str, colour: str, bar: str) -> str:
        pid = f"{pid:>{pid_width}}" if wide else ""
        text = fitted(ending, ending_width, signs.more)
        ending = look.painted(text, colour) + " " * (ending_width - width_of(text))
        return f"{padded(name, name_width)}{pid}  {ending}  {bar}".rstrip()

    title = "how it ended" if wide else "ended"
    yield look.painted(line("who", "pid", title, "", bars.axis()), _DIM)
    for row, name, pid, ending in zip(rows, names, pids, endings, strict=True):
        colour = _RED if not row.ended_well else "" if row.span.ended is None else _GREEN
        bar = bars.life(row.span) if len(row.spans) == 1 else bars.many(row.spans)
        yield line(name, pid, ending, colour, bar)


def _name(row: Row, look: Look, room: int) -> str:
    tree = row.tree
    if len(tree) > room // 2:  # deep below: the name is worth more than the trunks
        tree = look.signs.more + tree[-(room // 2 - 1) :]
    label = look.shown(row.label)
    if len(row.spans) > 1:  # how many they are is not to be cut off
        name, _, count = label.rpartition(" ")
        return tree + fitted(name, room - len(tree) - len(count) - 1, look.signs.more) + " " + count
    return tree + fitted(label, room - len(tree), look.signs.more)


def _ending(row: Row, *, brief: bool) -> str:
    texts = {_brief(span) if brief else span.how_it_ended for span in row.spans}
    if len(texts) == 1:
        return texts.pop()
    return ("well" if brief else "all ended well") if row.ended_well else "in several ways"


def _brief(span: Lifespan) -> str:
    """How it ended in ten columns, where there are no more."""
    ending = span.ending
    if span.ended is None:
        return "alive"
    if ending is None:
        return "ended" if span.id == MAIN else "zombie"
    if ending.how is How.RAISED:
        return ending.text.partition(":")[0] or "raised"
    if ending.how is How.OUT_OF_MEMORY:
        return "no memory"
    if ending.how is How.LOST:
        return "lost"
    return signal_name(-ending.exitcode) if ending.exitcode < 0 else f"exited {ending.exitcode}"


def _legend(used: set[str], look: Look) -> list[str]:
    """What the signs mean that are in this picture and do not speak for themselves."""
    parts = []
    for sign, text in _LEGEND:
        if sign in used:
            shown = look.signs.levels[::3] if sign == "levels" else getattr(look.signs, sign)
            parts.append(f"{shown} {text}")
    return wrapped(parts, look.width, "   ", "", look.signs.more)


# --- bars -------------------------------------------------------------------------------------


def _end_sign(span: Lifespan) -> str:
    """The name of the sign at the end of a life."""
    if span.ended is None:
        return "alive"
    if span.ending is None or span.ending.exitcode == 0:
        return "returned"
    if span.ending.how in (How.SIGNALED, How.OUT_OF_MEMORY, How.LOST):
        return "killed"
    return "raised"


def _joins(span: Lifespan) -> list[tuple[float, float, int]]:
    """The waits of its own code: begin, end, for whom."""
    limit = span.code_ended if span.code_ended is not None else 9e99
    return [
        (wait.began, min(wait.ended, limit), wait.whom) for wait in span.waits if wait.began < limit
    ]


class _Bars:
    """Lives as bars over one time axis.

    Args:
        timeline: All the lives.
        width: Columns of a bar.
        look: What the terminal can show.
        used: Takes the names of the signs that were drawn.
    """

    def __init__(self, timeline: Timeline, width: int, look: Look, used: set[str]) -> None:
        self._began = timeline.began
        self._ended = timeline.ended
        self._seconds = max(timeline.ended - timeline.began, 1e-6)
        self._width = width
        self._look = look
        self._used = used
        self._names = {
            span.id: look.shown(span.label) for span in (timeline.main, *timeline.children)
        }

    def _column(self, at: float) -> int:
        share = (at - self._began) / self._seconds
        return max(0, min(self._width - 1, round(share * (self._width - 1))))

    def axis(self) -> str:
        """Labels at round times, as many as there is room for."""
        step = next((s for s in _steps() if self._seconds / s * 7 <= self._width), self._seconds)
        text = ""
        for n in range(self._width):
            if n * step > self._seconds * 1.0001:
                break
            column = self._column(self._began + n * step)
            label = _tick(n * step)
            if column >= len(text) + bool(text) and column + len(label) <= self._width:
                text = text.ljust(column) + label
        return text

    def life(self, span: Lifespan) -> str:
        """One life."""
        signs = self._look.signs
        cells = _Cells(self._width)
        end = self._column(self._ended if span.ended is None else span.ended)
        start = end if span.started is None else self._column(span.started)
        begin = self._column(span.asked)
        if begin < start:
            self._used.add("asked")
            cells.fill(begin, start, signs.asked)
        if span.started is not None:
            cells.fill(start, end + 1, signs.run)
        for began, ended, whom in _joins(span):
            self._wait(cells, "joins", began, ended, whom, start, end)
        if span.code_ended is not None:
            until = self._ended if span.ended is None else span.ended
            self._wait(cells, "exits", span.code_ended, until, -1, start, end)
            for wait in span.waits:
                if wait.ended > span.code_ended:
                    began = max(wait.began, span.code_ended)
                    self._wait(cells, "exits", began, wait.ended, wait.whom, start, end)
        for since, until in span.stops:
            if self._shows(since, until):
                self._used.add("stopped")
                cells.fill(self._column(since), self._column(until) + 1, signs.stopped, _MAGENTA)
        self._ends(cells, span, start, end)
        return cells.text(self._look)

    def _shows(self, began: float, ended: float) -> bool:
        """Whether it lasted for half a column at least; what is shorter is only noise."""
        return (ended - began) * self._width * 2 >= self._seconds

    def _ends(self, cells: _Cells, span: Lifespan, start: int, end: int) -> None:
        signs, kind = self._look.signs, _end_sign(span)
        if span.started is not None:
            cells.put(start, signs.start)
        if kind in ("killed", "raised"):
            cells.put(end, getattr(signs, kind), _YELLOW if span.ended_well else _RED)
        elif kind == "alive" or end > start or span.started is None:
            cells.put(end, getattr(signs, kind))
        else:
            cells.put(end, signs.moment)
        self._used.add(kind)
        if span.ended is not None and span.id != MAIN:
            reaped = self._ended if span.reaped is None else span.reaped
            if self._shows(span.ended, reaped) and self._column(reaped) > end:
                self._used.add("zombie")
                cells.fill(end + 1, self._column(reaped) + 1, signs.zombie, _RED)

    def _wait(
        self,
        cells: _Cells,
        kind: str,
        began: float,
        ended: float,
        whom: int,
        start: int,
        end: int,
    ) -> None:
        """A wait, with the name of the one waited for in it where there is room."""
        first = max(self._column(began), start + 1)
        last = min(self._column(ended), end - 1)
        if last < first or not self._shows(began, ended):
            return
        self._used.add(kind)
        cells.fill(first, last + 1, getattr(self._look.signs, kind), _YELLOW)
        name = self._names.get(whom, "")
        room = last + 1 - first - 2
        if name and room >= min(5, width_of(name)):
            text = fitted(name, room, self._look.signs.more)
            if width_of(text) + 2 <= room:
                text = f" {text} "
            cells.write(first + (last + 1 - first - width_of(text)) // 2, text, _YELLOW)

    def many(self, spans: Sequence[Lifespan]) -> str:
        """How many of several lived at each moment."""
        self._used.add("levels")
        changes = [0] * (self._width + 1)
        for span in spans:
            changes[self._column(span.asked)] += 1
            changes[self._column(self._ended if span.ended is None else span.ended) + 1] -= 1
        counts, living = [], 0
        for change in changes[:-1]:
            living += change
            counts.append(living)
        levels, most = self._look.signs.levels, max([*counts, 1])
        return "".join(
            levels[max(0, (count * len(levels) + most - 1) // most - 1)] if count else " "
            for count in counts
        )


class _Cells:
    """The columns of a bar: each a sign with its colour."""

    def __init__(self, width: int) -> None:
        self._signs = [" "] * width
        self._colours = [""] * width

    def put(self, column: int, sign: str, colour: str = "") -> None:
        self._signs[column], self._colours[column] = sign, colour

    def fill(self, begin: int, end: int, sign: str, colour: str = "") -> None:
        for column in range(max(0, begin), min(end, len(self._signs))):
            self.put(column, sign, colour)

    def write(self, column: int, text: str, colour: str = "") -> None:
        """Text; a wide character takes the column after it too, one without width goes along."""
        for character in text:
            width = width_of(character)
            if width == 0:
                self._signs[column - 1] += character
                continue
            self.put(column, character, colour)
            if width == 2:
                self.put(column + 1, "", colour)
            column += width

    def text(self, look: Look) -> str:
        """The cells, colours of neighbours together."""
        text, at = "", 0
        while at < len(self._signs):
            end = at + 1
            while end < len(self._signs) and self._colours[end] == self._colours[at]:
                end += 1
            text += look.painted("".join(self._signs[at:end]), self._colours[at])
            at = end
        return text.rstrip()


def _steps() -> Iterator[float]:
    """Round spans of time, from a millisecond on."""
    for power in range(-3, 1):
        for factor in (1, 2, 5):
            yield factor * 10.0**power
    yield from (10, 20, 30)
    for minutes in (1, 2, 5, 10, 20, 30):
        yield minutes * 60
    for hours in (1, 2, 4, 6, 12, 24):
        yield hours * 3600
    for power in range(1, 12):
        for factor in (2, 5, 10):
            yield factor * 10.0 ** (power - 1) * 86400


def _tick(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    if seconds < 120:
        return f"{seconds:g}s"
    if seconds < 7200:
        return f"{seconds / 60:g}min"
    return f"{seconds / 3600:g}h" if seconds < 172800 else f"{seconds / 86400:g}d"
