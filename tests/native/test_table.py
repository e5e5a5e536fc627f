"""The table of processes: slots are taken once, given back once, and never mistaken."""

from __future__ import annotations

import errno
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from procession import _native as native
from tests.native.people import Person

Start = Callable[..., Person]


def in_use(table: native.Table, state: int = native.CLAIMED) -> tuple[int, int]:
    """A slot in some state."""
    index, generation = table.claim()
    if state >= native.ASKED:
        assert ask(table, index, generation)
    if state >= native.RUNNING:
        table.run(index)
    if state == native.ENDED:
        assert table.end(index, 0, 0, 0, 0)
    return index, generation


def ask(
    table: native.Table, index: int, generation: int, name: bytes = b"n", target: bytes = b"t"
) -> bool:
    return table.ask(index, generation, 7 << 32 | 3, native.FORKSERVER, 0, 1, name, target)


# --- slots ----------------------------------------------------------------------------------------


def test_a_claimed_slot_has_an_index_and_a_generation_that_is_not_zero(table):
    assert table.claim() == (0, 1)
    assert table.claim() == (1, 1)


def test_processes_that_claim_at_once_never_get_the_same_slot(person):
    table = native.Table.create(1 + 4 * 300)
    gate, generation = table.claim()
    people = [person(table) for _ in range(4)]
    for one in people:
        one.begin(f"table.wait({gate}, {generation}, -1) and [table.claim() for _ in range(300)]")
    table.end(gate, 0, 0, 0, 0)
    claimed = [slot for one in people for slot in one.answer()]
    assert sorted(claimed) == [(index, 1) for index in range(1, 1 + 4 * 300)]


def test_a_full_table_says_so(table):
    for _ in range(16):
        table.claim()
    with pytest.raises(OSError, match="the table of processes is full") as caught:
        table.claim()
    assert caught.value.errno == errno.ENOSPC
    table.end(5, 0, 0, 0, 0)
    assert table.free(5, 1)
    assert table.claim() == (5, 2)


def test_the_slot_that_was_given_back_last_is_not_taken_next(table):
    seen = []
    for _ in range(8):
        index, generation = in_use(table, native.ENDED)
        assert table.free(index, generation)
        seen.append(index)
    assert len(set(seen)) == 8


def test_only_an_ended_slot_of_the_right_generation_can_be_freed(table):
    index, generation = in_use(table, native.RUNNING)
    assert not table.free(index, generation)
    table.end(index, 0, 0, 0, 0)
    assert not table.free(index, generation + 1)
    assert table.free(index, generation)
    assert not table.free(index, generation)


def test_what_belongs_to_an_earlier_generation_is_refused():
    table = native.Table.create(1)
    index, old = in_use(table, native.ENDED)
    table.free(index, old)
    assert table.claim() == (index, old + 1)
    assert not ask(table, index, old)
    assert table.set_flags(index, old, native.FLAG_RELEASED) == -1
    assert table.state(index, old) == native.FREE
    assert table.wait(index, old, -1), "its end is over"
    assert not table.free(index, old)
    assert table.read(index)[:7] == (native.CLAIMED, old + 1, 0, 0, 0, 0, 0)


def test_a_slot_is_empty_again_for_its_next_process():
    table = native.Table.create(1)
    index, generation = in_use(table, native.RUNNING)
    table.set_pid(index, 17)
    table.finish(index, native.RAISED, 1, b"ValueError")
    table.blame(index, 12, 9)
    table.set_flags(index, generation, native.FLAG_RELEASED)
    table.end(index, 9, 1, 2, 3, native.FLAG_OOM)
    table.free(index, generation)
    assert table.claim() == (0, 2)
    assert table.read(0) == (native.CLAIMED, 2, *[0] * 7, -1, *[0] * 8, b"", b"", b"")


def test_pids_lists_what_is_in_use(table):
    in_use(table)
    index, generation = in_use(table, native.ENDED)
    in_use(table, native.RUNNING)
    table.set_pid(2, 17)
    table.free(index, generation)
    assert table.pids() == [(0, 0, native.CLAIMED), (2, 17, native.RUNNING)]


