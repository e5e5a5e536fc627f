"""`multiprocessing.resource_sharer` itself, private names and all: not ours yet."""

import sys
from multiprocessing import resource_sharer
from multiprocessing.resource_sharer import *  # noqa: F403 (for static tools)

sys.modules[__name__] = resource_sharer
