"""The model: from events alone to who lived when, and how each one ended."""

from __future__ import annotations

import pytest

from procession import events
from procession.ending import Ending, How
from procession.lifeline import MAIN, Lifespan, Timeline, Wait, read

KEEPER = 99


def head(at: float = 10.0) -> events.Event:
    return events.RecordingStarted(at=at, format=1, command=("prog.py",))


def program(at: float = 10.1, keeper: int = KEEPER, pid: int = 500, **more) -> events.Event:
    return events.ProgramStarted(at=at, keeper=keeper, pid=pid, program="prog.py", **more)


def asked(number: int, at: float, parent: int = MAIN, title: str = "", **more) -> events.Event:
    more.setdefault("keeper", KEEPER)
    title = title or f"p{number}"
    pid = 1000 + number if more["keeper"] == KEEPER else 2000 + number
    return events.ProcessAsked(at=at, id=number, parent=parent, pid=pid, title=title, **more)


def life(number: int, begin: float, end: float, parent: int = MAIN, **how) -> list[events.Event]:
    how = {"how": "returned", "exitcode": 0, **how}
    return [
        asked(number, begin, parent),
        events.ProcessStarted(at=begin + 0.1, keeper=KEEPER, id=number),
        events.ProcessEnded(at=end, keeper=KEEPER, id=number),
        events.ProcessReaped(at=end, keeper=KEEPER, id=number, **how),
    ]


def exited(at: float, exitcode: int = 0) -> list[events.Event]:
    return [
        events.ProgramStarted(at=10.0, pid=500, program="prog.py"),
        events.ProgramExited(at=at, pid=500, exitcode=exitcode),
    ]


def only(timeline: Timeline) -> Lifespan:
    (child,) = timeline.children
    return child


def test_a_program_without_children_is_its_main():
    timeline = Timeline.from_events([head(), *exited(12.0, 3)])
    assert timeline.main.asked == timeline.began == 10.0
    assert timeline.main.ended == timeline.ended == 12.0
    assert timeline.main.ending == Ending(How.EXITED, 3)
    assert timeline.main.pid == 500
    assert timeline.complete
    assert timeline.children == ()
    assert timeline.command == ("prog.py",)


def test_nothing_at_all_is_a_program_that_is_not_known_to_have_ended():
    timeline = Timeline.from_events([])
    assert not timeline.complete
    assert timeline.main.ended is None
    assert timeline.began == timeline.ended


def test_a_life_has_all_its_times_and_its_ending():
    told = [
        *life(7, 11.0, 13.0, how="raised", exitcode=1, text="ValueError: no", cpu=0.5, max_rss=4096)
    ]
    span = only(Timeline.from_events([head(), program(), *told, *exited(14.0)]))
    assert (span.asked, span.started, span.ended, span.reaped) == (11.0, 11.1, 13.0, 13.0)
    assert span.ending == Ending(How.RAISED, 1, "ValueError: no")
    assert (span.cpu, span.max_rss) == (0.5, 4096)
    assert not span.ended_well
    assert span.how_it_ended == "raised ValueError: no"


def test_siblings_are_in_the_order_of_their_asking_each_with_those_below_it():
    told = [*life(3, 12.0, 13.0), *life(1, 11.0, 15.0), *life(2, 11.5, 12.5, parent=1)]
    timeline = Timeline.from_events([head(), program(), *told, *exited(16.0)])
    assert [(span.name, span.parent) for span in timeline.children] == [
        ("p1", MAIN),
        ("p2", 1),
        ("p3", MAIN),
    ]


def test_the_order_in_which_it_was_told_does_not_matter():
    told = [head(), program(), *life(1, 11.0, 15.0), *life(2, 11.5, 12.5, parent=1), *exited(16.0)]
    assert Timeline.from_events(told[::-1]) == Timeline.from_events(told)


def test_who_waited_for_whom_and_for_how_long():
    told = [
        *life(1, 11.0, 15.0),
        events.WaitEnded(at=15.0, keeper=KEEPER, waiter=MAIN, whom=1, began=12.0),
    ]
    timeline = Timeline.from_events([head(), program(), *told, *exited(16.0)])
    assert timeline.main.waits == (Wait(timeline.children[0].id, 12.0, 15.0),)


def test_polling_one_process_is_one_wait_for_it():
    polls = [
        events.WaitEnded(at=12.1 + n / 10, keeper=KEEPER, waiter=MAIN, whom=1, began=12 + n / 10)
        for n in range(20)
    ]
    timeline = Timeline.from_events([head(), program(), *life(1, 11.0, 15.0), *polls])
    (wait,) = timeline.main.waits
    assert (wait.began, round(wait.ended, 6)) == (12.0, 14.0)


def test_a_wait_that_nobody_ended_lasts_as_long_as_its_waiter():
    told = [
        *life(1, 11.0, 13.0, how="signaled", exitcode=-9),
        asked(2, 11.5, parent=1),
        events.WaitBegan(at=12.0, keeper=KEEPER, waiter=1, whom=2),
    ]
    timeline = Timeline.from_events([head(), program(), *told, *exited(16.0)])
    assert timeline.children[0].waits == (Wait(2, 12.0, 13.0),)


