"""One file of the C core serves every Python from 3.11 on, whichever of them it was built by."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["PyArg_ParseTuple", "Py_BuildValue"])
def test_lengths_are_parsed_by_what_all_versions_take_them_from(name: str) -> None:
    file = importlib.import_module("procession._native._core").__file__
    assert file is not None
    if ".abi3." not in file:
        pytest.skip("built for one version alone")
    content = Path(file).read_bytes()
    assert f"\0{name}\0".encode() not in content, "3.11 and 3.12 refuse `#` in this one"
    assert f"_{name}_SizeT\0".encode() in content
