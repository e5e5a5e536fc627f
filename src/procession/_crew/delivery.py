"""Outcomes on their way to whoever waits for them: unpickled, and failures put into words.

Always without the crew's lock: unpickling runs the users' code.
"""

from __future__ import annotations

from typing import Any

from procession._crew import encoding
from procession._crew.encoding import Mapping
from procession._crew.hand import Done
from procession._crew.jobs import Batch, Call, Job, MapJob
from procession._crew.words import Words
from procession._kernel.interrupts import is_interrupt
from procession._wire.outcome import load_outcome, remote_text


class Delivery:
    """Hands the outcomes of a crew over.

    Args:
        words: How failures are told.
    """

    def __init__(self, words: Words) -> None:
        self._words = words

    def deliver(self, parts: list[Done]) -> None:
        """Hand outcomes over."""
        for batch, start, outcomes, mapping in parts:
            job = batch.job
            if isinstance(job, MapJob):
                self._to_map(job, batch, start, outcomes, mapping)
                continue
            for at, outcome in enumerate(outcomes, start):
                call: Call = batch.ids[at]
                call.finish(*self.decode(job, batch.items[at], outcome, mapping))

    def _to_map(
        self, job: MapJob, batch: Batch, start: int, outcomes: list[Any], mapping: Mapping
    ) -> None:
        ids = batch.ids[start : start + len(outcomes)]
        if encoding.PLAIN.issuperset(map(type, outcomes)):
            job.sink.values(ids, outcomes)
            return
        values: list[Any] = []
        good: list[int] = []
        for at, outcome in enumerate(outcomes):
            ok, value = self.decode(job, batch.items[start + at], outcome, mapping)
            if ok:
                good.append(ids[at])
                values.append(value)
            else:
                job.sink.failed(ids[at], value)
        if good:
            job.sink.values(ids if len(good) == len(ids) else good, values)

    def decode(self, job: Job, item: Any, outcome: Any, mapping: Mapping) -> tuple[bool, Any]:
        """Whether a call returned, and what; or the exception."""
        if encoding.is_value(outcome):
            try:
                return True, encoding.unpack(outcome, mapping)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                return False, self._words.unloadable(job.text(item), error)
        kind, *rest = outcome
        blob = rest[-1]
        cause = load_outcome(blob).error
        assert cause is not None
        if kind == encoding.EXITED:
            return False, self._words.exited(job.text(item), cause)
        if kind == encoding.UNSENDABLE:
            return False, self._words.unsendable(job.text(item), rest[0], cause)
        return False, self._words.raised(cause, remote_text(blob))

    def fail(self, batch: Batch, at: int, error: BaseException) -> None:
        """A call ends with an error."""
        job = batch.job
        if isinstance(job, MapJob):
            job.sink.failed(batch.ids[at], error)
        else:
            call: Call = batch.ids[at]
            call.finish(False, error)
