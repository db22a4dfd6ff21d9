"""One call: a request, and the answer that it will have. Made by a client, moved on by its connection."""
from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

from .errors import ExpertdError, error_of

__all__ = ["Call", "Cancelled"]

_log = logging.getLogger("expertd")

UNSENT, SENT, WAITING, DONE = range(4)
STATUS_UNAVAILABLE, STATUS_RESOURCE_EXHAUSTED, STATUS_DEADLINE_EXCEEDED, STATUS_INTERNAL, STATUS_NOT_FOUND = 14, 8, 4, 13, 5
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
IMPATIENT_RETRY_FOR = 5.0


class Cancelled(ExpertdError):
    """The program gave up the call."""
    status, status_name = 1, "CANCELLED"


class Call:
    """A call in flight, or ended. result() waits for it; any thread may. The fields below belong to the connection's
    lock until the call is done."""

    __slots__ = ("connection", "request_id", "header", "frames", "backward", "uid", "deadline", "patient_until", "impatient",
                 "pause", "resend_at", "state", "ever_sent", "parts", "reply", "reply_frames", "error", "rows", "remote",
                 "refusal", "expert", "went_by", "home", "followed", "leaves", "uncertain", "_ended", "_callbacks")

    def __init__(self, header: bytes, frames: Sequence[Any], *, uid: str, backward: bool, timeout: float,
                 retry_for: float, rows: int = 0, parts: int = 0):
        now = time.monotonic()
        self.connection: Any = None
        self.request_id = 0  # not 0 when it begins: it repeats what had that one
        self.header = header  # without request_id and deadline, which are put in front
        self.frames = frames
        self.uid, self.backward, self.rows = uid, backward, rows
        self.remote = False  # it goes over ZeroMQ, whatever else there is
        self.went_by: Any = None  # the link to shared memory that it was sent by the last time
        # Of the server's frontends: the one that was asked first, whether its word was followed, and where to that is done next.
        self.home, self.followed, self.leaves = "", False, ""
        self.deadline = now + timeout
        # Whose calls it is one of, as forwards and backwards are in pools of their own; None: it asks for something else, or many.
        self.expert: Optional[Tuple[str, bool]] = (uid, backward) if frames and not parts else None
        self.parts = parts  # so many experts are asked; each has its status in the reply, whatever the reply's own is
        # Impatient: a server that is down or full is not waited for, but by a backward that it may have applied.
        self.impatient = retry_for <= 0
        self.patient_until = min(self.deadline, now + (retry_for if retry_for > 0 else IMPATIENT_RETRY_FOR))
        self.pause, self.resend_at = FIRST_PAUSE, 0.0
        self.refusal = ""  # WAITING because the server was full: what it said, or what others were told
        self.state, self.ever_sent = UNSENT, False
        self.uncertain = False  # it was sent before, wherever, and may have been applied
        self.reply: Any = None
        self.reply_frames: Sequence[Any] = ()
        self.error: Optional[ExpertdError] = None
        self._ended = threading.Lock()
        self._ended.acquire()
        self._callbacks: Optional[List[Callable[["Call"], None]]] = None

    # ---- the program's side

    def done(self) -> bool:
        return self.state == DONE

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Whether it has ended within timeout seconds (None: until its own deadline, so always True)."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.state != DONE and (end is None or time.monotonic() < end or timeout == 0):
            at = self.connection
            at.wait(self, None if end is None else max(0.0, end - time.monotonic()))
            if at is self.connection:
                break
        return self.state == DONE

    def result(self) -> Any:
        """The reply's message, when it is there; raises what went wrong. A KeyboardInterrupt gives up the call."""
        if self.state != DONE:
            try:
                self.wait()
            except BaseException:
                self.cancel()
                raise
        if self.error is not None:
            try:
                raise self.error.with_traceback(None)
            finally:
                del self  # or the traceback would hold what it hangs on
        return self.reply

    @property
    def metadata(self) -> bytes:
        """What the request carried (expertd.tagged), from the reply; b"" without one."""
        return bytes(self.reply.metadata) if self.reply is not None else b""

    def cancel(self) -> bool:
        """Gives up: its answer will be dropped. False if it has ended before. A backward may be applied all the same."""
        while True:
            at = self.connection
            given_up = at is not None and bool(at.cancel(self))
            if given_up or at is self.connection:  # else it went on to another one meanwhile
                return given_up

    def add_done_callback(self, function: Callable[["Call"], None]) -> None:
        """Runs function(call) once, when it has ended: at once if it has, else in the thread that takes in the answer,
        which it must not keep."""
        while True:
            at = self.connection
            with at.lock:
                if at is not self.connection:  # it went on to another one
                    continue
                if self.state != DONE:
                    self._callbacks = (self._callbacks or []) + [function]
                    return
            break
        function(self)

    # ---- the connection's side, under its lock

    def end(self, reply: Any, frames: Sequence[Any], error: Optional[ExpertdError]) -> None:
        self.reply, self.reply_frames, self.error = reply, frames, error
        self.state = DONE
        self.frames = ()
        self._ended.release()

    def end_with(self, status: int, message: str) -> None:
        error = error_of(status, message, endpoint=self.connection.endpoint, uid=self.uid,
                         backward=self.backward and self.ever_sent, uncertain=self.uncertain)
        self.end(None, (), error)

    def expires(self) -> float:
        """When it ends for lack of an answer, as it stands now."""
        return self.patient_until if self.state == UNSENT or self.refusal else self.deadline

    def may_try_again(self, status: int, now: float) -> bool:
        """After that status: under the same request id, so that a backward is applied at most once."""
        return (status in (STATUS_UNAVAILABLE, STATUS_RESOURCE_EXHAUSTED) and not self.goes_elsewhere()
                and now + self.pause < self.patient_until)

    def goes_elsewhere(self) -> bool:
        """Whether its maker prefers an error now, to turn to another server."""
        return self.impatient and not (self.backward and self.ever_sent)

    # ---- the waiting thread's and the I/O thread's, without the lock

    def wait_ended(self, seconds: float) -> bool:
        if not self._ended.acquire(timeout=max(0.0, seconds)):
            return False
        self._ended.release()
        return True

    def has_callbacks(self) -> bool:
        return self._callbacks is not None

    def run_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for function in callbacks or ():
            try:
                function(self)
            except Exception:  # the program's; the thread has others' calls to look after
                _log.exception("a callback of a call has failed")
