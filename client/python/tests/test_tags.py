"""Metadata and traceparent of requests."""
import asyncio
import threading

import pytest
import torch

import expertd
import expertd.aio
from conftest import PATIENCE, echo, refusal
from expertd import messages
from expertd.gather import Settings, Target, call_many

X = torch.randn(2, 4)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tags(request):
    return request.metadata, request.traceparent


def test_requests_carry_what_surrounds_them_and_replies_bring_it_back(stand_in):
    def answer(request, frames):
        header, out = echo(request, frames)
        header.metadata = request.metadata
        return header, out
    server = stand_in(answer)
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    client.forward("e.0", [X])
    with expertd.tagged("step 7"):
        client.forward("e.0", [X])
        with expertd.tagged(traceparent=TRACE):
            call = client.start_backward("e.0", [X], [X])
            client.outputs(call)
        client.info("e.0")
    client.forward("e.0", [X])
    assert call.metadata == b"step 7"
    assert [tags(r) for r in server.requests] == [(b"", ""), (b"step 7", ""), (b"step 7", TRACE), (b"step 7", ""), (b"", "")]


def test_threads_and_tasks_have_tags_of_their_own(stand_in):
    server = stand_in(echo)
    client = expertd.aio.Client(server.endpoint, timeout=PATIENCE)

    async def one(name):
        with expertd.tagged(name):
            await client.forward(f"e.{name}", [X])

    async def both():
        await asyncio.gather(one("1"), one("2"))
    with expertd.tagged("outer"):
        thread = threading.Thread(target=lambda: client.sync.forward("e.3", [X]))
        thread.start()
        thread.join()
    asyncio.run(both())
    assert {r.uid: r.metadata for r in server.requests} == {"e.1": b"1", "e.2": b"2", "e.3": b""}


def test_a_backward_has_its_own_tags_or_its_forwards(stand_in):
    server = stand_in(echo)
    expert = expertd.RemoteExpert("e.0", server.endpoint, timeout=PATIENCE)
    x = X.clone().requires_grad_()
    with expertd.tagged("forward", TRACE):
        ys = [expert(x) for _ in range(2)]
    ys[0].sum().backward()
    with expertd.tagged("backward"):
        ys[1].sum().backward()
    assert [tags(r) for r in server.asked("BACKWARD")] == [(b"forward", TRACE), (b"backward", "")]


def test_the_next_server_is_asked_with_the_same_tags(stand_in):
    full, well = stand_in(lambda request, frames: refusal(14)), stand_in(echo)
    target = Target("e.0", (full.endpoint, well.endpoint))
    while not (full.requests and well.requests):  # which is asked first is drawn
        with expertd.tagged("mixture"):
            call_many([[target]] * 2, Settings(forward_timeout=PATIENCE), [(torch.float32, (4,))], X)
    assert {r.metadata for r in full.requests + well.requests} == {b"mixture"}


def test_what_the_server_would_not_take_is_refused_here():
    with pytest.raises(expertd.InvalidArgument, match="1025"):
        with expertd.tagged(b"x" * 1025):
            pass
    for wrong in ("trace", TRACE[:-1], TRACE.upper()):
        with pytest.raises(expertd.InvalidArgument, match="traceparent"):
            with expertd.tagged(traceparent=wrong):
                pass


def test_the_real_server_returns_them(client):
    with expertd.tagged(bytes(range(256)) * 4, TRACE):
        call = client.start_forward("nop.0", [torch.zeros(1, 1024)])
        client.outputs(call)
        assert call.metadata == bytes(range(256)) * 4
        missing = client.start(messages.server.value("Method", "INFO"), "nop.77")
        with pytest.raises(expertd.NotFound):
            missing.result()
