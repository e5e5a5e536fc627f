"""`multiprocessing.pool` itself, private names and all: not ours yet."""

import sys
from multiprocessing import pool
from multiprocessing.pool import *  # noqa: F403 (for static tools)

sys.modules[__name__] = pool
