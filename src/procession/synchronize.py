"""`multiprocessing.synchronize` itself, private names and all: not ours yet."""

import sys
from multiprocessing import synchronize
from multiprocessing.synchronize import *  # noqa: F403 (for static tools)

sys.modules[__name__] = synchronize
