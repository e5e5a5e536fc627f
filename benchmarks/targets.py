"""What the children of benchmarks run. Imports nothing: each child would pay for it."""


def nothing(*_):
    """Return at once."""


def wait_for_end(connection):
    """Wait until the other end of a pipe is closed."""
    try:
        connection.recv_bytes()
    except EOFError:
        pass


def sleep(seconds):
    """Sleep."""
    import time

    time.sleep(seconds)


def die():
    """Be killed."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def start_and_sleep(connection):
    """Start a program in a session of its own, say so, and sleep."""
    import os
    import time

    os.posix_spawn("/bin/sleep", ["sleep", "3600"], {}, setsid=True)
    connection.send_bytes(b"started")
    time.sleep(3600)


def give(value):
    """Give back what is given."""
    return value


def take_turns(connection, lock):
    """As often as is asked for, take a lock and let it go."""
    while True:
        try:
            rounds = connection.recv()
        except EOFError:
            return
        for _ in range(rounds):
            lock.acquire()
            lock.release()
        connection.send(None)


def play(connection, condition, turn):
    """As often as is asked for, give the turn back."""
    while True:
        try:
            rounds = connection.recv()
        except EOFError:
            return
        with condition:
            for _ in range(rounds):
                while turn.value != 1:
                    condition.wait()
                turn.value = 0
                condition.notify()


def meet(connection, barrier):
    """As often as is asked for, meet the others."""
    while True:
        try:
            rounds = connection.recv()
        except EOFError:
            return
        for _ in range(rounds):
            barrier.wait()


def wait_for_lock(connection, lock):
    """Say so, then wait for a lock; say when it came."""
    import time
    import warnings

    warnings.simplefilter("ignore")
    connection.send(None)
    lock.acquire()
    connection.send(time.perf_counter())
    lock.release()


def die_with_lock(connection, lock, size, threads):
    """Take a lock, and wait for the end with so many bytes in use and so many threads."""
    import threading
    import time

    ballast = bytearray(b"x") * size
    for _ in range(threads):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    lock.acquire()
    connection.send(len(ballast))
    time.sleep(3600)


def answer_events(event, back):
    """Wait for an event, unset it, and set another one, again and again."""
    while True:
        event.wait()
        event.clear()
        back.set()
