"""A call that goes on at the next server when one cannot do it. A backward goes on only if the server before has
certainly not applied it; otherwise it is repeated there, where it is applied at most once."""
from __future__ import annotations

import random
import threading
import time
from typing import Callable, List, Optional, Sequence, Tuple

import torch

from . import tags
from .call import Call
from .codecs import Codec
from .client import Client
from .errors import DeadlineExceeded, ExpertdError, NotFound, ResourceExhausted, Unavailable
from .transport import transport

__all__ = ["Task", "by_load", "spread"]

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
        self._endpoints, self._inputs, self._grad_outputs = list(endpoints), inputs, grad_outputs
        self._deadline, self._retry_for, self._patient = time.monotonic() + timeout, retry_for, patient
        self._compression, self._requires_grad, self._tags = compression, requires_grad, tags.current()
        self._call: Optional[Call] = None
        self._next = 0
        self._cancelled = False
        self._ended = threading.Event()
        self._callback: Optional[Callable[["Task"], None]] = None

    def start(self, callback: Optional[Callable[["Task"], None]] = None) -> "Task":
        """Returns at once; callback(task) runs when it has ended, in any thread, which it must not keep."""
        self._callback = callback
        self._go_on()
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
        assert self._call is not None
        return Client.outputs(self._call)

    def cancel(self) -> None:
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def done(self) -> bool:
        return self._ended.is_set()

    def _go_on(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or self._next >= len(self._endpoints):
            self._end(self.error or (DeadlineExceeded("no answer in time", uid=self.uid) if left <= 0 else
                                     Unavailable("no server is known", uid=self.uid)))
            return
        self.endpoint = self._endpoints[self._next]
        self._next += 1
        patient = self._patient and self._next == len(self._endpoints)
        try:
            client = Client(self.endpoint, compression=self._compression)
            retry_for = self._retry_for if patient else 0.0
            with tags.under(self._tags):  # the next server is turned to in whatever thread
                if self._grad_outputs is None:
                    self._call = client.start_forward(self.uid, self._inputs, timeout=left, retry_for=retry_for)
                else:
                    self._call = client.start_backward(self.uid, self._inputs, self._grad_outputs, timeout=left,
                                                       retry_for=retry_for, requires_grad=self._requires_grad)
        except ExpertdError as error:  # an endpoint that is none, a tensor that cannot be sent
            self.error = error
            self._go_on()
            return
        self._call.add_done_callback(self._call_ended)

    def _call_ended(self, call: Call) -> None:
        error = call.error
        if error is None or self._cancelled:
            self._end(error)
        elif isinstance(error, _ELSEWHERE) and error.not_applied and self._next < len(self._endpoints):
            self.error = error
            self._go_on()
        else:
            self._end(error)

    def _end(self, error: Optional[ExpertdError]) -> None:
        self.error = error
        self._inputs, self._grad_outputs = (), None
        self._ended.set()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)
