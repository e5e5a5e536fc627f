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
