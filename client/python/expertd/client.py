"""Calls to one server, by its endpoint (proto/PROTOCOL.md)."""
from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from . import messages, tags
from .call import WAITING, Call
from .codecs import Codec, codec_number
from .errors import ExpertdError, Internal, InvalidArgument
from .info import ExpertInfo, ListEntry, Pong, expert_info
from .staging import to_host
from .tensors import from_frames, to_frame
from .transport import transport

__all__ = ["Client"]

DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 10.0
MAX_TENSORS = 16
LONGEST_TIMEOUT = 4_000_000.0  # seconds; what 32 bits of milliseconds hold
_PING, _LIST, _INFO, _FORWARD, _BACKWARD, _STATS, _CHECKPOINT = (
    messages.server.value("Method", name) for name in ("PING", "LIST", "INFO", "FORWARD", "BACKWARD", "STATS", "CHECKPOINT"))

Signature = Tuple[Tuple[int, Tuple[int, ...], int], ...]


@lru_cache(maxsize=4096)
def _header(method: int, uid: str, signature: Signature, codec: int, client_id: bytes,
            requires_grad: Tuple[bool, ...] = ()) -> bytes:
    """All of a request's header but request_id and deadline; messages of protobuf may be put together from parts."""
    pb = messages.server
    return bytes(pb.RequestHeader(version=1, method=method, uid=uid, client_id=client_id, tensors=[
        pb.Tensor(dtype=dtype, shape=shape, codec=used) for dtype, shape, used in signature],
        reply_codecs=[codec] if codec else [], requires_grad=requires_grad).SerializeToString())


