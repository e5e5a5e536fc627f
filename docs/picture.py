"""Pastes the picture into README.md, from a real run.

python docs/picture.py            run the example and paste what it prints
python docs/picture.py --check 1  run it with short times and say whether the pasted one is stale
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLE = "examples/05_only_the_first_is_joined.py"
BEGIN, END = "<!-- picture: made by docs/picture.py -->\n", "<!-- end of picture -->\n"


def make(seconds: float | None = None) -> str:
    """What the example prints on a terminal of 96 columns: its own lines, then the picture."""
    more = [] if seconds is None else [str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "procession", "run", EXAMPLE, *more],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "96", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    )
    picture = done.stderr.replace(f" {seconds}\n", "\n")
    return f"```text\n$ procession run {EXAMPLE}\n{done.stdout}{picture.rstrip()}\n```\n"


def pasted() -> str:
    """What README.md shows now."""
    return README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def paste(picture: str) -> None:
    """Put it there."""
    head, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md lacks the marks {BEGIN.strip()} and {END.strip()}")
    README.write_text(head + begin + picture + end + tail, encoding="utf-8")


def outline(picture: str) -> list[str]:
    """The words of a picture without what differs from run to run: times, pids, bars, legend."""
    words: list[str] = []
    for line in picture.splitlines():
        if line[:2] in ("· ", "═ ", "┈ "):
            continue  # it explains only the signs that this run has
        row = re.match(r"(.+?) +(?:pid|\d+)  (how it ended|[a-z]+ \w+)", line)
        text = f"{row[1][:20]} {row[2]}" if row else re.sub(r"\d\S* m?s\b", "TIME", line)
        words += text.split()
    return words


if __name__ == "__main__":
    if "--check" in sys.argv:
        if outline(make(float(sys.argv[-1]))) != outline(pasted()):
            raise SystemExit("the picture in README.md is stale: python docs/picture.py")
    else:
        paste(make())
