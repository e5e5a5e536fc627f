"""The results of a lazy map, one after the other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from procession._crew.crew import Crew
from procession._crew.jobs import MapJob
from procession._crew.results import IMapIterator
from procession._wire import pickling


def submit_map(
    crew: Crew,
    results: IMapIterator,
    shape: int,
    fn: Callable[..., Any],
    items: Iterable[Any],
    chunk: int,
    timeout: float | None,
    limit: int | None,
) -> IMapIterator:
    """Give a crew a map's calls; their outcomes go to ``results``, also that there can be none.

    Args:
        shape, fn, items, chunk, timeout, limit: As of `jobs.MapJob`.
    """
    try:
        blob = pickling.dump_function(fn)
    except Exception as error:
        results.abandoned(error)
        return results
    job = MapJob(shape, fn, blob, results, items, chunk=chunk, timeout=timeout, limit=limit)
    results.job = job
    crew.submit_map(job)
    return results


def taken(crew: Crew, results: IMapIterator, deadline: float | None) -> Iterator[Any]:
    """The results; what was not begun when nobody takes them any more is dropped."""
    try:
        while True:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                found = results.take(rest)
            except multiprocessing.TimeoutError:
                raise TimeoutError from None  # as `concurrent.futures` calls it
            if found is None:
                return
            ok, *value = found
            del found  # nothing here holds what was handed over
            if not ok:
                raise value.pop()  # a StopIteration becomes a RuntimeError here, as ever
            yield value.pop()
    finally:
        if results.job is not None:
            crew.cancel_map(results.job)


__all__ = ["submit_map", "taken"]
