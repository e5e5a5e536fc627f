"""`multiprocessing.forkserver` itself, private names and all: not ours yet."""

import sys
from multiprocessing import forkserver
from multiprocessing.forkserver import *  # noqa: F403 (for static tools)

sys.modules[__name__] = forkserver
