"""`multiprocessing.managers` itself, private names and all: not ours yet."""

import sys
from multiprocessing import managers
from multiprocessing.managers import *  # noqa: F403 (for static tools)

sys.modules[__name__] = managers
