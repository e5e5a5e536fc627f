"""The recording's lines: what is written is read, what is no recording is refused."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from procession import events
from procession._recording import reader, writer
from procession.errors import RecordingError

HEAD = writer.head(1.5, 2.5, "9.9", ["-c", 'print("ü\n")'])


def test_the_head_says_what_it_is():
    (event,) = reader.read(HEAD)
    assert event == events.RecordingStarted(
        at=1.5, format=1, wall=2.5, version="9.9", command=("-c", 'print("ü\n")')
    )


def test_writer_and_schema_have_the_same_format():
    assert writer.FORMAT == events.FORMAT


def test_a_line_is_json_and_one_line_whatever_the_text():
    title = 'a "quoted" \\ name\nwith \x1b control \u2028 and \U0001f600 and \x00'
    line = writer.line("process.asked", 1.25, 7, id=1 << 40, title=title, daemon=True)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line)["title"] == title
    _, event = reader.read(HEAD + line)
    assert event == events.ProcessAsked(at=1.25, keeper=7, id=1 << 40, title=title, daemon=True)


def test_what_is_no_event_is_left_out_and_what_follows_is_read():
    good = writer.line("process.started", 3.0, 7, id=1)
    damaged = [
        b"",
        b"nothing\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'{"event":["process.started"]}\n',
        b'{"event":"process.evaporated","at":1,"id":1}\n',
        b'{"event":"process.started","at":1}\n',  # which one?
        b'{"event":"process.started","at":NaN,"id":1}\n',
        b'{"event":"process.started","at":1e999,"id":1}\n',
        b'{"event":"process.started","at":' + b"9" * 5000 + b',"id":1}\n',
        b'{"event":"process.started","at":"1","id":1}\n',
        b'{"event":"process.started","at":1,"id":true}\n',
        b'{"event":"process.asked","at":1,"id":1,"title":7}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        good[: len(good) // 2] + good,  # a disk was full in the middle of a line
    ]
    contents = HEAD + b"".join(damaged) + b"\n" + good
    assert list(reader.read(contents))[1:] == [events.ProcessStarted(at=3.0, keeper=7, id=1)]


def test_fields_of_a_later_version_are_left_out():
    line = b'{"event":"process.started","at":3.0,"keeper":7,"id":1,"colour":"blue"}\n'
    assert list(reader.read(HEAD + line))[1:] == [events.ProcessStarted(at=3.0, keeper=7, id=1)]


@pytest.mark.parametrize("contents", [b"hello\n", b"\x7fELF", b'{"event":"process.asked"}\n'])
def test_what_is_no_recording_is_refused(contents):
    with pytest.raises(RecordingError, match="no recording"):
        reader.read(contents)


def test_a_later_format_is_refused_with_advice():
    with pytest.raises(RecordingError, match=r"format 2.*show it with the version that made it"):
        reader.read(HEAD.replace(b'"format":1', b'"format":2'))


def test_every_event_has_its_own_name_in_the_past_tense_of_a_dotted_form():
    for name, kind in events.BY_NAME.items():
        assert kind.name == name
        assert name.count(".") == 1
        assert name == name.lower()
    kinds = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    }
    assert kinds == set(events.BY_NAME.values())
    assert set(events.__all__) == {kind.__name__ for kind in kinds} | {
        "BY_NAME",
        "Event",
        "FORMAT",
        "MAIN",
    }


def test_events_cannot_be_changed():
    event = events.ProcessStarted(at=1.0, id=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = 3


def test_a_full_disk_is_no_exception_and_the_next_line_can_be_read():
    reading, writing = os.pipe()
    os.close(reading)
    assert not writer.append(writing, HEAD)  # EPIPE
    os.close(writing)
    assert not writer.append(writing, HEAD)  # EBADF
    with open("/dev/full", "wb", buffering=0) as full:
        assert not writer.append(full.fileno(), HEAD)


def test_the_writer_imports_nothing_heavy():
    """`procession run` imports it before its program runs, and a guard before its first spare."""
    code = (
        "import sys; before = set(sys.modules); import procession._recording.writer; "
        "print(sorted(name for name in set(sys.modules) - before if '.' not in name))"
    )
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert set(ast.literal_eval(found.stdout.decode())) <= {"__future__", "_json", "procession"}