def test_a_program_that_starts_many_processes_after_each_other_touches_little_memory():
    table = native.Table.create(65536)
    for _ in range(5000):
        index, generation = in_use(table, native.ENDED)
        assert table.free(index, generation)
    assert os.fstat(table.fileno()).st_blocks * 512 < 128 * 1024


# --- a process's way ------------------------------------------------------------------------------


def test_read_tells_all_that_was_written(table):
    index, generation = table.claim()
    table.enter(index, native.SPARE)
    assert table.ask(
        index,
        generation,
        7 << 32 | 3,
        native.SPAWN,
        native.FLAG_DAEMON,
        1234,
        "größer".encode(),
        b"mod.fn",
    )
    table.run(index)
    table.finish(index, native.RAISED, 1, b"ValueError: bad header")
    table.blame(index, 4711, 15)
    table.set_flags(index, generation, native.FLAG_RELEASED)
    assert table.end(index, 256, 5_000, 6_000, 7_000, native.FLAG_OOM)
    row = table.read(index)
    start_time = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert row[:4] == (native.ENDED, generation, os.getpid(), start_time)
    assert row[4:6] == (7 << 32 | 3, native.SPAWN)
    assert row[6] == native.FLAG_DAEMON | native.FLAG_RELEASED | native.FLAG_OOM
    assert row[7:11] == (native.RAISED, 1, 256, 1234)
    assert 0 < row[11] <= row[12]  # running, ended
    assert row[13:18] == (5_000, 6_000, 7_000, 4711, 15)
    assert row[18:] == ("größer".encode(), b"mod.fn", b"ValueError: bad header")
    table.drop_life(index)


def test_a_state_only_ever_goes_up(table):
    index, generation = in_use(table, native.ASKED)
    table.enter(index, native.SPARE)  # its owner was quicker than the spare itself
    assert table.state(index, generation) == native.ASKED
    table.run(index)
    assert not ask(table, index, generation), "asked once only"
    assert table.state(index, generation) == native.RUNNING
    table.end(index, 0, 0, 0, 0)
    table.run(index)
    assert table.state(index, generation) == native.ENDED
    with pytest.raises(ProcessLookupError, match="not claimed"):
        table.enter(index, native.RUNNING)
    table.drop_life(index)


def test_a_spare_that_has_ended_cannot_be_asked(table):
    index, generation = in_use(table, native.ENDED)
    assert not ask(table, index, generation)


def test_a_spare_is_withdrawn_or_asked_and_never_both(table):
    index, generation = in_use(table, native.CLAIMED)
    table.enter(index, native.SPARE)
    assert not table.withdraw(index, generation + 1)
    assert table.withdraw(index, generation)
    assert not ask(table, index, generation)
    assert not table.withdraw(index, generation)
    assert table.state(index, generation) == native.ENDED
    table.drop_life(index)
    asked = in_use(table, native.ASKED)
    assert not table.withdraw(*asked)
    assert table.state(*asked) == native.ASKED


def test_last_words_are_told_whole_and_the_last_ones_count(table):
    index, _ = in_use(table, native.RUNNING)
    table.finish(index, native.RAISED, 1, b"a long text of which nothing may be left")
    table.finish(index, native.EXITED, 3, b"short")
    row = table.read(index)
    assert row[7:9] == (native.EXITED, 3)
    assert row[20] == b"short"


@pytest.mark.parametrize("tail", ["ü", "€", "𝄞", "x"])
def test_texts_are_cut_where_a_character_begins(table, tail):
    for padding in range(4):
        text = "a" * padding + tail * 200
        index, generation = table.claim()
        assert ask(table, index, generation, text.encode(), text.encode())
        table.finish(index, native.RAISED, 1, text.encode())
        name, target, words = table.read(index)[18:]
        for cut, room in ((name, 95), (target, 95), (words, 191)):
            assert text.startswith(cut.decode())
            assert room - len(tail.encode()) < len(cut) <= room
        table.end(index, 0, 0, 0, 0)
        table.free(index, generation)


def test_flags_tell_both_sides_what_the_other_has_said(table):
    index, generation = in_use(table, native.RUNNING)
    assert table.set_flags(index, generation, 0) == 0
    table.end(index, -1, 0, 0, 0, native.FLAG_LOST)
    both = native.FLAG_LOST | native.FLAG_RELEASED
    assert table.set_flags(index, generation, native.FLAG_RELEASED) == both
    assert table.set_flags(index, generation, 0) == both


