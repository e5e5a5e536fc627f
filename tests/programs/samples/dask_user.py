from distributed import Client, LocalCluster


def square(number):
    return number * number


if __name__ == "__main__":
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=True, **options) as cluster, Client(cluster) as client:
        print(client.gather(client.map(square, range(20))))