class Client:
    """A server at `endpoint` ("tcp://host:port"). Cheap to make: all clients of a process share its connections. Any
    thread may use it, and a forked or spawned process, to which it may be pickled.

    `timeout`: seconds until a call ends with DeadlineExceeded. `retry_for`: for so long a call waits for a connection,
    and is repeated when the server is full, restarts or the connection breaks; 0: a server that is down is an error at
    once. Repeats of a backward have its ids, so that the expert learns once. `compression`: the codec ("float16",
    "blockwise_8bit", ...) in which float32 tensors travel, both ways, where they can and become smaller."""

    def __init__(self, endpoint: str, *, timeout: float = DEFAULT_TIMEOUT, retry_for: float = DEFAULT_RETRY_FOR,
                 compression: Codec = None):
        self.endpoint, self.timeout, self.retry_for = endpoint, timeout, retry_for
        self.codec = codec_number(compression)
        transport().connection(endpoint)  # complains now about what is no endpoint, and connects meanwhile

    def __repr__(self) -> str:
        states = {0: "connecting", 1: "connected", 2: "not connected"}
        return f"Client({self.endpoint!r}, {states[transport().connection(self.endpoint).state]})"

    @property
    def local(self) -> bool:
        """Whether tensors go to the server through shared memory now, as they do by themselves on its host, behind the first
        answers; expertd.local.use() says how much."""
        link = transport().connection(self.endpoint).link
        return link is not None and link.ready

    # ---- calls that are waited for

    def forward(self, uid: str, inputs: Sequence[torch.Tensor], *, timeout: Optional[float] = None) -> Tuple[torch.Tensor, ...]:
        """The outputs for inputs of [rows, ...], on the CPU. Nothing is learned, no autograd."""
        return self.outputs(self.start(_FORWARD, uid, inputs, timeout=timeout, attended=True))

    def backward(self, uid: str, inputs: Sequence[torch.Tensor], grad_outputs: Sequence[torch.Tensor], *,
                 requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None) -> Tuple[torch.Tensor, ...]:
        """The gradients of the inputs, one each; with requires_grad, which has a bool for each input, of those alone that it
        says, in their order. The expert makes an optimizer step, at most one, which is the same whatever is wanted."""
        return self.outputs(self.start(_BACKWARD, uid, [*inputs, *grad_outputs], requires_grad=requires_grad, timeout=timeout,
                                       attended=True))

    def ping(self, *, timeout: Optional[float] = None) -> Pong:
        pong = self.start(_PING, timeout=timeout).result().pong
        return Pong(pong.server, pong.software, pong.experts, pong.experts_alive, tuple([one.endpoint for one in pong.frontends]))

    def frontends(self, *, timeout: Optional[float] = None) -> List["Client"]:
        """A client of each frontend of the server, this one first: for what each knows of its own experts alone."""
        others = [endpoint for endpoint in self.ping(timeout=timeout).frontends
                  if transport().follow(self.endpoint, "", endpoint) is not None]
        return [self] + [self._at(endpoint) for endpoint in others]

    def _at(self, endpoint: str) -> "Client":
        other = Client(endpoint, timeout=self.timeout, retry_for=self.retry_for)
        other.codec = self.codec
        return other

    def list(self, prefix: str = "", *, timeout: Optional[float] = None) -> List[ListEntry]:
        """All experts whose uid begins with prefix, those of the server's other frontends behind the own ones: whether they
        are alive their frontends are asked."""
        entries, others = self._listed(prefix, timeout), {}
        for endpoint in {entry.endpoint for entry in entries if entry.endpoint}:
            try:
                if transport().follow(self.endpoint, "", endpoint) is None:
                    continue  # it is no endpoint that this server may name
                found = self._at(endpoint)._listed(prefix, timeout)
                others.update({(endpoint, e.uid): e.alive for e in found if not e.endpoint})
            except ExpertdError:
                pass  # it does not answer: nothing of it is alive
        return [ListEntry(e.uid, e.alive or others.get((e.endpoint, e.uid), False), e.device, e.endpoint) for e in entries]

    def _listed(self, prefix: str, timeout: Optional[float]) -> List[ListEntry]:
        while True:
            entries: List[ListEntry] = []
            generation = None
            while True:
                query = messages.server.ListQuery(prefix=prefix, offset=len(entries))
                page = self.start(_LIST, extra=messages.server.RequestHeader(list=query), timeout=timeout).result().list
                if generation is None:
                    generation = page.generation
                if generation != page.generation:
                    break  # it changed meanwhile: from the beginning
                entries += [ListEntry(e.uid, e.alive, e.device, e.endpoint) for e in page.experts]
                if len(entries) >= page.total or not page.experts:
                    return entries

    def info(self, uid: str, *, timeout: Optional[float] = None) -> ExpertInfo:
        return expert_info(self.start(_INFO, uid, timeout=timeout).result().info)

    def stats(self, *, timeout: Optional[float] = None) -> Dict[str, float]:
        """The server's counters by name: of several frontends, those of the one that this client is of (see frontends())."""
        return {c.name: c.value for c in self.start(_STATS, timeout=timeout).result().stats.counters}

    def checkpoint(self, uid: str = "", *, timeout: Optional[float] = None) -> None:
        """Returns when the expert's checkpoint, or all experts' of all the server's frontends, is on disk."""
        calls = [client.start(_CHECKPOINT, uid, timeout=timeout) for client in ([self] if uid else self.frontends(timeout=timeout))]
        errors = []
        for call in calls:  # one that fails keeps no other from being written
            try:
                call.result()
            except ExpertdError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    # ---- calls that are not waited for

    def start_forward(self, uid: str, inputs: Sequence[torch.Tensor], *, timeout: Optional[float] = None,
                      retry_for: Optional[float] = None, attended: bool = False) -> Call:
        """A forward on its way; outputs(call) are its outputs. Tensors of 64 KiB and more are sent from their own
        memory: do not change them before the call has ended, nor after one that ended without an answer. attended: this
        thread waits for it right away."""
        return self.start(_FORWARD, uid, inputs, timeout=timeout, retry_for=retry_for, attended=attended)

    def start_backward(self, uid: str, inputs: Sequence[torch.Tensor], grad_outputs: Sequence[torch.Tensor], *,
                       requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None,
                       retry_for: Optional[float] = None, attended: bool = False) -> Call:
        return self.start(_BACKWARD, uid, [*inputs, *grad_outputs], requires_grad=requires_grad, timeout=timeout,
                          retry_for=retry_for, attended=attended)

    @staticmethod
    def outputs(call: Call) -> Tuple[torch.Tensor, ...]:
        """Waits for a forward or backward; its tensors."""
        reply = call.result()
        try:
            return from_frames(reply.described(), call.reply_frames)
        except Internal as error:
            error.endpoint, error.uid = call.connection.endpoint, call.uid
            error.not_applied = not call.backward
            raise

    def start(self, method: int, uid: str = "", tensors: Sequence[torch.Tensor] = (), *, extra: Any = None,
              requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None,
              retry_for: Optional[float] = None, attended: bool = False) -> Call:
        """Any method of the protocol, by its number; `extra` is a RequestHeader with further fields. attended: this thread
        waits for it right away."""
        call = self.prepare(method, uid, tensors, extra=extra, requires_grad=requires_grad, timeout=timeout, retry_for=retry_for)
        process = transport()
        there = process.routes.get((self.endpoint, uid)) if tensors and process.routes else None
        process.connection_for(there or self.endpoint, call.frames).start(call, attended)
        return call

    def prepare_parts(self, parts: Sequence[Tuple[str, int, int]], tensors: Sequence[torch.Tensor], *, backward: bool,
                    requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None,
                    retry_for: Optional[float] = None) -> Call:
        """A forward or backward of several experts in one message (PROTOCOL.md, "Many experts at once"): (uid, rows, request
        id) of each, whose rows lie behind each other in the tensors; to be started. What became of each is in call.reply.parts."""
        extra = messages.server.RequestHeader(parts=[{"uid": uid, "rows": rows, "request_id": number} for uid, rows, number in parts])
        call = self.prepare(_BACKWARD if backward else _FORWARD, "", tensors, extra=extra, requires_grad=requires_grad,
                            timeout=timeout, retry_for=retry_for)
        call.uid, call.parts, call.expert = parts[0][0], len(parts), None  # all have the first one's schema
        return call

    def prepare_one(self, uid: str, tensors: Sequence[torch.Tensor], *, backward: bool, requires_grad: Optional[Sequence[bool]],
                    timeout: float, retry_for: float) -> Call:
        """A forward or backward of one expert, to be started."""
        return self.prepare(_BACKWARD if backward else _FORWARD, uid, tensors, requires_grad=requires_grad, timeout=timeout,
                            retry_for=retry_for)

    def prepare_again(self, uid: str, request_id: int, tensors: Sequence[torch.Tensor], *, backward: bool,
                      requires_grad: Optional[Sequence[bool]], timeout: float, retry_for: float, waits: bool, uncertain: bool) -> Call:
        """A forward or backward of what was a part, with the id that it had; to be started. waits: not before its
        resend_at, as the server may do it then. uncertain: it may have been applied."""
        call = self.prepare_one(uid, tensors, backward=backward, requires_grad=requires_grad, timeout=timeout, retry_for=retry_for)
        call.request_id, call.uncertain, call.ever_sent = request_id, uncertain, waits or uncertain
        if waits:
            call.state = WAITING
        return call

    def prepare(self, method: int, uid: str = "", tensors: Sequence[torch.Tensor] = (), *, extra: Any = None,
                requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None,
                retry_for: Optional[float] = None) -> Call:
        """As start(), and nothing is sent yet."""
        if len(tensors) > MAX_TENSORS:
            raise InvalidArgument(f"{len(tensors)} tensors were given; a request may have {MAX_TENSORS}",
                                  endpoint=self.endpoint, uid=uid)
        codec = self.codec
        described = [to_frame(tensor, codec) for tensor in to_host(tensors)]
        process = transport()
        header = _header(method, uid, tuple([one[:3] for one in described]), codec if tensors else 0, process.client_id,
                         () if requires_grad is None else tuple(requires_grad))
        tagged = tags.current()
        if tagged is not tags.NONE:
            header += messages.server.RequestHeader(metadata=tagged[0], traceparent=tagged[1]).SerializeToString()
        if extra is not None:
            header += extra.SerializeToString()
        seconds = self.timeout if timeout is None else timeout
        if not seconds > 0:
            raise InvalidArgument(f"a timeout of {seconds} s was given; it has to be above 0", endpoint=self.endpoint, uid=uid)
        call = Call(header, [one[3] for one in described], uid=uid, backward=method == _BACKWARD,
                    timeout=min(seconds, LONGEST_TIMEOUT), retry_for=self.retry_for if retry_for is None else retry_for,
                    rows=tensors[0].shape[0] if tensors else 0)
        call.home = self.endpoint
        return call
