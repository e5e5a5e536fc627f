"""Spares that are forked in a row: each one handed over, and their dead reaped in between."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, select, signal, struct
from procession import _native
from procession._wire import channel

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
signals, epoll = _native.signalfd([signal.SIGCHLD]), select.epoll()
epoll.register(signals, select.EPOLLIN)
table, children = _native.Table.create(16), {}

def fork(link, count, quick):
    made = _native.fork_spares(table, link.fileno(), count, signals, children, quick)
    if isinstance(made[0], int):  # in the spare
        index, generation, fd = made
        _native.close_all_but([0, 1, 2, table.fileno(), fd])  # others' streams are to end, too
        table.enter(index, _native.SPARE)
        stream = channel.adopt(fd)
        try:
            stream.send(b"here")
            stream.recv(1)
        except OSError:
            pass  # its owner is gone
        finally:
            os._exit(7)
    return made

def wait_for_death(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def rest(ended=()):
    ended = list(ended)
    while children:
        ended += _native.attend(table, epoll.fileno(), 60_000, signals, children)[1]
    return ended

def receive(places):
    streams = []
    for place in places:
        data, fds = channel.receive_bytes(ours, 0, 100)
        pid, index, generation = struct.unpack("=III", data)
        assert (index, generation) == place == children[pid] and table.read(index)[2] == pid
        streams.append(channel.adopt(*fds))
        assert streams[-1].recv(100) == b"here"
    return streams

ours, theirs = channel.message_pair()
made, ended, left = fork(theirs, 3, True)
assert len(made) == 3 and not ended and not left, (made, ended, left)
pids, streams = list(children), receive(made)

streams.pop(0).close()
wait_for_death(pids[0])
more, ended, left = fork(theirs, 2, False)  # somebody else reaps: one, and no further
assert len(more) == 1 and not ended and not left
again, ended, left = fork(theirs, 2, True)  # reaped between two
assert len(again) == 2 and ended == made[:1] and not left, (again, ended, left)
assert os.WEXITSTATUS(table.read(ended[0][0])[9]) == 7

streams += receive([*more, *again])
ours.close()  # the owner goes
for stream in streams:
    stream.close()
theirs_only, ended, left = fork(theirs, 4, False)
assert len(theirs_only) == 1, theirs_only  # made for nobody: it goes by itself
ended = rest(ended)
assert set(ended) == {*made[1:], *more, *again, *theirs_only}, ended

ours, theirs = channel.message_pair()
fork(theirs, 1, True)
(killed,) = children
os.kill(killed, signal.SIGKILL)
wait_for_death(killed)
made, ended, left = fork(theirs, 4, True)
assert len(made) == 1 and left and not ended and killed in children, (made, ended, left)
os.waitpid(killed, 0)
del children[killed]
ours.close()
rest()
os.close(signals)
print("done")
"""


def test_spares_in_a_row(no_strays: None) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (answer.stdout, answer.stderr) == ("done\n", "")
