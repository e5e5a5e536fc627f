"""The picture as text: its columns, its signs, and what is folded."""

from __future__ import annotations

import io
import re

import pytest

from procession import events
from procession._report.terminal import ASCII, UNICODE, Look, picture
from procession._report.text import clean, duration, fitted, width_of
from procession.lifeline import MAIN, Timeline

KEEPER = 9


def drawn(told, width=80, signs=UNICODE, colour=False, **options) -> list[str]:
    timeline = Timeline.from_events(told)
    text = picture(timeline, Look(width, colour, signs), **options)
    assert text.endswith("\n")
    return text.splitlines()


def program(seconds: float, exitcode: int = 0) -> list[events.Event]:
    return [
        events.RecordingStarted(at=0.0, format=1),
        events.ProgramStarted(at=0.0, keeper=KEEPER, pid=500, program="prog.py"),
        events.ProgramExited(at=seconds, pid=500, exitcode=exitcode),
    ]


def life(number, begin, end, name="", parent=MAIN, how="returned", exitcode=0, **more):
    return [
        events.ProcessAsked(
            at=begin,
            keeper=KEEPER,
            id=number,
            parent=parent,
            pid=1000 + number,
            title=name or f"p{number}",
        ),
        events.ProcessStarted(at=begin, keeper=KEEPER, id=number),
        events.ProcessEnded(at=end, keeper=KEEPER, id=number),
        events.ProcessReaped(at=end, keeper=KEEPER, id=number, how=how, exitcode=exitcode, **more),
    ]


def row(lines: list[str], name: str) -> str:
    (found,) = [line for line in lines if re.search(rf"(^|[├└] ){re.escape(name)}\b", line)]
    return found


def test_bars_share_one_axis():
    lines = drawn([*program(10), *life(1, 2, 5), *life(2, 4, 8)])
    assert lines[0] == "procession  prog.py · 2 children · 10.00 s · all ended well"
    assert lines[1] == "            nothing left behind"
    first, second = row(lines, "p1"), row(lines, "p2")
    assert first.index("├─") < second.index("├─") < first.rindex("┤") < second.rindex("┤")
    axis = next(line for line in lines if line.startswith("who"))
    assert axis.index(" 4s") + 1 == second.index("├─")  # it began at the fourth second


def test_who_is_waited_for_stands_in_the_bar_of_the_one_who_waits():
    told = [
        *program(10),
        *life(1, 0, 5, "short"),
        *life(2, 0, 10, "long"),
        events.WaitEnded(at=5.0, keeper=KEEPER, waiter=MAIN, whom=1, began=0.5),
        events.ProcessCodeEnded(at=5.0, keeper=KEEPER, id=MAIN),
        events.WaitEnded(at=10.0, keeper=KEEPER, waiter=MAIN, whom=2, began=5.0),
    ]
    lines = drawn(told)
    assert re.search(r"├─?═+ short ═+┈+ long ┈+┤$", row(lines, "prog.py"))
    assert "═ blocked in join   ┈ code ended, waits at exit" in lines
    lines = drawn(told, signs=ASCII)
    assert re.search(r"\|-?=+ short =+~+ long ~+\|$", row(lines, "prog.py"))
    assert "\n".join(lines).isascii()


@pytest.mark.parametrize(
    ("how", "sign"),
    [
        ({"how": "returned", "exitcode": 0}, "┤"),
        ({"how": "raised", "exitcode": 1, "text": "ValueError: no"}, "!"),
        ({"how": "exited", "exitcode": 3}, "!"),
        ({"how": "signaled", "exitcode": -9}, "╳"),
        ({"how": "out_of_memory", "exitcode": -9}, "╳"),
        ({"how": "lost", "exitcode": 255}, "╳"),
    ],
)
def test_the_last_sign_of_a_bar_says_how_it_ended(how, sign):
    lines = drawn([*program(10), *life(1, 2, 5, **how)])
    assert row(lines, "p1").endswith(sign)


def test_asked_for_stopped_zombie_and_alive_have_their_signs():
    told = [
        *program(10)[:2],
        events.ProcessAsked(at=1.0, keeper=KEEPER, id=1, pid=1, title="slow"),
        events.ProcessStarted(at=4.0, keeper=KEEPER, id=1),
        events.ProcessStopped(at=6.0, keeper=KEEPER, id=1),
        events.ProcessContinued(at=8.0, keeper=KEEPER, id=1),
        *life(2, 1.0, 5.0, "dead")[:3],
        events.ProcessStarted(at=10.0, keeper=KEEPER, id=3),
    ]
    lines = drawn(told)
    assert re.search(r"·+├─+▒+─+▸$", row(lines, "slow"))
    assert re.search(r"├─+┤┄+$", row(lines, "dead"))
    assert "ended, not reaped" in row(lines, "dead")
    assert any("▒ stopped" in line and "▸ alive" in line for line in lines)
    assert any("3 alive when the recording ends" in line for line in lines)


