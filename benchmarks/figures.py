"""Medians, ratios, and how far they can be trusted."""

from __future__ import annotations

import random
from statistics import median
from typing import NamedTuple

_RESAMPLES = 2000
_LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure and the interval that holds it with 95 % by a bootstrap over whole rounds."""

    value: float
    low: float
    high: float


Rounds = list[list[float]]
"""For each round the medians of a side's turns in it."""


def centre(rounds: Rounds) -> float:
    """The median of the turns' medians."""
    return median([turn for turns in rounds for turn in turns])


def estimate_own(ours: Rounds) -> Estimate:
    """A side's own median."""
    return _bootstrap(len(ours), lambda picked: centre([ours[i] for i in picked]))


def estimate_ratio(ours: Rounds, theirs: Rounds) -> Estimate:
    """How many times as much they need as we do.

    A round is drawn with what both sides did in it: what disturbed one then, disturbed both.
    """
    if len(ours) != len(theirs):
        raise ValueError("both sides need the same rounds")
    return _bootstrap(
        len(ours),
        lambda picked: centre([theirs[i] for i in picked]) / centre([ours[i] for i in picked]),
    )


def estimate_difference(ours: Rounds, theirs: Rounds) -> Estimate:
    """How much more we need than they do."""
    return _bootstrap(
        len(ours),
        lambda picked: centre([ours[i] for i in picked]) - centre([theirs[i] for i in picked]),
    )


def _bootstrap(count, figure):
    chance = random.Random(count)
    indices = range(count)
    found = sorted(figure(chance.choices(indices, k=count)) for _ in range(_RESAMPLES))
    tail = (1 - _LEVEL) / 2
    return Estimate(
        figure(indices), found[int(tail * _RESAMPLES)], found[int((1 - tail) * _RESAMPLES) - 1]
    )
