import os
import sys
import time

import psutil
from jupyter_client.manager import KernelManager

UNDER = [sys.executable, "-m", "procession", "run"]
KERNEL = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
SLEEPS = "lambda *_: (os.mkfifo(path + str(os.getpid())), time.sleep(3600))"


class Notebook:
    def __init__(self, command):
        self.manager = KernelManager()
        self.manager.kernel_spec.argv = [*command, *KERNEL]
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def begin(self, code):
        return self.client.execute(code)

    def end(self, cell):
        said = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            content = message["content"]
            if message["parent_header"].get("msg_id") != cell:
                continue
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "error":
                said.append(content["ename"])
            elif content.get("execution_state") == "idle":
                return "".join(said).split("\n")

    def run(self, code):
        return self.end(self.begin(code))

    def interrupt_when(self, cell, fact):
        while not fact():
            assert self.manager.is_alive()
            time.sleep(0.01)
        self.manager.interrupt_kernel()
        return self.end(cell)


def main(library, folder):
    notebook = Notebook(UNDER if library == "multiprocessing" else [sys.executable])
    path = f"{folder}/sleeps"
    notebook.run(
        f"import {library} as mp, concurrent.futures, os, time\npath = {path!r}\n"
        "base = 10\ndef shifted(n): return n + base\ncontexts = {}"
    )
    for method in ("fork", "spawn", "forkserver"):
        print(
            method,
            *notebook.run(
                f"context = mp.get_context({method!r})\n"
                "p = context.Process(target=lambda: shifted(1)); p.start(); p.join()\n"
                "with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:\n"
                "    by_executor = list(executor.map(shifted, range(3)))\n"
                "with context.Pool(2) as pool: by_pool = pool.map(lambda n: n + base, range(3))\n"
                "print(p.exitcode, by_executor, by_pool)"
            ),
        )
        cell = notebook.begin(
            f"p = context.Process(target={SLEEPS}, daemon=True); p.start()\n"
            "os.mkfifo(path); p.join()"
        )
        print(*notebook.interrupt_when(cell, lambda: emptied(folder, 2)))
        print(*notebook.run("p.join(30); print(p.is_alive())"))
        cell = notebook.begin(f"with context.Pool(2) as pool: pool.map({SLEEPS}, range(2))")
        print(*notebook.interrupt_when(cell, lambda: emptied(folder, 2)))
    notebook.run(
        "ps = [mp.get_context(m).Process(target=time.sleep, args=(3600,))"
        " for m in ('fork', 'spawn', 'forkserver')]\nfor p in ps: p.start()"
    )
    pids = notebook.run("print(*(p.pid for p in ps))")[0].split()
    left = [psutil.Process(int(pid)) for pid in pids]
    notebook.manager.shutdown_kernel(now=True)
    notebook.client.stop_channels()
    print(len(left), psutil.wait_procs(left, timeout=30)[1])


def emptied(folder, count):
    """Whether as many sleepers have begun; then what they made is removed."""
    found = [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith("sleeps")]
    if len(found) < count:
        return False
    for path in found:
        os.unlink(path)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
