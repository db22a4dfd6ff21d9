"""One ZeroMQ DEALER to one endpoint, and the calls on it.

Threads: every access to the socket and to the calls' states is under `lock`. The I/O thread takes in what comes; but
as a change of threads costs more than a small request, a thread that waits for its call takes this socket over from it
meanwhile ("drives"), and one that sends takes in what has come by then.

What was sent is either answered or followed by a loss: the socket takes messages only while a connection stands
(ZMQ_IMMEDIATE). After a loss, calls are repeated under their old request ids once there is a new connection. So are all
calls when a KeyboardInterrupt has hit a thread that worked on the socket, which may have been in the middle of a
message: the socket is thrown away then; and so it is when nothing has moved either way for too long.

A server on the same host is asked, behind the first answer, where its shared memory is; tensors then go that way (local.py),
and over ZeroMQ what does not fit there, or cannot go there now. A loss of it is a loss of the calls that went there."""
from __future__ import annotations

import ctypes
import errno
import math
import os
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Optional, Protocol, Tuple

import zmq

from . import credit, keys, local
from .backlog import Backlog
from .call import (DONE, LONGEST_PAUSE, SENT, STATUS_DEADLINE_EXCEEDED, STATUS_INTERNAL, STATUS_NOT_FOUND, STATUS_RESOURCE_EXHAUSTED,
                   STATUS_UNAVAILABLE, UNSENT, WAITING, Call, Cancelled)
from .errors import Unavailable, error_of, of_failure
from .replies import Replies

__all__ = ["Connection"]

MAX_FRAME_BYTES = 1 << 31
LOOK_EVERY, LOOK_IDLE = 0.1, 1.0  # seconds: with calls in flight, and without
HEARTBEAT_MS = 2000
MISSED_HEARTBEATS = 5
PINGS_BYTES = 4096  # more than pings have in that time: what the kernel of a stopped peer takes of them is no life
CONNECT_TIMEOUT_MS = 5000  # of one attempt; the kernel's own is minutes
LONGEST_SLEEP = 1.0  # seconds, while calls are in flight: an interrupt may hit between a wake-up and what it was for
PARTS_MARGIN, PARTS_LONGEST_MARGIN = 0.1, 0.5  # of the time for the answers of many, and in seconds: for their way back
DRIVER_GONE = 3.0  # seconds without a sign of the thread that drives, which gives one at least each LONGEST_SLEEP
REOPEN_AFTER = 0.5  # seconds, when a socket cannot be made
ENDLESS_PAUSE, ENDLESS_LONGEST_PAUSE = 0.5, 60.0  # seconds; doubled: each time may cost as much as a message may take
NOT_THE_ENDPOINTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC}
LOCAL_FAILURES = 3  # in a row, until shared memory is not tried any more
LOCAL_SOON = 1.0  # seconds within which its end is a failure
SECOND_PATIENCE = 2.0  # seconds for a second connection: some times what a handshake takes on a bad link
SECOND_AGAIN = 0.1  # seconds, while the first one is not to be had either
COPY_BELOW = 1 << 16  # bytes of a frame; pyzmq's bookkeeping for zero copies costs more than to copy so little

CONNECTING, UP, DOWN = range(3)
_HANDSHAKE = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_CONNECTED, _LOST = int(zmq.EVENT_CONNECTED), int(zmq.EVENT_DISCONNECTED)
_FAILED = int(zmq.EVENT_CONNECT_RETRIED) | int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL) \
    | int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL) | int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
ENDLESS = "it was left, as it sends a message that does not end"
_NO_SERVER = "the handshake fails: what listens there is no expertd server, or not the one with that key, or one that asks for keys"
_WHY_FAILED = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "the handshake fails: it does not know this client's key",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): _NO_SERVER,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): _NO_SERVER,
}
_EVENTS, _FD, _POLLIN, _POLLOUT = int(zmq.EVENTS), int(zmq.FD), int(zmq.POLLIN), int(zmq.POLLOUT)
_NOTHING = ((-1, 0),)
_TCP_INFO = struct.Struct("=52xI64xQQ")  # of linux/tcp.h: last_data_recv, bytes_acked and bytes_received
_getsockopt = ctypes.CDLL(None).getsockopt
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK) | int(zmq.SNDMORE)


def varint(number: int) -> bytes:
    """protobuf's encoding of an unsigned number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tcp_moved(fd: int) -> Optional[Tuple[int, int, int]]:
    """For how many ms nothing has come, how many bytes the peer has taken, and how many have come. None: nothing is known, as
    the descriptor, which is ZeroMQ's, was closed this moment: therefore no socket object, which would close it once more."""
    info, size = ctypes.create_string_buffer(_TCP_INFO.size), ctypes.c_uint32(_TCP_INFO.size)
    if _getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_INFO, info, ctypes.byref(size)) != 0 or size.value < _TCP_INFO.size:
        return None
    silent_ms, taken, received = _TCP_INFO.unpack(info.raw)
    return silent_ms, taken, received


def _patience(call: Call, now: float) -> float:
    """For how long it waits for a second connection."""
    return min(SECOND_PATIENCE, (call.expires() - now) / 2)


