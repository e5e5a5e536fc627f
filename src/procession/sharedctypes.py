"""`multiprocessing.sharedctypes` itself, private names and all: not ours yet."""

import sys
from multiprocessing import sharedctypes
from multiprocessing.sharedctypes import *  # noqa: F403 (for static tools)

sys.modules[__name__] = sharedctypes
