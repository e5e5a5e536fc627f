"""Figures as rows of a table, and the page that holds them."""

from __future__ import annotations

import json
import os
from typing import Any

from benchmarks.bench import OURS, AtMost, Benchmark, Beyond, Goal, registry
from benchmarks.figures import (
    Estimate,
    Rounds,
    centre,
    estimate_difference,
    estimate_own,
    estimate_ratio,
)
from benchmarks.runner import ROOT

PAGE = os.path.join(ROOT, "benchmarks", "RESULTS.md")
DATA = os.path.join(ROOT, "benchmarks", "results.json")

_HEAD = ("What", "Ours", "Theirs", "Ratio (95 %)", "Goal", "Reached")
_INTRODUCTION = """\
# Results

Written by `python -m benchmarks --update`. Us and a peer (multiprocessing's start method of that
name, where nothing else is said) in turn, in one run, each in a process of its own: A B B A, again
and again. A figure is the median of all turns' medians; a ratio says how many times as much the
peer needs as we do, and its interval holds it with 95 % (bootstrap over whole rounds). Goals are
the project's own. *Unclear* means that the goal lies within the interval.

To repeat all: `nox -s bench -- --update`; one: `python -m benchmarks NAME`; what there is:
`python -m benchmarks --list`. All of it takes about twenty minutes
on a quiet machine with two cores.
"""


def rows(benchmark: Benchmark, found: dict[str, Rounds]) -> list[list[str]]:
    """One row for each goal."""
    return [_row(benchmark, found, goal) for goal in benchmark.goals]


def _row(benchmark: Benchmark, found: dict[str, Rounds], goal: Goal) -> list[str]:
    ours, unit = found[OURS], benchmark.unit
    row = [f"{benchmark.title} (`{benchmark.name}`)", figure(centre(ours), unit)]
    if isinstance(goal, AtMost):
        own = estimate_own(ours)
        words = "at least" if unit == "/s" else "at most"
        return [*row, "", "", f"{words} {figure(goal.most, unit)}", _under(own, goal.most)]
    theirs = found[goal.peer]
    ratio = estimate_ratio(ours, theirs)
    row += [f"{figure(centre(theirs), unit)} ({goal.peer})", times(ratio)]
    if isinstance(goal, Beyond):
        difference = estimate_difference(ours, theirs)
        return [*row, f"at most {figure(goal.most, unit)} more", _under(difference, goal.most)]
    if goal.at_least is None:
        return [*row, "", ""]
    return [*row, f"≥ {goal.at_least:g}×", _over(ratio, goal.at_least)]


def figure(value: float, unit: str) -> str:
    """A number with three digits and its unit."""
    if unit == "/s":
        return f"{_scaled(1 / value, [(1e6, 'M'), (1e3, 'k'), (1, '')])}/s"
    if unit == "B":
        return f"{_scaled(value, [(1e6, 'M'), (1e3, 'k'), (1, '')])}B"
    return f"{_scaled(value, [(1, ''), (1e-3, 'm'), (1e-6, 'µ'), (1e-9, 'n')])}s"


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    factor, prefix = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    number = value / factor
    digits = 2 if abs(number) < 10 else 1 if abs(number) < 100 else 0
    return f"{number:.{digits}f} {prefix}"


def times(ratio: Estimate) -> str:
    """A ratio and its interval."""
    digits = 2 if ratio.value < 10 else 1 if ratio.value < 100 else 0
    value, low, high = (f"{part:.{digits}f}" for part in ratio)
    return f"{value}× ({low}–{high})"


def _under(estimate: Estimate, most: float) -> str:
    return "yes" if estimate.high <= most else "no" if estimate.low > most else "unclear"


def _over(estimate: Estimate, least: float) -> str:
    return "yes" if estimate.low >= least else "no" if estimate.high < least else "unclear"


def table(lines: list[list[str]]) -> str:
    """Rows as Markdown, aligned for who reads it as text."""
    lines = [list(_HEAD), *lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text.append(f"| {' | '.join(cells)} |")
    text.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(text)


def update(results: dict[str, list[list[str]]], environment: str) -> None:
    """Put new rows into the page; those of benchmarks that did not run stay, with their machine."""
    try:
        with open(DATA, encoding="utf-8") as file:
            data: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        data = {}
    for name, new in results.items():
        data[name] = {"environment": environment, "rows": new}
    data = {name: data[name] for name in registry if name in data}
    with open(DATA, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(page(data))


def page(data: dict[str, Any]) -> str:
    """The whole page: a section for each room."""
    parts = [_INTRODUCTION]
    for room in dict.fromkeys(benchmark.room for benchmark in registry.values()):
        entries = [entry for name, entry in data.items() if name.partition(".")[0] == room]
        if entries:
            machines = dict.fromkeys(entry["environment"] for entry in entries)
            lines = [row for entry in entries for row in entry["rows"]]
            parts.append(f"## {room.capitalize()}\n\n{table(lines)}\n")
            parts.append("\n".join(f"Measured on: {machine}\n" for machine in machines))
    return "\n".join(parts)
