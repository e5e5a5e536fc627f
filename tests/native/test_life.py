"""Life words: whether a process lives is the kernel's own word, however it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from procession import _native as native
from tests.native.people import PATIENCE, is_ready


def living(person, table):
    """A person that sits in a slot, and the slot."""
    index, _ = table.claim()
    one = person(table)
    assert one.do(f"table.enter({index}, native.RUNNING)") is None
    assert table.life(index) == native.LIFE_HELD
    return one, index


def watcher(person, table, index):
    """A person with a watch thread on a slot."""
    one = person(table)
    one.do("said = os.eventfd(0)")
    assert one.do(f"table.watch_life({index}, said)") is None
    return one


def assert_silent(watch):
    """The watch thread has said nothing, and is there."""
    assert watch.do("__import__('select').select([said], [], [], 0)[0]") == []
    assert len(watch.do("os.listdir('/proc/self/task')")) == 2


# --- the word -------------------------------------------------------------------------------------


def test_it_is_free_until_somebody_takes_it(table):
    index, _ = table.claim()
    assert table.life(index) == native.LIFE_FREE
    assert table.life(index + 1) == native.LIFE_FREE, "not even claimed"


def test_sigkill_is_seen(person, table):
    one, index = living(person, table)
    one.kill()
    assert table.life(index) == native.LIFE_DIED


@pytest.mark.parametrize("way", ["sys.exit()", "os._exit(3)", "os.abort()"])
def test_every_other_end_is_seen(person, table, way):
    one, index = living(person, table)
    one.do("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))")
    one.begin(f"try:\n {way}\nexcept SystemExit:\n os._exit(1)")
    one.process.wait(PATIENCE)
    assert table.life(index) == native.LIFE_DIED


def test_exec_is_seen(person, table):
    one, index = living(person, table)
    one.begin("os.execv('/bin/cat', ['cat'])")
    one.process.stdin.write(b"become\n")
    one.process.stdin.flush()
    assert one.process.stdout.readline() == b"become\n"
    assert table.life(index) == native.LIFE_DIED
    assert one.process.poll() is None


def test_exec_after_it_was_dropped_is_none(person, table):
    one, index = living(person, table)
    one.do(f"table.drop_life({index})")
    assert table.life(index) == native.LIFE_FREE
    fd = table.fileno()
    one.begin(
        f"os.set_inheritable({fd}, True); os.execv({sys.executable!r}, "
        f"[{sys.executable!r}, *sys.orig_argv[1:3], '{fd}'])"
    )
    assert one.do(f"table.enter({index}, native.RUNNING)") is None  # the same process, a new image
    assert table.life(index) == native.LIFE_HELD
    one.kill()
    assert table.life(index) == native.LIFE_DIED


def test_a_raw_forks_end_is_not_its_parents(person, table):
    one, index = living(person, table)
    assert one.do("os.waitpid(os.fork() or os._exit(0), 0)[1]") == 0
    assert table.life(index) == native.LIFE_HELD
    # nor does the copy have it to drop
    one.do(
        "pid = os.fork()\nif not pid:\n"
        f" try:\n  table.drop_life({index})\n"
        " except PermissionError:\n  os._exit(7)\n"
        " os._exit(0)"
    )
    assert os.waitstatus_to_exitcode(one.do("os.waitpid(pid, 0)[1]")) == 7
    assert table.life(index) == native.LIFE_HELD


def test_a_forked_copy_may_take_its_own(person, table):
    one, _ = living(person, table)
    index, _ = table.claim()
    one.do("import signal")
    pid = one.do(f"os.fork() or (table.enter({index}), os.kill(os.getpid(), signal.SIGKILL))")
    assert one.do(f"os.waitpid({pid}, 0)[1]") == signal.SIGKILL
    assert table.life(index) == native.LIFE_DIED
    assert one.do("1") == 1


def test_another_thread_than_the_first_takes_none(table):
    index, generation = table.claim()
    thread = threading.Thread(target=table.enter, args=(index, native.RUNNING))
    thread.start()
    thread.join(PATIENCE)
    assert table.state(index, generation) == native.RUNNING
    assert table.life(index) == native.LIFE_FREE


def test_the_first_threads_end_is_seen_though_others_live(person, table):
    one, index = living(person, table)
    one.do("import threading, ctypes")
    one.do("threading.Thread(target=threading.Event().wait).start()")
    one.begin("ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)")
    with open(f"/proc/{one.pid}/stat"):  # there, with its other thread
        wait_for(lambda: table.life(index) == native.LIFE_DIED)
    assert one.process.poll() is None


def test_sitting_down_twice_is_the_same(person, table):
    one, index = living(person, table)
    watch = watcher(person, table, index)
    assert_silent(watch)
    watch.kill()  # its mark stays in the word: somebody waits
    assert one.do(f"table.enter({index}, native.RUNNING)") is None
    one.do(f"table.drop_life({index})")
    assert table.life(index) == native.LIFE_FREE


def test_nobody_sits_down_where_another_lives(person, table):
    _, index = living(person, table)
    with pytest.raises(OSError, match="another process lives in this slot"):
        table.enter(index)


def test_only_the_holder_can_drop_it(person, table):
    _, index = living(person, table)
    with pytest.raises(PermissionError, match="does not hold the life word"):
        table.drop_life(index)
    assert table.life(index) == native.LIFE_HELD


def test_a_slot_in_which_a_lost_process_lives_is_not_given_away(person, table):
    one, index = living(person, table)
    table.end(index, -1, 0, 0, 0, native.FLAG_LOST)
    assert not table.free(index, 1)
    one.kill()
    assert table.free(index, 1)


def test_a_process_that_holds_many_is_seen_dead_in_all(person, table):
    one = person(table)
    indexes = [table.claim()[0] for _ in range(12)]
    for index in indexes:
        one.do(f"table.enter({index})")
    one.kill()
    assert {table.life(index) for index in indexes} == {native.LIFE_DIED}


# --- watching -------------------------------------------------------------------------------------


def wait_for(fact):
    """Wait until something is so that no event tells of."""
    import time

    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_watch_tells_of_a_sigkill(person, table):
    one, index = living(person, table)
    watch = watcher(person, table, index)
    assert_silent(watch)
    watch.begin("os.eventfd_read(said)")
    one.kill()
    assert watch.answer() == 1
    assert table.life(index) == native.LIFE_DIED
    assert watch.do(f"table.life({index})") == native.LIFE_DIED, "the watch left the mark in place"


def test_a_watch_tells_of_the_death_of_a_large_process_with_threads(person, table):
    one, index = living(person, table)
    one.do("ballast = os.urandom(1) * (200 << 20); import threading")
    one.do(
        "[threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in '12345']"
    )
    watch = watcher(person, table, index)
    watch.begin("os.eventfd_read(said)")
    one.kill()
    assert watch.answer() == 1


def test_a_watch_that_begins_before_there_is_a_holder_waits_for_one(person, table):
    index, _ = table.claim()
    watch = watcher(person, table, index)
    one = person(table)
    one.do(f"table.enter({index}, native.RUNNING)")
    assert_silent(watch)
    one.kill()
    assert watch.do("os.eventfd_read(said)") == 1


def test_a_watch_that_begins_after_the_death_tells_of_it(person, table):
    one, index = living(person, table)
    one.kill()
    assert watcher(person, table, index).do("os.eventfd_read(said)") == 1


def test_a_watch_is_not_misled_by_a_holder_that_drops_it_and_takes_it_again(person, table):
    one, index = living(person, table)
    watch = watcher(person, table, index)
    for _ in range(20):
        one.do(f"table.drop_life({index})")
        one.do(f"table.enter({index})")
    assert_silent(watch)
    one.kill()
    assert watch.do("os.eventfd_read(said)") == 1


def test_all_watches_are_told_though_the_kernel_wakes_one(person, table):
    one, index = living(person, table)
    watches = [watcher(person, table, index) for _ in range(3)]
    for watch in watches:
        watch.begin("os.eventfd_read(said)")
    one.kill()
    assert [watch.answer() for watch in watches] == [1, 1, 1]


def test_a_watch_thread_takes_no_signals_and_dies_with_its_process(person, table):
    _, index = living(person, table)
    watch = watcher(person, table, index)
    blocked = watch.do(
        'open(f\'/proc/self/task/{max(map(int, os.listdir("/proc/self/task")))}'
        "/status').read().split('SigBlk:')[1].split()[0]"
    )
    assert (
        int(blocked, 16) | 1 << 31 | 1 << 32
        == (1 << 64) - 1 & ~(1 << 8 | 1 << 18) | 1 << 31 | 1 << 32
    )
    watch.process.stdin.close()
    assert watch.process.wait(PATIENCE) == 0


def test_a_dead_eventfd_harms_nobody(person, table):
    one, index = living(person, table)
    watch = watcher(person, table, index)
    watch.do("os.close(said)")
    one.kill()
    wait_for(lambda: len(os.listdir(f"/proc/{watch.pid}/task")) == 1)
    assert watch.do("1") == 1


def test_is_ready_is_bounded():
    reading, writing = os.pipe()
    assert not is_ready(reading, 0)
    os.close(reading)
    os.close(writing)
