"""A server with several frontends: a call at the wrong one goes on at the one that it names."""
import threading

import pytest
import torch

import expertd
from conftest import PATIENCE, StandIn
from expertd import messages
from expertd.transport import followable, transport

OK, NOT_FOUND = 0, 5


class Frontends:
    """Two stand-ins: `right` has every expert that is in `there`, and `home` names it for those it has not itself."""

    def __init__(self):
        self.there, self.here, self.named = {"nop.0"}, set(), None
        self.home, self.right = StandIn(self.answer_home), StandIn(self.answer_right)

    def answer(self, request, frames):
        half = len(request.tensors) // (2 if request.method == messages.server.value("Method", "BACKWARD") else 1)
        return messages.server.ReplyHeader(version=1, status=OK, tensors=request.tensors[:half]), frames[:half]

    def answer_home(self, request, frames):
        if request.uid in self.here:
            return self.answer(request, frames)
        endpoint = self.right.endpoint if self.named is None else self.named
        return messages.server.ReplyHeader(version=1, status=NOT_FOUND, message="it is elsewhere", endpoint=endpoint), []

    def answer_right(self, request, frames):
        if request.uid in self.there:
            return self.answer(request, frames)
        return messages.server.ReplyHeader(version=1, status=NOT_FOUND, message="it is not here"), []

    def count(self):
        return len(self.home.requests), len(self.right.requests)


@pytest.fixture
def frontends():
    made = Frontends()
    yield made
    for one in (made.home, made.right):
        one.stop()


X = torch.arange(8, dtype=torch.float32).reshape(2, 4)


def client_of(frontends):
    return expertd.Client(frontends.home.endpoint, timeout=PATIENCE, retry_for=PATIENCE)


def test_a_call_follows_and_the_next_goes_there_at_once(frontends):
    client = client_of(frontends)
    for turn in range(1, 4):
        assert torch.equal(client.forward("nop.0", [X])[0], X)
        assert frontends.count() == (1, turn)
    assert torch.equal(client.backward("nop.0", [X], [X])[0], X)
    assert frontends.count() == (1, 4)


def test_what_is_not_there_any_more_is_looked_for_at_home(frontends):
    client = client_of(frontends)
    client.forward("nop.0", [X])
    frontends.there, frontends.here = set(), {"nop.0"}
    assert torch.equal(client.forward("nop.0", [X])[0], X)
    assert frontends.count() == (2, 2)
    client.forward("nop.0", [X])
    assert frontends.count() == (3, 2)


def test_nobody_is_sent_round_in_circles(frontends):
    frontends.there = set()
    client = client_of(frontends)
    with pytest.raises(expertd.NotFound, match="it is not here"):
        client.forward("nop.0", [X])
    assert frontends.count() == (1, 1)
    frontends.named = frontends.home.endpoint
    with pytest.raises(expertd.NotFound, match="it is elsewhere"):
        client.forward("nop.0", [X])


@pytest.mark.parametrize("named", ["tcp://*:1", "inproc://x", "nonsense", "tcp://", "tcp://" + "x" * 300 + ":1"])
def test_what_is_no_endpoint_is_not_followed(frontends, named):
    frontends.named = named
    with pytest.raises(expertd.NotFound, match="it is elsewhere"):
        client_of(frontends).forward("nop.0", [X])


def test_sockets_of_this_host_are_named_by_servers_of_this_host_alone():
    assert followable("ipc:///x", "tcp://127.0.0.1:1") and not followable("ipc:///x", "tcp://10.0.0.7:1")
    assert followable("tcp://10.0.0.8:1", "tcp://10.0.0.7:1")


def test_many_threads_and_callbacks(frontends):
    frontends.there = {f"nop.{i}" for i in range(50)}
    client, errors, called = client_of(frontends), [], threading.Semaphore(0)

    def run(number):
        try:
            for i in range(number, 50, 5):
                assert torch.equal(client.forward(f"nop.{i}", [X])[0], X)
                client.start_forward(f"nop.{i}", [X]).add_done_callback(lambda call: called.release())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for _ in range(50):
        assert called.acquire(timeout=PATIENCE)


def test_a_call_that_has_gone_on_can_be_given_up(frontends):
    frontends.right.answer = lambda request, frames: None  # never
    call = client_of(frontends).start_forward("nop.0", [X])
    deadline = threading.Event()
    while not frontends.right.requests:
        deadline.wait(0.01)
    assert call.cancel() and not call.cancel()
    assert not transport().connection(frontends.right.endpoint).calls
