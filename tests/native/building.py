"""Building the drivers: the C core without Python, and a main program that puts it to the test."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
SOURCES = HERE.parents[1] / "src/procession/_native/src"


def build(name: str, folder: Path, *flags: str, core: Sequence[str] = ()) -> Path:
    """A driver with some files of the core, or with all of it (all but what knows Python)."""
    files = [str(SOURCES / f"{part}.c") for part in core] or sorted(
        str(path) for path in SOURCES.glob("*.c") if not path.name.startswith("module")
    )
    program = folder / name
    subprocess.run(
        [
            *["gcc", "-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-DPN_EXTENTS=5", *flags],
            *[f"-I{SOURCES}", f"-I{DRIVERS}", str(DRIVERS / f"{name}.c"), *files],
            *["-pthread", "-Wl,-z,now", "-o", str(program)],  # no symbol is looked up while stepped
        ],
        check=True,
        timeout=100,
    )
    return program
