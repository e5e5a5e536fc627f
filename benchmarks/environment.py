"""What the figures were measured on, in one line."""

from __future__ import annotations

import os
import platform
import subprocess

from benchmarks.runner import ROOT


def describe() -> str:
    """CPU, kernel, Python, commit, load average now."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_cpu()} ({len(os.sched_getaffinity(0))} cores) · {platform.system()} "
        f"{platform.release()} · {platform.python_implementation()} {platform.python_version()} · "
        f"commit {_commit()} · load average {load}"
    )


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", ROOT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # the figures' own files change with every run
        changed = git("status", "--porcelain", "--", ":!benchmarks/RESULTS.md", ":!*results.json")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
