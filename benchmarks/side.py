"""One side of a benchmark, in a process of its own: ``side.py NAME LABEL QUICK``.

It is asked for samples on stdin (a number for each turn) and answers on stdout with a line of JSON.
It is a script with a guard, as most users' are; children run its top level, which is short.
"""

if __name__ == "__main__":
    import json
    import os
    import sys

    from benchmarks import cases
    from benchmarks.bench import registry

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a benchmark prints is no answer
    name, label, quick = sys.argv[1:]
    cases.load(name)
    samples = registry[name].samples(label, quick=quick == "quick")
    for line in sys.stdin:
        json.dump([next(samples) for _ in range(int(line))], answers)
        answers.write("\n")
        answers.flush()
    samples.close()