class Poller(Protocol):
    """What a connection needs of the I/O thread. Any thread. request_ids: one number for each call of the process, whatever
    the connection is: a server knows the client of all of them by one id, and with its checkpoints an expert may take what
    was applied to another endpoint, or be asked there."""
    request_ids: Iterator[int]
    routes: Dict[Tuple[str, str], str]
    lends: bool  # frames may be sent from the program's memory

    def connection(self, endpoint: str) -> "Connection": ...
    def follow(self, home: str, uid: str, endpoint: str) -> Optional["Connection"]: ...
    def add(self, fd: int, connection: "Connection") -> None: ...
    def remove(self, fd: int) -> None: ...
    def pause(self, fd: int) -> None: ...
    def resume(self, fd: int) -> None: ...
    def wake(self, when: float) -> None: ...


class Connection:
    """`reply_class`: the message that its replies are. `deadline_key`: how the field deadline_ms of its requests begins.
    `ping`: a question that costs little, but for its request_id. `poller`: the I/O thread's; it calls serve() for a readable
    descriptor, and tick(). `shares`: that question is a PING, whose answer says where the shared memory of a server on this host
    is. `first`: the connection to the same endpoint beside which this is a second one: a network may not admit that, and what
    waits for it then goes by the first."""

    def __init__(self, context: Any, endpoint: str, reply_class: Any, deadline_key: bytes, ping: bytes, poller: "Poller",
                 shares: bool = False, first: Optional["Connection"] = None):
        self.endpoint, self.lock, self.pid = endpoint, threading.Lock(), os.getpid()
        self.fd = self.monitor_fd = -1
        self.calls: Dict[int, Call] = {}  # that have not ended, by request id
        self.late_replies = self.malformed_replies = self.connects = self.losses = self.local_losses = 0
        self.state, self.on_this_host = CONNECTING, False
        self.closed, self.server_key = False, b""  # which the server has to prove; b"": none
        self.knows_parts = True  # until the server says otherwise
        self.kept_out = False  # it was not to be had in time, and not since
        self._first, self._patient_until = first, math.inf
        self._stale = False  # a loss was heard of, and no handshake since
        self._tcp_fd, self._taken, self._taken_at = -1, 0, 0.0  # ZeroMQ's socket; what the peer had taken, and when
        self._credit = credit.Credit(credit.most(), HEARTBEAT_MS / 1000)
        self._why_down = "it does not take connections"
        self._context, self._replies, self._deadline_key = context, Replies(reply_class), deadline_key
        self._poller, self._wake = poller, poller.wake
        self.link: Optional[local.Link] = None
        self._ping, self._local_memory = ping, local.memory_for(endpoint) if shares else 0
        self._local_failures, self._local_since, self._asked_connects, self._ping_id = 0, 0.0, 0, -1
        self._unsent: Dict[int, Call] = {}
        self._backlogs: Dict[Optional[Tuple[str, bool]], Backlog] = {}  # of the experts that `calls` ask
        self._finished: Deque[Call] = deque()  # whose callbacks are to run
        self._driver: Optional[Call] = None  # whose thread drives
        self._paused = False  # the I/O thread does not look after the socket
        self._driver_thread, self._driven_at = 0, 0.0  # when it last gave a sign of life
        self._driver_wake = -1, -1
        self.socket: Any = None
        self.monitor: Any = None
        self._poll = select.poll()
        self._reopen_at = 0.0  # while there is no socket, as none could be made, or the peer is left alone
        self._left_until, self._left_for = 0.0, 0.0  # the last time that it was, for what it sent
        try:
            self._driver_wake = os.pipe()
            for fd in self._driver_wake:
                os.set_blocking(fd, False)
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, zmq.ZMQError)) and error.errno in NOT_THE_ENDPOINTS:
                raise error_of(STATUS_UNAVAILABLE, f"no connection can be made: {error.strerror}", endpoint=endpoint) from error
            if not isinstance(error, zmq.ZMQError):  # of a key that cannot be read
                raise
            raise error_of(3, f"{endpoint!r} is no endpoint that ZeroMQ can connect to: {error.strerror}",
                           endpoint=endpoint) from None

    def _open(self) -> None:
        self._tcp_fd = -1
        # Over TCP the kernel knows better whether the peer lives: ZeroMQ's own answers wait behind a large message.
        patience_ms = 0 if self._over_tcp() else MISSED_HEARTBEATS * HEARTBEAT_MS
        self.socket = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.RCVHWM, 0), (zmq.MAXMSGSIZE, MAX_FRAME_BYTES),
                              (zmq.HEARTBEAT_IVL, HEARTBEAT_MS), (zmq.HEARTBEAT_TIMEOUT, patience_ms),
                              (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS), (zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 1000),
                              # For addresses alone: of a name that has one by IPv6 no other is tried then, and few servers bind it.
                              (zmq.IPV6, "[" in self.endpoint or self.endpoint.count(":") > 2)):
            self.socket.setsockopt(option, value)
        self.server_key = keys.apply(self.socket, self.endpoint)
        self.monitor = self.socket.get_monitor_socket(_CONNECTED | _HANDSHAKE | _LOST | _FAILED)
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.socket.connect(self.endpoint)
        self.fd, self.monitor_fd = self.socket.get(_FD), self.monitor.get(_FD)
        self._renew_poll()
        self._poller.add(self.fd, self)
        self._poller.add(self.monitor_fd, self)
        # Without what sugar has around them, which costs as much as they do.
        inner: Any = super(zmq.Socket, self.socket)
        self._send_frame, self._recv_frame = inner.send, inner.recv
        self._paused = self._driver is not None
        if self._paused:
            self._poller.pause(self.fd)

    def _renew_poll(self) -> None:
        """For who drives from now on: two threads cannot share one, and one that was taken for gone may be in the old one. Who
        sleeps on the old one goes on with this."""
        poll = select.poll()
        for fd in (self._driver_wake[0], self.fd, self.link.fd if self.link is not None and self.link.ready else -1):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        self._poll = poll
        if self._driver is not None:
            self._wake_driver()

    def _shut(self) -> None:
        self._close_link()
        for fd in (self.fd, self.monitor_fd):
            self._poller.remove(fd)
        self.fd = self.monitor_fd = -1
        self._renew_poll()
        one, self.socket = self.socket, None
        monitor, self.monitor = self.monitor, None
        if one is not None:
            try:
                one.disable_monitor()
            except zmq.ZMQError:
                pass
        for each in (monitor, one):
            if each is not None:
                each.close(0)

    def close(self) -> None:
        """Ends all calls. Not while another thread may begin one."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            for call in list(self.calls.values()):
                self._end(call, STATUS_UNAVAILABLE, "the connection was closed")
            self._shut()
        self._run_callbacks()
        for fd in self._driver_wake:
            if fd >= 0:
                os.close(fd)

    # ---- calls

    def start(self, call: Call, attended: bool = False) -> None:
        """Sends it, now or when there is a connection. Returns at once. `attended`: the thread will wait for it right
        away, so that nobody else has to look after the socket."""
        with self.lock:
            if call.state == DONE:  # given up on its way here
                return
            try:
                call.connection = self
                call.request_id = call.request_id or next(self._poller.request_ids)
                self._remember(call)
                if self._paused and not attended and self._driver is None:  # behind the line above: see _hand_back
                    self._resume()
                if self.closed:
                    self._end(call, STATUS_UNAVAILABLE, "the connection was closed")
                else:
                    if self.socket is None and time.monotonic() >= self._reopen_at:
                        self._begin(CONNECTING)
                    if call.state != WAITING and not self._stands_behind(call) and (self._unsent or not self._send(call)):
                        self._queue(call)
                    self._pump()
            except BaseException:
                self._forget(call)
                self._reset()
                raise
        if self._finished:
            self._run_callbacks(call)
        expires = min(call.expires(), call.resend_at) if call.state == WAITING else call.expires()
        self._wake(expires if self._tcp_fd < 0 else min(expires, time.monotonic() + LOOK_EVERY))

    def cancel(self, call: Call) -> bool:
        if call.connection is not self or self.pid != os.getpid():
            return False
        with self.lock:
            if call is self._driver and self._driver_thread == threading.get_ident():
                self._hand_back(call)  # an interrupt may have kept its thread from it, also when the answer had come
            if call.state == DONE:
                return False
            if call.connection is not self:
                return False  # it has just gone on to another one
            self._stir(call)
            self._end_as(call, None, (), Cancelled("the call was given up", endpoint=self.endpoint, uid=call.uid,
                                                   not_applied=not (call.backward and call.ever_sent)))
            self._forget(call)
        self._run_callbacks(call)
        return True

    def wait(self, call: Call, timeout: Optional[float]) -> None:
        """Until the call has ended, which it does at its deadline; or for timeout seconds."""
        if self.pid != os.getpid():
            raise Unavailable("the call was made before fork(): only the parent process can wait for it",
                              endpoint=self.endpoint, uid=call.uid)
        end = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            drive = self._driver is None and not self.closed
            if drive:
                self._driven_at = time.monotonic()
                self._driver, self._driver_thread = call, threading.get_ident()
        if drive:
            try:
                if not self._paused:
                    self._paused = True
                    self._poller.pause(self.fd)
                    with self.lock:
                        if self.link is not None and self.link.ready:
                            self._poller.pause(self.link.fd)
                self._drive(call, end)
            finally:
                self._hand_back(call)
            if self.closed:
                return
        # Also who drove, and was taken for gone.
        while call.state != DONE and call.connection is self:
            now = time.monotonic()
            if end is not None and now >= end:
                return
            until = call.deadline if end is None else min(end, call.deadline)
            # No longer than that at a time: an interrupt may hit the thread that ends this call before it says so.
            if not call.wait_ended(min(until - now, LONGEST_SLEEP)) and time.monotonic() >= call.deadline:
                self._end_overdue(call)

    def _drive(self, call: Call, end: Optional[float]) -> None:
        until = call.deadline if end is None else min(end, call.deadline)
        while call.state != DONE and call.connection is self and self._driver is call and not self.closed:
            now = self._driven_at = time.monotonic()
            left = until - now
            if left > 0:
                ready = self._poll.poll(min(left, LONGEST_SLEEP) * 1000 + 1)
                for fd, _ in ready or _NOTHING:
                    if fd == self._driver_wake[0]:
                        self._hear_wake()
                    self.serve(fd, False)
            elif now >= call.deadline:
                self._end_overdue(call)
            else:
                return

    def _end_overdue(self, call: Call) -> None:
        """Ends all that has expired, and this call, of which an interrupt may have made one that the others do not know."""
        self.tick(time.monotonic())
        with self.lock:
            if call.state != DONE and call.connection is self:
                self._expire(call, time.monotonic())

    def _hand_back(self, call: Call) -> None:
        """That call's thread does not drive any more."""
        if self._driver is not call:
            return  # it was taken for gone, and another one drives
        self._driver = None
        # With nothing in flight nothing comes: the next to wait finds the socket paused, as it would have it. Whoever
        # starts a call meanwhile either sees that there is no driver any more, or is seen here.
        if self.calls:
            self._resume()

    def _resume(self) -> None:
        self._poller.resume(self.fd)
        link = self.link
        if link is not None and link.ready:
            self._poller.resume(link.fd)
        self._paused = False  # at last: an interrupt before leaves it to the next

    def in_flight(self) -> int:
        return len(self.calls)

    def forked(self) -> None:
        """In a child, which inherits it."""
        if self.link is not None:
            self.link.forked()

    def is_down(self) -> bool:
        """The last that was heard of it is that it takes no connections, or broke one."""
        return self.state == DOWN

    # ---- what the I/O thread does, or who drives

    def serve(self, fd: int, hear: bool = True) -> None:
        """Takes in what has come by that descriptor, and sends what waits, when there is anything; and hears of the
        connection, which to do is the I/O thread's."""
        with self.lock:
            if self.closed or self.socket is None:
                return
            try:
                if self.link is not None and fd == self.link.fd:
                    self._receive_local(self.link)
                else:
                    if hear and self.monitor.get(_EVENTS) & _POLLIN:
                        self._hear()
                    if hear or fd != self.fd or self._receive_for_driver():
                        self._pump()
            except BaseException:
                self._reset()
                raise
        if self._finished:
            self._run_callbacks(self._driver)

    def tick(self, now: float) -> Optional[float]:
        """Ends what has expired, repeats what has paused, and looks at the connection; returns when it wants to be called
        again."""
        next_time: Optional[float] = None
        with self.lock:
            if self.closed:
                return None
            try:
                if self._driver is not None and now - self._driven_at > DRIVER_GONE:
                    self._hand_back(self._driver)
                    self._renew_poll()
                for call in list(self.calls.values()):
                    if call.state == DONE:  # an interrupt
                        self._forget(call)
                        continue
                    if call.expires() <= now:
                        self._expire(call, now)
                    elif call.state == WAITING and call.resend_at <= now and (self._unsent or not self._send(call)):
                        self._queue(call)
                    if call.state == DONE:
                        continue
                    when = min(call.expires(), call.resend_at) if call.state == WAITING else call.expires()
                    next_time = when if next_time is None else min(next_time, when)
                due = self._try_waiting(now)
                if next_time is not None:
                    next_time = min(next_time, due)
                self._mind_first(now)
                if next_time is not None:
                    next_time = min(next_time, self._patient_until)
                if self.socket is None and self.calls:
                    if now >= self._reopen_at:
                        self._begin(CONNECTING)
                    next_time = min(LONGEST_SLEEP + now if next_time is None else next_time, self._reopen_at or math.inf)
                elif self.socket is not None:
                    look_at = self._mind_socket(now)
                    next_time = look_at if next_time is None else min(next_time, look_at)
            except BaseException:
                self._reset()
                raise
        if self._finished:
            self._run_callbacks(self._driver)
        return None if next_time is None or next_time == math.inf else min(next_time, now + LONGEST_SLEEP)

    # ---- under the lock

    def _pump(self) -> None:
        """Takes in and sends what can be. After every use of the socket, since any may take in the signal that there is
        something, for which nobody else wakes then."""
        while self.socket is not None:
            events = self.socket.get(_EVENTS)
            if events & _POLLIN:
                self._receive_one()
            elif self._unsent and events & _POLLOUT:
                call = next(iter(self._unsent.values()))
                if not self._send(call):
                    return
                del self._unsent[call.request_id]
            else:
                return

    def _receive_for_driver(self) -> bool:
        """Whether there is more to do than what the descriptor was readable for, which is mostly the one answer: neither before
        nor behind it ZeroMQ is asked then. Without calls nothing comes that cannot wait until the next one's start."""
        try:
            self._receive_one()
        except zmq.Again:
            return True
        return bool(self.calls) or self._ping_id >= 0

    def _send(self, call: Call) -> bool:
        # From a loss that was heard of until the next handshake, the socket may still take messages for the old
        # connection, which would be lost without another word.
        if self._stale or self.socket is None:
            return False
        left = call.deadline - time.monotonic()
        if call.parts:  # what is not in time is not to make late what is
            left -= min(left * PARTS_MARGIN, PARTS_LONGEST_MARGIN)
        left_ms = max(1, int(left * 1000))
        head = b"".join((b"\x10", varint(call.request_id), self._deadline_key, varint(left_ms), call.header))
        if self.link is not None and call.frames and not call.remote and self.link.ready and self.link.send(call, head):
            call.state, call.ever_sent, call.went_by = SENT, True, self.link
            return True
        call.went_by = None
        send, last = self._send_frame, len(call.frames) - 1
        try:
            send(head, _MORE if last >= 0 else _NOBLOCK)
            for i, frame in enumerate(call.frames):
                send(frame, _NOBLOCK if i == last else _MORE, frame.nbytes < COPY_BELOW or not self._poller.lends)
        except zmq.Again:  # also in the middle, when the connection breaks: ZeroMQ has dropped the beginning
            return False
        call.state, call.ever_sent = SENT, True
        return True

    def _queue(self, call: Call) -> None:
        if call.goes_elsewhere() and self.state == DOWN and not self._first_is_up():
            self._end(call, STATUS_UNAVAILABLE, self._why_down)
        else:
            call.state = UNSENT
            self._unsent[call.request_id] = call
            if self._first is not None and self.state != UP:
                now = time.monotonic()
                self._patient_until = min(self._patient_until, now + _patience(call, now))
            # Which is sooner than that of one that was sent.
            self._wake(min(call.expires(), self._patient_until) if self.socket is not None else self._reopen_at)

    def _first_is_up(self) -> bool:
        return self._first is not None and self._first.state == UP

    def _mind_first(self, now: float) -> None:
        """Where there is a first connection and this second one is not to be had, what waits for it goes by the first, and
        stays there."""
        if self._first is None or self.state == UP or not self._unsent:
            self._patient_until = math.inf
        elif self._patient_until == math.inf:  # what waits was sent, or waited for room, when it was up
            self._patient_until = now + min(_patience(call, now) for call in self._unsent.values())
        elif now >= self._patient_until and not self._first_is_up():
            self._patient_until = now + SECOND_AGAIN  # nothing is to be had now
            if self.state == DOWN and self._first.state == DOWN:
                self._end_impatient()
        elif now >= self._patient_until:
            self.kept_out, self._patient_until = True, math.inf
            for call in list(self._unsent.values()):
                call.leaves = self.endpoint
                call.error = error_of(STATUS_UNAVAILABLE, self._why_down, endpoint=self.endpoint, uid=call.uid,
                                      uncertain=call.uncertain)
                self._finished.append(call)
                self._forget(call)

    def _hear(self) -> None:
        while self.monitor is not None and self.monitor.get(_EVENTS) & _POLLIN:
            event, value = struct.unpack_from("=Hi", self.monitor.recv_multipart(_NOBLOCK)[0])
            if event == _CONNECTED:
                self._tcp_fd, self._taken, self._taken_at = value if self._over_tcp() else -1, 0, time.monotonic()
                self._credit.begin(time.monotonic())
                continue
            if event == _HANDSHAKE:
                self.state, self._stale, self.kept_out = UP, False, False
                self.connects += 1
                self._wake(time.monotonic() + LOOK_EVERY)
                continue
            self._tcp_fd = -1
            self._why_down = _WHY_FAILED.get(event, self._why_down)
            if event == _LOST:
                if self.state == UP:  # else its handshake has failed, and that was said
                    self._why_down = "the connection was lost"
                self._stale = True
                self.losses += 1
                self._receive()  # what had come before
                self._close_link()
                self._lose()
            self.state = DOWN
            if keys.is_outdated(self.endpoint, self.server_key):
                self._reset(DOWN)
            self._end_impatient()

    def _end_impatient(self) -> None:
        if self._first_is_up():  # they go there
            return
        for call in [call for call in self._unsent.values() if call.goes_elsewhere()]:
            self._end(call, STATUS_UNAVAILABLE, self._why_down)

    def _over_tcp(self) -> bool:
        return self.endpoint.startswith("tcp://")

    def _mind_socket(self, now: float) -> float:
        """Hears of the connection, takes in what has come, and looks at what moves. Returns when to do so again."""
        connects = self.connects
        moved = tcp_moved(self._tcp_fd) if self.state == UP and self._tcp_fd >= 0 else None
        if self.monitor.get(_EVENTS) & _POLLIN:
            self._hear()
        self._pump()
        if moved is not None and self.state == UP and self.connects == connects:
            self._judge(now, *moved)
            self._pump()
        if self.state != UP or self._tcp_fd < 0:
            return math.inf
        return now + (LOOK_EVERY if self.calls else LOOK_IDLE)

    def _judge(self, now: float, silent_ms: int, taken: int, received: int) -> None:
        """Leaves a peer that sends a message without an end; and one with which nothing has moved for too long, either way: a
        large message on a slow link is no silence. All messages that have come are taken."""
        if (taken - self._taken) % (1 << 64) >= PINGS_BYTES:
            self._taken, self._taken_at = taken, now
        limit_ms = MISSED_HEARTBEATS * HEARTBEAT_MS
        if self._credit.is_used_up(received, now):
            for call in [call for call in self.calls.values() if call.state == SENT and call.went_by is None]:
                self._end(call, STATUS_UNAVAILABLE, ENDLESS)
            self._leave_alone(now)
        elif self._credit.in_doubt():
            self._credit.asked = self._ask()
        elif silent_ms >= limit_ms and (now - self._taken_at) * 1000 >= limit_ms:
            self._reset(DOWN)

    def _leave_alone(self, now: float) -> None:
        again = self._left_for and now < self._left_until + ENDLESS_LONGEST_PAUSE
        self._left_for = min(2 * self._left_for, ENDLESS_LONGEST_PAUSE) if again else ENDLESS_PAUSE
        self._left_until = now + self._left_for
        self._reset(DOWN, self._left_until)

    def _lose(self, link: Optional[local.Link] = None) -> None:
        """All that was sent, or what went by that link."""
        now = time.monotonic()
        for call in [call for call in self.calls.values() if call.state == SENT and (link is None or call.went_by is link)]:
            if call.may_try_again(STATUS_UNAVAILABLE, now):
                call.uncertain = True
                self._queue(call)
            else:
                self._end(call, STATUS_UNAVAILABLE, "the connection was lost before the answer came")
        if link is None:
            self._forget_backlogs()

    def _receive(self) -> None:
        while self.socket is not None and self.socket.get(_EVENTS) & _POLLIN:
            self._receive_one()

    def _receive_one(self) -> None:
        receive, frames = self._recv_frame, []
        header = last = receive(_NOBLOCK, False)
        while last.more:
            last = receive(_NOBLOCK, False)
            frames.append(last)
        self._credit.taken = True
        self._take_reply(header.bytes, frames)
        if self._local_memory and self._asked_connects != self.connects:
            self._ask_for_local()

    def _take_reply(self, header: bytes, frames: List[Any]) -> None:
        try:
            request_id, reply = self._replies.read(header)
        except Exception:  # DecodeError, which protobuf's versions have in different places
            self.malformed_replies += 1
            return
        call = self.calls.get(request_id)
        if call is not None and call.ever_sent:
            self._take(call, reply, frames)
        elif request_id == self._ping_id:
            self._open_link(reply)
        else:
            self.late_replies += 1

    def _ask(self) -> bool:
        """Something that no call has asked. False: there is no room for it now."""
        ping_id = next(self._poller.request_ids)
        try:
            self._send_frame(b"\x10" + varint(ping_id) + self._ping, _NOBLOCK)
        except zmq.Again:
            return False
        self._ping_id = ping_id
        return True

    # ---- shared memory, under the lock

    def _ask_for_local(self) -> None:
        """Once on each connection, behind the first answer: whoever makes one call does not need it. Where there is no
        room for it now, behind a later one."""
        if self.link is None and self._local_failures < LOCAL_FAILURES:
            if not self._ask():
                return
        self._asked_connects = self.connects

    def _open_link(self, reply: Any) -> None:
        self._ping_id = -1
        asked = self._local_memory and reply.status == 0 and self.link is None
        found = local.of_pong(reply.pong) if asked else None
        link = local.connect(*found, self._local_memory) if found is not None else None
        if link is not None:
            self.link, self._local_since = link, time.monotonic()
            self._poller.add(link.fd, self)
        elif found is not None:
            self._local_failures += 1

    def _receive_local(self, link: local.Link) -> None:
        was_ready = link.ready
        try:
            replies, elsewhere = link.receive()
        except local.Lost:
            self._lose_link(link)
            return
        for header, frames in replies:
            self._take_reply(header, frames)
        if self._unsent:  # an answer lets others go
            self._pump()
        for refused in elsewhere:
            refused.remote = True
            # It may have been refused and sent anew since, over ZeroMQ.
            waiting = self.calls.get(refused.request_id)
            if waiting is not None and waiting is refused and waiting.state == SENT and waiting.went_by is link:
                self._queue(waiting)
        if elsewhere:
            self._pump()
        if link.ready and not was_ready:  # from now on who drives looks after it
            self._poll.register(link.fd, select.POLLIN)
            if self._paused:
                self._poller.pause(link.fd)
            self._wake_driver()

    def _lose_link(self, link: local.Link) -> None:
        soon = time.monotonic() - self._local_since < LOCAL_SOON
        self._local_failures = self._local_failures + 1 if soon or not link.ready else 0
        self.local_losses += 1
        self._close_link()
        self._lose(link)
        self._asked_connects = -1
        self._pump()

    def _close_link(self) -> None:
        link, self.link, self._ping_id = self.link, None, -1
        if link is not None:
            self._poller.remove(link.fd)
            try:
                self._poll.unregister(link.fd)
            except KeyError:
                pass
            link.close()

    def _take(self, call: Call, reply: Any, frames: List[Any]) -> None:
        if reply.status == STATUS_RESOURCE_EXHAUSTED and self._waits_behind_others(call, reply):
            return
        if reply.version != 1:
            self._end(call, STATUS_INTERNAL, f"the server speaks version {reply.version} of the protocol, not 1")
        elif reply.status == 0 or call.parts and len(reply.parts) == call.parts:
            self._end_as(call, reply, frames, None)
            self._forget(call)
        elif call.may_try_again(reply.status, time.monotonic()):
            self._unsent.pop(call.request_id, None)
            call.uncertain = call.uncertain or reply.status == STATUS_UNAVAILABLE
            # Not before the server expects to have room, and not all of those at once that were refused together.
            pause = max(call.pause, getattr(reply, "retry_after_ms", 0) / 1000)
            call.state, call.resend_at = WAITING, time.monotonic() + pause * (1 + random.random())
            call.pause = min(2 * call.pause, LONGEST_PAUSE)
            self._wake(call.resend_at)
        elif self._belongs_elsewhere(call, reply):
            self._finished.append(call)
            self._forget(call)
        else:
            self._end(call, reply.status, reply.message)
        backlog = self._backlogs.get(call.expert) if reply.status != STATUS_RESOURCE_EXHAUSTED else None
        if backlog:
            self._let_go(backlog, backlog.answered())

    # ---- where the server was full, under the lock

    def _waits_behind_others(self, call: Call, reply: Any) -> bool:
        """Of a refusal with a hint when to come back."""
        if call.state == WAITING and call.refusal:  # it was refused before: said twice
            return True
        backlog = self._backlogs.get(call.expert)
        now = time.monotonic()
        if backlog is None or not reply.retry_after_ms or reply.version != 1 or call.goes_elsewhere() or now >= call.patient_until:
            return False
        self._unsent.pop(call.request_id, None)
        backlog.refused(call.request_id, reply.retry_after_ms / 1000, now)
        self._pause(call, backlog, reply.message or "the server is full")
        if backlog.flying() == 0 and backlog.due >= call.patient_until:
            self._end(call, reply.status, reply.message)
        return True

    def _stands_behind(self, call: Call) -> bool:
        """Whether a new call waits, as others of its expert do."""
        backlog = self._backlogs.get(call.expert)
        if not backlog or call.goes_elsewhere() or backlog.flying() <= 1 and backlog.due >= call.patient_until:
            return False
        backlog.wait(call.request_id)
        self._pause(call, backlog, "it waits behind calls of the expert that were refused")
        return True

    def _pause(self, call: Call, backlog: Backlog, refusal: str) -> None:
        call.state, call.resend_at, call.refusal = WAITING, math.inf, refusal
        self._wake(min(backlog.due, call.expires()))

    def _try_waiting(self, now: float) -> float:
        """Where it is time to. Returns when it is next."""
        next_time = math.inf
        for backlog in list(self._backlogs.values()):
            if backlog and backlog.due <= now:
                self._let_go(backlog, backlog.tried(now))
            if backlog:
                next_time = min(next_time, backlog.due)
        return next_time

    def _let_go(self, backlog: Backlog, some: int) -> None:
        while some > 0 and backlog:
            call = self.calls.get(backlog.take() or 0)
            if call is not None and call.refusal:
                self._queue(call)
                call.refusal = ""
                some -= 1

    def _stir(self, call: Call) -> None:
        """It ends without an answer, of which nothing else will tell: who waits is tried soon."""
        backlog = self._backlogs.get(call.expert)
        if backlog and call.state in (SENT, UNSENT):
            backlog.stir()
            self._wake(0.0)

    def _belongs_elsewhere(self, call: Call, reply: Any) -> bool:
        """Whether the call goes on at another frontend of the server: at the one that this one names, once; or at the one
        that was asked first, when it was remembered to be here and is not. Nothing was done here now."""
        if reply.status != STATUS_NOT_FOUND or call.followed or not call.home:
            return False
        if call.home != self.endpoint:
            call.leaves = call.home
        elif reply.endpoint and reply.endpoint != self.endpoint:
            call.followed, call.leaves = True, reply.endpoint
        call.error = error_of(reply.status, reply.message, endpoint=self.endpoint, uid=call.uid, backward=call.backward,
                              uncertain=call.uncertain)
        return bool(call.leaves)

    def _move(self, call: Call) -> None:
        """Without the lock, as another connection's is taken."""
        endpoint, call.leaves = call.leaves, ""
        try:
            if endpoint == self.endpoint:
                to = self._first
            elif call.followed:
                to = self._poller.follow(self.endpoint, call.uid, endpoint)
            else:
                self._poller.routes.pop((endpoint, call.uid), None)
                to = self._poller.connection(endpoint)
            with self.lock:
                if call.state == DONE:
                    return
                if to is None:
                    self._end_as(call, None, (), call.error)
                else:
                    call.connection, call.state, call.error = to, UNSENT, None
                    call.ever_sent, call.remote, call.went_by = call.uncertain, False, None
            if to is not None:
                to.start(call)
        except Exception as failure:
            with call.connection.lock:
                if call.state != DONE:
                    call.connection._forget(call)
                    sent = call.uncertain or call.connection is not self and call.ever_sent
                    call.connection._end_as(call, None, (), of_failure(failure, endpoint=endpoint, uid=call.uid,
                                                                       not_applied=not (call.backward and sent)))
            call.connection._wake(0.0)
            return
        except BaseException:  # an interrupt: it goes there all the same
            self._stay(call, endpoint)
            raise
        if to is not None and call is self._driver:
            self._wake_driver()

    def _stay(self, call: Call, endpoint: str) -> None:
        """A call that has not been handed over: it will be."""
        at = call.connection
        with at.lock:
            if call.state != DONE and call.connection is at and not call.leaves and call.request_id not in at.calls:
                call.uncertain = call.uncertain or at is not self and call.ever_sent
                call.connection, call.leaves = self, endpoint

    def _expire(self, call: Call, now: float) -> None:
        self._stir(call)
        if call.refusal:
            self._end(call, STATUS_RESOURCE_EXHAUSTED, call.refusal)
        elif now >= call.deadline:
            self._end(call, STATUS_DEADLINE_EXCEEDED,
                      "no answer in time" + (f": {self._why_down}" if self.state != UP else ""))
        else:
            self._end(call, STATUS_UNAVAILABLE, self._why_down)

    def _end(self, call: Call, status: int, message: str) -> None:
        if status in (STATUS_UNAVAILABLE, STATUS_NOT_FOUND) or \
                status == STATUS_DEADLINE_EXCEEDED and (self.state != UP or not call.ever_sent):
            self._poller.routes.pop((call.home, call.uid), None)  # the next asks at home where it is
        self._end_as(call, None, (), error_of(status, message, endpoint=self.endpoint, uid=call.uid,
                                              backward=call.backward and call.ever_sent, uncertain=call.uncertain))
        self._forget(call)

    def _end_as(self, call: Call, reply: Any, frames: Any, error: Any) -> None:
        if call.has_callbacks():
            self._finished.append(call)
        call.end(reply, frames, error)
        if call is self._driver and threading.get_ident() != self._driver_thread:
            self._wake_driver()  # it may sleep, while another thread has taken away what would have woken it

    def _wake_driver(self) -> None:
        try:
            os.write(self._driver_wake[1], b"!")
        except BlockingIOError:
            pass

    def _hear_wake(self) -> None:
        try:
            os.read(self._driver_wake[0], 64)
        except BlockingIOError:  # another thread, which was taken for gone
            pass

    def _remember(self, call: Call) -> None:
        self.calls[call.request_id] = call
        if call.expert is not None:
            backlog = self._backlogs.get(call.expert)
            if backlog is None:
                backlog = self._backlogs[call.expert] = Backlog()
            backlog.members.add(call.request_id)

    def _forget(self, call: Call) -> None:
        self.calls.pop(call.request_id, None)
        self._unsent.pop(call.request_id, None)
        backlog = self._backlogs.get(call.expert)
        if backlog is not None:
            backlog.leave(call.request_id)
            if not backlog.members:
                del self._backlogs[call.expert]

    def _reset(self, state: int = CONNECTING, alone_until: float = 0.0) -> None:
        if self.closed:
            return
        self._shut()
        if alone_until:
            self.state, self._why_down, self._reopen_at = state, ENDLESS, alone_until
        else:
            self._why_down = "the connection was lost"
            self._begin(state)
        self.losses += 1
        self._lose()
        if self.socket is None:
            self._end_impatient()
        self._wake(0.0)  # what has ended is told, whatever keeps this thread from it

    def _forget_backlogs(self) -> None:
        """After a loss: the next connection's server may have room; and an interrupt may have left them half changed."""
        self._backlogs.clear()
        for call in list(self.calls.values()):
            self._remember(call)
            call.refusal = ""
            if call.state == WAITING and call.resend_at == math.inf:
                self._queue(call)

    def _begin(self, state: int) -> None:
        """With a new socket; or, as long as there can be none, down."""
        try:
            self._open()
            self.state, self._stale, self._reopen_at = state, False, 0.0
        except Exception as error:  # no more descriptors, a key that cannot be read any more
            self._shut()
            self.state, self._why_down = DOWN, f"no connection can be made: {error}"
            self._reopen_at = time.monotonic() + REOPEN_AFTER

    def _run_callbacks(self, own: Optional[Call] = None) -> None:
        """The main thread runs those of its own call alone, as interrupts come there: others' are left to the I/O thread."""
        if threading.get_ident() != threading.main_thread().ident or self.closed:
            for _ in range(len(self._finished)):
                try:
                    call = self._finished.popleft()
                except IndexError:  # another thread was faster
                    return
                self._run_callbacks_of(call)
            return
        if own is not None:
            try:
                self._finished.remove(own)
            except ValueError:  # it has not ended, or another thread was faster
                own = None
        if self._finished:
            self._wake(0.0)
        if own is not None:
            self._run_callbacks_of(own)

    def _run_callbacks_of(self, call: Call) -> None:
        try:
            if call.leaves:
                self._move(call)
            elif call.state == DONE:
                call.run_callbacks()
            else:  # another thread is about to end it
                self._finished.append(call)
                self._wake(0.0)
        except BaseException:
            if call.leaves or call.has_callbacks():
                self._finished.append(call)
                self._wake(0.0)
            raise
