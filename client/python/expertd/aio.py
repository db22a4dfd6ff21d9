"""The calls of Client for asyncio: `await client.forward(...)`. Cancelling the task gives up the call."""
from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from . import client as _client
from .call import Call
from .codecs import Codec
from .info import ExpertInfo, ListEntry, Pong

__all__ = ["Client"]


class Client:
    """A server at `endpoint`, with the options of expertd.Client. Any event loop may use it; the I/O is the process's own
    thread's, so that a loop that is busy delays no other calls."""

    def __init__(self, endpoint: str, *, timeout: float = _client.DEFAULT_TIMEOUT,
                 retry_for: float = _client.DEFAULT_RETRY_FOR, compression: Codec = None):
        self.sync = _client.Client(endpoint, timeout=timeout, retry_for=retry_for, compression=compression)

    def __repr__(self) -> str:
        return f"aio.{self.sync!r}"

    @property
    def endpoint(self) -> str:
        return self.sync.endpoint

    async def forward(self, uid: str, inputs: Sequence[torch.Tensor], *, timeout: Optional[float] = None) -> Tuple[torch.Tensor, ...]:
        return self.sync.outputs(await _ended(self.sync.start_forward(uid, inputs, timeout=timeout)))

    async def backward(self, uid: str, inputs: Sequence[torch.Tensor], grad_outputs: Sequence[torch.Tensor], *,
                       requires_grad: Optional[Sequence[bool]] = None, timeout: Optional[float] = None) -> Tuple[torch.Tensor, ...]:
        return self.sync.outputs(await _ended(self.sync.start_backward(uid, inputs, grad_outputs, requires_grad=requires_grad,
                                                                       timeout=timeout)))

    async def ping(self, *, timeout: Optional[float] = None) -> Pong:
        return await _in_thread(lambda: self.sync.ping(timeout=timeout))

    async def list(self, prefix: str = "", *, timeout: Optional[float] = None) -> List[ListEntry]:
        return await _in_thread(lambda: self.sync.list(prefix, timeout=timeout))

    async def info(self, uid: str, *, timeout: Optional[float] = None) -> ExpertInfo:
        return await _in_thread(lambda: self.sync.info(uid, timeout=timeout))

    async def stats(self, *, timeout: Optional[float] = None) -> Dict[str, float]:
        return await _in_thread(lambda: self.sync.stats(timeout=timeout))

    async def checkpoint(self, uid: str = "", *, timeout: Optional[float] = None) -> None:
        await _in_thread(lambda: self.sync.checkpoint(uid, timeout=timeout))


async def _in_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def _ended(call: Call) -> Call:
    """The same call, when it has ended."""
    loop = asyncio.get_running_loop()
    ended: "asyncio.Future[None]" = loop.create_future()

    def finish() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell(_: Call) -> None:
        try:
            loop.call_soon_threadsafe(finish)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass
    call.add_done_callback(tell)
    try:
        await ended
    except asyncio.CancelledError:
        call.cancel()
        raise
    return call
