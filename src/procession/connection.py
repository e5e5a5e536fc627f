"""`multiprocessing.connection` itself, private names and all: not ours yet."""

import sys
from multiprocessing import connection
from multiprocessing.connection import *  # noqa: F403 (for static tools)

sys.modules[__name__] = connection
