"""`multiprocessing.util` itself, private names and all: not ours yet."""

import sys
from multiprocessing import util
from multiprocessing.util import *  # noqa: F403 (for static tools)

sys.modules[__name__] = util
