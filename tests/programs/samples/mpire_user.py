from mpire import WorkerPool


def square(number):
    return number * number


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with WorkerPool(2, start_method=method) as pool:
            print(pool.map(square, range(20)))
