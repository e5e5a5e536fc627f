"""`multiprocessing.spawn` itself, private names and all: not ours yet."""

import sys
from multiprocessing import spawn
from multiprocessing.spawn import *  # noqa: F403 (for static tools)

sys.modules[__name__] = spawn
