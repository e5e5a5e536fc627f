"""`procession ps`: the living programs of this user, their processes, and who waits for whom."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator

from procession import _native
from procession._kernel import procfs, programs
from procession._report.terminal import Look
from procession._report.text import duration, fitted, padded, width_of
from procession._wire import messages

_STATES = {
    "R": "runs",
    "S": "sleeps",
    "D": "is in the kernel, uninterruptible",
    "T": "is stopped",
    "t": "is stopped by a debugger",
    "Z": "has ended, not reaped",
    "I": "idle",
}
_DEEPEST = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Being:
    """A living process.

    Attributes:
        pid: Process id.
        name: Its name; its name in ps where it was not started through us.
        age: Seconds since it was asked for.
        doing: What it does.
        parent: Pid of who started it; 0 for main.
    """

    pid: int
    name: str
    age: float
    doing: str
    parent: int


def ps() -> int:
    """List them on stdout; the exit code."""
    look = Look.of(sys.stdout)
    none = True
    for guard in programs.guards(messages.COMM_GUARD):
        table = programs.table_of(guard)
        beings = living(table) if table is not None else []
        if beings:
            print("" if none else "\n", end="")
            print("\n".join(drawn(beings, look)))
            none = False
    if none:
        print("no living program of yours uses procession")
    return 0


def living(table: _native.Table) -> list[Being]:
    """A program's living processes, main first; empty where main cannot be seen from here (it is in
    another pid namespace, or has just ended).
    """
    rows = {}
    for index, _, state in table.pids():
        if index != messages.GUARD_SLOT and state in (_native.ASKED, _native.RUNNING):
            rows[index] = table.read(index)
    main = rows.get(messages.MAIN_SLOT)
    if main is None or not _is(main[2], main[3]):
        return []
    now_ns = time.monotonic_ns()
    names = {row[1] << 32 | index: (_label(row), row[2]) for index, row in rows.items()}
    beings = []
    for index, row in rows.items():
        pid, start_time, owner, asked_ns = row[2], row[3], row[4], row[10]
        if not (_is(pid, start_time) if start_time else pid == 0 or procfs.stat(pid)):
            continue  # it has gone, and whoever saw its end will say so in the table
        is_main = index == messages.MAIN_SLOT
        beings.append(
            Being(
                pid=pid,
                name=_label(row),
                age=(now_ns - asked_ns) / 1e9 if asked_ns and not is_main else _age(pid),
                doing=_doing(table, index, row, names, now_ns),
                parent=0 if is_main else names.get(owner, ("", main[2]))[1],
            )
        )
    return beings + list(_others({being.pid for being in beings}))


def _label(row: tuple[object, ...]) -> str:
    from procession.lifeline import Lifespan

    name, target = (bytes(text).decode("utf-8", "replace") for text in row[18:20])  # type: ignore[call-overload]
    label = Lifespan(
        id=0, parent=0, pid=0, name=name, target=target, asked=0.0, started=None, ended=None
    ).label
    if not label:  # a copy by os.fork() that has used a lock, or the like: nobody gave it a name
        status = procfs.stat(int(str(row[2])))
        label = status.comm if status is not None else ""
    return label


def _doing(
    table: _native.Table,
    index: int,
    row: tuple[object, ...],
    names: dict[int, tuple[str, int]],
    now_ns: int,
) -> str:
    status = procfs.stat(int(str(row[2])))
    state = status.state if status else "Z"
    doing = "starts" if row[0] == _native.ASKED else _STATES.get(state, state)
    if state not in "TtZD":
        at_exit = " at exit" if table.code_ended(index) else ""
        waits = [
            f"{name} (pid {pid}) for {duration((now_ns - since_ns) / 1e9)}"
            for whom, since_ns in table.waits(index)
            for name, pid in [names.get(whom, ("one that has ended", 0))]
        ]
        if waits:
            doing = f"waits{at_exit} for {' and for '.join(waits)}"
    return doing


def _others(known: set[int]) -> Iterator[Being]:
    """What the processes have started by other ways, and what that has started."""
    left = sorted(known)
    while left:
        parent = left.pop()
        for pid in procfs.children(parent):
            status = procfs.stat(pid)
            if pid in known or status is None or status.comm in messages.COMMS:
                continue
            known.add(pid)
            left.append(pid)
            doing = _STATES.get(status.state, status.state)
            yield Being(pid, status.comm, _age(pid), doing, parent)


def _is(pid: int, start_time: int) -> bool:
    status = procfs.stat(pid)
    return status is not None and status.start_time == start_time


def _age(pid: int) -> float:
    status = procfs.stat(pid)
    if status is None:
        return 0.0
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, since_boot - status.start_time / os.sysconf("SC_CLK_TCK"))


def drawn(beings: list[Being], look: Look) -> Iterator[str]:
    """The lines of one program: main first, then its tree, the eldest first."""
    signs = look.signs
    below: dict[int, list[Being]] = {}
    for being in sorted(beings[1:], key=lambda being: -being.age):
        below.setdefault(being.parent, []).append(being)
    lines: list[tuple[str, Being]] = []
    left = [("", "", beings[0])]
    while left:
        above, tip, being = left.pop()
        lines.append(((above + tip)[-_DEEPEST:], being))
        under = "" if not tip else above + (" " * len(tip) if tip == signs.last else signs.trunk)
        children = below.pop(being.pid, [])
        for n, child in enumerate(reversed(children)):
            left.append((under, signs.branch if n else signs.last, child))
    room = max(12, look.width * 3 // 10)
    names = [fitted(tree + look.shown(being.name), room, signs.more) for tree, being in lines]
    ages = [duration(being.age) for _, being in lines]
    pids = [str(being.pid) for _, being in lines]
    name_width = max(map(width_of, [*names, "who"]))
    pid_width, age_width = max(map(len, [*pids, "pid"])), max(map(len, [*ages, "age"]))
    yield (f"{padded('who', name_width)}  {'pid':>{pid_width}}  {'age':>{age_width}}  what it does")
    for name, pid, age, (_, being) in zip(names, pids, ages, lines, strict=True):
        start = f"{padded(name, name_width)}  {pid:>{pid_width}}  {age:>{age_width}}  "
        rest = max(12, look.width - width_of(start))
        yield start + fitted(look.shown(being.doing), rest, signs.more)
