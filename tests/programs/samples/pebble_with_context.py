import os
import time

import pebble
import procession


def square(number):
    return number * number


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with pebble.ProcessPool(2, context=procession.get_context(method)) as pool:
            print(list(pool.map(square, range(10)).result()))
            slow = pool.schedule(time.sleep, args=(3600,), timeout=0.2)
            gone = pool.schedule(os._exit, args=(3,))
            print(type(slow.exception()).__name__, type(gone.exception()).__name__)
