"""What the documents say is so: their commands run, their files exist, their pictures are fresh."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import procession
from benchmarks import failure_table, orphans_of_peers
from benchmarks.pools import OURS, PEERS, STANDARD
from tests.contract.programs import METHODS, run_command, run_text

DOCUMENTS = (
    "README.md",
    "README.zh-CN.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/from-multiprocessing.md",
    "docs/guarantees.md",
    "docs/glossary.md",
)
WRITTEN_BY_TOOLS = ("benchmarks/RESULTS.md",)
SHORT = 0.5  # seconds of the example's shorter child; README's picture is of longer ones

_PATH = re.compile(r"(?<![\w./-])((?:src|tests|docs|examples|benchmarks|changelog\.d)/[\w./-]*\w)")
_LINK = re.compile(r"\]\((?!http)([^)#]+)")


@pytest.fixture(scope="module")
def readme() -> str:
    return (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def documents(root: Path) -> list[Path]:
    found = [root / name for name in DOCUMENTS]
    for folder in ("decisions", "how-to", "reference"):
        found += sorted((root / "docs" / folder).glob("*.md"))
    return found


def test_files_that_are_named_exist(root: Path) -> None:
    missing = []
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        named = {root / path for path in _PATH.findall(text)}
        named |= {document.parent / path for path in _LINK.findall(text)}
        named -= {root / path for path in WRITTEN_BY_TOOLS}
        missing += [f"{document.name}: {path}" for path in named if not path.exists()]
    assert not missing


def test_every_room_is_in_the_architecture(root: Path) -> None:
    text = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (root / "src/procession").glob("_*/__init__.py")}
    unnamed = sorted(room for room in rooms if f"`{room}`" not in text)
    assert not unnamed, "a row for it belongs into ARCHITECTURE.md's table of rooms"


def test_all_guarantees_are_listed_with_their_tests(root: Path) -> None:
    text = (root / "docs/guarantees.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (G\d+) ", text, flags=re.MULTILINE)[1:]
    numbers, bodies = parts[::2], parts[1::2]
    assert numbers == [f"G{n}" for n in range(1, 14)]
    for number, body in zip(numbers, bodies, strict=True):
        assert "tests/" in body, f"{number} names no test"


def test_guarantees_that_are_cited_exist(root: Path) -> None:
    cited = set()
    for folder, kinds in (("src", ("*.py", "*.c", "*.h")), ("tests", ("*.py",))):
        for kind in kinds:
            for path in (root / folder).rglob(kind):
                cited |= set(re.findall(r"\bG(\d+)\b", path.read_text(encoding="utf-8")))
    assert cited
    assert {int(number) for number in cited} <= set(range(1, 14))


def test_readmes_program_says_what_its_comments_say(readme: str, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    done = run_text(tmp_path, program)
    assert done.code == 0, done.err
    assert done.lines[0] == "144"
    assert done.lines[1].startswith("returned")


USE = """
def work(request):
    return request.upper()


on_start()
print(handle("abc"))
on_stop()
"""


def test_what_stands_in_the_how_to_pages_works(root: Path, tmp_path: Path) -> None:
    for page, more, said in (
        ("notebook", "", "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"),
        ("web-server", USE, "ABC"),
    ):
        text = (root / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
        (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        done = run_text(tmp_path, program + more)
        assert done.lines == [said], done.err


def test_every_new_public_name_is_in_the_reference(root: Path) -> None:
    text = (root / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: procession\.(\w+)", text, flags=re.MULTILINE))
    missing = {
        name for name, module in procession._FROM_MODULES.items() if not {name, module} & named
    }
    assert not missing


SERVICE = """
import procession, time


class start_service:
    def __init__(self):
        self.up = procession.Event()
        self.process = procession.Process(target=run, args=(self.up,))
        self.process.start()

    def is_ready(self):
        return self.up.is_set()

    def stop(self):
        self.process.stop()
        self.process.close()


def run(up):
    up.set()
    time.sleep(3600)


