"""A recording as a model: who started whom, who waited for whom, who lived how long, and how each
one ended. Pure: made from events alone, never from live objects.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

from procession import events
from procession._recording import reader
from procession.ending import Ending, How, signal_name

__all__ = ["MAIN", "Ending", "Lifespan", "Stray", "Timeline", "Wait", "read"]

MAIN = 0
"""Id of the program's main process in a timeline."""

_SAME_WAIT = 0.01  # seconds between two waits for one process that are drawn as one: it was polled


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """One process waited for another one's end.

    Attributes:
        whom: Id of the one waited for.
        began: When it began.
        ended: When it was over; the waiter's end or the recording's where nobody said.
    """

    whom: int
    began: float
    ended: float


@dataclasses.dataclass(frozen=True, slots=True)
class Lifespan:
    """The life of one process; times are seconds on the recording's clock.

    They are in order whatever a recording says: ``asked <= started <= code_ended <= ended <=
    reaped`` for those that are not ``None``.

    Attributes:
        id: Its number in the timeline, in the order of asking; `MAIN` for the main process.
        parent: Number of the process that started it.
        pid: Process id.
        name: Its name.
        target: What it ran, as ``module.function``; may be empty.
        asked: When it was asked for.
        started: When its code began; ``None``: it never came to that.
        code_ended: When its code had ended and it waited at exit for those that it had started.
        ended: When it ended; ``None``: it lived when the recording ended.
        reaped: When it was reaped; ``None``: not yet.
        ending: How it ended; ``None``: nobody knows yet.
        waits: For whose ends it waited, in order.
        stops: When it was stopped and went on, in order.
        daemon: Whether it was a daemon.
        method: Start method.
        cpu: CPU seconds.
        max_rss: Peak resident memory, bytes.
    """

    id: int
    parent: int
    pid: int
    name: str
    asked: float
    started: float | None
    ended: float | None
    target: str = ""
    code_ended: float | None = None
    reaped: float | None = None
    ending: Ending | None = None
    waits: tuple[Wait, ...] = ()
    stops: tuple[tuple[float, float], ...] = ()
    daemon: bool = False
    method: str = ""
    cpu: float = 0.0
    max_rss: int = 0

    @property
    def ended_well(self) -> bool:
        """Whether nothing is to be seen to: it lives, came to its own end, or was ended by us."""
        if self.ending is None or self.ending.exitcode == 0:
            return True
        return self.ending.how is How.SIGNALED and self.ending.killed_by is not None

    @property
    def how_it_ended(self) -> str:
        """In a few words."""
        ending = self.ending
        if self.ended is None:
            return "not ended" if self.started is not None else "not started"
        if ending is None:
            return "ended" if self.id == MAIN else "ended, not reaped"
        match ending.how:
            case How.RAISED:
                return f"raised {ending.text}" if ending.text else "raised an exception"
            case How.OUT_OF_MEMORY:
                return f"killed {signal_name(-ending.exitcode)} (out of memory)"
            case How.SIGNALED:
                verb = "killed" if ending.killed_by is None else "terminated"
                return f"{verb} {signal_name(-ending.exitcode)}"
            case How.LOST:
                return "lost with its keeper"
            case _:
                return f"exited {ending.exitcode}"

    @property
    def label(self) -> str:
        """Its name, or its target's where the user gave none."""
        head, _, count = self.name.rpartition("-")
        if self.target and head.endswith("Process") and count.replace(":", "").isdigit():
            return self.target.rpartition(".")[2].strip("<>") + "-" + count
        return self.name


