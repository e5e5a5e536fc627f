"""An editor's debugger: debugpy, told by its own protocol what an editor tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.programs import METHODS
from tests.programs.editor import Editor
from tests.programs.support import HERE, LIMIT

pytestmark = [pytest.mark.programs, pytest.mark.timeout(400)]

SCRIPT = HERE / "stopped.py"
LAUNCHES: dict[str, dict[str, Any]] = {  # as they stand in an editor's launch.json
    "with our context": {"program": str(SCRIPT), "args": ["procession"]},
    "under procession run": {
        "module": "procession",
        "args": ["run", "-q", str(SCRIPT), "multiprocessing"],
    },
}


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_children_stop_at_breakpoints(launch: dict[str, Any]) -> None:
    lines = SCRIPT.read_text().splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if "editor's breakpoint" in text)
    editor = Editor(SCRIPT, line, "[method, 'twice' in locals()]")
    editor.launch(LIMIT, **launch)
    seen = [json.loads(stop.value.replace("'", '"').lower()) for stop in editor.stops]
    methods = ("fork", "spawn", "forkserver")
    both = [[method, later] for method in methods for later in (False, True)]
    both.remove(["fork", True])  # pydevd hears no breakpoint() in what os.fork made, whoever asked
    assert seen == both
    assert {stop.function for stop in editor.stops} == {"child"}
    assert len({stop.pid for stop in editor.stops}) == len(METHODS)
    assert editor.printed.split() == [str(2 * len(method)) for method in methods]
