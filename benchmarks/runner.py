"""Runs the sides of a benchmark in turn: A B B A, again and again, within its time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from statistics import median

from benchmarks.bench import Benchmark
from benchmarks.figures import Rounds

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT = 180.0  # seconds for one turn, set-up included; what takes longer hangs


class SideFailed(Exception):
    """A side ended or hung; its label is in the text."""


class RunningSide:
    """A side's process.

    Args:
        benchmark: What is measured.
        label: Which side of it.
        quick: With the small sizes.
    """

    def __init__(self, benchmark: Benchmark, label: str, *, quick: bool) -> None:
        self.label = label
        script = os.path.join(ROOT, "benchmarks", "side.py")
        # as users' programs are: no child compiles the module of its target from source again
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", script, benchmark.name, label, "quick" if quick else "full"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "PYTHONPATH": ROOT},
            start_new_session=True,
        )

    def turn(self, batch: int) -> list[float]:
        """Take samples."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{batch}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(f"{self.label}: ended") from None
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            raise SideFailed(f"{self.label}: no answer in {LIMIT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"{self.label}: ended")
        samples: list[float] = json.loads(line)
        return samples

    def close(self) -> None:
        """Let it tidy up and end; whatever is left of it does not stay."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process.stdout.close()


def run(benchmark: Benchmark, *, quick: bool = False) -> dict[str, Rounds]:
    """Measure all sides of a benchmark.

    Returns:
        For each side, for each round, the medians of its turns.

    Raises:
        SideFailed: One of them ended or hung.
    """
    sides: list[RunningSide] = []
    try:
        for label in benchmark.sides:
            sides.append(RunningSide(benchmark, label, quick=quick))
        for side in sides:
            side.turn(1)  # set-up, and what the first sample finds cold
        found: dict[str, Rounds] = {side.label: [] for side in sides}
        began = time.monotonic()
        done = 0
        while done < (1 if quick else benchmark.rounds) or (
            not quick and (time.monotonic() - began) * (done + 1) / done < benchmark.seconds
        ):
            for side in sides:
                found[side.label].append([])
            for side in [*sides, *reversed(sides)]:
                found[side.label][-1].append(median(side.turn(benchmark.batch)))
            done += 1
        return found
    finally:
        for side in sides:
            side.close()
