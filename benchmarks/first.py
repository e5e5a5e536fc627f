"""A fresh program's first start: ``first.py LIBRARY`` prints how many seconds it took."""

if __name__ == "__main__":
    import importlib
    import sys
    import time

    from benchmarks import targets

    library = importlib.import_module(sys.argv[1])
    context = library.get_context("forkserver")
    process = context.Process(target=targets.nothing)
    began = time.perf_counter()
    process.start()
    took = time.perf_counter() - began
    process.join()
    print(took)