@dataclasses.dataclass(frozen=True, slots=True)
class Stray:
    """A process that was still there when the program had ended.

    Attributes:
        pid: Its process id.
        name: Its name in ps.
        let_go: Whether `multiprocessing`'s rules say so; otherwise it could not be killed.
    """

    pid: int
    name: str
    let_go: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """All lives of a program.

    Attributes:
        main: The main process.
        children: Every other one, each after its starter, siblings by the time of their asking.
        strays: What was still there at the end.
        began: When the recording began.
        ended: When the last thing happened that is on the record.
        complete: Whether the program's end is on the record.
        command: What was run, where `procession run` ran it.
        kept: What of `multiprocessing` stayed standard: name and reason.
    """

    main: Lifespan
    children: tuple[Lifespan, ...]
    strays: tuple[Stray, ...]
    began: float
    ended: float
    complete: bool
    command: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_events(cls, told: Iterable[events.Event]) -> Timeline:
        """The model of a recording, in whatever order it was told and wherever it was cut."""
        builder = _Builder()
        for event in told:
            builder.add(event)
        return builder.timeline()


def read(path: str | os.PathLike[str]) -> Timeline:
    """The timeline of a recording, also of one that was cut or is still written.

    Raises:
        OSError: The file cannot be read.
        RecordingError: It is no recording, or one of a later version.
    """
    with open(path, "rb") as file:
        return Timeline.from_events(reader.read(file.read()))


# --- from events to lives ---------------------------------------------------------------------

_Key = tuple[int, int]
"""Keeper and id: two guards that write into one recording number their processes alike."""


class _Life:
    """A life while its events come in."""

    __slots__ = (
        "asked",
        "code_ended",
        "cpu",
        "daemon",
        "ended",
        "ending",
        "key",
        "max_rss",
        "method",
        "name",
        "open_waits",
        "parent",
        "pid",
        "reaped",
        "started",
        "stops",
        "target",
        "waits",
    )

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.parent: _Key | None = None
        self.pid = 0
        self.name = self.target = self.method = ""
        self.daemon = False
        self.asked: float | None = None
        self.started: float | None = None
        self.code_ended: float | None = None
        self.ended: float | None = None
        self.reaped: float | None = None
        self.ending: Ending | None = None
        self.cpu = 0.0
        self.max_rss = 0
        self.waits: list[tuple[_Key, float, float]] = []
        self.open_waits: dict[_Key, float] = {}
        self.stops: list[tuple[float, bool]] = []


