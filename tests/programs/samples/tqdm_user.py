from tqdm.contrib.concurrent import process_map


def square(number):
    return number * number


if __name__ == "__main__":
    print(process_map(square, range(20), max_workers=2, chunksize=3))
