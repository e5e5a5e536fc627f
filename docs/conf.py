"""How the documentation is built: `nox -s docs`."""

from __future__ import annotations

import multiprocessing
import zlib
from pathlib import Path

import procession

project = "procession"
author = "the founders of procession"
version = release = procession.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "procession"
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"  # the docstrings say it in words
myst_heading_anchors = 3
# links to files of the checkout that are no pages; tests/docs looks whether they exist
suppress_warnings = ["myst.xref_missing"]

# --- links to the standard library's page ---------------------------------------------------------

_PYTHON = "https://docs.python.org/3"
_PAGES = {
    "multiprocessing": [
        *multiprocessing.__all__,
        *("pool.Pool", "pool.AsyncResult", "managers.BaseManager", "managers.SyncManager"),
        *("managers.BaseProxy", "connection.wait", "connection.Connection"),
    ],
    "multiprocessing.shared_memory": ["SharedMemory", "ShareableList"],
    "concurrent.futures": ["ProcessPoolExecutor", "Future"],
}


def _inventory(path: Path) -> str:
    """Write the names that these pages link to, so that a build needs no network."""
    lines = []
    for page, names in _PAGES.items():
        package = "concurrent.futures" if page.startswith("concurrent") else page
        for name in names:
            kind = "class" if name.rpartition(".")[2][:1].isupper() else "function"
            lines.append(f"{package}.{name} py:{kind} 1 library/{page}.html#$ -")
    head = b"# Sphinx inventory version 2\n# Project: Python\n# Version: 3\n"
    head += b"# The remainder of this file is compressed using zlib.\n"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head + zlib.compress(("\n".join(lines) + "\n").encode()))
    return str(path)


intersphinx_mapping = {
    "python": (_PYTHON, _inventory(Path(__file__).parent / "_build" / "python.inv"))
}
