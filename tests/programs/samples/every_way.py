import asyncio
import multiprocessing
import os
import subprocess
import sys


def child():
    sys.exit(4)


async def main():
    for _ in range(2):
        process = multiprocessing.Process(target=child)
        process.start()
        command = [sys.executable, "-S", "-c", "import sys; sys.exit(int(sys.argv[1]))"]
        others = [await asyncio.create_subprocess_exec(*command, str(n)) for n in range(3)]
        shell = subprocess.Popen(["sh", "-c", "exit 9"])
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        multiprocessing.active_children()
        assert [await other.wait() for other in others] == [0, 1, 2]
        process.join()
        assert process.exitcode == 4
        multiprocessing.active_children()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        assert shell.wait() == 9


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        multiprocessing.set_start_method(method, force=True)
        asyncio.run(main())
        print(method)
