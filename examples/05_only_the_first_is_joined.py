"""Only the first child is joined: main says its last line between the two ends.

Who waits for whom, and who outlives whom: main waits for `short` because it joins it, says its last
line, and then waits for `long` all the same, because a program does not end before its children.

usage: 05_only_the_first_is_joined.py [seconds of the shorter one, 4]
"""

import multiprocessing
import sys
import time


def work(seconds):
    time.sleep(seconds)
    print(multiprocessing.current_process().name, "is done", flush=True)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    short = multiprocessing.Process(target=work, args=(seconds,), name="short")
    long = multiprocessing.Process(target=work, args=(2 * seconds,), name="long")
    short.start()
    long.start()
    short.join()
    print("main: the last line", flush=True)
