import importlib
import sys


def child(method):
    twice = 2 * method  # the editor's breakpoint
    breakpoint()
    sys.exit(len(twice))


if __name__ == "__main__":
    library = importlib.import_module(sys.argv[1])
    for method in ("fork", "spawn", "forkserver"):
        process = library.get_context(method).Process(target=child, args=(method,))
        process.start()
        process.join()
        print(process.exitcode, flush=True)
