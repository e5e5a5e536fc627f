"""PyTorch: `nox -s torch`."""

from __future__ import annotations

import sys

import pytest

from tests.contract.programs import run_command
from tests.programs.support import HERE, LIMIT, RUN, needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LOADED = str([sum(number * number for number in range(40))] * 2)


def test_a_tensor_through_our_queue_is_the_same_storage_on_both_sides() -> None:
    needs("torch", session="torch")
    done = run_command([sys.executable, "torch_queue.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == ["written 42.0", "7.0 True", "0"] * 3, done.err


def test_a_loaders_workers_by_our_context() -> None:
    needs("torch", session="torch")
    done = run_command([sys.executable, "torch_loader.py", "ours"], cwd=HERE, limit=LIMIT)
    assert done.lines == [LOADED] * 3, done.err


def test_a_loader_and_torchs_spawn_unchanged() -> None:
    needs("torch", session="torch")
    done = run_command([*RUN, "torch_loader.py"], cwd=HERE, limit=LIMIT)
    assert done.lines == [LOADED] * 3 + ["[1.0, 2.0]"], done.err
    assert "10 children" in done.err
