"""Pastes into README.md and README.zh-CN.md what is measured: picture, tables, figures.

python docs/readme.py             the tables and the figures, from where their commands stored them
python docs/readme.py --picture   and a fresh picture, from a real run of the example

`nox -s docs -- --paste` does both, and looks at the result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
PEERS = ("standard Pool", "standard executor", "loky", "pebble", "mpire")
OURS = ("procession Pool", "procession executor", "ProcessGroup")

# benchmark, the peer's name begins so, what it is
FIGURES = (
    ("process.start", "fork)", "`start()` against `fork`", "`start()`，对比 `fork`"),
    ("process.start", "forkserver)", "… against `forkserver`", "……对比 `forkserver`"),
    (
        "process.start_big_main",
        "fork)",
        "… with 500 MB in main, `fork`",
        "……主进程占 500 MB，`fork`",
    ),
    ("process.start_join", "fork)", "start and join, `fork`", "启动并等待，`fork`"),
    ("process.start_join", "forkserver)", "… `forkserver`", "……`forkserver`"),
    ("process.start_join", "spawn)", "… `spawn`", "……`spawn`"),
    ("process.burst", "fork)", "each of 200 starts in a burst, `fork`", "连续启动 200 个，`fork`"),
    ("process.memory", "fork)", "memory of an idle child, `fork`", "空闲子进程的内存，`fork`"),
    ("locks.alone", "", "`Lock.acquire()` and `release()`", "`Lock.acquire()` 与 `release()`"),
    ("locks.with", "", "`with lock:`", "`with lock:`"),
    ("locks.semaphore", "", "`Semaphore`: the same", "`Semaphore`：同上"),
    ("locks.gap_1mb_p99", "", "a killed holder's lock is had, p99", "持锁者被杀后取得锁，p99"),
    ("queues.bytes", "", "`Queue` of 64-byte bytes", "`Queue`，64 字节"),
    ("queues.dicts", "", "`Queue` of dicts", "`Queue`，字典"),
    ("queues.ping_pong", "", "there and back by two queues", "经两个队列往返"),
    ("queues.arrays_1_mb", "", "`Queue` of 1 MB arrays", "`Queue`，1 MB 数组"),
    (
        "pool.tiny_calls",
        "standard executor)",
        "tiny calls one by one, against the executor",
        "逐个微小调用，对比执行器",
    ),
    ("pool.round_trip", "standard executor)", "… one, there and back", "……一次往返"),
    ("pool.arrays", "standard Pool)", "`Pool`: 8 MB in and out", "`Pool`：8 MB 往返"),
    (
        "process.main_killed_1000",
        "",
        "main killed: 1000 below it gone",
        "主进程被杀：其下 1000 个消失",
    ),
)

_CHINESE = {
    "what": "项目",
    "ours": "procession",
    "multiprocessing": "multiprocessing",
    "ratio": "倍数",
    "goal": "目标",
    "yes": "达到",
    "**missed**": "**未达到**",
    "unclear": "不明确",
    "below main": "主进程之下",
    "nothing": "无",
    "what one call does": "一次调用做了什么",
    "hangs": "挂起",
    "pool broken": "整个池损坏",
    "others fail too": "其他调用也失败",
    "only that call": "仅该调用",
    "cause lost": "原因丢失",
    "`SystemExit` in the parent": "父进程中 `SystemExit`",
    "idle worker": "空闲的工作进程",
    "busy worker": "忙碌的工作进程",
    "subprocess of a worker": "工作进程的子程序",
    "one that went astray": "setsid 并二次 fork 的子程序",
    "process": "进程",
    "daemon process": "守护进程",
    "manager": "管理器",
    "exception that cannot be unpickled": "异常无法反序列化",
    "result that cannot be pickled": "结果无法序列化",
    "failing initializer": "初始化函数失败",
    "segfault": "段错误",
}


def blocks(language: str) -> dict[str, str]:
    """What belongs between the marks of one page, by name; the picture has a tool of its own."""
    made = {"orphans": orphans(), "failures": failures(), "figures": figures(language)}
    return {name: _markdown(rows, language) for name, rows in made.items()}


def orphans() -> list[list[str]]:
    """The table of what is left when main is killed."""
    return _tables(ROOT / "docs" / "orphan-table.md")[0]


def failures() -> list[list[str]]:
    """The table of pools, of start method forkserver, each cell in two words."""
    head, *rows = _tables(ROOT / "docs" / "failure-table.md")[0]
    short = [[head[0], "ours", *PEERS]]
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        ours = [_short(cells[name]) for name in OURS]
        worst = next((cell for cell in ours if not cell.startswith("✓")), ours[0])
        short.append([row[0], worst, *(_short(cells[name]).partition(" `")[0] for name in PEERS)])
    return short


def _short(cell: str) -> str:
    """A cell of the failure table in two words."""
    what, _, cause = cell.partition(": ")
    if what in ("only it", "fails at once"):
        return f"✓ `{cause}`"
    if "hang" in what:
        return "**hangs**"
    if "SystemExit" in what:
        return "`SystemExit` in the parent"
    if cause.startswith(("BrokenProcessPool", "TerminatedWorkerError")):
        return "pool broken"
    if "calls" in what:
        return "others fail too"
    return "cause lost"


def figures(language: str) -> list[list[str]]:
    """Some rows of the benchmarks' results, the missed goals among them."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    rows = [["what", "ours", "multiprocessing", "ratio", "goal", ""]]
    for name, peer, *titles in FIGURES:
        for _, ours, theirs, ratio, goal, reached in results.get(name, {"rows": []})["rows"]:
            if peer and f"({peer}" not in theirs:
                continue
            if reached:
                title = titles[language == "zh"]
                theirs, ratio = theirs.partition(" (")[0], ratio.partition(" (")[0]
                reached = "**missed**" if reached == "no" else reached
                rows.append([title, ours, theirs, ratio, goal, reached])
                break
    return rows


def _tables(path: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, the head first."""
    tables: list[list[list[str]]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            if tables[-1]:
                tables.append([])
        elif set(line) - set("|- "):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def _markdown(rows: list[list[str]], language: str) -> str:
    def said(cell: str) -> str:
        if language != "zh":
            return "procession" if cell == "ours" else cell
        bare = cell.strip("*")
        bare = bare.replace(" left", " 个遗留") if bare.endswith(" left") else bare
        bare = bare.replace("at most", "至多")
        word = _CHINESE.get(cell, _CHINESE.get(bare, bare))
        return f"**{word}**" if cell.startswith("**") and not word.startswith("**") else word

    lines = [f"| {' | '.join(map(said, row))} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n" + "\n".join(lines) + "\n\n"


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: made by docs/readme.py -->\n", f"<!-- end of {name} -->\n"


def stale() -> Iterator[str]:
    """The blocks that are not what they would be if they were pasted now."""
    for language, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        for name, block in blocks(language).items():
            begin, end = _marks(name)
            if text.partition(begin)[2].partition(end)[0] != block:
                yield f"{page.name}: {name}"


def paste() -> None:
    """Put all blocks into their pages."""
    for language, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        for name, block in blocks(language).items():
            begin, end = _marks(name)
            head, found, rest = text.partition(begin)
            _, closed, tail = rest.partition(end)
            if not (found and closed):
                raise SystemExit(f"{page.name} lacks the marks of {name}")
            text = head + begin + block + end + tail
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "--picture" in sys.argv:
        import picture

        picture.paste(picture.make())
    paste()
