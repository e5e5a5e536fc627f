"""`multiprocessing.dummy.connection` itself, private names and all: not ours yet."""

import sys
from multiprocessing.dummy import connection
from multiprocessing.dummy.connection import *  # noqa: F403 (for static tools)

sys.modules[__name__] = connection
