"""aio.Client: the same calls, cancellation, many at once."""
import asyncio

import pytest
import torch

import expertd
from conftest import PATIENCE, echo
from expertd import aio
from expertd.transport import transport

X = torch.arange(8.0).reshape(2, 4)


def test_the_same_answers_as_the_client(server, client):
    x = torch.randn(2, 16)

    async def ask():
        other = aio.Client(server.endpoint, timeout=PATIENCE)
        return [await other.forward("ffn.0.0", [x]), await other.backward("ffn.0.0", [x], [x]), await other.ping(),
                await other.list("ffn."), await other.info("nop.0"), await other.stats()]
    forward, backward, pong, entries, info, stats = asyncio.run(ask())
    assert torch.equal(forward[0], client.forward("ffn.0.0", [x])[0])
    assert torch.equal(backward[0], client.backward("ffn.0.0", [x], [x])[0])
    assert (pong, entries, info.block) == (client.ping(), client.list("ffn."), "nop")
    assert stats and set(stats) <= set(client.stats())  # outcomes that come for the first time are counted from then on
    with pytest.raises(expertd.NotFound):
        asyncio.run(aio.Client(server.endpoint).forward("ffn.9.9", [x]))


def test_100_calls_at_once(stand_in):
    server = stand_in(echo)

    async def ask():
        client = aio.Client(server.endpoint, timeout=PATIENCE)
        return await asyncio.gather(*(client.forward("e.0", [X + i]) for i in range(100)))
    assert all(torch.equal(y, X + i) for i, (y,) in enumerate(asyncio.run(ask())))


def test_cancelling_a_task_gives_up_its_call(stand_in):
    server = stand_in(lambda request, frames: None)

    async def ask():
        client = aio.Client(server.endpoint, timeout=PATIENCE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.forward("e.0", [X]), 0.1)
    asyncio.run(ask())
    assert transport().connection(server.endpoint).in_flight() == 0
