def fork(number=0):
    return number


def spawn(number=0):
    return number


def forkserver(number=0):
    return number
