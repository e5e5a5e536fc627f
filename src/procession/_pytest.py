"""The pytest plugin: ``no_strays`` and ``wait_until`` as fixtures.

Light: every run of pytest in an environment that has procession imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

_ALWAYS = "procession_no_strays"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option that looks after every test."""
    parser.addini(_ALWAYS, "let every test use the fixture no_strays", "bool", False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every test use ``no_strays`` where the ini option says so."""
    if not config.getini(_ALWAYS):
        return
    for item in items:
        if isinstance(item, pytest.Function) and "no_strays" not in item.fixturenames:
            item.fixturenames.insert(0, "no_strays")  # first: it looks when all others are done


@pytest.fixture
def no_strays() -> Iterator[None]:
    """Fail a test that leaves processes, threads, descriptors or shared memory behind."""
    from procession import testing

    picture = ""
    try:
        with testing.no_strays():
            yield
    except testing.StraysLeft as left:
        picture = str(left)
    if picture:  # not in the handler: the report would have it twice
        pytest.fail(picture, pytrace=False)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(predicate, timeout)``: wait for a fact that nobody announces."""
    from procession import testing

    return testing.wait_until
