"""Recordings of random programs: cut anywhere, damaged anywhere, with any names and clocks."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from procession import events
from procession._recording import reader, writer
from procession._report.terminal import ASCII, UNICODE, Look, picture
from procession._report.text import width_of
from procession.lifeline import MAIN, Timeline

HOWS = ("returned", "raised", "exited", "signaled", "out_of_memory", "lost")
names = st.one_of(st.sampled_from(["a", "loader-1", "loader-2", "Process-1"]), st.text(max_size=40))
times = st.floats(0, 1000, allow_nan=False).map(lambda at: round(at, 6))


class Person:
    """One process of the simple model: who started it, when it lived."""

    def __init__(self, number: int, parent: int, name: str, moments: list[float], how: str) -> None:
        self.number, self.parent, self.name, self.how = number, parent, name, how
        self.asked, self.started, self.ended = sorted(moments)

    def lines(self) -> list[tuple[float, bytes]]:
        code = {"signaled": -9, "out_of_memory": -9, "returned": 0, "lost": 255}.get(self.how, 1)
        return [
            (
                self.asked,
                writer.line(
                    "process.asked",
                    self.asked,
                    5,
                    id=self.number,
                    parent=self.parent,
                    pid=self.number + 100,
                    title=self.name,
                ),
            ),
            (self.started, writer.line("process.started", self.started, 5, id=self.number)),
            (self.ended, writer.line("process.ended", self.ended, 5, id=self.number)),
            (
                self.ended,
                writer.line(
                    "process.reaped", self.ended, 5, id=self.number, how=self.how, exitcode=code
                ),
            ),
        ]


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Person], bytes]:
    """Some processes, each started by main or an earlier one, and the recording of them."""
    people: list[Person] = []
    for number in range(1, draw(st.integers(0, 12)) + 1):
        parent = draw(st.integers(0, number - 1))
        moments = draw(st.lists(times, min_size=3, max_size=3))
        people.append(Person(number, parent, draw(names), moments, draw(st.sampled_from(HOWS))))
    told = [line for person in people for line in person.lines()]
    for person in people:  # its starter waits for it, from somewhere in its life to its end
        if draw(st.booleans()):
            told.append(
                (
                    person.ended,
                    writer.line(
                        "wait.ended",
                        person.ended,
                        5,
                        waiter=person.parent,
                        whom=person.number,
                        began=person.started,
                    ),
                )
            )
    told.append((0.0, writer.line("program.started", 0.0, 5, pid=50, program=draw(names))))
    told.append((1001.0, writer.line("program.exited", 1001.0, 0, pid=50, exitcode=0)))
    told.sort(key=lambda pair: pair[0])
    return people, writer.head(0.0, 0.0, "1") + b"".join(line for _, line in told)


looks = st.builds(
    Look,
    width=st.sampled_from([40, 41, 59, 60, 80, 200, 250]),
    colour=st.booleans(),
    signs=st.sampled_from([UNICODE, ASCII]),
)


def timeline_of(contents: bytes) -> Timeline:
    return Timeline.from_events(reader.read(contents))


def must_be_drawable(timeline: Timeline, look: Look) -> str:
    """No line is wider than the terminal, no character commands it, colour only repeats."""
    text = picture(timeline, look, verbose=True)
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert "\x1b" not in plain
    for line in plain.splitlines():
        assert width_of(line) <= look.width
        assert line.isprintable()
    if look.signs is ASCII:
        assert plain.isascii()
    if not look.colour:
        assert plain == text
    return plain


def must_be_in_order(timeline: Timeline) -> None:
    """Every time lies after the one before it, and every life within the recording."""
    seen = {MAIN}
    for span in [timeline.main, *timeline.children]:
        moments = [span.asked, span.started, span.code_ended, span.ended, span.reaped]
        known = [moment for moment in moments if moment is not None]
        assert known == sorted(known)
        end = span.ended if span.ended is not None else timeline.ended
        for wait in span.waits:
            assert span.asked <= wait.began <= wait.ended <= end
        for since, until in span.stops:
            assert span.asked <= since <= until <= end
        assert span.parent in seen
        seen.add(span.id)


@given(programs(), looks)
@settings(deadline=None, max_examples=60)
def test_random_trees_are_what_the_simple_model_says(program, look):
    people, contents = program
    timeline = timeline_of(contents)
    must_be_in_order(timeline)
    must_be_drawable(timeline, look)
    assert timeline.complete
    by_pid = {span.pid: span for span in timeline.children}
    assert len(by_pid) == len(timeline.children) == len(people)
    for person in people:
        span = by_pid[person.number + 100]
        starter = by_pid[person.parent + 100].id if person.parent else MAIN
        assert (span.parent, span.name) == (starter, person.name)
        assert (span.asked, span.started, span.ended) == (
            person.asked,
            person.started,
            person.ended,
        )
        assert span.ending.how == person.how


@given(programs(), looks)
@settings(deadline=None, max_examples=6)
def test_a_recording_cut_at_every_byte_reads_as_far_as_it_goes(program, look):
    _, contents = program
    whole = list(reader.read(contents))
    read = 0
    for end in range(len(contents) + 1):
        cut = contents[:end]
        told = list(reader.read(cut))
        assert told == whole[: cut.count(b"\n")]  # all lines that are whole, and nothing else
        if len(told) != read or end == len(contents):
            read = len(told)
            timeline = Timeline.from_events(told)
            must_be_in_order(timeline)
            must_be_drawable(timeline, look)


@given(programs(), st.data(), looks)
@settings(deadline=None, max_examples=40)
def test_a_damaged_recording_costs_the_damaged_lines_only(program, data, look):
    _, contents = program
    head, _, rest = contents.partition(b"\n")
    lines = rest.splitlines(keepends=True)
    spoilt = data.draw(st.sets(st.integers(0, len(lines) - 1), max_size=3))
    for number in spoilt:
        at = data.draw(st.integers(0, len(lines[number]) - 2))
        lines[number] = lines[number][:at] + b"\x00" + lines[number][at + 1 :]
    told = list(reader.read(head + b"\n" + b"".join(lines)))
    assert len(told) == 1 + len(lines) - len(spoilt)
    timeline = Timeline.from_events(told)
    must_be_in_order(timeline)
    must_be_drawable(timeline, look)


_FIELDS = {
    "float": st.one_of(times, st.floats(-1e9, 1e9)),
    "int": st.integers(-3, 5),
    "str": st.one_of(st.sampled_from(HOWS), names, st.just("normal")),
    "bool": st.booleans(),
    "tuple[str, ...]": st.lists(names, max_size=3).map(tuple),
}


def any_event(kind: type[events.Event]) -> st.SearchStrategy[events.Event]:
    import dataclasses

    fields = {field.name: _FIELDS[str(field.type)] for field in dataclasses.fields(kind)}
    return st.builds(kind, **fields)


@given(
    st.lists(st.one_of([any_event(kind) for kind in events.BY_NAME.values()]), max_size=40), looks
)
@settings(deadline=None, max_examples=150)
def test_nothing_that_is_told_in_whatever_order_and_by_whatever_clock_is_too_much(told, look):
    timeline = Timeline.from_events(told)
    must_be_in_order(timeline)
    must_be_drawable(timeline, look)
