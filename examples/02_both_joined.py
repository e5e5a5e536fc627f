"""Two children of 4 and 8 seconds, both joined: main ends last.

usage: 02_both_joined.py [seconds of the shorter one, 4]
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
    long.join()
    print("main: the last line")