class _Builder:
    """Takes events one by one; makes the timeline when all are there."""

    def __init__(self) -> None:
        self._lives: dict[_Key, _Life] = {}
        self._mains: dict[int, _Life] = {}
        """Pid → a main process: of the program, or of a copy that forked itself away from it."""
        self._main_of: dict[int, _Life] = {}
        """Keeper → the main process that it serves."""
        self._first: _Life | None = None
        self._began: float | None = None
        self._last: float | None = None
        self._command: tuple[str, ...] = ()
        self._strays: list[Stray] = []
        self._kept: dict[str, str] = {}

    def add(self, event: events.Event) -> None:
        """Take one event in."""
        self._last = event.at if self._last is None else max(self._last, event.at)
        match event:
            case events.ProcessAsked():
                life = self._life(event.keeper, event.id)
                life.parent = (event.keeper, event.parent)
                life.pid, life.name, life.target = event.pid, event.title, event.target
                life.method, life.daemon = event.method, event.daemon
                life.asked = event.at
            case events.ProcessStarted():
                self._life(event.keeper, event.id).started = event.at
            case events.ProcessEnded():
                self._life(event.keeper, event.id).ended = event.at
            case events.ProcessReaped():
                life = self._life(event.keeper, event.id)
                life.reaped = event.at
                life.ending = _ending(event)
                life.cpu, life.max_rss = event.cpu, event.max_rss
            case events.WaitEnded():
                life = self._life(event.keeper, event.waiter)
                life.open_waits.pop((event.keeper, event.whom), None)
                life.waits.append(((event.keeper, event.whom), event.began, event.at))
            case events.WaitBegan():
                life = self._life(event.keeper, event.waiter)
                life.open_waits[event.keeper, event.whom] = event.at
            case events.ProcessCodeEnded():
                self._life(event.keeper, event.id).code_ended = event.at
            case events.ProcessStopped() | events.ProcessContinued():
                stopped = isinstance(event, events.ProcessStopped)
                self._life(event.keeper, event.id).stops.append((event.at, stopped))
            case _:
                self._add_of_program(event)

    def _add_of_program(self, event: events.Event) -> None:
        match event:
            case events.RecordingStarted():
                self._began = event.at
                self._command = event.command
            case events.ProgramStarted():
                self._program_started(event)
            case events.ProgramExited():
                life = self._main(event.pid)
                life.ended = life.reaped = event.at
                life.cpu, life.max_rss = event.cpu, event.max_rss
                how = How.SIGNALED if event.exitcode < 0 else How.EXITED
                life.ending = Ending(how, event.exitcode)
            case events.ProgramEnded(how=how) if how != "closed":
                life = self._main(event.pid)
                if life.ended is None:
                    life.ended = event.at
            case events.ProcessLetGo():
                self._strays.append(Stray(event.pid, event.comm, True))
            case events.ProcessUnkillable():
                self._strays.append(Stray(event.pid, event.comm, False))
            case events.StandardKept():
                self._kept.setdefault(event.what, event.why)

    def _program_started(self, event: events.ProgramStarted) -> None:
        life = self._main(event.pid)
        if event.keeper:
            self._main_of[event.keeper] = life
            orphan = self._lives.pop((event.keeper, events.MAIN), None)
            if orphan is not None and orphan is not life:  # it was spoken of before it was named
                life.waits += orphan.waits
                life.open_waits |= orphan.open_waits
                life.code_ended = life.code_ended or orphan.code_ended
        if not event.keeper or not life.name:
            life.name = event.program
        # what `procession run` says is the earliest, though it is told last
        life.asked = event.at if life.asked is None else min(life.asked, event.at)
        if not event.keeper:
            self._first = life
        elif event.parent_pid and life.parent is None:
            life.parent = (-1, event.parent_pid)

    def _main(self, pid: int) -> _Life:
        life = self._mains.get(pid)
        if life is None:
            life = self._mains[pid] = _Life((-2, pid))
            life.pid = pid
            if self._first is None:
                self._first = life
        return life

    def _life(self, keeper: int, number: int) -> _Life:
        if number == events.MAIN and keeper in self._main_of:
            return self._main_of[keeper]
        life = self._lives.get((keeper, number))
        if life is None:
            life = self._lives[keeper, number] = _Life((keeper, number))
        return life

    # --- when all are there ----------------------------------------------------------------

    def timeline(self) -> Timeline:
        """The finished model."""
        lives = [life for life in self._lives.values() if life.key[1] != events.MAIN]
        first = self._first or self._main(0)
        lives += [life for life in self._mains.values() if life is not first]
        known = [life.asked for life in [first, *lives] if life.asked is not None]
        last = self._last if self._last is not None else 0.0
        began = self._began if self._began is not None else min([*known, last])
        if first.asked is None or self._began is not None:
            first.asked = began
        first.name = first.name or "main"
        last = max(last, began)
        order = sorted(lives, key=lambda life: (_clamp(life.asked, began, last), life.key))
        numbers = {life.key: number for number, life in enumerate(order, 1)}
        by_pid = {life.pid: life.key for life in order}
        for keeper, life in self._main_of.items():
            numbers[keeper, events.MAIN] = numbers.get(life.key, MAIN)
        numbers[first.key] = MAIN
        spans = []
        for life in order:
            parent = life.parent
            if parent is not None and parent[0] == -1:
                parent = by_pid.get(parent[1])
            spans.append(
                self._span(
                    life, numbers.get(parent, MAIN) if parent else MAIN, numbers, began, last
                )
            )
        main = self._span(first, MAIN, numbers, began, last)
        if main.started is None:
            main = dataclasses.replace(main, started=main.asked)
        return Timeline(
            main=main,
            children=tuple(_in_order(spans)),
            strays=tuple(self._strays),
            began=main.asked,
            ended=last,
            complete=first.ended is not None,
            command=self._command,
            kept=tuple(self._kept.items()),
        )

    def _span(
        self, life: _Life, parent: int, numbers: dict[_Key, int], began: float, last: float
    ) -> Lifespan:
        """Times in order, whatever the recording says: each is at least the one before."""
        number = numbers[life.key]
        asked = _clamp(life.asked, began, last)
        is_main = life.key[0] == -2
        started = asked if is_main else _after(life.started, asked)
        code_ended = _after(life.code_ended, started if started is not None else asked)
        # a guard may come late to see an end that the parent has reaped already
        known = [at for at in (life.ended, life.reaped) if at is not None]
        ended = min(known) if known else None
        floor = max(asked, started or asked, code_ended or asked)
        ended = _after(ended, floor)
        reaped = _after(life.reaped, ended if ended is not None else floor)
        end = last if ended is None else ended
        waits = [(numbers[whom], a, b) for whom, a, b in life.waits if whom in numbers]
        waits += [(numbers[whom], a, end) for whom, a in life.open_waits.items() if whom in numbers]
        return Lifespan(
            id=number,
            parent=parent if parent != number else MAIN,
            pid=life.pid,
            name=life.name,
            target=life.target,
            asked=asked,
            started=started,
            code_ended=code_ended,
            ended=ended,
            reaped=reaped,
            ending=life.ending,
            waits=_merged(waits, asked, end),
            stops=_stops(life.stops, asked, end),
            daemon=life.daemon,
            method=life.method,
            cpu=life.cpu,
            max_rss=life.max_rss,
        )


