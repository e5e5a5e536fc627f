"""The recording: what a start and a wait cost while they are recorded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import procession
from benchmarks.bench import Benchmark, Side, Versus
from benchmarks.cases.process import burst, start_all_join_all, start_alone, start_and_join


def recorded(
    measure: Callable[[Any, int], Iterator[float]],
) -> Callable[[Any, int], Iterator[float]]:
    """The same samples while the program is recorded into a file."""

    def samples(mp: Any, size: int) -> Iterator[float]:
        with tempfile.TemporaryDirectory() as folder:
            with procession.record(os.path.join(folder, "bench.plr")):
                yield from measure(mp, size)

    return samples


UNRECORDED = "unrecorded"
TENTH = Versus(UNRECORDED, 0.9)

for _name, _title, _measure, _size, _quick, _batch, _seconds in (
    ("start", "`start()` with a spare ready, recorded", start_alone, 1, 1, 10, 20),
    ("start_join", "start and join, one at a time, recorded", start_and_join, 0, 0, 10, 20),
    ("burst", "one of 200 starts in a burst, recorded", burst, 200, 5, 1, 15),
    ("many", "500 children started, then joined, recorded", start_all_join_all, 500, 5, 1, 15),
):
    Benchmark(
        f"recording.{_name}",
        _title,
        recorded(_measure),
        goals=[TENTH],
        size=_size,
        quick_size=_quick,
        batch=_batch,
        seconds=_seconds,
        sides={UNRECORDED: Side("procession.forkserver", _measure)},
    )
Benchmark(
    "recording.fork",
    "start and join with start method fork, recorded",
    recorded(start_and_join),
    goals=[TENTH],
    size=0,
    batch=10,
    seconds=20,
    ours=Side("procession.fork"),
    sides={UNRECORDED: Side("procession.fork", start_and_join)},
)
