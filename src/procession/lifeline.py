"""A recording as a model: who started whom, who lived how long, how each one ended. Pure."""

from __future__ import annotations

import dataclasses
import signal as _signal
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Lifespan", "Stray", "Timeline"]

MAIN = 0
"""Identity of the program's main process."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lifespan:
    """The life of one process; times are seconds on the recording's clock.

    Attributes:
        id: Identity in the recording; `MAIN` for the main process.
        parent: Identity of the process that started it.
        pid: Process id.
        name: Its name.
        target: What it ran, as ``module.function``; may be empty.
        asked: When it was asked for.
        running: When its code began; ``None``: it ended before.
        ended: When it ended.
        how: "returned", "raised", "exited", "signaled", "out_of_memory" or "lost".
        exitcode: Exit status, minus a signal's number, or ``None`` where nobody knows.
        text: The exception in a few words.
        daemon: Whether it was a daemon.
        stopped_by_us: Whether the signal that ended it came from the program itself.
        cpu: CPU seconds.
        max_rss: Peak resident memory in KiB.
    """

    id: int
    parent: int
    pid: int
    name: str
    target: str
    asked: float
    running: float | None
    ended: float
    how: str
    exitcode: int | None
    text: str = ""
    daemon: bool = False
    stopped_by_us: bool = False
    cpu: float = 0.0
    max_rss: int = 0

    @property
    def ended_well(self) -> bool:
        """Whether it returned, exited with 0, or was ended by the program itself."""
        return self.exitcode == 0 or (self.stopped_by_us and self.how == "signaled")

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.how == "raised":
            return f"raised {self.text}" if self.text else "raised an exception"
        if self.how in ("signaled", "out_of_memory"):
            verb = "terminated" if self.stopped_by_us else "killed"
            memory = " (out of memory)" if self.how == "out_of_memory" else ""
            return f"{verb} {signal_name(-(self.exitcode or 0))}{memory}"
        if self.how == "lost":
            return "lost with its keeper"
        return f"exited {self.exitcode}"

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
        let_go: Whether that is what `multiprocessing`'s rules say; if not, it could not be killed.
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
    """

    main: Lifespan
    children: tuple[Lifespan, ...]
    strays: tuple[Stray, ...]

    @classmethod
    def from_events(cls, events: Iterable[Mapping[str, Any]]) -> Timeline:
        """The model of a recording; events and fields that it does not know are left out."""
        began = 0.0
        last = 0.0
        main: Lifespan | None = None
        children: list[Lifespan] = []
        strays: list[Stray] = []
        for event in events:
            kind = event["event"]
            last = max(last, float(event.get("at") or event.get("ended") or 0.0))
            if kind == "recording.started":
                began = float(event["at"])
            elif kind == "program.exited":
                main = _main_of(event)
            elif kind == "process.ended":
                children.append(_lifespan_of(event))
            elif kind in ("process.let_go", "process.unkillable"):
                strays.append(Stray(event["pid"], str(event["name"]), kind == "process.let_go"))
        if main is None:  # cut before its end was told
            main = Lifespan(MAIN, MAIN, 0, "main", "", began, began, last, "lost", None)
        return cls(main, tuple(_in_order(children)), tuple(strays))

    @property
    def began(self) -> float:
        """When the program was started."""
        return self.main.asked

    @property
    def ended(self) -> float:
        """When the last of its processes had ended."""
        return max([self.main.ended, *(child.ended for child in self.children)])

    def depth(self, span: Lifespan) -> int:
        """Generations below main: 1 for main's own children."""
        by_id = {child.id: child for child in self.children}
        depth = 1
        while span.parent in by_id and depth < 1000:
            span = by_id[span.parent]
            depth += 1
        return depth


def _main_of(event: Mapping[str, Any]) -> Lifespan:
    code = int(event["exitcode"])
    started = float(event["started"])
    return Lifespan(
        id=MAIN,
        parent=MAIN,
        pid=int(event["pid"]),
        name=str(event["name"]),
        target="",
        asked=started,
        running=started,
        ended=float(event["at"]),
        how="signaled" if code < 0 else "exited",
        exitcode=code,
    )


def _lifespan_of(event: Mapping[str, Any]) -> Lifespan:
    running = event.get("running")
    return Lifespan(
        id=int(event["id"]),
        parent=int(event["parent"]),
        pid=int(event["pid"]),
        name=str(event["name"]),
        target=str(event.get("target", "")),
        asked=float(event["asked"]),
        running=None if running is None else float(running),
        ended=float(event["ended"]),
        how=str(event["how"]),
        exitcode=event.get("exitcode"),
        text=str(event.get("text", "")),
        daemon=bool(event.get("daemon")),
        stopped_by_us=bool(event.get("by")),
        cpu=float(event.get("cpu", 0.0)),
        max_rss=int(event.get("max_rss", 0)),
    )


def _in_order(children: list[Lifespan]) -> list[Lifespan]:
    """Depth first; a child whose starter is not on the record counts as main's."""
    known = {child.id for child in children}
    below: dict[int, list[Lifespan]] = {}
    for child in sorted(children, key=lambda child: (child.asked, child.id)):
        below.setdefault(child.parent if child.parent in known else MAIN, []).append(child)
    ordered: list[Lifespan] = []
    left = list(reversed(below.get(MAIN, [])))
    while left:
        child = left.pop()
        ordered.append(child)
        left += reversed(below.pop(child.id, []))
    return ordered


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 70`` where there is no name."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
