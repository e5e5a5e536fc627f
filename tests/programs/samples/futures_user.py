import concurrent.futures
import math
import multiprocessing

NUMBERS = [112272535095293, 112582705942171, 115280095190773, 1099726899285419]


def is_prime(number):
    return all(number % each for each in range(2, math.isqrt(min(number, 10**10)) + 1))


def main():
    context = multiprocessing.get_context("spawn")
    for options in ({}, {"mp_context": context}, {"max_tasks_per_child": 1, "mp_context": context}):
        with concurrent.futures.ProcessPoolExecutor(2, **options) as executor:
            print(list(executor.map(is_prime, NUMBERS)))
            futures = [executor.submit(divmod, 7, n) for n in range(3)]
            done = concurrent.futures.wait(futures).done
            print(len(done), [type(future.exception()).__name__ for future in futures])


if __name__ == "__main__":
    main()
