import multiprocessing
import sys


def child():
    sys.exit(3)


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        process = context.Process(target=child)
        process.start()
        process.join()
        with context.Pool(1) as pool:
            print(process.exitcode, pool.map(abs, [-1, 2]), flush=True)
