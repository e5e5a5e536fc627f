from collections.abc import Iterator
from typing import Any

import pytest

import procession
from tests.contract.people import people

__all__ = ["people", "pool"]


@pytest.fixture
def pool() -> Iterator[Any]:
    pool = procession.get_context("forkserver").Pool(1)
    try:
        yield pool
    finally:
        pool.terminate()
        pool.join()
