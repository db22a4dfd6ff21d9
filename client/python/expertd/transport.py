"""The connections of this process, and the one thread that serves them. A forked child gets a transport of its own:
what it inherits of its parent's is never touched."""
from __future__ import annotations

import atexit
import itertools
import logging
import os
import re
import select
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import zmq
from zmq.utils import garbage

from . import keys, messages
from .connection import COPY_BELOW, Connection
from .errors import ExpertdError

__all__ = ["Transport", "transport"]

# BULK: a second connection to a server, for what is large: on one connection what is sent waits for all before it.
SERVER, DHT, BULK = "server", "dht", "bulk"
LARGE = 256 << 10  # bytes of tensors
# The message that replies are, how the field deadline_ms (6 and 4) of a request begins, and a question that costs little.
_PING = messages.server.RequestHeader(version=1, method=messages.server.value("Method", "PING")).SerializeToString()
_STATUS = messages.dht.Request(version=1, method=messages.dht.value("Method", "STATUS")).SerializeToString()
_KINDS = {SERVER: (messages.server.ReplyHeader, b"\x30", _PING), DHT: (messages.dht.Reply, b"\x20", _STATUS)}
_KINDS[BULK] = _KINDS[SERVER]


ROUTES = 1 << 16
FOLLOWED = 64  # endpoints
_THIS_HOST = re.compile(r"ipc://|tcp://(127\.[0-9.]+|localhost|\[::1\]):")
_log = logging.getLogger("expertd")


def followable(endpoint: str, home: str) -> bool:
    """Whether what the server at `home` names as another frontend of its is an endpoint that calls may be sent to: tcp://,
    or ipc:// from this host."""
    here = _THIS_HOST.match(home)
    return "*" not in endpoint and len(endpoint) < 256 and endpoint.startswith(("tcp://", "ipc://") if here else "tcp://")


