"""Runs in the main process of `procession run`, before the program: put first on PYTHONPATH for it.

It undoes its own traces, lets multiprocessing be served by procession, and then runs the
sitecustomize that it hides, if there is one.
"""

import atexit
import importlib.machinery
import importlib.util
import os
import sys


def _serve() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    recording = os.environ.pop("PROCESSION_RECORDING", None)
    own_end = os.environ.pop("PROCESSION_OWN_END", None)
    before = os.environ.pop("PROCESSION_PYTHONPATH", None)
    if before is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = before
    if own_end is not None:
        os.set_inheritable(int(own_end), False)
        atexit.register(_say_that_it_is_pythons_own_end, os.getpid(), int(own_end))
    if recording is not None:
        os.set_inheritable(int(recording), False)
        from procession._launch import replacement

        replacement.install(int(recording))


def _say_that_it_is_pythons_own_end(main: int, fd: int) -> None:
    """The last of all exit functions: what `os._exit` and signals never reach."""
    if os.getpid() == main:
        try:
            os.eventfd_write(fd, 1)
        except OSError:
            pass  # the program closed all descriptors, as daemons do


def _run_hidden() -> None:
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_serve()
_run_hidden()