def _ending(event: events.ProcessReaped) -> Ending:
    try:
        how = How(event.how)
    except ValueError:  # a way of a later version
        how = How.SIGNALED if event.exitcode < 0 else How.EXITED
    return Ending(how, event.exitcode, event.text, event.by or None)


def _clamp(at: float | None, low: float, high: float) -> float:
    return low if at is None else max(low, min(at, high))


def _after(at: float | None, floor: float) -> float | None:
    return None if at is None else max(at, floor)


def _merged(waits: list[tuple[int, float, float]], low: float, high: float) -> tuple[Wait, ...]:
    """In order and within the life; polling one process with a timeout is one wait for it."""
    merged: list[Wait] = []
    for whom, began, ended in sorted(waits, key=lambda wait: wait[1]):
        began = _clamp(began, low, high)
        ended = max(began, min(ended, high))
        before = merged[-1] if merged else None
        if before is not None and before.whom == whom and began <= before.ended + _SAME_WAIT:
            merged[-1] = Wait(whom, before.began, max(before.ended, ended))
        else:
            merged.append(Wait(whom, began, ended))
    return tuple(merged)


def _stops(
    told: list[tuple[float, bool]], low: float, high: float
) -> tuple[tuple[float, float], ...]:
    stops: list[tuple[float, float]] = []
    since: float | None = None
    for at, stopped in sorted(told):
        if stopped and since is None:
            since = _clamp(at, low, high)
        elif not stopped and since is not None:
            stops.append((since, _clamp(at, since, high)))
            since = None
    if since is not None:
        stops.append((since, high))
    return tuple(stops)


def _in_order(spans: list[Lifespan]) -> list[Lifespan]:
    """Depth first; a child whose starter is not on the record counts as main's, and so does one in
    a circle, which only a damaged recording has.
    """
    known = {span.id for span in spans}
    below: dict[int, list[Lifespan]] = {}
    for span in spans:
        below.setdefault(span.parent if span.parent in known else MAIN, []).append(span)
    ordered: list[Lifespan] = []
    seen: set[int] = set()
    for root in [*below.get(MAIN, []), *spans]:
        if root.id in seen:
            continue
        left = [root if root.parent == MAIN else dataclasses.replace(root, parent=MAIN)]
        while left:
            span = left.pop()
            if span.id not in seen:
                seen.add(span.id)
                ordered.append(span)
                left += reversed(below.get(span.id, []))
    return ordered
