"""`multiprocessing.resource_tracker` itself, private names and all: not ours yet."""

import sys
from multiprocessing import resource_tracker
from multiprocessing.resource_tracker import *  # noqa: F403 (for static tools)

sys.modules[__name__] = resource_tracker
