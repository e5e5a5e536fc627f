"""What a benchmark is: a generator of samples, its sides, its goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Measure = Callable[[Any, int], Iterator[float]]

OURS = "ours"

registry: dict[str, Benchmark] = {}
"""Name → benchmark, in the order in which they were made."""


class Side(NamedTuple):
    """Somebody who is measured.

    Attributes:
        context: "library.method" of the context that the generator gets, or "" for ``None``.
        measure: Its own generator, where the benchmark's cannot be used.
        size: Its own size, where the benchmark's is not meant.
    """

    context: str
    measure: Measure | None = None
    size: int | None = None


class Versus(NamedTuple):
    """We are at least so many times as good as a peer; ``None``: only to be shown."""

    peer: str
    at_least: float | None = None


class AtMost(NamedTuple):
    """Our own figure is at most this."""

    most: float


class Beyond(NamedTuple):
    """Our own figure is at most this much more than a peer's."""

    peer: str
    most: float


Goal = Versus | AtMost | Beyond


class Benchmark:
    """One thing that is measured.

    Args:
        name: What it is called on the command line, as "room.thing".
        title: What it is, for the table.
        measure: Yields samples, in seconds (or bytes); smaller is better.
        goals: What is to be reached; the peers that they name are measured.
        size: What the generator gets, e.g. a number of children or of rounds in one sample.
        quick_size: The same with ``--quick``.
        batch: Samples in one turn.
        seconds: Time for all turns of all sides; two whole rounds (A B B A) are made in any case.
        rounds: How many rounds at least.
        unit: "s", "B", or "/s": samples are seconds for one item and shown as items per second.
        ours: Our side.
        sides: Peers that are no start methods of multiprocessing.
    """

    def __init__(
        self,
        name: str,
        title: str,
        measure: Measure,
        *,
        goals: Sequence[Goal],
        size: int = 1,
        quick_size: int | None = None,
        batch: int = 1,
        seconds: float = 10.0,
        rounds: int = 2,
        unit: str = "s",
        ours: Side | None = None,
        sides: Mapping[str, Side] | None = None,
    ) -> None:
        if name in registry:
            raise ValueError(f"there is a benchmark {name!r} already")
        self.name = name
        self.title = title
        self.measure = measure
        self.goals = list(goals)
        self.size = size
        self.quick_size = size if quick_size is None else quick_size
        self.batch = batch
        self.seconds = seconds
        self.rounds = rounds
        self.unit = unit
        self.sides = {OURS: ours or Side("procession.forkserver")}
        for goal in goals:
            if not isinstance(goal, AtMost):
                known = (sides or {}).get(goal.peer)
                self.sides[goal.peer] = known or Side(f"multiprocessing.{goal.peer}")
        registry[name] = self

    @property
    def room(self) -> str:
        """The part of the name before the first dot."""
        return self.name.partition(".")[0]

    def samples(self, label: str, *, quick: bool) -> Iterator[float]:
        """The generator of one side, in that side's own process."""
        side = self.sides[label]
        size = side.size
        if size is None:
            size = self.quick_size if quick else self.size
        return (side.measure or self.measure)(_context(side.context), size)


def _context(name: str) -> Any:
    if not name:
        return None
    library, _, method = name.partition(".")
    import importlib

    return importlib.import_module(library).get_context(method)
