"""`multiprocessing.reduction` itself, private names and all: not ours yet."""

import sys
from multiprocessing import reduction
from multiprocessing.reduction import *  # noqa: F403 (for static tools)

sys.modules[__name__] = reduction
