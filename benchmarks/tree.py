"""A main to be killed: ``tree.py COUNT`` starts children, each with a program below it."""

if __name__ == "__main__":
    import sys

    import procession
    from benchmarks import targets

    mp = procession.get_context("forkserver")
    reading, writing = mp.Pipe(duplex=False)
    count = int(sys.argv[1])
    processes = [mp.Process(target=targets.start_and_sleep, args=(writing,)) for _ in range(count)]
    for process in processes:
        process.start()
    for _ in processes:
        reading.recv_bytes()
    print("ready", flush=True)
    reading.recv_bytes()
