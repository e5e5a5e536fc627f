import logging
import logging.handlers
import multiprocessing


def worker(queue):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.DEBUG)
    for number in range(20):
        logging.getLogger("a.b").info("message %d", number)
    try:
        worker()
    except TypeError:
        logging.exception("failed")


class Keep(logging.Handler):
    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        self.seen.append((record.processName, record.getMessage()))


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Manager() as manager:
            for queue in (context.Queue(-1), manager.Queue(-1)):
                keep = Keep()
                listener = logging.handlers.QueueListener(queue, keep)
                listener.start()
                workers = [context.Process(target=worker, args=(queue,)) for _ in range(3)]
                for process in workers:
                    process.start()
                for process in workers:
                    process.join()
                listener.stop()
                print(len(keep.seen), len({name for name, message in keep.seen}))