def test_an_owner_of_any_generation_fits(table):
    index, generation = table.claim()
    owner = 0xFFFFFFFF << 32 | 0xFFFF
    assert table.ask(index, generation, owner, native.FORK, 0, 0, b"", b"")
    assert table.read(index)[4] == owner


# --- the mapping ----------------------------------------------------------------------------------


def test_two_mappings_show_the_same_table(table):
    other = native.Table.attach(table.fileno())
    index, generation = table.claim()
    other.run(index)
    assert table.state(index, generation) == native.RUNNING
    assert other.fileno() == table.fileno()


def test_what_is_no_table_is_refused(tmp_path):
    reading, writing = os.pipe()
    plain = os.memfd_create("plain")
    os.ftruncate(plain, 65536)
    with open(tmp_path / "file", "w+b") as file:
        file.write(bytes(65536))
        file.flush()
        try:
            for fd in (reading, writing, plain, file.fileno()):
                with pytest.raises(ValueError, match=f"descriptor {fd} is no table of processes"):
                    native.Table.attach(fd)
        finally:
            for fd in (reading, writing, plain):
                os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        native.Table.attach(reading)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("name", "offset", "layout", "value"),
    [
        ("nothing", 0, "<Q", None),
        ("magic", 0, "<Q", 1),
        ("format", 8, "<I", 99),
        ("slot size", 12, "<I", 512),
        ("more slots than there are", 16, "<I", 17),
        ("size", -1, "", None),
        ("no room for a header", -2, "", None),
    ],
)
def test_a_table_of_another_format_or_size_is_refused(table, name, offset, layout, value):
    import fcntl

    content = bytearray(os.pread(table.fileno(), 1 << 20, 0))
    if value is not None:
        struct.pack_into(layout, content, offset, value)
    if offset == -1:
        content += b"\0"
    if offset == -2:
        del content[100:]
    copy = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(copy, content)
        with pytest.raises(ValueError, match="no table"):
            native.Table.attach(copy)  # it could shrink under us
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        if name == "nothing":  # the copy itself was right
            native.Table.attach(copy)
        else:
            with pytest.raises(ValueError, match="no table"):
                native.Table.attach(copy)
    finally:
        os.close(copy)


def test_nobody_can_shrink_a_table(table):
    with pytest.raises(PermissionError):
        os.ftruncate(table.fileno(), 0)
    with pytest.raises(PermissionError):
        os.ftruncate(table.fileno(), 1 << 24)


def test_a_table_has_a_name_in_maps_and_is_in_no_core_dump(table):
    smaps = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"/memfd:{native.TABLE_NAME} .*?^VmFlags:([^\n]*)", smaps, re.M | re.S)
    assert found
    assert all("dd" in flags.split() for flags in found)


def test_the_mapping_goes_with_its_last_object():
    before = Path("/proc/self/maps").read_text().count(native.TABLE_NAME)
    other = native.Table.create(8)
    fd = other.fileno()
    assert Path("/proc/self/maps").read_text().count(native.TABLE_NAME) == before + 1
    del other
    assert Path("/proc/self/maps").read_text().count(native.TABLE_NAME) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_mapping_stays_when_the_descriptor_is_closed(table):
    table.claim()
    table.close_fd()
    assert table.fileno() == -1
    assert table.claim() == (1, 1)
    table.close_fd()


def test_a_number_that_belongs_to_another_file_by_now_is_not_closed():
    table = native.Table.create(4)
    number = table.fileno()
    os.close(number)  # as code that daemonises does, with all of them
    stranger = os.open("/dev/null", os.O_RDONLY)
    assert stranger == number, "the lowest free number"
    table.close_fd()
    del table
    os.close(stranger)


