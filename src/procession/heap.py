"""`multiprocessing.heap` itself, private names and all: not ours yet."""

import sys
from multiprocessing import heap
from multiprocessing.heap import *  # noqa: F403 (for static tools)

sys.modules[__name__] = heap
