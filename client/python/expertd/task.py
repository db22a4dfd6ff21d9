"""A call that goes on at the next server when one cannot do it. A backward goes on only if the server before has
certainly not applied it; otherwise it is repeated there, where it is applied at most once."""
from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch

from . import tags
from .call import Call, Cancelled
from .codecs import Codec
from .client import Client
from .errors import DeadlineExceeded, ExpertdError, NotFound, ResourceExhausted, Unavailable, error_of, of_failure
from .staging import to_host
from .transport import transport

__all__ = ["Task", "by_load", "spread"]

_log = logging.getLogger("expertd")
_ELSEWHERE = (Unavailable, NotFound, ResourceExhausted)


def by_load(endpoints: Sequence[str]) -> List[str]:
    """Servers that are up first, then by calls of this process in flight there, equals in any order."""
    if len(endpoints) < 2:
        return list(endpoints)

    def rank(endpoint: str) -> Tuple[bool, int, float]:
        connection = transport().connection(endpoint)
        return connection.is_down(), connection.in_flight(), random.random()
    return sorted(endpoints, key=rank)


def spread(grads: Sequence[torch.Tensor], requires_grad: Sequence[bool], uid: str) -> List[Optional[torch.Tensor]]:
    """For each input its gradient, or None where it was not wanted; ExpertdError when other gradients came. A server of
    before requires_grad sends them all."""
    if len(grads) == len(requires_grad):
        return [grad if wanted else None for grad, wanted in zip(grads, requires_grad)]
    if len(grads) != sum(requires_grad):
        raise ExpertdError(f"{len(grads)} gradients came for {len(requires_grad)} inputs, of which {sum(requires_grad)} "
                           f"want one", uid=uid)
    left = iter(grads)
    return [next(left) if wanted else None for wanted in requires_grad]