def test_an_attached_tables_descriptor_stays_open(table):
    other = native.Table.attach(table.fileno())
    other.close_fd()
    assert other.fileno() == -1
    del other
    os.fstat(table.fileno())


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [16, -1, 1 << 40])
def test_a_slot_that_is_not_there_is_an_index_error(table, index):
    for call in (
        lambda: table.enter(index),
        lambda: table.set_pid(index, 1),
        lambda: ask(table, index, 1),
        lambda: table.run(index),
        lambda: table.finish(index, 1, 0, b""),
        lambda: table.end(index, 0, 0, 0, 0),
        lambda: table.blame(index, 1, 1),
        lambda: table.set_flags(index, 1, 0),
        lambda: table.wait(index, 1, 0),
        lambda: table.state(index, 1),
        lambda: table.read(index),
        lambda: table.free(index, 1),
        lambda: table.life(index),
        lambda: table.drop_life(index),
        lambda: table.watch_life(index, 1),
    ):
        with pytest.raises(IndexError, match="the table has 16"):
            call()


def test_arguments_out_of_range_are_refused(table):
    table.claim()
    for slots in (0, 1 << 23):
        with pytest.raises(ValueError, match="slots"):
            native.Table.create(slots)
    for state in (native.FREE, native.ENDED, 6):
        with pytest.raises(ValueError, match="state"):
            table.enter(0, state)
    with pytest.raises(ValueError, match="way"):
        table.finish(0, 4, 0, b"")
    with pytest.raises(TypeError):
        ask(table, 0, 1, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        native.Table()


# --- what a process is doing ----------------------------------------------------------------------


def test_a_wait_is_seen_by_others_until_it_is_over(table, person):
    index, _ = in_use(table, native.RUNNING)
    other = person(table)
    before = time.monotonic_ns()
    places = [table.begin_wait(index, 5 << 32 | 4), table.begin_wait(index, 6 << 32 | 7)]
    seen = other.do(f"table.waits({index})")
    assert [whom for whom, _ in seen] == [5 << 32 | 4, 6 << 32 | 7]
    assert all(before <= since <= time.monotonic_ns() for _, since in seen)
    table.end_wait(index, places[0])
    assert [whom for whom, _ in other.do(f"table.waits({index})")] == [6 << 32 | 7]
    table.end_wait(index, places[1])
    assert table.waits(index) == []


def test_more_waits_than_there_are_places_go_unseen_and_nothing_is_lost(table):
    index, _ = in_use(table, native.RUNNING)
    places = [table.begin_wait(index, n) for n in (1, 2, 3, 4)]
    assert places[3] == -1
    table.end_wait(index, places[3])
    assert [whom for whom, _ in table.waits(index)] == [1, 2, 3]
    with pytest.raises(IndexError, match="a slot has 3"):
        table.end_wait(index, 3)


def test_the_one_waited_for_knows_since_when_unless_the_wait_was_given_up(table):
    waiter, _ = in_use(table, native.RUNNING)
    index, generation = in_use(table, native.RUNNING)
    whom = generation << 32 | index
    place = table.begin_wait(waiter, whom)
    assert [since for _, since in table.waits(waiter)] == [table.joined_since(index)]
    table.end_wait(waiter, place, whom)
    assert table.joined_since(index) == 0
    table.end_wait(waiter, table.begin_wait(waiter, whom))
    assert table.joined_since(index) > 0
    table.begin_wait(waiter, 99 << 32 | index)  # another process of this slot: long gone
    table.end_wait(waiter, -1, 7 << 32 | 70000)  # no such slot


def test_the_next_process_of_a_slot_waits_for_nobody(table):
    index, generation = in_use(table, native.RUNNING)
    table.begin_wait(index, 9)
    assert table.code_ended(index, 77) == table.code_ended(index) == 77
    table.end(index, 0, 0, 0, 0)
    table.free(index, generation)
    while table.claim() != (index, generation + 1):
        pass
    assert table.waits(index) == []
    assert table.code_ended(index) == 0


def test_that_it_is_recorded_is_known_to_all(table, person):
    other = person(table)
    assert not other.do("table.recorded()")
    table.set_recorded(True)
    assert other.do("table.recorded()")
    table.set_recorded(False)
    assert not other.do("table.recorded()")


def test_that_the_guard_is_full_is_known_to_all(table, person):
    other = person(table)
    assert not other.do("table.full()")
    table.set_full(True)
    assert other.do("table.full()")
    table.set_full(False)
    assert not other.do("table.full()")
