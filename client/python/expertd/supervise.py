"""A process of its own that runs a group of programs for a Python program, and needs no more than the standard library.

    python3 supervise.py '{"commands": [["PROGRAM", "ARGUMENT", ...], ...], "remove": ["/dev/shm/PATTERN"], "folder": "DIR"}'

It starts the commands in order and ends them all, with SIGTERM and then patience, when one of them ends, on SIGTERM or SIGINT, or
when its standard input closes: so nothing outlives the Python program, however that ends. Then it
removes the files of the patterns, which a program that was killed has left, and the folder if its standard input was closed
and all have ended well. Its exit status is the first of theirs that is not 0: 4 of a runtime says that training could not be
saved.
Its standard output gets one line for each process: its pid."""
from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import List

PATIENCE = 900.0  # seconds for checkpoints at the end; SIGKILL after that


def main() -> int:
    job = json.loads(sys.argv[1])
    closed = False
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    stopping: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: stopping.append(signum))
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    children: List["subprocess.Popen[bytes]"] = []
    status = 0
    try:
        for command in job["commands"]:
            children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
            print(children[-1].pid, flush=True)
        while not stopping:
            ended = [(command, child) for command, child in zip(job["commands"], children) if child.poll() is not None]
            if ended:
                (command, child), status = ended[0], ended[0][1].returncode
                print(f"supervise: {os.path.basename(command[0])} has ended with {status}", file=sys.stderr)
                break
            ready, _, _ = select.select([0, wake_read], [], [])
            if 0 in ready and not os.read(0, 4096):
                closed = True
                break
            if wake_read in ready:
                os.read(wake_read, 4096)
    finally:
        for child in children:
            child.terminate()
        end = time.monotonic() + PATIENCE
        for child in children:
            name = os.path.basename(job["commands"][children.index(child)][0])
            try:
                child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"supervise: error: {name} was killed: it had not ended after {PATIENCE:.0f} s", file=sys.stderr)
                child.kill()
                child.wait()
            # One that SIGTERM itself ends was not up yet.
            status = status or (0 if child.returncode == -signal.SIGTERM else child.returncode)
        for path in [path for pattern in job["remove"] for path in glob.glob(pattern)]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if closed and status == 0:  # who started this is gone, or through with it
            shutil.rmtree(job["folder"], ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
