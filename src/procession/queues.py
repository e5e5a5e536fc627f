"""`multiprocessing.queues` itself, private names and all: not ours yet."""

import sys
from multiprocessing import queues
from multiprocessing.queues import *  # noqa: F403 (for static tools)

sys.modules[__name__] = queues
