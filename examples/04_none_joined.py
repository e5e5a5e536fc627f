"""No join: main says its last line first, and the children go on.

usage: 04_none_joined.py [seconds of the shorter one, 4]
"""

import multiprocessing
import sys
import time


def work(seconds):
    time.sleep(seconds)
    print(multiprocessing.current_process().name, "is done", flush=True)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    multiprocessing.Process(target=work, args=(seconds,), name="short").start()
    multiprocessing.Process(target=work, args=(2 * seconds,), name="long").start()
    print("main: the last line", flush=True)
