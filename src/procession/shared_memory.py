"""`multiprocessing.shared_memory` itself, private names and all: not ours yet."""

import sys
from multiprocessing import shared_memory
from multiprocessing.shared_memory import *  # noqa: F403 (for static tools)

sys.modules[__name__] = shared_memory
