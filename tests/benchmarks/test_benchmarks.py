"""The benchmarks' own arithmetic, and that each of them runs."""

from __future__ import annotations

import random

import pytest

from benchmarks import bench, cases, figures, report, runner

cases.load()


def test_a_ratio_of_medians_comes_back_with_an_interval_around_it() -> None:
    chance = random.Random(1)
    ours = [[chance.gauss(1.0, 0.1), chance.gauss(1.0, 0.1)] for _ in range(40)]
    theirs = [[chance.gauss(3.0, 0.3), chance.gauss(3.0, 0.3)] for _ in range(40)]
    ratio = figures.estimate_ratio(ours, theirs)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.low < 3.0 < ratio.high
    assert ratio.high - ratio.low < 0.5


def test_what_disturbs_both_sides_of_a_round_does_not_disturb_the_ratio() -> None:
    weather = [1.0, 5.0, 2.0, 8.0, 3.0]
    ratio = figures.estimate_ratio([[w] for w in weather], [[2 * w] for w in weather])
    assert ratio == (2.0, 2.0, 2.0)


def test_one_outlier_does_not_move_the_figure() -> None:
    assert figures.centre([[1.0, 1.1], [0.9, 1.0], [1.0, 900.0]]) == 1.0


def test_sides_with_different_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        figures.estimate_ratio([[1.0]], [[1.0], [1.0]])


@pytest.mark.parametrize(
    ("ours", "goal", "cells"),
    [
        (1.0, bench.Versus("fork", 2), ["2.00 s (fork)", "2.00× (2.00–2.00)", "≥ 2×", "yes"]),
        (2.0, bench.Versus("fork", 2), ["2.00 s (fork)", "1.00× (1.00–1.00)", "≥ 2×", "no"]),
        (1.0, bench.Versus("fork"), ["2.00 s (fork)", "2.00× (2.00–2.00)", "", ""]),
        (1e-4, bench.AtMost(1e-3), ["", "", "at most 1.00 ms", "yes"]),
        (1e-2, bench.AtMost(1e-3), ["", "", "at most 1.00 ms", "no"]),
        (2.5, bench.Beyond("fork", 1), ["2.00 s (fork)", "0.80× (0.80–0.80)"]),
    ],
)
def test_a_row_says_whether_the_goal_is_reached(
    ours: float, goal: bench.Goal, cells: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "registry", {})
    benchmark = bench.Benchmark("room.thing", "a thing", lambda *_: iter(()), goals=[goal])
    found = {bench.OURS: [[ours], [ours]], "fork": [[2.0], [2.0]]}
    [row] = report.rows(benchmark, found)
    assert row[2 : 2 + len(cells)] == cells
    if isinstance(goal, bench.Beyond):
        assert row[-2:] == ["at most 1.00 s more", "yes"]


def test_rates_and_bytes_are_shown_as_such() -> None:
    assert report.figure(1 / 2_500_000, "/s") == "2.50 M/s"
    assert report.figure(1_500_000, "B") == "1.50 MB"
    assert report.figure(0.000_082, "s") == "82.0 µs"


def test_a_side_that_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "registry", {})
    unknown = bench.Benchmark("process.not_there", "nothing", lambda *_: iter(()), goals=[])
    with pytest.raises(runner.SideFailed, match="ours: ended"):
        runner.run(unknown, quick=True)


def test_sides_are_measured_in_turn() -> None:
    found = runner.run(bench.registry["process.import"], quick=True)
    assert list(found) == ["ours", "import multiprocessing"]
    assert all(len(rounds) == 1 and len(rounds[0]) == 2 for rounds in found.values())
    assert all(0 < turn < 30 for rounds in found.values() for turn in rounds[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.registry)
def test_each_benchmark_runs_with_tiny_numbers(name: str) -> None:
    benchmark = bench.registry[name]
    assert report.rows(benchmark, runner.run(benchmark, quick=True))