class Task:
    """A forward (grad_outputs None) or backward of `uid` at one of the endpoints, which are tried in their order, within
    `timeout` seconds. `patient`: the last one is waited for, for `retry_for` seconds, when it is down. `requires_grad`: see
    Client.backward; spread() puts the gradients where they belong."""

    def __init__(self, uid: str, endpoints: Sequence[str], inputs: Sequence[torch.Tensor],
                 grad_outputs: Optional[Sequence[torch.Tensor]], *, timeout: float, retry_for: float, patient: bool,
                 compression: Codec = None, requires_grad: Optional[Sequence[bool]] = None):
        self.uid, self.error = uid, None  # type: str, Optional[ExpertdError]
        self.endpoint = ""
        self.compression, self.requires_grad, self.tags = compression, requires_grad, tags.current()
        self.backward, self.tensors = grad_outputs is not None, to_host([*inputs, *(grad_outputs or ())])
        self._endpoints = list(endpoints)
        self._deadline, self._retry_for, self._patient = time.monotonic() + timeout, retry_for, patient
        self._call: Optional[Call] = None
        self._message: Any = None  # whose part it is now
        self.followed = False  # the server that it has turned to has said, of a part, which other frontend has the expert
        self._outputs: Optional[Tuple[torch.Tensor, ...]] = None
        self._next = 0
        self._cancelled = False
        self._ended = threading.Event()
        self._callback: Optional[Callable[["Task"], None]] = None

    def start(self, callback: Optional[Callable[["Task"], None]] = None) -> "Task":
        """Returns at once; callback(task) runs when it has ended, in any thread, which it must not keep."""
        self.expect(callback)
        if self.turn():
            self.send()
        return self

    def outputs(self) -> Tuple[torch.Tensor, ...]:
        """Waits; raises what went wrong at the last server."""
        try:
            if len(self._endpoints) == 1 and self._call is not None:
                self._call.wait()
            self._ended.wait()
        except BaseException:
            self.cancel()
            raise
        if self.error is not None:
            raise self.error
        if self._outputs is not None:
            return self._outputs
        assert self._call is not None
        return Client.outputs(self._call)

    def cancel(self) -> None:
        before, self._cancelled = self._cancelled, True
        if self._message is not None:
            if not before:
                self._message.leave()
        elif self._call is not None:
            self._call.cancel()

    def done(self) -> bool:
        return self._ended.is_set()

    # ---- what it does, and what the messages do whose part it is (parts.py)

    def expect(self, callback: Optional[Callable[["Task"], None]]) -> None:
        self._callback = callback

    def rows(self) -> int:
        return int(self.tensors[0].shape[0])

    def turn(self) -> bool:
        """To the next server. False: there is none, or no time; it has ended."""
        left = self.left()
        if left <= 0 or self._next >= len(self._endpoints):
            self._end(self.error or (DeadlineExceeded("no answer in time", uid=self.uid) if left <= 0 else
                                     Unavailable("no server is known", uid=self.uid)))
            return False
        self.endpoint = self._endpoints[self._next]
        self.followed = False
        self._next += 1
        return True

    def left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def retry_for(self) -> float:
        """For how long the server that it is at is waited for."""
        return self._retry_for if self._patient and self._next == len(self._endpoints) else 0.0

    def send(self, request_id: int = 0, uncertain: bool = False) -> None:
        """To the server that it has turned to, in a message of its own. request_id: of the part that it was there, which
        was refused; uncertain: and may have been applied before."""
        if self._cancelled:
            self._end(Cancelled("the call was given up", endpoint=self.endpoint, uid=self.uid))
            return
        before = self._call
        try:
            with tags.under(self.tags):  # the next server is turned to in whatever thread
                self._send(request_id, uncertain)
        except Exception as failure:  # an endpoint that is none, a tensor that cannot be sent, no more descriptors
            call = self._call if self._call is not before else None
            if call is not None:
                call.cancel()  # it may be on its way all the same
            error = of_failure(failure, endpoint=self.endpoint, uid=self.uid)
            if self.backward and (uncertain or call is not None and call.ever_sent):
                error.not_applied = False
                self._end(error)
                return
            self.error = error
            if self.turn():
                self.send()

    def _send(self, request_id: int, uncertain: bool) -> None:
        client = Client(self.endpoint, compression=self.compression)
        left = max(self.left(), 0.001)
        if request_id:
            self._start(client.prepare_again(self.uid, request_id, self.tensors, backward=self.backward,
                                             requires_grad=self.requires_grad, timeout=left, retry_for=self.retry_for(),
                                             waits=False, uncertain=uncertain))
        else:
            self._start(client.prepare_one(self.uid, self.tensors, backward=self.backward, requires_grad=self.requires_grad,
                                           timeout=left, retry_for=self.retry_for()))

    def _start(self, call: Call) -> None:
        """To its server, or that of the other frontends which is known to have the expert."""
        at = transport().connection_for(transport().routes.get((self.endpoint, self.uid)) or self.endpoint, call.frames)
        call.connection = at  # who waits for it or gives it up finds it there
        self._message, self._call = None, call
        at.start(call)
        call.add_done_callback(self._call_ended)
        if self._cancelled:
            call.cancel()

    def ride(self, message: Any, call: Call) -> None:
        """It is a part of that message."""
        self._message, self._call = message, call

    def rides(self, message: Any) -> bool:
        return self._message is message

    def answer(self, outputs: Tuple[torch.Tensor, ...]) -> None:
        """To the part that it is."""
        self._outputs = outputs
        self._end(None)

    def fail(self, error: ExpertdError) -> bool:
        """Of the part that it is, or the call: whether it has turned to another server, and is to be sent. Otherwise it has ended."""
        if isinstance(error, _ELSEWHERE) and error.not_applied and self._next < len(self._endpoints) and not self._cancelled:
            self.error = error
            return self.turn()
        self._end(error)
        return False

    def refuse(self, status: int, message: str, retry_after: float, request_id: int, uncertain: bool) -> bool:
        """The same of a status of that part. Where the server is to be waited for, or may have applied it, it is repeated
        alone, under the id that it had. uncertain: it was sent twice."""
        error = error_of(status, message, endpoint=self.endpoint, uid=self.uid, backward=self.backward, uncertain=uncertain)
        if self._cancelled:
            self._end(error)
            return False
        call: Optional[Call] = None
        try:
            with tags.under(self.tags):
                call = Client(self.endpoint, compression=self.compression).prepare_again(
                    self.uid, request_id, self.tensors, backward=self.backward, requires_grad=self.requires_grad,
                    timeout=max(self.left(), 0.001), retry_for=self.retry_for(), waits=True,
                    uncertain=uncertain or status == Unavailable.status)
            if call.may_try_again(status, time.monotonic()):
                call.resend_at = time.monotonic() + max(call.pause, retry_after) * (1 + random.random())
                self._start(call)
                return False
        except Exception:  # the error of the part says more
            _log.debug("%s cannot be asked again", self.uid, exc_info=True)
            if call is not None and self._call is call:  # it had begun
                call.cancel()
                error.not_applied = error.not_applied and not self.backward
        return self.fail(error)

    def abandon(self, failure: Exception) -> None:
        """What it was about to do went wrong, in a way that nobody has thought of."""
        if self._ended.is_set():
            _log.error("a task that has ended", exc_info=failure)
        else:
            self._end(of_failure(failure, endpoint=self.endpoint, uid=self.uid, not_applied=not self.backward))

    def _call_ended(self, call: Call) -> None:
        try:
            if call.error is None:
                self._end(None)
            elif self.fail(call.error):
                self.send()
        except Exception as failure:  # who waits for it is never left behind
            self.abandon(failure)

    def _end(self, error: Optional[ExpertdError]) -> None:
        self.error = error
        self.tensors = []
        self._ended.set()
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                callback(self)
            except Exception:  # the thread has others' calls to look after
                _log.exception("a callback of a task has failed")
