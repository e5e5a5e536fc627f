"""Start, join, start, join: the second child begins when the first has ended.

usage: 03_one_after_the_other.py [seconds of each, 2]
"""

import multiprocessing
import sys
import time


def work(seconds):
    time.sleep(seconds)
    print(multiprocessing.current_process().name, "is done", flush=True)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    first = multiprocessing.Process(target=work, args=(seconds,), name="first")
    first.start()
    first.join()
    second = multiprocessing.Process(target=work, args=(seconds,), name="second")
    second.start()
    second.join()
    print("main: the last line")
