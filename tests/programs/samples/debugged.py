import multiprocessing
import sys


def child():
    print("pydevd" in sys.modules and sys.modules["pydevd"].get_global_debugger() is not None)
    sys.stdout.flush()
    sys.exit(3)


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        process = context.Process(target=child)
        process.start()
        process.join()
        with context.Pool(1) as pool:
            print(process.exitcode, pool.map(abs, [-1, 2]), flush=True)