class Transport:
    """Connections by endpoint, made when they are first asked for; the I/O thread starts with the first."""

    def __init__(self) -> None:
        self.client_id = os.urandom(16)  # of this process; the server applies a backward of it once for each request id
        self.request_ids: Iterator[int] = itertools.count(1)  # next() of it is atomic
        # Where a server's other frontends have experts: (endpoint that was asked, uid) -> endpoint. Learnt from refusals.
        self.routes: Dict[Tuple[str, str], str] = {}
        self._followed: Set[Tuple[str, str]] = set()
        self._context = zmq.Context(io_threads=1)
        self._connections: Dict[Tuple[str, str], Connection] = {}
        self._by_fd: Dict[int, Connection] = {}
        self._lock = threading.RLock()
        self._epoll = select.epoll()
        self._wake_fds = os.pipe()
        for fd in self._wake_fds:
            os.set_blocking(fd, False)
        self._epoll.register(self._wake_fds[0], select.EPOLLIN)
        self._sleeps_until = float("inf")
        self._stopping = False
        self.lends = False
        self._thread: Optional[threading.Thread] = None
        self._runs = threading.Lock()  # the I/O thread's

    def connection(self, endpoint: str, kind: str = SERVER) -> Connection:
        """The process's connection there. InvalidArgument for what is no endpoint."""
        found = self._connections.get((endpoint, kind))
        if found is not None:
            return found
        with self._lock:
            found = self._connections.get((endpoint, kind))
            if self._thread is None:  # before the first connection, which without it nobody would look after
                thread = threading.Thread(target=self._run, name="expertd-io", daemon=True)
                thread.start()
                self._thread = thread
            if found is None:
                first = self.connection(endpoint) if kind == BULK else None
                found = Connection(self._context, endpoint, *_KINDS[kind], self, kind == SERVER, first)
                found.on_this_host = bool(_THIS_HOST.match(endpoint))
                self._connections[(endpoint, kind)] = found
            return found

    def connection_for(self, endpoint: str, frames: Sequence[Any]) -> Connection:
        """That by which such tensors go to a server: what is large by a second one, where the network admits that."""
        main = self.connection(endpoint)
        if main.on_this_host or sum([frame.nbytes for frame in frames]) < LARGE or main.is_down():
            return main
        bulk = self.connection(endpoint, BULK)
        return main if bulk.kept_out else bulk

    def follow(self, home: str, uid: str, endpoint: str) -> Optional[Connection]:
        """The connection that the server at `home` says an expert is to be asked by. None: it is not followed; nor is who names
        the one that was asked."""
        pair = (home, endpoint)
        if endpoint == home or not followable(endpoint, home):
            return None
        with self._lock:
            if pair not in self._followed and sum(one == home for one, _ in self._followed) >= FOLLOWED:
                return None
            try:
                key, there = self.connection(home).server_key, self._connections.get((endpoint, SERVER))
                if (there is not None and there.server_key != key) or not keys.same(endpoint, home, key):
                    return None  # another server's
                found = self.connection(endpoint)
            except (ExpertdError, OSError, ValueError):
                return None
            self._followed.add(pair)
            if uid:
                if len(self.routes) >= ROUTES:
                    self.routes.clear()
                self.routes[(home, uid)] = endpoint
            return found

    def connections(self) -> List[Connection]:
        return list(self._connections.values())

    def close(self) -> None:
        """Ends every call and the thread. For the end of the process."""
        self._stopping = True
        self._poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        for connection in self.connections():
            connection.close()
        self._context.term()

    # ---- for connections

    def add(self, fd: int, connection: Connection) -> None:
        self._by_fd[fd] = connection
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def pause(self, fd: int) -> None:
        self._modify(fd, 0)

    def resume(self, fd: int) -> None:
        self._modify(fd, select.EPOLLIN)

    def _modify(self, fd: int, events: int) -> None:
        try:
            self._epoll.modify(fd, events)
        except (OSError, ValueError):  # the connection was closed meanwhile
            pass

    def wake(self, when: float) -> None:
        if when < self._sleeps_until:
            self._poke()

    # ---- the I/O thread

    def _poke(self) -> None:
        try:
            os.write(self._wake_fds[1], b"!")
        except BlockingIOError:
            pass

    def _run(self) -> None:
        if not self._runs.acquire(False):  # an interrupt has hit whoever started the first one
            return
        next_tick = float("inf")
        while not self._stopping:
            try:
                self.lends = self.lends or _prepare_lending()
                next_tick = self._turn(next_tick)
            except Exception:  # no memory: all the calls of the process hang on this thread
                _log.exception("the I/O thread")
                next_tick = 0.0
                time.sleep(0.05)

    def _turn(self, next_tick: float) -> float:
        wake_fd, left = self._wake_fds[0], next_tick - time.monotonic()
        for fd, _ in self._epoll.poll(None if left > 3600 else max(0.0, left) + 0.001):
            if fd == wake_fd:
                os.read(wake_fd, 4096)
                next_tick = 0.0
                continue
            connection = self._by_fd.get(fd)
            if connection is not None:
                try:
                    connection.serve(fd)
                except Exception:  # it has begun anew; the others go on
                    _log.exception("the connection to %s", connection.endpoint)
        if time.monotonic() >= next_tick:
            # No wake-up is lost: who has put something before a connection's tick is seen by it, and who does so
            # after it finds what wake() compares with to be later, and writes to the pipe.
            self._sleeps_until = float("inf")
            times = [self._tick(connection) for connection in self.connections()]
            next_tick = min((when for when in times if when is not None), default=float("inf"))
            self._sleeps_until = next_tick
        return next_tick

    @staticmethod
    def _tick(connection: Connection) -> Optional[float]:
        try:
            return connection.tick(time.monotonic())
        except Exception:
            _log.exception("the connection to %s", connection.endpoint)
            return time.monotonic() + 1.0


def _prepare_lending() -> bool:
    """pyzmq has a thread for the memory that is lent to ZeroMQ, and starts it, or asks whether it lives, with each frame: an
    interrupt meanwhile makes CPython take it for dead, and pyzmq for lost, for good. So it is started here, where no
    interrupts come, and found alive ever after: it ends with the process. False: it cannot be now."""
    with _starting:
        try:
            zmq.Frame(bytes(COPY_BELOW), copy=False)
        except Exception:  # no descriptors, no thread, no memory
            return False
        thread: Any = garbage.gc.thread
        if thread is None or not thread.is_alive():
            return False
        thread.is_alive = lambda: True
        return True


_transport: Optional[Transport] = None
_inherited: List[Any] = []  # of parent processes: kept, so that nothing of it is closed here
_making = threading.Lock()
_starting = threading.Lock()  # pyzmq's thread, under a lock of pyzmq's, which a child would inherit


def transport() -> Transport:
    """This process's."""
    global _transport
    if _transport is None:
        with _making:
            if _transport is None:
                _transport = Transport()
    return _transport


def _before_fork() -> None:
    _starting.acquire()


def _after_fork_in_parent() -> None:
    _starting.release()


def _after_fork() -> None:
    global _transport, _making, _starting
    if _transport is not None:
        _inherited.append(_transport)
        for connection in _transport.connections():
            connection.forked()
    _transport, _making, _starting = None, threading.Lock(), threading.Lock()


def _at_exit() -> None:
    if _transport is not None:
        _transport.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
atexit.register(_at_exit)
