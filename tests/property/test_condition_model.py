"""A condition against a list: who waits longest is notified first, the dead are passed over."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procession
from tests.contract.programs import fork_beside_pytests_threads, wait_until

PATIENCE = 60.0
pytestmark = [fork_beside_pytests_threads, pytest.mark.timeout(300)]

ACTS = st.one_of(
    st.just(("wait", 0)),
    st.tuples(st.just("notify"), st.integers(-1, 4)),
    st.tuples(st.just("kill"), st.integers(0, 9)),
    st.tuples(st.just("kill, with a wake-up"), st.integers(0, 9)),
    st.just(("notify all", 0)),
)


class Crowd:
    """Those who wait for a condition, and the model: their pids in the order of their coming."""

    def __init__(self) -> None:
        self.condition = procession.Condition()
        self.ends: dict[int, int] = {}
        self.model: list[int] = []

    def wait(self) -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with self.condition:
                    told = self.condition.wait(PATIENCE)
                os.write(write, b"1" if told else b"0")
            finally:
                os._exit(0)
        os.close(write)
        self.ends[pid] = read
        self.model.append(pid)
        assert wait_until(lambda: self.condition._waiters() == (len(self.model), 0), PATIENCE)
        with self.condition:  # it has let go of the lock
            pass

    def goes(self, pid: int) -> None:
        """One who was notified comes to its end."""
        assert os.read(self.ends[pid], 1) == b"1"
        self.bury(pid)

    def bury(self, pid: int) -> None:
        os.close(self.ends.pop(pid))
        os.waitpid(pid, 0)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.bury(pid)

    def act(self, what: str, number: int) -> None:
        if what == "wait":
            self.wait()
        elif what == "kill" and self.model:
            self.kill(self.model.pop(number % len(self.model)))
        elif what == "kill, with a wake-up" and self.model:
            with self.condition:  # so that nobody comes out of wait() before
                self.condition.notify()
                self.kill(self.model.pop(0))
            if self.model:  # whose is it now
                self.goes(self.model.pop(0))
        elif what.startswith("notify"):
            many = len(self.model) if what == "notify all" else max(number, 0)
            with self.condition:
                if what == "notify all":
                    self.condition.notify_all()
                else:
                    self.condition.notify(number)
            gone, self.model = self.model[:many], self.model[many:]
            for pid in gone:
                self.goes(pid)
        assert wait_until(lambda: self.condition._waiters() == (len(self.model), 0), PATIENCE)

    def close(self) -> None:
        for pid in list(self.ends):
            self.kill(pid)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(ACTS, min_size=4, max_size=14))
def test_it_does_what_a_list_would(acts: list[tuple[Any, ...]]) -> None:
    crowd = Crowd()
    try:
        for _ in range(3):
            crowd.wait()
        for what, number in acts:
            crowd.act(what, number)
    finally:
        crowd.close()
