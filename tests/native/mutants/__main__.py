"""See the package's docstring. With names (parts of them) as arguments: only those faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CORE = "src/procession/_native/src"
PARTS = ("src", "tests", "pyproject.toml", "setup.py", "README.md")
PATIENCE = 15  # seconds that a driver waits for what never comes
LIMIT = 240.0  # seconds for one test


def copy(folder: Path) -> None:
    """The checkout, whose drivers have less patience."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "conformance")
            shutil.copytree(ROOT / part, folder / part, ignore=skipped)
        else:
            shutil.copy2(ROOT / part, folder / part)
    replace(folder / "tests/native/drivers/check.h", "(60 * SECOND)", f"({PATIENCE} * SECOND)")


def replace(path: Path, old: str, new: str) -> None:
    """Change the one place where a text occurs."""
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{path.name}: occurs {text.count(old)} times, not once: {old!r}")
    path.write_text(text.replace(old, new))


def passes(folder: Path, test: str) -> bool:
    """Run one test in a copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False
    if process.returncode not in (0, 1):
        raise SystemExit(f"{test} was not run:\n{output}")
    return process.returncode == 0


def try_out(fault: dict[str, Any] | None, test: str) -> bool:
    """Whether a test passes with a fault, or with none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        if fault is not None:
            path = folder / CORE / fault["file"]
            replace(path, fault["old"], fault["new"])
            if "also" in fault:
                replace(path, *fault["also"])
            if fault.get("build"):
                command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return passes(folder, test)


def main() -> int:
    """The exit status is 1 when a fault made no difference."""
    with open(Path(__file__).with_name("faults.toml"), "rb") as file:
        faults = tomllib.load(file)["fault"]
    wanted = sys.argv[1:]
    if wanted:
        faults = [fault for fault in faults if any(part in fault["name"] for part in wanted)]
    for test in dict.fromkeys(fault["test"] for fault in faults):
        if not try_out(None, test):
            raise SystemExit(f"{test} fails without any fault")
    missed = 0
    for fault in faults:
        began = time.monotonic()
        missed |= (survived := try_out(fault, fault["test"]))
        said = "NOT FOUND" if survived else "found"
        place = fault["test"].rpartition("/")[2]
        seconds = time.monotonic() - began
        print(f"{said:<9}  {fault['name']:<70}  {place}  {seconds:.0f} s", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