%s

def test_that_leaves_one():
    start_service()


def test_without_pytest():
    with pytest.raises(Exception, match="left behind"):
        %s
            start_service()
"""


def test_the_page_on_tests_is_so(root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "how-to" / "tests.md").read_text(encoding="utf-8")
    (test,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    settings = re.findall(r"```ini\n(\[pytest\].*?)```", text, flags=re.DOTALL)
    ((imported, block),) = re.findall(r"Without pytest: `(.*?)`, and `(with .*?) …`", text)
    service = f"import pytest\n{imported}\n{SERVICE % (test, block)}"
    (tmp_path / "test_service.py").write_text(service)
    (tmp_path / "pytest.ini").write_text(*settings)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = run_command(command, cwd=tmp_path)
    assert "3 passed, 1 error" in done.out, done.out + done.err
    assert "ERROR test_service.py::test_that_leaves_one - Failed: left behind" in done.out


def test_readme_has_exactly_two_set_up_commands(readme: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 2
    assert all(line.startswith("python3 -m venv .venv && ") for line in commands)
    assert commands[0].endswith("procession run examples/05_only_the_first_is_joined.py")
    assert commands[1].endswith("pytest")


def test_sessions_that_are_named_exist(root: Path) -> None:
    pytest.importorskip("nox")
    done = run_command([sys.executable, "-m", "nox", "-l", "-f", str(root / "noxfile.py")])
    assert done.code == 0, done.err
    sessions = set(re.findall(r"^[*-] ([\w.-]+)", done.out, flags=re.MULTILINE))
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        named = set(re.findall(r"nox -s ([\w-]+)", text))
        assert named <= {name.partition("-")[0] for name in sessions} | sessions, document.name


def tool_of_docs(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readmes_picture_is_what_is_drawn_today(root: Path) -> None:
    tool = tool_of_docs(root, "picture")
    assert tool.outline(tool.make(SHORT)) == tool.outline(tool.pasted()), (
        "python docs/picture.py pastes a fresh one"
    )


def test_readmes_tables_and_figures_are_those_that_were_stored(root: Path) -> None:
    stale = list(tool_of_docs(root, "readme").stale())
    assert not stale, "python docs/readme.py pastes fresh ones"


def test_the_tables_pages_are_as_their_tools_write_them(root: Path) -> None:
    """All but the cells, the versions and the seconds, which are what was found."""
    tool = tool_of_docs(root, "readme")
    text = failure_table.PAGE.read_text(encoding="utf-8")
    found = tool._tables(failure_table.PAGE)
    assert [[row[0] for row in rows] for rows in found] == [
        [failure_table.FIRST, *failure_table.ROWS]
    ] * len(METHODS)
    assert [rows[0][1:] for rows in found] == [[*OURS, *STANDARD, *PEERS]] * len(METHODS)
    said = dict(zip(METHODS, found, strict=True))
    wait = float(re.findall(r"([\d.]+) seconds", text)[0])
    assert text == failure_table.page(said, versions(text), wait)
    text = orphans_of_peers.PAGE.read_text(encoding="utf-8")
    (rows,) = tool._tables(orphans_of_peers.PAGE)
    assert [row[0] for row in rows[1:]] == list(orphans_of_peers.KINDS)
    assert rows[0][1:] == list(orphans_of_peers.LIBRARIES)
    assert text == orphans_of_peers.page(rows, versions(text))


def versions(text: str) -> str:
    (found,) = re.findall(r"CPython .*(?=\.\n)", text)
    assert [name in found for name in PEERS] == [True] * len(PEERS)
    return found


def test_readmes_tables_have_every_row_and_no_cell_of_ours_that_is_not_as_wanted(
    root: Path,
) -> None:
    tool = tool_of_docs(root, "readme")
    assert [row[1] for row in tool.orphans()[1:]] == ["nothing"] * 7
    assert [row[1][0] for row in tool.failures()[1:]] == ["✓"] * 7
    assert len(tool.figures("en")) > 10
