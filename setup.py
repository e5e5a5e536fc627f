"""The one extension and its switches; everything else is in pyproject.toml.

PROCESSION_WERROR=1 makes warnings errors (not the default: an unknown compiler has unknown ones).
PROCESSION_SANITIZE=address,undefined builds with sanitizers, PROCESSION_COVERAGE=1 counts lines,
PROCESSION_DEBUG=1 keeps symbols and does not optimise.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/procession/_native/src")

compile_flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow"]
compile_flags += ["-fvisibility=hidden"]  # PyInit__core says for itself that it is to be seen
link_flags: list[str] = []
if os.environ.get("PROCESSION_WERROR"):
    compile_flags += ["-Werror"]
if os.environ.get("PROCESSION_DEBUG"):
    compile_flags += ["-O0", "-g3"]
if os.environ.get("PROCESSION_COVERAGE"):
    compile_flags += ["-O0", "--coverage"]
    link_flags += ["--coverage"]
if sanitizers := os.environ.get("PROCESSION_SANITIZE"):
    compile_flags += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
    link_flags += [f"-fsanitize={sanitizers}"]

# the limited API of a free-threaded build is another one (PEP 803)
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "procession._native._core",
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            extra_compile_args=compile_flags,
            extra_link_args=link_flags,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if limited else [],
            py_limited_api=limited,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
