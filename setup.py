"""The one extension and its switches; everything else is in pyproject.toml.

PROCESSION_WERROR=1 makes warnings errors; PROCESSION_SANITIZE=address,undefined builds with
sanitizers; PROCESSION_DEBUG=1 keeps symbols and does not optimise.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/procession/_native/src")

flags = ["-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-fvisibility=hidden"]
links: list[str] = []
if os.environ.get("PROCESSION_WERROR"):
    flags.append("-Werror")
if os.environ.get("PROCESSION_DEBUG"):
    flags += ["-O0", "-g3"]
if sanitizers := os.environ.get("PROCESSION_SANITIZE"):
    flags += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
    links += [f"-fsanitize={sanitizers}"]

# the limited API of a free-threaded build is another one (PEP 803)
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "procession._native._core",
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            extra_compile_args=flags,
            extra_link_args=links,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if limited else [],
            py_limited_api=limited,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
