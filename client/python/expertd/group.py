"""A group of expertd's programs that runs for this process, in the background."""
from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from typing import Any, Callable, Dict, Optional, Sequence

from .errors import Unavailable

__all__ = ["Group", "free_port", "find_program"]

_STOP_PATIENCE = 960.0  # longer than supervise.py waits


def find_program(name: str, bin_dir: Optional[str] = None) -> str:
    """In bin_dir; else in $EXPERTD_BIN_DIR; else on the PATH; else in build/bin of the source tree that this package
    lies in."""
    here = os.path.dirname(os.path.abspath(__file__))
    source_tree = os.path.join(here, "..", "..", "..")
    if bin_dir is None:
        bin_dir = os.environ.get("EXPERTD_BIN_DIR")
    if bin_dir is not None:
        found = shutil.which(name, path=bin_dir)
    else:
        found = shutil.which(name)
        if found is None and os.path.exists(os.path.join(source_tree, "proto", "expertd.proto")):
            found = shutil.which(name, path=os.path.join(source_tree, "build", "bin"))
    if found is None:
        raise FileNotFoundError(f"{name} is not in {bin_dir}" if bin_dir is not None else
                                f"{name} is not on the PATH: install expertd (make install), or say where it is "
                                "(bin_dir=..., or EXPERTD_BIN_DIR in the environment)")
    return os.path.abspath(found)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free just now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])


class Group:
    """Programs under one small supervisor process, which ends them when this process ends, however it does. They write
    to log files in `folder`, which is removed by stop(). One of them that ends takes the others along."""

    def __init__(self, *, bin_dir: Optional[str] = None):
        self._bin_dir = bin_dir
        self.folder = tempfile.mkdtemp(prefix="expertd-python.")
        self.log_path = os.path.join(self.folder, "log")
        self.pids: Dict[str, int] = {}
        self._supervisor: Optional["subprocess.Popen[bytes]"] = None
        self._lock = threading.Lock()
        self._finalizer: Any = weakref.finalize(self, _remove, self.folder, os.getpid())

    def start(self, programs: Sequence[str], arguments: Sequence[str], remove: Sequence[str] = ()) -> None:
        """Starts the programs, each with the same arguments. What fits the patterns in `remove` goes when they have ended."""
        found = [[find_program(name, self._bin_dir), *arguments] for name in programs]
        with open(self.log_path, "ab") as log:
            # A session of its own: ^C is for the program, which ends this group when it is through.
            self._supervisor = subprocess.Popen(
                [sys.executable, "-S", "-E", os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervise.py"),
                 json.dumps({"commands": found, "remove": list(remove), "folder": self.folder})], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        assert self._supervisor.stdout is not None
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _end, self._supervisor, self.folder, os.getpid())
        for name in programs:
            line = self._supervisor.stdout.readline()
            if not line.strip():
                raise Unavailable(f"{name} could not be started: {self.log_tail()}")
            self.pids[name] = int(line)

    def is_alive(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def log(self) -> str:
        """What the programs have said."""
        return _read(self.folder)

    def log_tail(self) -> str:
        """Their errors, or what they said last."""
        return _tail(self.folder)

    def wait_for(self, check: Callable[[], Any], timeout: float, what: str) -> Any:
        """Until check() is true; its value. Unavailable, with the log's end, when a program ends or it takes too long."""
        end = time.monotonic() + timeout
        pause = 0.01
        while True:
            value = check()
            if value:
                return value
            if not self.is_alive():
                raise Unavailable(f"a program has ended: {self.log_tail()}")
            if time.monotonic() >= end:
                raise Unavailable(f"not within {timeout} s: {what}; {self.log_tail()}")
            time.sleep(pause)
            pause = min(0.2, pause * 1.5)

    def stop(self) -> None:
        """Ends the programs as SIGTERM does (checkpoints are written), and waits for it. A RuntimeWarning tells what they
        said if they did not end well: what the experts had learned may not be saved then. Twice is fine."""
        with self._lock:
            if self._supervisor is not None:
                _end(self._supervisor, self.folder, os.getpid())
            else:
                _remove(self.folder, os.getpid())
            self._finalizer.detach()


def _end(supervisor: "subprocess.Popen[bytes]", folder: str, pid: int) -> None:
    if os.getpid() != pid:  # a forked child: not its group
        return
    ran = supervisor.poll() is None
    if supervisor.stdin is not None and not supervisor.stdin.closed:
        supervisor.stdin.close()
    try:
        supervisor.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    if supervisor.stdout is not None:
        supervisor.stdout.close()
    if ran and supervisor.returncode != 0:
        warnings.warn(f"the server did not end well (exit status {supervisor.returncode}): {_tail(folder)}",
                      RuntimeWarning, stacklevel=3)
    _remove(folder, pid)


def _read(folder: str) -> str:
    try:
        with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()
    except FileNotFoundError:
        return ""


def _tail(folder: str) -> str:
    lines = _read(folder).splitlines()
    errors = [line for line in lines if " error: " in line]
    return "\n".join((errors or lines)[-10:])[-2000:]


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
