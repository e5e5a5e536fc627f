import multiprocessing
import sys


def in_a_child(number):
    doubled = number * 2
    return doubled


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=in_a_child, args=(1,))
    process.start()
    process.join()
    with context.Pool(1) as pool:
        pool.map(in_a_child, [1, 2])
        pool.close()
        pool.join()
