"""A child prints the time for ever; main sees that it lives, terminates it and joins it.

usage: 01_terminated.py [seconds that main lets it live, 3]
"""

import multiprocessing
import sys
import time


def print_the_time(pause):
    while True:
        print(time.strftime("%H:%M:%S"), flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    clock = multiprocessing.Process(target=print_the_time, args=(seconds / 3,), name="clock")
    clock.start()
    time.sleep(seconds)
    print("main: the clock is alive:", clock.is_alive(), flush=True)
    clock.terminate()
    clock.join()
    print("main: the clock is alive:", clock.is_alive(), "and its exit code is", clock.exitcode)
