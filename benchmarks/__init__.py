"""Us and the standard library in turn, in one run: ``python -m benchmarks [names] [--quick]``.

**To add a benchmark** write it into a module of `benchmarks.cases` (one for each room; a new file
is found by itself). It is a generator and a `Benchmark`:

    from benchmarks.bench import AtMost, Benchmark, Versus

    def lock_and_release(mp, size):
        lock = mp.Lock()                     # until the first yield: set-up, not measured
        while True:
            began = time.perf_counter()
            for _ in range(size):
                lock.acquire()
                lock.release()
            yield (time.perf_counter() - began) / size      # one sample, in seconds

    Benchmark("lock.pair", "acquire and release", lock_and_release, size=10_000, quick_size=100,
              goals=[Versus("fork", 1.0), AtMost(100e-9)])

``mp`` is the context to be measured: ours, or that of a peer. Each side runs in a fresh process of
its own and is asked for samples in turn (A B B A …) while the others sleep. What comes after the
``yield`` of the last sample (``try … finally``) tidies up. Functions that children run belong into
`benchmarks.targets`, which imports nothing: else every child would import the benchmarks, too.
"""
