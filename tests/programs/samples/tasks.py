import os

from celery import Celery

folder = os.environ["HOME"]
app = Celery("tasks", broker="filesystem://", backend=f"file://{folder}")
app.conf.broker_transport_options = {
    "data_folder_in": f"{folder}",
    "data_folder_out": f"{folder}",
    "control_folder": f"{folder}/control",
}


@app.task
def add(left, right):
    return left + right


if __name__ == "__main__":
    print(add.delay(2, 3).get(timeout=60))
