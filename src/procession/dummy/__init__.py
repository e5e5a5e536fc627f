"""`multiprocessing.dummy` itself, private names and all: not ours yet."""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import *  # noqa: F403 (for static tools)

# before the replacement, after which this folder is searched no more
import procession.dummy.connection  # noqa: F401

sys.modules[__name__] = dummy