def test_what_takes_no_room_has_no_sign_and_no_legend():
    told = [*program(100), *life(1, 0, 50)]
    told.append(events.WaitEnded(at=50.1, keeper=KEEPER, waiter=MAIN, whom=1, began=50.0))
    lines = drawn(told)
    assert not any("join" in line for line in lines)


def test_more_than_forty_children_are_folded_by_name_and_bad_ends_are_shown():
    told = program(100)
    for number in range(1, 129):
        told += life(number, number / 2, 100, f"loader-{number}")
    told += life(200, 1, 60, "writer", how="signaled", exitcode=-11)
    told += life(201, 1, 60, "loader-x9", how="raised", exitcode=1, text="KeyError: 'k'")
    lines = drawn(told)
    assert len(lines) < 15
    assert re.search(r" +exited 0 +▁[▁▂▃▄▅▆▇█]+█$", row(lines, "loader ×128"))
    assert "killed SIGSEGV" in row(lines, "writer")
    assert "KeyError" in row(lines, "loader-x9")


def test_forty_children_are_not_folded():
    told = program(100)
    for number in range(1, 41):
        told += life(number, 1, 100, f"loader-{number}")
    assert sum("loader-" in line for line in drawn(told)) == 40


def test_a_thousand_names_fold_into_others_and_a_thousand_bad_ones_by_their_ending():
    told = program(100)
    for number in range(1, 1001):
        name = f"n{number}x"
        told += life(number, 1, 100, name)
        told += life(2000 + number, 1, 100, name, how="signaled", exitcode=-9)
    lines = drawn(told)
    assert len(lines) < 15
    assert any("others ×1000" in line and "exited 0" in line for line in lines)
    assert any("others ×1000" in line and "killed SIGKILL" in line for line in lines)


def test_families_that_ended_well_fold_with_all_below_them():
    told = program(100)
    for number in range(1, 61):
        told += life(number, 1, 100, f"host-{number}")
        told += life(1000 + number, 2, 50, f"guest-{number}", parent=number)
    lines = drawn(told)
    assert "×120" in row(lines, "host")


def test_names_obey_nobody():
    name = "a\x1b[2J\x07b\nc\r\u202e\u200bd\ud800e\x9b31m"
    told = [*program(10), *life(1, 2, 5, name, how="raised", exitcode=1, text="E: \x1b]0;x\x07")]
    text = "\n".join(drawn(told, width=200))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", text)
    text.encode()  # no lone surrogate either
    assert "a?[2J?b?c???d?e?31m" in text


def test_let_go_and_unkillable_are_named():
    told = [
        *program(10),
        events.ProcessLetGo(at=10.0, pid=77, comm="sleep"),
        events.ProcessUnkillable(at=10.0, pid=78, comm="mount\x1b"),
    ]
    lines = drawn(told)
    assert "let go: sleep (pid 77)" in lines
    assert "could not be killed: mount? (pid 78)" in lines
    assert any("1 could not be killed" in line for line in lines[:3])


def test_verbose_says_what_stayed_standard():
    kept = events.StandardKept(at=1.0, what="multiprocessing.Queue", why="not ours yet")
    assert any(
        "stayed standard: multiprocessing.Queue (not ours yet)" in line
        for line in drawn([*program(10), kept], verbose=True)
    )
    assert not any("stayed standard" in line for line in drawn([*program(10), kept]))
    assert any("nothing that was used" in line for line in drawn(program(10), verbose=True))


def test_colour_only_repeats_the_signs():
    told = [*program(10), *life(1, 2, 5, how="signaled", exitcode=-9), *life(2, 1, 9)]
    told.append(events.WaitEnded(at=9.0, keeper=KEEPER, waiter=MAIN, whom=2, began=1.0))
    coloured = drawn(told, colour=True)
    assert any("\x1b[31m" in line for line in coloured)
    assert [re.sub(r"\x1b\[\d*m", "", line).rstrip() for line in coloured] == drawn(told)


@pytest.mark.parametrize(
    ("encoding", "signs"), [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII)]
)
def test_signs_are_those_that_the_stream_can_take(encoding, signs, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    look = Look.of(io.TextIOWrapper(io.BytesIO(), encoding))
    assert look == Look(80, False, signs)


@pytest.mark.parametrize(
    ("columns", "width"), [("120", 120), ("7", 40), ("9999", 250), ("x", 80), ("²", 80), ("", 80)]
)
def test_columns_is_honoured_within_reason(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert Look.of(io.StringIO()).width == width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.85, "850 ms"),
        (3.421, "3.42 s"),
        (59.99, "59.99 s"),
        (725, "12 min 5 s"),
        (12_000, "3 h 20 min"),
        (450_000, "5 d 5 h"),
        (-1, "0 ms"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_text_that_fits_is_whole_and_another_is_marked():
    assert fitted("abc", 3) == "abc"
    assert fitted("abcd", 3) == "ab…"
    assert fitted("日本語", 5) == "日本…"
    assert width_of(fitted("日本語", 4)) <= 4
    assert clean("e\u0301") == "e\u0301"
    assert width_of("e\u0301") == 1