def test_what_lives_when_the_recording_ends_has_not_ended():
    timeline = Timeline.from_events([head(), program(), *life(1, 11.0, 15.0)[:2], asked(2, 12.0)])
    assert [span.how_it_ended for span in timeline.children] == ["not ended", "not started"]
    assert not timeline.complete
    assert timeline.ended == 12.0


def test_a_zombie_has_ended_and_nobody_knows_how():
    span = only(Timeline.from_events([head(), program(), *life(1, 11.0, 15.0)[:3]]))
    assert (span.ended, span.reaped, span.ending) == (15.0, None, None)
    assert span.how_it_ended == "ended, not reaped"


def test_a_stop_lasts_until_it_goes_on_or_ends():
    stops = [
        events.ProcessStopped(at=12.0, keeper=KEEPER, id=1),
        events.ProcessContinued(at=13.0, keeper=KEEPER, id=1),
        events.ProcessStopped(at=14.0, keeper=KEEPER, id=1),
    ]
    span = only(Timeline.from_events([head(), program(), *life(1, 11.0, 15.0), *stops]))
    assert span.stops == ((12.0, 13.0), (14.0, 15.0))


def test_times_are_put_in_order_where_the_clock_was_not():
    told = [
        asked(1, 20.0),
        events.ProcessStarted(at=5.0, keeper=KEEPER, id=1),
        events.ProcessEnded(at=2.0, keeper=KEEPER, id=1),
        events.ProcessReaped(at=1.0, keeper=KEEPER, id=1, how="returned", exitcode=0),
        events.WaitEnded(at=3.0, keeper=KEEPER, waiter=1, whom=MAIN, began=30.0),
    ]
    span = only(Timeline.from_events([head(), program(), *told]))
    assert span.asked <= span.started <= span.ended <= span.reaped
    assert all(span.asked <= wait.began <= wait.ended <= span.ended for wait in span.waits)


def test_two_guards_that_number_alike_are_told_apart():
    """A forked copy of main is a program of its own, and writes into the same recording."""
    told = [
        program(),
        *life(1, 11.0, 15.0),
        program(at=11.2, keeper=77, pid=600, parent_pid=1001),
        asked(1, 11.5, keeper=77, title="other"),
    ]
    timeline = Timeline.from_events([head(), *told, *exited(16.0)])
    tree = {span.name: span for span in timeline.children}
    assert tree["p1"].parent == MAIN
    assert tree["prog.py"].parent == tree["p1"].id
    assert tree["other"].parent == tree["prog.py"].id


def test_a_second_guard_of_the_same_main_is_the_same_program():
    told = [program(), *life(1, 11.0, 12.0), program(at=13.0, keeper=77), asked(1, 13.5, keeper=77)]
    timeline = Timeline.from_events([head(), *told, *exited(16.0)])
    assert [span.parent for span in timeline.children] == [MAIN, MAIN]
    assert timeline.main.asked == 10.0


def test_a_circle_of_starters_is_cut():
    told = [asked(1, 11.0, parent=2), asked(2, 11.0, parent=1), asked(3, 11.0, parent=3)]
    timeline = Timeline.from_events([head(), program(), *told])
    assert len(timeline.children) == 3
    seen = {MAIN}
    for span in timeline.children:
        assert span.parent in seen
        seen.add(span.id)


@pytest.mark.parametrize(
    ("how", "exitcode", "by", "text", "well"),
    [
        ("returned", 0, 0, "exited 0", True),
        ("exited", 3, 0, "exited 3", False),
        ("exited", 0, 0, "exited 0", True),
        ("raised", 1, 0, "raised an exception", False),
        ("signaled", -9, 0, "killed SIGKILL", False),
        ("signaled", -15, 500, "terminated SIGTERM", True),
        ("signaled", -70, 0, "killed signal 70", False),
        ("out_of_memory", -9, 0, "killed SIGKILL (out of memory)", False),
        ("lost", 255, 0, "lost with its keeper", False),
        ("evaporated", 4, 0, "exited 4", False),  # a way of a later version
        ("evaporated", -6, 0, "killed SIGABRT", False),
    ],
)
def test_how_it_ended_in_a_few_words(how, exitcode, by, text, well):
    told = life(1, 11.0, 12.0, how=how, exitcode=exitcode, by=by)
    span = only(Timeline.from_events([head(), program(), *told]))
    assert span.how_it_ended == text
    assert span.ended_well == well


@pytest.mark.parametrize(
    ("title", "target", "label"),
    [
        ("Process-3", "__main__.load", "load-3"),
        ("ForkProcess-1:2", "pkg.mod.Worker.run", "run-1:2"),
        ("loader", "__main__.load", "loader"),
        ("Process-x", "__main__.load", "Process-x"),
        ("Process-3", "", "Process-3"),
        ("Process-1", "__main__.<lambda>", "lambda-1"),
    ],
)
def test_its_targets_name_stands_in_where_the_user_gave_none(title, target, label):
    span = only(Timeline.from_events([head(), asked(1, 11.0, title=title, target=target)]))
    assert span.label == label


def test_a_file_is_read(tmp_path):
    path = tmp_path / "one.plr"
    path.write_bytes(b'{"event":"recording.started","format":1,"at":1.5,"keeper":0}\n')
    assert read(path).began == 1.5
