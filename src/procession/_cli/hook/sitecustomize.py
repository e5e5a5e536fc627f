"""Runs in the main process of `procession run`, before the program: put first on PYTHONPATH for it.

It undoes its own traces, lets multiprocessing be served by procession, and then runs the
sitecustomize that it hides, if there is one.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _serve() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    recording = os.environ.pop("PROCESSION_RECORDING", None)
    before = os.environ.pop("PROCESSION_PYTHONPATH", None)
    if before is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = before
    if recording is not None:
        os.set_inheritable(int(recording), False)
        from procession._launch import replacement

        replacement.install(int(recording))


def _run_hidden() -> None:
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_serve()
_run_hidden()
